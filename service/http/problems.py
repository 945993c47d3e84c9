"""Every error as a response of application/problem+json (RFC 9457)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from flask import Flask, Response, request
from marshmallow import ValidationError
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound

from service import errors
from service.domain.parameters import pointer_token
from service.http.contract.operations import Contract
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
    errors.TooManySimulations: 503,
    errors.StoreBusy: 503,
    errors.StoreReadOnly: 503,
    errors.StoreFull: 507,
    errors.StoreDamaged: 500,
}

OVERLOAD = (errors.TooBusy, errors.TooManySimulations, errors.StoreBusy)

RETRY_AFTER_SECONDS = 1

log = logging.getLogger(__name__)


def problem(status: int, detail: str, wrong: tuple[errors.FieldError, ...] = ()) -> Response:
    """Return the response for an error."""
    if len(wrong) > errors.MAX_ERRORS:
        # At least, because validation may stop early.
        detail += f" (and at least {len(wrong) - errors.MAX_ERRORS} more wrong fields)"
    body = document(status, detail, current_request_id(), wrong[: errors.MAX_ERRORS])
    response = Response(body, status, mimetype=MEDIA_TYPE, headers=[NO_SNIFFING])
    if status in (429, 503):
        response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return response


def status_for(kind: type[errors.ServiceError]) -> int:
    """Return the status of an error class, or of its nearest base class with one."""
    return next(STATUS[parent] for parent in kind.__mro__ if parent in STATUS)


def from_service_error(error: errors.ServiceError) -> Response:
    """Return the response for a service error, and log it if it is the server's."""
    status = status_for(type(error))
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
    """Return the response for an error of a schema."""
    return from_service_error(errors.InvalidRequest(flatten(error.messages)))


def from_http_exception(error: HTTPException) -> Response:
    """Return the response for an error of Flask, with its headers, such as Allow."""
    if error.code is None or error.code < 400:
        response = error.get_response()
        return Response(response.get_data(), error.code, dict(response.headers))
    response = problem(error.code, http_error_detail(error))
    for name, value in error.get_headers():
        if name not in ("Content-Type", "Content-Length"):
            response.headers[name] = value
    return response


def http_error_detail(error: HTTPException) -> str:
    """Return the detail of an error of Flask; werkzeug's own texts for 404 and 405 are written for people."""
    if isinstance(error, MethodNotAllowed) and error.valid_methods:
        return f"{request.method} is not allowed here; use {', '.join(sorted(error.valid_methods))}"
    if type(error) is NotFound:
        return f"no endpoint has the path {request.path[:100]!r}; GET /docs lists the endpoints"
    return error.description or "the request failed"


def from_bug(error: Exception) -> Response:
    """Return the response for a bug, without its message, which may hold private data."""
    log.error("request %s failed", current_request_id(), exc_info=error)
    return problem(500, "internal error; the log of the service has more under this request id")


def flatten(messages: Any, pointer: str = "") -> list[errors.FieldError]:
    """Return marshmallow's tree of messages as a list of errors with pointers."""
    if isinstance(messages, dict):
        # Sorted, because marshmallow lists unknown fields in the order of a set.
        return [
            found
            for key, below in sorted(messages.items())
            for found in flatten(below, f"{pointer}/{pointer_token(str(key))}")
        ]
    return [errors.FieldError(pointer, str(message)) for message in messages]


def register(app: Flask, contract: Contract, problem_page: Callable[[Response], Response]) -> None:
    """Register the error handlers of the application; on its pages `problem_page` shows the problem documents."""
    pages = contract.pages

    def handle(kind: type[Exception], respond: Callable[[Any], Response]) -> None:
        def handler(error: Exception) -> Response:
            response = respond(error)
            is_shown = request.endpoint in pages and response.mimetype == MEDIA_TYPE
            return problem_page(response) if is_shown else response

        app.register_error_handler(kind, handler)

    handle(errors.ServiceError, from_service_error)
    handle(ValidationError, from_validation_error)
    handle(HTTPException, from_http_exception)
    handle(Exception, from_bug)
