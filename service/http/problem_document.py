"""Problem documents (RFC 9457), for the application and for the server.

gunicorn's master process imports this module, so it must not import metrics or numerical libraries.
"""

from __future__ import annotations

from typing import Any

import orjson
from marshmallow import Schema, fields
from werkzeug.http import HTTP_STATUS_CODES

from service.errors import MAX_ERRORS, FieldError

MEDIA_TYPE = "application/problem+json"

REQUEST_ID_HEADER = "X-Request-ID"

NO_SNIFFING = ("X-Content-Type-Options", "nosniff")
"""Header of every problem: a browser must not take a document that quotes a request for HTML."""


class FieldErrorSchema(Schema):
    """One wrong field."""

    pointer = fields.String(
        required=True,
        metadata={"description": "JSON pointer into the body, or below `/query` or `/headers`."},
    )
    detail = fields.String(required=True, metadata={"description": "What is wrong, or what would be right."})


class ProblemSchema(Schema):
    """A problem (RFC 9457)."""

    type = fields.String(required=True, metadata={"description": "`about:blank`: the status is the type."})
    title = fields.String(required=True, metadata={"description": "The name of the status."})
    status = fields.Integer(required=True, metadata={"description": "The HTTP status."})
    detail = fields.String(required=True, metadata={"description": "What is wrong, and what would work."})
    errors = fields.List(
        fields.Nested(FieldErrorSchema),
        metadata={"description": f"The wrong fields, at most {MAX_ERRORS}.", "maxItems": MAX_ERRORS},
    )
    request_id = fields.String(required=True, metadata={"description": "The id in the header `X-Request-ID`."})


# Made once, because making a schema is slow.
PROBLEM = ProblemSchema()


def document(status: int, detail: str, request_id: str, wrong: tuple[FieldError, ...] = ()) -> bytes:
    """Return the body of a problem."""
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTP_STATUS_CODES[status],
        "status": status,
        "detail": detail,
        "request_id": request_id,
    }
    if wrong:
        body["errors"] = wrong
    return orjson.dumps(PROBLEM.dump(body))
