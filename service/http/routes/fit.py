"""POST /fit."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

from flask import Response, request
from werkzeug.http import parse_list_header

from service.auth.keys import Role
from service.domain.columns import TableContext
from service.domain.project import PROJECT_ID
from service.http.body.limits import COLUMNS, MATRICES
from service.http.body.reader import read_samples
from service.http.contract.operations import SAMPLE_LINES, Operations, Reply
from service.http.middleware import auth
from service.http.middleware.etags import CONDITIONS
from service.http.middleware.idempotency import read_preconditions
from service.http.routes.context import current_context
from service.http.routes.projects import project_response
from service.http.routes.query_string import read_config
from service.http.schemas import responses
from service.http.schemas.fit import FitSchema, fit_request
from service.http.schemas.samples import ConfigQuerySchema
from service.http.tables import read_tables
from service.usecases import fit
from service.usecases.columns import table_context

FIT = FitSchema()

operations = Operations("Fit", "Create and train projects.")


@operations.add(
    "POST",
    "/fit",
    role=Role.ADMIN,
    body=FitSchema,
    parts=(*MATRICES, *COLUMNS),
    lines=SAMPLE_LINES,
    query=ConfigQuerySchema,
    replies={
        200: Reply("The project, trained again.", responses.NotedProjectSchema, etag=True),
        201: Reply("The new project.", responses.NotedProjectSchema, etag=True),
        202: Reply(
            "The project; its fit follows.",
            responses.NotedProjectSchema,
            etag=True,
            headers=("Location", "Preference-Applied"),
        ),
    },
    headers=("Prefer", *CONDITIONS),
    problems=(404, 409, 411, 412, 413, 415, 422, 503, 507),
)
def fit_project() -> Response:
    """Create a project, or train it again.

    With X, this creates a project from a pool and the labels it has so far; with `replace`, they replace the pool and
    labels of an existing project. Without X, it trains the project again, with a new estimator or held-out set if
    given. A request that fails changes nothing. With fewer than two labelled classes there is nothing to fit: the
    project is stored and `model_version` is null. With `Prefer: respond-async` the reply does not wait for the fit;
    `fit` in GET /projects/{project_id} shows its progress.
    """
    context = current_context()
    in_background = prefers("respond-async")
    with context.store.stage() as staging:
        document = read_samples(request, context.limits, staging, read_config(), needs_config=True)
        data = FIT.load(read_tables(document, lambda: table_context_of(document), context.limits, staging))
        auth.check_may_write(data["project_id"])
        order = replace(fit_request(data, staging, context.limits), in_background=in_background)
        with nullcontext() if in_background else context.admission.enter():
            project, is_new = fit.fit_project(context.store, staging, order, read_preconditions(request))
        notes = fit.notes_on(order, project)
    if not (in_background and project.fit_is_wanted):
        return project_response(project, 201 if is_new else 200, notes)
    response = project_response(project, 202, notes)
    response.headers["Location"] = f"/projects/{project.project_id}"
    response.headers["Preference-Applied"] = "respond-async"
    return response


def table_context_of(document: Mapping[str, Any]) -> TableContext:
    """Return what is known about the tables of a request: nothing if it brings a new pool."""
    project_id, classes = document.get("project_id"), document.get("classes")
    if "X" in document or not (isinstance(project_id, str) and re.fullmatch(PROJECT_ID, project_id)):
        may_be_numbers = document.get("target") in (None, "number") and not classes
        return TableContext(classes=classes if isinstance(classes, list) else (), may_be_numbers=may_be_numbers)
    auth.check_may_write(project_id)
    return table_context(current_context().store, project_id)


def prefers(preference: str) -> bool:
    """Return whether the request has a preference (RFC 7240), whatever its value and parameters."""
    given = parse_list_header(",".join(request.headers.getlist("Prefer")))
    return preference in (re.split(r"[;=]", each)[0].strip().lower() for each in given)
