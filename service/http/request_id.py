"""The request id: taken from the caller or made up, and present in every reply and log line."""

from __future__ import annotations

import logging
import re
import time
import uuid

from flask import Flask, Response, g, has_request_context, request

from service.http.documents import REQUEST_ID_HEADER
from service.http.metrics import method_of_request, route_of_request
from service.logs import Facts, no_facts
from service.project import PROJECT_ID

ACCEPTABLE = r"[A-Za-z0-9._-]{1,128}"

log = logging.getLogger("service.access")


def current_request_id() -> str:
    """Return the id of the request at work, a dash outside of one."""
    return str(g.request_id) if has_request_context() and "request_id" in g else "-"


def facts_of_request() -> Facts:
    """Return what a line of the log tells of the request at work, whatever it is about."""
    if not has_request_context():
        return no_facts()
    return {"request_id": g.get("request_id"), "project_id": g.get("project_id")}


def tell_project(project_id: str) -> None:
    """Give the lines of this request a project, if that is a name that a project may have."""
    if re.fullmatch(PROJECT_ID, project_id):
        g.project_id = project_id


def register(app: Flask) -> None:
    """Give every request an id and a log line."""

    @app.before_request
    def begin() -> None:
        given = request.headers.get(REQUEST_ID_HEADER, "")
        g.request_id = given if re.fullmatch(ACCEPTABLE, given) else uuid.uuid4().hex
        g.began = time.perf_counter()

    @app.after_request
    def end(response: Response) -> Response:
        response.headers[REQUEST_ID_HEADER] = current_request_id()
        if log.isEnabledFor(logging.INFO):
            log.info("answered", extra={"facts": facts_of_reply(response)})
        return response


def facts_of_reply(response: Response) -> Facts:
    """Return what the log tells of a request: the route of the contract, since a path and its query may hold anything.

    The sizes are None where they are not known beforehand.
    """
    caller = g.get("caller")
    return {
        "method": method_of_request(),
        "route": route_of_request(),
        "status": response.status_code,
        "duration_ms": round((time.perf_counter() - g.began) * 1000, 3),
        "bytes_in": request.content_length,
        "bytes_out": response.calculate_content_length(),
        "key": None if caller is None else caller.name,
    }
