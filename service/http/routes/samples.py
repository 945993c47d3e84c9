"""The samples of a project."""

from __future__ import annotations

from flask import Response, request

from service.auth.keys import Role
from service.http.contract.operations import Operations, Reply
from service.http.middleware.etags import with_etag
from service.http.responses import json_response
from service.http.routes.context import current_context
from service.http.routes.query_string import read_query
from service.http.schemas import responses
from service.http.schemas.projects import SamplePageSchema
from service.usecases import samples

SAMPLE_PAGE = SamplePageSchema()

operations = Operations("Samples", "List samples.")


@operations.add(
    "GET",
    "/projects/<project_id>/samples",
    role=Role.READER,
    query=SamplePageSchema,
    replies={200: Reply("A page of samples.", responses.SamplePageReplySchema, etag=True)},
    problems=(404, 422),
)
def list_project_samples(project_id: str) -> Response:
    """List the samples of a project, in the order of the pool.

    With their ids, statuses and labels; `status` selects those of one status.
    """
    data = read_query(SAMPLE_PAGE)
    page = samples.list_samples(
        current_context().store, project_id, data["limit"], data.get("after"), data.get("status")
    )
    return with_etag(request, json_response({"samples": page.samples, "next": page.next}), page.project)
