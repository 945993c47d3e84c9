"""What an endpoint is: its function, and beside it all that a caller must know; openapi.yaml is made from these."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache

from flask.typing import ResponseReturnValue
from marshmallow import Schema

from service.auth.keys import Role

View = Callable[..., ResponseReturnValue]


@dataclass(frozen=True, slots=True)
class Reply:
    """One way to succeed: its schema where it has a JSON body, and other media types it may come as.

    It always has its `headers`, and `some_headers` now and then.
    """

    description: str
    schema: type[Schema] | None = None
    media_types: tuple[str, ...] = ()
    etag: bool = False
    headers: tuple[str, ...] = ()
    some_headers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Operation:
    """One endpoint. `path` is Flask's rule; `problems` are the error statuses of its own, beside those of all.

    `role` is what a caller's key must be of at least; None = open to everybody, with a key or without.
    `parts` are the fields that may come as parts of a form, the others in its part `config`. With `lines` the body may
    also be NDJSON, of which each line is as this text says. `headers` name what else is looked at.
    With `file` the body is a file of this media type. A body that is `optional` may be left out.
    """

    method: str
    path: str
    role: Role | None
    view: View
    replies: Mapping[int, Reply]
    body: type[Schema] | None = None
    parts: tuple[str, ...] = ()
    lines: str | None = None
    query: type[Schema] | None = None
    headers: tuple[str, ...] = ()
    problems: tuple[int, ...] = ()
    file: str | None = None
    optional: bool = False

    @property
    def name(self) -> str:
        """The operation's id: the name of its function."""
        return self.view.__name__

    @property
    def summary(self) -> str:
        """One line: the head of its function's docstring."""
        return (self.view.__doc__ or "").split("\n", 1)[0].rstrip(".")

    @property
    def description(self) -> str:
        """What follows the summary in the docstring."""
        _, _, rest = (self.view.__doc__ or "").partition("\n")
        return " ".join(rest.split())


@cache
@cache
def route_of_contract(rule: str) -> str:
    """Return a rule of Flask's as the contract writes it: `/projects/{project_id}`."""
    return re.sub(r"<(\w+)>", r"{\1}", rule)


@dataclass(frozen=True, slots=True)
class Operations:
    """The endpoints in the order in which they are documented."""

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
        file: str | None = None,
        optional: bool = False,
    ) -> Callable[[View], View]:
        """Register the endpoint that the decorated function answers."""

        def register(view: View) -> View:
            operation = Operation(
                method, path, role, view, replies, body, parts, lines, query, headers, problems, file, optional
            )
            self.all.append(operation)
            return view

        return register
