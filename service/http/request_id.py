"""The request id: taken from the caller or made up, and present in every reply and log line."""

from __future__ import annotations

import logging
import re
import time
import uuid

from flask import Flask, Response, g, has_request_context, request

HEADER = "X-Request-ID"
ACCEPTABLE = r"[A-Za-z0-9._-]{1,128}"

log = logging.getLogger("service.access")


def current_request_id() -> str:
    """Return the id of the request at work, a dash outside of one."""
    return str(g.request_id) if has_request_context() and "request_id" in g else "-"


class RequestIdFilter(logging.Filter):
    """Gives every log record the id of the request that it belongs to."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let the record pass, with the id."""
        record.request_id = current_request_id()
        return True


def register(app: Flask) -> None:
    """Give every request an id and a log line."""

    @app.before_request
    def begin() -> None:
        given = request.headers.get(HEADER, "")
        g.request_id = given if re.fullmatch(ACCEPTABLE, given) else uuid.uuid4().hex
        g.began = time.perf_counter()

    @app.after_request
    def end(response: Response) -> Response:
        response.headers[HEADER] = current_request_id()
        if log.isEnabledFor(logging.INFO):
            milliseconds = (time.perf_counter() - g.began) * 1000
            # The path may hold anything; a line of the log stays one line.
            log.info("%s %r %d %.1f ms", request.method, request.path, response.status_code, milliseconds)
        return response
