"""The document that tells of a problem (RFC 9457), whoever answers: the application, or the server before it is asked.

The server's master process imports this, and so nothing here that counts, or computes.
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
        metadata={"description": "JSON pointer into the body; below `/query` or `/headers` for what stands elsewhere."},
    )
    detail = fields.String(required=True, metadata={"description": "What would have been right."})


class ProblemSchema(Schema):
    """What went wrong (RFC 9457)."""

    type = fields.String(required=True, metadata={"description": "`about:blank`: the status says what kind it is."})
    title = fields.String(required=True, metadata={"description": "The status in words."})
    status = fields.Integer(required=True, metadata={"description": "The HTTP status."})
    detail = fields.String(required=True, metadata={"description": "What is wrong here, and what would have worked."})
    errors = fields.List(
        fields.Nested(FieldErrorSchema),
        metadata={"description": f"Each wrong field, {MAX_ERRORS} at most.", "maxItems": MAX_ERRORS},
    )
    request_id = fields.String(required=True, metadata={"description": "The same as in the header `X-Request-ID`."})


# Made once: to make a schema takes longer than all else that a refusal costs.
PROBLEM = ProblemSchema()


def document(status: int, detail: str, request_id: str, wrong: tuple[FieldError, ...] = ()) -> bytes:
    """Write the body of a problem."""
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
