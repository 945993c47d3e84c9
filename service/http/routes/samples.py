"""The samples of a project."""

from __future__ import annotations

from flask import Response, request

from service.auth.keys import Role
from service.http.body.reader import read_json
from service.http.contract.operations import Operations, Reply
from service.http.middleware import auth
from service.http.middleware.etags import CONDITIONS, with_etag
from service.http.middleware.idempotency import read_preconditions
from service.http.responses import json_response
from service.http.routes.context import current_context
from service.http.routes.query_string import read_query
from service.http.schemas import responses
from service.http.schemas.projects import SampleChoiceSchema, SamplePageSchema, sample_choice
from service.usecases import removal, samples

SAMPLE_PAGE, CHOICE, REMOVAL_REPLY = SamplePageSchema(), SampleChoiceSchema(), responses.RemovalReplySchema()

operations = Operations("Samples", "List samples, remove them, and put them back.")


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


@operations.add(
    "DELETE",
    "/projects/<project_id>/samples",
    role=Role.ANNOTATOR,
    body=SampleChoiceSchema,
    replies={200: Reply("The project without the samples.", responses.RemovalReplySchema, etag=True)},
    headers=CONDITIONS,
    problems=(404, 411, 412, 413, 415, 422, 503, 507),
)
def remove_samples(project_id: str) -> Response:
    """Remove samples from a project.

    They are not asked about, trained on or counted, and other samples keep their indices. Their features and labels are
    kept, so that they can be put back. A fit that this makes due follows in the background.
    """
    choice = sample_choice(project_id, CHOICE.load(read_json(request, current_context().limits)))
    return removal_response(
        removal.remove_samples(current_context().store, choice, auth.caller().annotator, read_preconditions(request))
    )


@operations.add(
    "POST",
    "/projects/<project_id>/samples/restore",
    role=Role.ANNOTATOR,
    body=SampleChoiceSchema,
    replies={200: Reply("The project with the samples.", responses.RemovalReplySchema, etag=True)},
    headers=CONDITIONS,
    problems=(404, 409, 411, 412, 413, 415, 422, 503, 507),
)
def restore_samples(project_id: str) -> Response:
    """Put removed samples back.

    With the labels and skips that they had. Samples that are not removed stay as they are.
    """
    choice = sample_choice(project_id, CHOICE.load(read_json(request, current_context().limits)))
    return removal_response(removal.restore_samples(current_context().store, choice, read_preconditions(request)))


def removal_response(result: removal.RemovalResult) -> Response:
    """Return the response after samples were removed or put back, and start the fit that the project waits for."""
    current_context().fits.start_if_wanted(result.project)
    return with_etag(request, json_response(REMOVAL_REPLY.dump(result)), result.project)
