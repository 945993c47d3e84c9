"""Every error as one kind of body: application/problem+json (RFC 9457), built in one place."""

from __future__ import annotations

import logging
from typing import Any

from flask import Flask, Response, request
from marshmallow import ValidationError
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound

from service import errors
from service.domain.parameters import pointer_token
from service.http.middleware.request_log import current_request_id
from service.http.problem_document import MEDIA_TYPE, NO_SNIFFING, document
from service.telemetry.metrics import count_refusal

STATUS: dict[type[errors.ServiceError], int] = {
    errors.InvalidRequest: 422,
    errors.FitFailed: 422,
    errors.LabeledByOthers: 403,
    errors.PreconditionFailed: 412,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.OutOfTime: 504,
    errors.TooBusy: 503,
    errors.StoreBusy: 503,
    errors.StoreReadOnly: 503,
    errors.StoreFull: 507,
    errors.StoreDamaged: 500,
}

OVERLOAD = (errors.TooBusy, errors.StoreBusy)

RETRY_AFTER_SECONDS = 1

log = logging.getLogger(__name__)


def problem(status: int, detail: str, wrong: tuple[errors.FieldError, ...] = ()) -> Response:
    """Build the reply to a request that went wrong."""
    if len(wrong) > errors.MAX_ERRORS:
        # Whoever found them may have stopped looking.
        detail += f" (at least {len(wrong) - errors.MAX_ERRORS} more wrong fields are not listed)"
    body = document(status, detail, current_request_id(), wrong[: errors.MAX_ERRORS])
    response = Response(body, status, mimetype=MEDIA_TYPE, headers=[NO_SNIFFING])
    if status in (429, 503):
        response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return response


def status_of(kind: type[errors.ServiceError]) -> int:
    """Return the status of a kind of error, or of the nearest of its parents that has one."""
    return next(STATUS[parent] for parent in kind.__mro__ if parent in STATUS)


def from_service_error(error: errors.ServiceError) -> Response:
    """Answer an error of the domain."""
    status = status_of(type(error))
    if status > 500:
        count_refusal(error)
    if status >= 500:
        level = logging.WARNING if isinstance(error, OVERLOAD) else logging.ERROR
        log.log(level, "%s", error, exc_info=error if status == 500 else None)
    response = problem(status, str(error), error.errors if isinstance(error, errors.InvalidRequest) else ())
    if isinstance(error, errors.IdempotencyKeyInUse):
        response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return response


def from_validation_error(error: ValidationError) -> Response:
    """Answer what a schema refused."""
    return from_service_error(errors.InvalidRequest(flatten(error.messages)))


def from_http_exception(error: HTTPException) -> Response:
    """Answer what Flask refused, keeping headers that belong to it, such as Allow."""
    if error.code is None or error.code < 400:
        response = error.get_response()
        return Response(response.get_data(), error.code, dict(response.headers))
    response = problem(error.code, explanation(error))
    for name, value in error.get_headers():
        if name not in ("Content-Type", "Content-Length"):
            response.headers[name] = value
    return response


def explanation(error: HTTPException) -> str:
    """Say what would have worked; werkzeug's own words for these speak of manual spelling."""
    if isinstance(error, MethodNotAllowed) and error.valid_methods:
        return f"{request.method} is not allowed here; use {', '.join(sorted(error.valid_methods))}"
    if type(error) is NotFound:
        return f"there is nothing at {request.path[:100]!r}; GET /docs shows what there is"
    return error.description or "this cannot be answered"


def from_bug(error: Exception) -> Response:
    """Answer a bug, without its message, which may hold what is none of the caller's business."""
    log.error("request %s failed", current_request_id(), exc_info=error)
    return problem(500, "this is a fault of the service; its log has more under the request id")


def flatten(messages: Any, pointer: str = "") -> list[errors.FieldError]:
    """Turn marshmallow's tree of messages into pointers."""
    if isinstance(messages, dict):
        # Sorted, for marshmallow finds unknown fields in the order of a set.
        return [
            found
            for key, below in sorted(messages.items())
            for found in flatten(below, f"{pointer}/{pointer_token(str(key))}")
        ]
    return [errors.FieldError(pointer, str(message)) for message in messages]


def register(app: Flask) -> None:
    """Make the application answer every error with a problem."""
    app.register_error_handler(errors.ServiceError, from_service_error)
    app.register_error_handler(ValidationError, from_validation_error)
    app.register_error_handler(HTTPException, from_http_exception)
    app.register_error_handler(Exception, from_bug)
