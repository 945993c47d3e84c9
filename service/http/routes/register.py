"""Registration of all endpoints with Flask."""

from __future__ import annotations

from functools import cache

from flask import Blueprint, Flask
from flask.globals import request_ctx

from service.domain.parameters import pointer_token
from service.errors import FieldError, InvalidRequest
from service.http.contract.operations import Contract
from service.http.middleware.etags import CONDITIONS, has_conditions
from service.http.middleware.idempotency import answer_once
from service.http.routes import (
    classes,
    evaluation,
    evidence,
    fit,
    label,
    label_studio,
    leases,
    meta,
    model,
    pages,
    predictions,
    projects,
    query,
    samples,
    simulation_pages,
    simulations,
    transfer,
)
from service.http.routes.context import Context

OPERATIONS = Contract(
    (
        fit.operations,
        query.operations,
        label.operations,
        projects.operations,
        classes.operations,
        samples.operations,
        predictions.operations,
        model.operations,
        evaluation.operations,
        evidence.operations,
        simulations.operations,
        leases.operations,
        label_studio.operations,
        transfer.operations,
        pages.operations,
        simulation_pages.operations,
        meta.operations,
    )
)
"""All endpoints, in the order in which they are documented."""


def register(app: Flask, context: Context) -> None:
    """Add every endpoint to the application."""
    app.extensions["active-query"] = context
    blueprint = Blueprint("api", __name__)
    for operation in OPERATIONS.all:
        view = operation.view
        if operation.runs_once:
            view = answer_once(view, context.store.replies, context.settings.max_body_bytes)
        blueprint.add_url_rule(operation.path, operation.name, view, methods=[operation.method], merge_slashes=False)
    blueprint.before_request(refuse_ignored)
    app.register_blueprint(blueprint)


def refuse_ignored() -> None:
    """Raise InvalidRequest for conditions and query parameters that the endpoint would ignore."""
    request = request_ctx.request
    if has_conditions(request) and request.method not in ("GET", "HEAD", "OPTIONS"):
        for header in CONDITIONS:
            if header in request.headers and request.endpoint not in endpoints_with_conditions():
                raise InvalidRequest.at(
                    f"/headers/{header}", "must be left out: this request does not change the version of a project"
                )
    # Most requests have no query, and parsing an empty one takes a while.
    if request.environ.get("QUERY_STRING") and request.args and request.endpoint not in endpoints_with_query():
        raise InvalidRequest(
            FieldError(f"/query/{pointer_token(name)}", "is not a parameter of this endpoint") for name in request.args
        )


@cache
def endpoints_with_query() -> frozenset[str]:
    """Return Flask's names of the endpoints with query parameters."""
    return frozenset(f"api.{operation.name}" for operation in OPERATIONS.all if operation.query)


@cache
def endpoints_with_conditions() -> frozenset[str]:
    """Return Flask's names of the endpoints that honour If-Match and If-None-Match."""
    return frozenset(f"api.{operation.name}" for operation in OPERATIONS.all if set(CONDITIONS) <= {*operation.headers})
