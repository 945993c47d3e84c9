"""Export and import of a project."""

from __future__ import annotations

from functools import partial

from flask import Response, request

from service.auth.keys import Role
from service.http.body.formats.archive import write_archive
from service.http.body.reader import spool_archive
from service.http.contract.operations import Operations, Reply
from service.http.media_types import OCTET_STREAM, ZIP
from service.http.middleware import auth
from service.http.middleware.etags import CONDITIONS, with_etag
from service.http.middleware.idempotency import read_preconditions
from service.http.project_archive import archive_members, manifest, read_project
from service.http.routes.context import current_context
from service.http.routes.projects import project_response
from service.http.routes.query_string import read_query
from service.http.schemas import responses
from service.http.schemas.projects import ImportSchema
from service.usecases import transfer

IMPORT = ImportSchema()

operations = Operations("Transfer", "Move a project to another service, as one file.")


@operations.add(
    "GET",
    "/projects/<project_id>/export",
    role=Role.READER,
    replies={200: Reply("An archive of arrays, events and a manifest.", media_types=(ZIP, OCTET_STREAM), etag=True)},
    problems=(404,),
)
def export_project(project_id: str) -> Response:
    """Export a project as one file.

    A zip archive of `.npy` arrays, without pickles. It holds all of the project as of one commit, whatever is written
    meanwhile, except the model: an import fits that again. For clients that take no `application/zip`, the same bytes
    are available as `application/octet-stream`.
    """
    snapshot = transfer.export_project(current_context().store, project_id)
    body = write_archive(archive_members(snapshot), partial(manifest, snapshot))
    media_type = request.accept_mimetypes.best_match((ZIP, OCTET_STREAM), ZIP)
    response = Response(body, mimetype=media_type)
    response.vary.add("Accept")
    response.headers["Content-Disposition"] = f'attachment; filename="{project_id}.zip"'
    return with_etag(request, response, snapshot.project, "" if media_type == ZIP else "-octets")


@operations.add(
    "POST",
    "/projects/import",
    role=Role.ADMIN,
    files=(ZIP, OCTET_STREAM),
    query=ImportSchema,
    replies={201: Reply("The project, with a new model.", responses.ProjectSchema, etag=True)},
    headers=CONDITIONS,
    problems=(409, 411, 412, 413, 415, 422, 503, 507),
)
def import_project() -> Response:
    """Import an exported project.

    Indices, ids, labels, annotators, times, held-out set, classes, estimator, seed, version and events stay the same,
    so the copy selects the same samples. Each member is checked as `POST /fit` checks its fields; a pointer names the
    member that is wrong. The model is fitted again.
    """
    context, project_id = current_context(), read_query(IMPORT).get("project_id")
    if project_id is not None:
        auth.check_may_write(project_id)
        transfer.refuse_taken(context.store, project_id, read_preconditions(request))
    with context.store.stage() as staging:
        path = spool_archive(request, context.limits, staging)
        with context.admission.enter():
            order = read_project(path, project_id, context.limits, staging)
        auth.check_may_write(order.facts.project_id)
        project = transfer.import_project(
            context.store, staging, order, context.admission.try_enter, read_preconditions(request)
        )
    return project_response(project, 201)
