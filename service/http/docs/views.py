"""What the template writes: frozen values, with every text in runs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Span:
    """A run of text: `code`, a tint of code (`key`, `text`, `literal`), or plain; a link where there is an `href`."""

    text: str
    kind: str = ""
    href: str = ""


Spans = tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class Shape:
    """A schema in words: one such value and several, the limits it keeps to, and the fields inside it."""

    one: Spans
    many: Spans
    limits: tuple[Spans, ...] = ()
    fields: tuple[Field, ...] = ()


@dataclass(frozen=True, slots=True)
class Field:
    """A field, a part of a form, a parameter or a header. `presence` is a word where it cannot be missing."""

    name: str
    type: Spans
    presence: str
    limits: tuple[Spans, ...]
    description: Spans
    fields: tuple[Field, ...]


@dataclass(frozen=True, slots=True)
class Body:
    """What a request or a reply carries in one media type."""

    media_type: str
    shape: Shape


@dataclass(frozen=True, slots=True)
class Reply:
    """One way to answer; `kind` is `good` or `bad`."""

    status: str
    kind: str
    description: Spans
    headers: tuple[Field, ...]
    bodies: tuple[Body, ...]


@dataclass(frozen=True, slots=True)
class Example:
    """A request as a line for the shell, with its reply; `code` is empty where the body is none or is not shown."""

    anchor: str
    title: str
    curl: Spans
    note: Spans = ()
    reply: Reply | None = None
    code: Spans = ()


@dataclass(frozen=True, slots=True)
class Operation:
    """One endpoint. `path` comes in the pieces between which a line may break; without `roles` it is open to all."""

    anchor: str
    method: str
    path: tuple[str, ...]
    summary: Spans
    description: tuple[Spans, ...]
    roles: Spans
    parameters: tuple[Field, ...]
    bodies: tuple[Body, ...]
    replies: tuple[Reply, ...]
    failures: tuple[Reply, ...]
    examples: tuple[Example, ...]


@dataclass(frozen=True, slots=True)
class Failure:
    """A status with what it is called, and the operations that name it."""

    status: str
    description: Spans
    operations: Spans


@dataclass(frozen=True, slots=True)
class Shared:
    """A schema that is met in more than one place."""

    anchor: str
    name: str
    title: str
    description: Spans
    shape: Shape


@dataclass(frozen=True, slots=True)
class Reference:
    """The whole page; `access` tells of keys, `problem` is what every error carries."""

    title: str
    version: str
    license: str
    description: tuple[Spans, ...]
    access: tuple[Spans, ...]
    headers: tuple[Field, ...]
    operations: tuple[Operation, ...]
    problem: tuple[Field, ...]
    failures: tuple[Failure, ...]
    shared: tuple[Shared, ...]
