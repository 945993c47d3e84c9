"""Authentication by the API key in the Authorization header, and checks of what its caller may do.

Requests are refused before their body is read. A project that the caller may not access is refused by its name alone,
as one that does not exist, so neither the reply nor its timing reveals whether it does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from flask import Flask, current_app, g
from flask.globals import request_ctx
from werkzeug.datastructures import Authorization, WWWAuthenticate
from werkzeug.exceptions import Forbidden, ServiceUnavailable, Unauthorized

from service.auth.keyfile import KeyRing
from service.auth.keys import ALL_PROJECTS, ANONYMOUS, Caller, Role
from service.errors import ProjectNotFound
from service.http.contract.operations import Contract
from service.http.middleware.request_log import log_project
from service.usecases.label import LabelRequest

BEARER = re.compile(r"bearer +([A-Za-z0-9._~+/-]{1,256}=*)", re.IGNORECASE | re.ASCII)
HEADER = "'Authorization: Bearer <key>'"
REALM = "Active Query"


COOKIE = "active_query_key"
"""The cookie with an API key that the pages accept, and nothing else does."""

KEY_RING = "active-query-keys"


def register(app: Flask, ring: KeyRing | None, contract: Contract) -> None:
    """Check the caller's role and project before every request; without a key ring every caller may do anything."""
    app.extensions[KEY_RING] = ring
    on_pages = contract.pages
    with_passwords = {f"api.{operation.name}" for operation in contract.all if operation.takes_password}
    roles = {f"api.{operation.name}": operation.role for operation in contract.all}

    @app.before_request
    def authorize() -> None:
        request = request_ctx.request
        # The methods of a path are public, in the contract.
        if request.endpoint is None or request.method == "OPTIONS":
            return
        role = roles[request.endpoint]
        if role is None:
            return
        header = request.environ.get("HTTP_AUTHORIZATION")
        if request.endpoint in with_passwords:
            header = bearer_of(request.authorization) or header
        if header is None and request.endpoint in on_pages and COOKIE in request.cookies:
            header = f"Bearer {request.cookies[COOKIE]}"
        check_access(ring, header, role, request.view_args)


def bearer_of(authorization: Authorization | None) -> str | None:
    """Return the header of an API key that is the password of basic authentication, None without one."""
    if authorization is None or authorization.type != "basic":
        return None
    return f"Bearer {authorization.password}"


def check_access(ring: KeyRing | None, header: str | None, role: Role, arguments: Mapping[str, Any] | None) -> None:
    """Find the caller of the current request, and raise an error unless they may send it with its view's arguments."""
    g.caller = me = ANONYMOUS if ring is None else authenticate(ring, header)
    check_role(me, role)
    # Every path with arguments names its project, or a simulation, whose view checks it; others fail here.
    if arguments and "simulation_id" not in arguments:
        check_visible(arguments["project_id"])


def authenticate_key(key: str) -> Caller:
    """Return the caller with an API key, or raise Unauthorized; anybody without a key ring."""
    ring: KeyRing | None = current_app.extensions[KEY_RING]
    return ANONYMOUS if ring is None else authenticate(ring, f"Bearer {key}")


def authenticate(ring: KeyRing, header: str | None) -> Caller:
    """Return the caller of the token in a header. Raises Unauthorized, or ServiceUnavailable if keys are unreadable.

    The server joins two headers with a comma, which no token matches.
    """
    if header is None:
        raise Unauthorized(f"this service needs an API key: send {HEADER}", www_authenticate=challenge())
    keys = ring.current()
    if keys is None:
        raise ServiceUnavailable("the API keys are unreadable; the service's log says why")
    token = BEARER.fullmatch(header)
    if token is None:
        raise Unauthorized(
            f"the Authorization header must be {HEADER}, sent once", www_authenticate=challenge("invalid_request")
        )
    found = keys.caller_of(token[1])
    if found is None:
        problem = "this API key is unknown: it is mistyped or was revoked"
        raise Unauthorized(problem, www_authenticate=challenge("invalid_token"))
    return found


def challenge(error: str | None = None) -> WWWAuthenticate:
    """Return the WWW-Authenticate header for a refused caller (RFC 6750)."""
    parameters: dict[str, str | None] = {"realm": REALM}
    return WWWAuthenticate("bearer", parameters | {"error": error} if error else parameters)


def caller() -> Caller:
    """Return the caller of the current request."""
    found: Caller = g.caller
    return found


def name_of_caller() -> str | None:
    """Return the name of the key of the current request, None without a known one."""
    found: Caller | None = g.get("caller")
    return None if found is None else found.name


def check_role(me: Caller, role: Role) -> None:
    """Raise Forbidden unless a caller has this role or a higher one."""
    if me.role < role:
        enough = " or ".join(str(each) for each in Role if each >= role)
        raise Forbidden(f"this needs a key with role {enough}; key {me.name!r} has role {me.role}")


def check_visible(project_id: str) -> None:
    """Raise ProjectNotFound for a project that the caller may not access."""
    log_project(project_id)
    if not caller().may_access(project_id):
        raise ProjectNotFound(project_id[:64])


def may_see_simulation(owner: str | None, project_id: str | None) -> bool:
    """Return whether the caller may access a simulation: one of its projects, or else its own; with all projects, any.

    `owner` is the name of the key that created it.
    """
    me = caller()
    if project_id is not None:
        return me.may_access(project_id)
    return ALL_PROJECTS in me.projects or me.name == owner


def check_may_write(project_id: str) -> None:
    """Raise Forbidden for a project that the caller may not access, whether or not it exists."""
    me = caller()
    log_project(project_id)
    if not me.may_access(project_id):
        raise Forbidden(
            f"/project_id: key {me.name!r} may not create or train project {project_id!r}; "
            f"it may access: {', '.join(me.projects) or 'no project'}"
        )


def with_query_annotator(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a loaded QuerySchema with the annotator of the key. Raises Forbidden for another annotator.

    A lease takes samples from others, so it needs the role of an annotator.
    """
    me = caller()
    if data["lease_seconds"]:
        check_role(me, Role.ANNOTATOR)
    annotator = own_annotator(me, data.get("annotator"), "/annotator")
    return data if annotator is None else {**data, "annotator": annotator}


def with_label_annotator(request: LabelRequest) -> LabelRequest:
    """Return a request with the annotator of the key, if it has one. Raises Forbidden for another annotator."""
    me = caller()
    if me.annotator is None:
        return request
    labels = [
        replace(label, annotator=own_annotator(me, label.annotator, f"/labels/{position}/annotator"))
        for position, label in enumerate(request.labels)
    ]
    return replace(request, labels=labels)


def check_lease_holder(annotator: str) -> None:
    """Raise Forbidden if the caller's key belongs to another annotator than the lease."""
    me = caller()
    if me.annotator not in (None, annotator):
        raise Forbidden(f"this lease belongs to {annotator!r}, and key {me.name!r} to {me.annotator!r}")


def own_annotator(me: Caller, given: str | None, pointer: str) -> str | None:
    """Return the annotator of the key, or else of the request. Raises Forbidden if both exist and differ."""
    if me.annotator is not None and given not in (None, me.annotator):
        raise Forbidden(f"{pointer}: must be {me.annotator!r} or left out: key {me.name!r} belongs to this annotator")
    return me.annotator or given
