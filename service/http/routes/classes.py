"""The classes of a project."""

from __future__ import annotations

from flask import Response, request

from service.auth.keys import Role
from service.http.body.reader import read_json
from service.http.contract.operations import Operations, Reply
from service.http.middleware.etags import CONDITIONS
from service.http.middleware.idempotency import read_preconditions
from service.http.routes.context import current_context
from service.http.routes.projects import project_response
from service.http.schemas import responses
from service.http.schemas.classes import RenameSchema
from service.usecases import classes

RENAME = RenameSchema()

operations = Operations("Classes", "Rename and merge classes.")


@operations.add(
    "POST",
    "/projects/<project_id>/classes",
    role=Role.ADMIN,
    body=RenameSchema,
    replies={200: Reply("The project with its new classes.", responses.ProjectSchema, etag=True)},
    headers=CONDITIONS,
    problems=(404, 411, 412, 413, 415, 422, 503, 507),
)
def rename_project_classes(project_id: str) -> Response:
    """Rename or merge classes.

    All labels, declared classes and held-out labels change in one commit. Classes that get one name, or the name of
    another class, become one. All are renamed at once, so two classes can swap names. If every class keeps a name of
    its own, the model stays; after a merge the project has no model until the next fit, which `refit` asks for.
    """
    context = current_context()
    with context.store.stage() as staging:
        data = RENAME.load(read_json(request, context.limits))
        order = classes.RenameRequest(project_id, data["rename"], data["refit"])
        project = classes.rename_classes(
            context.store, staging, order, context.admission.try_enter, read_preconditions(request)
        )
    return project_response(project)
