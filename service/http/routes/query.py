"""POST /query."""

from __future__ import annotations

from typing import Any

from flask import Response
from flask.globals import request_ctx

from service.auth.keys import Role
from service.compute.deadline import time_limit
from service.http.body.limits import PREDICTIONS
from service.http.body.reader import read_document
from service.http.contract.operations import Operations, Reply
from service.http.media_types import MULTIPART
from service.http.middleware import auth
from service.http.responses import json_response
from service.http.routes.context import Context, current_context
from service.http.schemas import responses
from service.http.schemas.query import QuerySchema, query_request
from service.http.tables import read_arrays
from service.usecases import draws, leases, query_arrays

QUERY, QUERY_REPLY = QuerySchema(), responses.QueryReplySchema()

operations = Operations("Query", "Ask which samples to label next.")


@operations.add(
    "POST",
    "/query",
    role=Role.READER,
    body=QuerySchema,
    parts=(*PREDICTIONS, "X", "texts", "y"),
    replies={
        200: Reply(
            "The samples, in the order in which to ask.", responses.QueryReplySchema, some_headers=("Retry-After",)
        )
    },
    problems=(403, 404, 411, 413, 415, 422, 503, 504, 507),
)
def query_project() -> Response:
    """Ask which samples to label next.

    A query always succeeds: if the strategy cannot run, `strategy` names the one that ran instead and
    `fallback_reason` says why. The same state and the same request give the same samples.

    With `lease_seconds` the samples are leased to `annotator`: no other annotator gets them until they are labelled,
    or the lease is released or expires. If all remaining samples are leased to others, the reply is empty and
    `Retry-After` says when to ask again.

    Probabilities from your own model replace the project's model for this query. Without a project, the query is about
    the samples in the request, which are not stored; a strategy that needs more than was sent is refused.
    """
    context, request = current_context(), request_ctx.request
    if request.mimetype != MULTIPART:
        return answer_query(context, read_document(request, context.limits))
    with context.store.stage(durable=False) as staging:
        return answer_query(context, read_arrays(read_document(request, context.limits, staging)))


def answer_query(context: Context, document: dict[str, Any]) -> Response:
    """Run the query of a document whose arrays are in memory or staged."""
    data = auth.with_query_annotator(QUERY.load(document))
    asked = query_request(data, context.settings.max_batch, context.limits)
    with time_limit(context.settings.query_seconds):
        if asked.project_id is None:
            return json_response(QUERY_REPLY.dump(query_arrays.query_arrays(asked, context.admission.enter_to_select)))
        auth.check_visible(asked.project_id)
        ask = leases.lease_samples if asked.lease_seconds else draws.query_and_record
        answered = ask(context.store, asked, context.backend_of, context.admission.enter_to_select)
    if answered.project is not None:
        context.fits.start_if_wanted(answered.project)
    response = json_response(QUERY_REPLY.dump(answered))
    if answered.retry_after is not None:
        response.headers["Retry-After"] = str(answered.retry_after)
    return response
