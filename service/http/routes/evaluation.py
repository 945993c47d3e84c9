"""GET /projects/{project_id}/evaluation."""

from __future__ import annotations

from flask import Response, request

from service.auth.keys import Role
from service.compute.deadline import time_limit
from service.http.contract.operations import Operations, Reply
from service.http.middleware.etags import with_etag
from service.http.responses import json_response
from service.http.routes.context import current_context
from service.http.schemas.evaluation import EvaluationSchema
from service.usecases import evaluation

EVALUATION = EvaluationSchema()

operations = Operations("Evaluation", "Measure a project's model on its pool.")


@operations.add(
    "GET",
    "/projects/<project_id>/evaluation",
    role=Role.READER,
    replies={200: Reply("The estimates.", EvaluationSchema, etag=True)},
    problems=(404, 503, 504),
)
def evaluate_project(project_id: str) -> Response:
    """Estimate how good the model is, without a held-out set.

    The labelled samples that come first in the project's random order of its pool are a uniform sample of the pool.
    `explore` and `"purpose": "evaluation"` in POST /query make it longer. Each of these samples is predicted by a model
    that was fitted without it; the model that serves is fitted to them, too. It takes five fits, once for each state of
    the project. `lure` is the accuracy from the samples that the strategy `power` drew.
    """
    context = current_context()
    with time_limit(context.settings.query_seconds), context.admission.enter():
        project, found = evaluation.evaluate_project(context.store, project_id)
    return with_etag(request, json_response(EVALUATION.dump(found)), project)
