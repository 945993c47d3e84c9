"""Who is calling, by the API key in the Authorization header, and what they may not do.

A request is refused before anything of it but its headers has been read. A project that the caller may not touch is
one that there is not: it is refused by its name alone, so that neither reply nor time tells whether it exists.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from flask import Flask, g
from flask.globals import request_ctx
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import Forbidden, ServiceUnavailable, Unauthorized

from service.auth.keyfile import KeyRing
from service.auth.keys import ANONYMOUS, Caller, Role
from service.errors import ProjectNotFound
from service.http.contract.operations import Operations
from service.http.middleware.request_log import log_project
from service.usecases.label import LabelRequest

BEARER = re.compile(r"bearer +([A-Za-z0-9._~+/-]{1,256}=*)", re.IGNORECASE | re.ASCII)
HEADER = "'Authorization: Bearer <key>'"
REALM = "Active Query"


class OfProject(Protocol):
    """A request that names its project."""

    @property
    def project_id(self) -> str:
        """The project's name."""
        ...


Order = TypeVar("Order", bound=OfProject)


def register(app: Flask, ring: KeyRing | None, operations: Operations) -> None:
    """Let nobody reach an endpoint whose role does not allow it; without a ring everybody may do anything."""
    roles = {f"api.{operation.name}": operation.role for operation in operations.all}

    @app.before_request
    def let_in() -> None:
        request = request_ctx.request
        # Which methods there are the contract tells everybody, too.
        if request.endpoint is None or request.method == "OPTIONS":
            return
        role = roles[request.endpoint]
        if role is None:
            return
        g.caller = me = ANONYMOUS if ring is None else authenticate(ring, request.environ.get("HTTP_AUTHORIZATION"))
        check_role(me, role)
        # Whatever a path names lies in a project, and one that does not say in which fails here.
        if arguments := request.view_args:
            check_visible(me, arguments["project_id"])


def authenticate(ring: KeyRing, header: str | None) -> Caller:
    """Return the caller whose token a header holds. Raises Unauthorized, and ServiceUnavailable without any keys.

    Two headers come joined by a comma, and are none.
    """
    if header is None:
        raise Unauthorized(f"an API key is needed here: send {HEADER}", www_authenticate=challenge())
    keys = ring.current()
    if keys is None:
        raise ServiceUnavailable("the API keys cannot be read; the log of the service says why")
    token = BEARER.fullmatch(header)
    if token is None:
        raise Unauthorized(f"the header must be {HEADER}, once", www_authenticate=challenge("invalid_request"))
    found = keys.caller_of(token[1])
    if found is None:
        problem = "this API key is not known here: it is mistyped, or was revoked"
        raise Unauthorized(problem, www_authenticate=challenge("invalid_token"))
    return found


def challenge(error: str | None = None) -> WWWAuthenticate:
    """Return what a refused caller is asked for (RFC 6750)."""
    told: dict[str, str | None] = {"realm": REALM}
    return WWWAuthenticate("bearer", told | {"error": error} if error else told)


def caller() -> Caller:
    """Return who sent the request at work."""
    found: Caller = g.caller
    return found


def check_role(me: Caller, role: Role) -> None:
    """Raise Forbidden unless a caller's role is this one or may do more."""
    if me.role < role:
        enough = " or ".join(str(each) for each in Role if each >= role)
        raise Forbidden(f"this needs a key of role {enough}; key {me.name!r} is of role {me.role}")


def check_visible(me: Caller, project_id: str) -> None:
    """Raise ProjectNotFound for a project that a caller may not touch."""
    log_project(project_id)
    if not me.may_access(project_id):
        raise ProjectNotFound(project_id[:64])


def visible(order: Order) -> Order:
    """Return a request as it is, or raise ProjectNotFound for a project that the caller may not touch."""
    check_visible(caller(), order.project_id)
    return order


def check_may_write(project_id: str) -> None:
    """Raise Forbidden for a project that the caller may not make, whether or not there is one of this name."""
    me = caller()
    log_project(project_id)
    if not me.may_access(project_id):
        raise Forbidden(
            f"/project_id: key {me.name!r} may not make or train project {project_id!r}; "
            f"it may touch: {', '.join(me.projects) or 'no project'}"
        )


def with_query_annotator(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what QuerySchema loaded, asked by the annotator of the key. Raises Forbidden for what the key may not ask.

    To hold samples takes them from others, so that it needs more than to read does.
    """
    me = caller()
    if data["lease_seconds"]:
        check_role(me, Role.ANNOTATOR)
    annotator = own_annotator(me, data.get("annotator"), "/annotator")
    return data if annotator is None else {**data, "annotator": annotator}


def with_label_annotator(order: LabelRequest) -> LabelRequest:
    """Return the answers, given by the annotator of the key where it has one. Raises Forbidden for another's."""
    me = caller()
    if me.annotator is None:
        return order
    answers = [
        replace(answer, annotator=own_annotator(me, answer.annotator, f"/labels/{position}/annotator"))
        for position, answer in enumerate(order.labels)
    ]
    return replace(order, labels=answers)


def check_lease_holder(annotator: str) -> None:
    """Raise Forbidden where the caller's key answers as somebody else."""
    me = caller()
    if me.annotator not in (None, annotator):
        raise Forbidden(f"this lease belongs to {annotator!r}; key {me.name!r} answers as nobody but {me.annotator!r}")


def own_annotator(me: Caller, given: str | None, pointer: str) -> str | None:
    """Return the annotator that a request names, or that of the key. Raises Forbidden where the two are not one."""
    if me.annotator is not None and given not in (None, me.annotator):
        raise Forbidden(f"{pointer}: must be {me.annotator!r} or left out: key {me.name!r} answers as nobody else")
    return me.annotator or given
