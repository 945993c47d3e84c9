"""POST /label, and the labels of a project."""

from __future__ import annotations

import re
from collections.abc import Callable

from flask import Response, request
from flask.globals import request_ctx

from service.auth.keys import Role
from service.errors import LabelNotFound
from service.http import csv_writer
from service.http.body.reader import read_json
from service.http.contract.operations import Operations, Reply, View
from service.http.media_types import CSV, JSON
from service.http.middleware import auth
from service.http.middleware.etags import CONDITIONS, with_etag
from service.http.middleware.idempotency import read_preconditions
from service.http.responses import choose_media_type, empty_response, json_list, json_response
from service.http.routes.context import current_context
from service.http.routes.query_string import read_query
from service.http.schemas import responses
from service.http.schemas.label import LabelListQuerySchema, LabelSchema, ReplaceLabelsSchema, label_request
from service.usecases import label, projects

LABEL, REPLACE_LABELS, LABEL_LIST_QUERY = LabelSchema(), ReplaceLabelsSchema(), LabelListQuerySchema()
LABEL_REPLY = responses.LabelReplySchema()

operations = Operations("Label", "Send, list and retract labels.")


@operations.add(
    "POST",
    "/label",
    role=Role.ANNOTATOR,
    body=LabelSchema,
    replies={200: Reply("The project after the request.", responses.LabelReplySchema, etag=True)},
    headers=CONDITIONS,
    problems=(404, 409, 411, 412, 413, 415, 422, 503, 507),
)
def label_project() -> Response:
    """Send labels and skips.

    All records are stored, or none. The same label again changes nothing; another label by the same annotator replaces
    it, and a label without an annotator replaces all labels of the sample. `label: null` retracts one answer. A skip by
    an annotator removes no labels of others, and a label sent later counts; after a skip without an annotator the
    sample takes no label until the skip is retracted. If too many requests wait for fits, or the fit takes long, the
    reply carries the current model even with `refit: wait`; `n_labels_since_fit` counts the labels it has not seen.
    """
    context, request = current_context(), request_ctx.request
    data = LABEL.load(read_json(request, context.limits))
    auth.check_visible(data["project_id"])
    return store_labels(label_request(data["project_id"], data))


def store_labels(order: label.LabelRequest) -> Response:
    """Store labels, and return the response."""
    context, request = current_context(), request_ctx.request
    labeled = label.label_project(
        context.store, auth.with_label_annotator(order), context.admission.try_enter, read_preconditions(request)
    )
    context.fits.start_if_wanted(labeled.project)
    return with_etag(request, json_response(LABEL_REPLY.dump(labeled)), labeled.project)


@operations.add(
    "PUT",
    "/projects/<project_id>/labels",
    role=Role.ADMIN,
    body=ReplaceLabelsSchema,
    replies={200: Reply("The project after the request.", responses.LabelReplySchema, etag=True)},
    headers=CONDITIONS,
    problems=(404, 411, 412, 413, 415, 422, 503, 507),
)
def replace_labels(project_id: str) -> Response:
    """Send all labels and skips as they should be.

    Those that are not in the list are retracted, and the difference is one commit. `n_changed` counts the labels that
    are new, changed or retracted.
    """
    data = REPLACE_LABELS.load(read_json(request, current_context().limits))
    return store_labels(label_request(project_id, data, replaces_all=True))


@operations.add(
    "GET",
    "/projects/<project_id>/labels",
    role=Role.READER,
    query=LabelListQuerySchema,
    replies={
        200: Reply(
            "The labels and skips, in order of their samples.",
            responses.LabelListSchema,
            (CSV,),
            etag=True,
            some_headers=(csv_writer.SAFE_HEADER,),
        )
    },
    problems=(404, 406, 422),
)
def list_project_labels(project_id: str) -> Response:
    """List labels and skips.

    All of them, or up to `limit`. As JSON, or as CSV with `Accept: text/csv`. In CSV an apostrophe precedes text that a
    spreadsheet would run as a formula, and the header `X-CSV-Safe` says so; `safe=none` leaves it out.
    """
    data = read_query(LABEL_LIST_QUERY)
    safe, media_type = data["safe"], choose_media_type(request, JSON, CSV)
    page = projects.list_labels(current_context().store, project_id, data.get("limit"), data.get("after"))
    if media_type == CSV:
        response, suffix = Response(csv_writer.csv_labels(page.labels, page.record_type, safe), mimetype=CSV), "-csv"
        response.headers[csv_writer.SAFE_HEADER] = safe
    else:
        response, suffix = Response(json_list("labels", page.labels, next=page.next), mimetype=JSON), ""
    response.vary.add("Accept")
    return with_etag(request, response, page.project, suffix)


def add_retraction(path: str) -> Callable[[View], View]:
    """Register the decorated function as an endpoint that retracts the labels of a sample."""
    return operations.add(
        "DELETE",
        path,
        role=Role.ANNOTATOR,
        replies={204: Reply("The sample can be queried again.", etag=True)},
        headers=CONDITIONS,
        problems=(404, 412, 422, 503, 507),
    )


@add_retraction("/projects/<project_id>/labels/<index>")
def retract_label(project_id: str, index: str) -> Response:
    """Retract all labels and skips of a sample.

    The next fit trains without them.
    """
    if not re.fullmatch(r"0|[1-9][0-9]{0,17}", index):
        projects.get(current_context().store, project_id)
        raise LabelNotFound(index[:32])
    return retract(project_id, int(index))


@add_retraction("/projects/<project_id>/labels/by-id/<path:sample_id>")
def retract_label_by_id(project_id: str, sample_id: str) -> Response:
    """Retract all labels and skips of the sample with an id.

    The next fit trains without them. Encode the id for a URL, with a slash in it as %2F.
    """
    return retract(project_id, label.sample_of_id(current_context().store, project_id, sample_id))


def retract(project_id: str, index: int) -> Response:
    """Retract all labels and skips of a sample, and return the response."""
    project = label.retract_label(
        current_context().store, project_id, index, auth.caller().annotator, read_preconditions(request)
    )
    return with_etag(request, empty_response(), project)
