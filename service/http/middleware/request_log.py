"""The request id, taken from the caller or generated, in every reply and log line; the access log, and its metrics."""

from __future__ import annotations

import logging
import re
import time
from random import getrandbits

from flask import Flask, Request, Response, g, has_request_context
from flask.globals import app_ctx, request_ctx

from service.auth.keys import Caller
from service.domain.project import PROJECT_ID
from service.http.middleware.metrics import method_of, route_of
from service.http.problem_document import REQUEST_ID_HEADER
from service.telemetry.logging import LogFields, default_fields
from service.telemetry.metrics import count_response

ENVIRON = "HTTP_" + REQUEST_ID_HEADER.upper().replace("-", "_")
ACCEPTABLE = re.compile(r"[A-Za-z0-9._-]{1,128}")
VALID_PROJECT_ID = re.compile(PROJECT_ID)

MOST_BYTES = 2**63 - 1
"""Largest number that log readers accept; a Content-Length may have thousands of digits."""

log = logging.getLogger("service.access")


def current_request_id() -> str:
    """Return the id of the current request, or a dash outside a request."""
    return str(g.request_id) if has_request_context() and "request_id" in g else "-"


def request_log_fields() -> LogFields:
    """Return the log fields of the current request."""
    if not has_request_context():
        return default_fields()
    here = app_ctx.g
    return {"request_id": here.get("request_id"), "project_id": here.get("project_id")}


def log_project(project_id: str) -> None:
    """Add a project to the log fields of this request if its name is valid."""
    if VALID_PROJECT_ID.fullmatch(project_id):
        g.project_id = project_id


def register(app: Flask) -> None:
    """Give every request an id and a log line, and count it."""
    # Flask's proxies resolve on every access, so this hot path uses the contexts directly.

    @app.before_request
    def begin() -> None:
        here, given = app_ctx.g, request_ctx.request.environ.get(ENVIRON, "")
        # Not os.urandom: an id is no secret, and a system call lets other threads run first.
        here.request_id = given if ACCEPTABLE.fullmatch(given) else f"{getrandbits(128):032x}"
        here.began = time.perf_counter()

    @app.after_request
    def end(response: Response) -> Response:
        here, request = app_ctx.g, request_ctx.request
        response.headers[REQUEST_ID_HEADER] = here.request_id
        seconds = time.perf_counter() - here.began
        count_response(method_of(request), route_of(request) or "none", response.status_code, seconds)
        if log.isEnabledFor(logging.INFO):
            # Logger.info would look up the calling line, which is slow and not logged.
            record = logging.LogRecord(log.name, logging.INFO, "", 0, "answered", None, None)
            record.fields = access_log_fields(request, here.get("caller"), seconds, response)
            log.handle(record)
        return response


def access_log_fields(request: Request, caller: Caller | None, seconds: float, response: Response) -> LogFields:
    """Return the access log's fields of a request, with its route: a path and its query may hold anything.

    Sizes that are unknown in advance are None.
    """
    n_bytes = request.content_length
    return {
        "method": method_of(request),
        "route": route_of(request),
        "status": response.status_code,
        "duration_ms": round(seconds * 1000, 3),
        "bytes_in": n_bytes if n_bytes is not None and n_bytes <= MOST_BYTES else None,
        "bytes_out": response.calculate_content_length(),
        "key": None if caller is None else caller.name,
    }
