"""The declaration of an endpoint beside its function; openapi.yaml is built from these."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache

from flask.typing import ResponseReturnValue
from marshmallow import Schema

from service.auth.keys import Role

SAMPLE_LINES = (
    'an object: {"x": [numbers], "id": id, "y": label or null} as in `X`, `ids` and `y`, or with "text": string '
    'instead of "x", and with "url": string; or a row of a table: {"column": value}, and `columns` says what they are'
)
"""What the lines of a body of samples are."""

View = Callable[..., ResponseReturnValue]


@dataclass(frozen=True, slots=True)
class Reply:
    """A response of success: its schema if it has a JSON body, and its other media types.

    It always has its `headers`, and sometimes `some_headers`.
    """

    description: str
    schema: type[Schema] | None = None
    media_types: tuple[str, ...] = ()
    etag: bool = False
    headers: tuple[str, ...] = ()
    some_headers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Operation:
    """An endpoint. `path` is Flask's rule; `problems` are its error statuses beyond those of all endpoints.

    `tag` is the group of endpoints that it belongs to. `role` is the lowest role that may call it; None = no key is
    needed. `parts` are the fields that may be parts of a form; the others are in its part `config`. With `lines` the
    body may also be CSV, or NDJSON, each line as this text says. `headers` are the request headers it reads. With
    `files` the body is a file of one of these media types. An `optional` body may be left out. A `page` is for people:
    it also accepts the API key of a cookie, and its errors are pages.
    """

    method: str
    path: str
    tag: str
    role: Role | None
    view: View
    replies: Mapping[int, Reply]
    body: type[Schema] | None = None
    parts: tuple[str, ...] = ()
    lines: str | None = None
    query: type[Schema] | None = None
    headers: tuple[str, ...] = ()
    problems: tuple[int, ...] = ()
    files: tuple[str, ...] = ()
    optional: bool = False
    page: bool = False

    @property
    def name(self) -> str:
        """The operation's id, the name of its function."""
        return self.view.__name__

    @property
    def takes_password(self) -> bool:
        """Whether the API key may also come as the password of basic authentication, as Label Studio sends it."""
        return self.path.startswith("/label-studio/")

    @property
    def runs_once(self) -> bool:
        """Whether an Idempotency-Key keeps it from running twice; the keys belong to a caller."""
        return self.method == "POST" and self.role is not None

    @property
    def summary(self) -> str:
        """The first line of the function's docstring."""
        return (self.view.__doc__ or "").split("\n", 1)[0].rstrip(".")

    @property
    def description(self) -> str:
        """The rest of the docstring."""
        _, _, rest = (self.view.__doc__ or "").partition("\n")
        return " ".join(rest.split())


@cache
def route_of_contract(rule: str) -> str:
    """Return Flask's rule in the contract's form, such as `/projects/{project_id}`."""
    return re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule)


@dataclass(frozen=True, slots=True)
class Operations:
    """The endpoints of one tag, in the order of the documentation; `description` is a sentence about them."""

    tag: str
    description: str
    all: list[Operation] = field(default_factory=list)

    def add(
        self,
        method: str,
        path: str,
        *,
        role: Role | None,
        replies: Mapping[int, Reply],
        body: type[Schema] | None = None,
        parts: tuple[str, ...] = (),
        lines: str | None = None,
        query: type[Schema] | None = None,
        headers: tuple[str, ...] = (),
        problems: tuple[int, ...] = (),
        files: tuple[str, ...] = (),
        optional: bool = False,
        page: bool = False,
    ) -> Callable[[View], View]:
        """Register the decorated function as an endpoint."""

        def register(view: View) -> View:
            operation = Operation(
                method,
                path,
                self.tag,
                role,
                view,
                replies,
                body,
                parts,
                lines,
                query,
                headers,
                problems,
                files,
                optional,
                page,
            )
            self.all.append(operation)
            return view

        return register


@dataclass(frozen=True, slots=True)
class Contract:
    """The endpoints of all tags, in the order of the documentation."""

    tags: tuple[Operations, ...]

    @property
    def all(self) -> list[Operation]:
        """All endpoints."""
        return [operation for tag in self.tags for operation in tag.all]

    @property
    def pages(self) -> frozenset[str]:
        """Flask's names of the endpoints that are pages."""
        return frozenset(f"api.{operation.name}" for operation in self.all if operation.page)
