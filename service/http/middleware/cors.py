"""Cross-origin requests: which pages of other origins may call the service from a browser.

The CORS protocol of the Fetch standard (https://fetch.spec.whatwg.org/#http-cors-protocol), for exact origins and
without credentials: a key travels in the Authorization header and never in a cookie.
"""

from __future__ import annotations

from flask import Flask, Response
from flask.globals import request_ctx

from service.http.csv_writer import SAFE_HEADER
from service.http.middleware.etags import CONDITIONS
from service.http.middleware.idempotency import HEADER as IDEMPOTENCY_KEY
from service.http.middleware.idempotency import REPLAYED
from service.http.problem_document import REQUEST_ID_HEADER

ALLOWED_HEADERS = ("Authorization", "Content-Encoding", "Content-Type", IDEMPOTENCY_KEY, *CONDITIONS, "Prefer")
EXPOSED_HEADERS = ("ETag", REQUEST_ID_HEADER, "Retry-After", "Location", "Preference-Applied", REPLAYED, SAFE_HEADER)

PREFLIGHT_SECONDS = 600
"""How long a browser may keep the answer to a preflight."""


def register(app: Flask, origins: frozenset[str]) -> None:
    """Let pages of `origins` read the replies; without any, replies carry no CORS header."""
    if not origins:
        return

    @app.after_request
    def allow_origin(response: Response) -> Response:
        request = request_ctx.request
        # A shared cache must not hand one origin's reply to another.
        response.vary.add("Origin")
        origin = request.environ.get("HTTP_ORIGIN")
        if origin not in origins:
            return response
        response.headers["Access-Control-Allow-Origin"] = origin
        response.headers["Access-Control-Expose-Headers"] = ", ".join(EXPOSED_HEADERS)
        asked = request.environ.get("HTTP_ACCESS_CONTROL_REQUEST_METHOD")
        if request.method == "OPTIONS" and asked:
            if response.status_code == 404:
                # Allow the request to an unknown path: else the page could not read that it is a 404.
                response.status_code = 204
                response.set_data(b"")
                del response.headers["Content-Type"]
                response.headers["Allow"] = asked
            response.headers["Access-Control-Allow-Methods"] = response.headers.get("Allow", "")
            response.headers["Access-Control-Allow-Headers"] = ", ".join(ALLOWED_HEADERS)
            response.headers["Access-Control-Max-Age"] = str(PREFLIGHT_SECONDS)
        return response
