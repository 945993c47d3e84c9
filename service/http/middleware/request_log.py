"""The request id: taken from the caller or made up, and present in every reply and log line."""

from __future__ import annotations

import logging
import os
import re
import time
from typing import Any

from flask import Flask, Request, Response, g, has_request_context
from flask.globals import app_ctx, request_ctx

from service.domain.project import PROJECT_ID
from service.http.middleware.metrics import method_of, route_of
from service.http.problem_document import REQUEST_ID_HEADER
from service.telemetry.logging import LogFields, default_fields

ENVIRON = "HTTP_" + REQUEST_ID_HEADER.upper().replace("-", "_")
ACCEPTABLE = re.compile(r"[A-Za-z0-9._-]{1,128}")

MOST_BYTES = 2**63 - 1
"""The largest number that the readers of logs know; a Content-Length may have thousands of digits."""

log = logging.getLogger("service.access")


def current_request_id() -> str:
    """Return the id of the request at work, a dash outside of one."""
    return str(g.request_id) if has_request_context() and "request_id" in g else "-"


def request_log_fields() -> LogFields:
    """Return what a line of the log tells of the request at work, whatever it is about."""
    if not has_request_context():
        return default_fields()
    here = app_ctx.g
    return {"request_id": here.get("request_id"), "project_id": here.get("project_id")}


def log_project(project_id: str) -> None:
    """Give the lines of this request a project, if that is a name that a project may have."""
    if re.fullmatch(PROJECT_ID, project_id):
        g.project_id = project_id


def register(app: Flask) -> None:
    """Give every request an id and a log line."""
    # What stands in `request` and `g` is looked for anew at each use, which adds up.

    @app.before_request
    def begin() -> None:
        here, given = app_ctx.g, request_ctx.request.environ.get(ENVIRON, "")
        here.request_id = given if ACCEPTABLE.fullmatch(given) else os.urandom(16).hex()
        here.began = time.perf_counter()

    @app.after_request
    def end(response: Response) -> Response:
        here = app_ctx.g
        response.headers[REQUEST_ID_HEADER] = here.request_id
        if log.isEnabledFor(logging.INFO):
            # Where in the code that was is of no interest, and takes long to find out.
            record = logging.LogRecord(log.name, logging.INFO, "", 0, "answered", None, None)
            record.fields = access_log_fields(request_ctx.request, here, response)
            log.handle(record)
        return response


def access_log_fields(request: Request, here: Any, response: Response) -> LogFields:
    """Return what the log tells of a request: the route of the contract, since a path and its query may hold anything.

    The sizes are None where they are not known beforehand.
    """
    caller, n_bytes = here.get("caller"), request.content_length
    return {
        "method": method_of(request),
        "route": route_of(request),
        "status": response.status_code,
        "duration_ms": round((time.perf_counter() - here.began) * 1000, 3),
        "bytes_in": n_bytes if n_bytes is not None and n_bytes <= MOST_BYTES else None,
        "bytes_out": response.calculate_content_length(),
        "key": None if caller is None else caller.name,
    }
