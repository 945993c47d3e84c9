"""GET /projects/{project_id}/model."""

from __future__ import annotations

from importlib.util import find_spec
from typing import get_args

from flask import Response, request
from werkzeug.exceptions import NotAcceptable

from service.auth.keys import Role
from service.http.contract.operations import Operations, Reply
from service.http.media_types import OCTET_STREAM, ONNX, SKOPS
from service.http.middleware.etags import with_etag
from service.http.responses import choose_media_type
from service.http.routes.context import current_context
from service.http.routes.query_string import read_query
from service.http.schemas.base import BaseSchema, RuleField
from service.http.schemas.fields import one_of
from service.usecases.model_export import ModelFormat, export_model

LIBRARIES = {"skops": "skops", "onnx": "skl2onnx"}
MEDIA_TYPES = {"skops": SKOPS, "onnx": ONNX}


class ModelQuerySchema(BaseSchema):
    """The format of a model."""

    format = RuleField(
        one_of(*get_args(ModelFormat)).named("ModelFormat", "The format of an exported model."),
        "The format of the model; default: what `Accept` prefers, or skops.",
    )


QUERY = ModelQuerySchema()

operations = Operations("Model", "Get a project's model, to use it elsewhere.")


@operations.add(
    "GET",
    "/projects/<project_id>/model",
    role=Role.READER,
    query=ModelQuerySchema,
    replies={200: Reply("The model.", media_types=(SKOPS, ONNX, OCTET_STREAM), etag=True)},
    problems=(404, 406, 409, 422),
)
def get_model(project_id: str) -> Response:
    """Get the current model as a file that needs no code of this service.

    As `skops` it is a plain scikit-learn classifier or pipeline, with the labels as its classes; `skops.io.load` reads
    it without unpickling. As `onnx` it takes `X`, float32, and returns `label` and `probabilities`. Each format needs
    the extra of its name. `calibration` is not part of the file.
    """
    media_type = choose_media_type(request, SKOPS, ONNX, OCTET_STREAM)
    chosen: ModelFormat = read_query(QUERY).get("format") or ("onnx" if media_type == ONNX else "skops")
    if find_spec(LIBRARIES[chosen]) is None:
        raise NotAcceptable(f"the format {chosen} requires pip install 'active-query[{chosen}]' on the server")
    found = export_model(current_context().store, project_id, chosen)
    mimetype = OCTET_STREAM if media_type == OCTET_STREAM else MEDIA_TYPES[chosen]
    response = Response(found.data, mimetype=mimetype)
    response.headers["Content-Disposition"] = f'attachment; filename="{project_id}.{chosen}"'
    response.vary.add("Accept")
    return with_etag(request, response, found.project, f"-{chosen}")
