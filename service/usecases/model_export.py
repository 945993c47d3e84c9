"""GET /projects/{id}/model: the current model as a file that other programs load."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from service.domain.project import Project
from service.errors import InvalidRequest, NoModel
from service.learning.model_formats import to_onnx, to_skops
from service.learning.multilabel_scores import threshold_array
from service.learning.plain_label_models import plain_label_model
from service.learning.plain_models import NotExportable, plain_model
from service.store import Store
from service.usecases.training import read_with_model

ModelFormat = Literal["skops", "onnx"]


@dataclass(frozen=True, slots=True, eq=False)
class ExportedModel:
    """A project, and its current model in a format."""

    project: Project
    data: bytes


def export_model(store: Store, project_id: str, model_format: ModelFormat) -> ExportedModel:
    """Return the current model of a project in a format, which needs the extra of that name.

    Raises ProjectNotFound, NoModel, InvalidRequest for a model that has no such format, and the store's errors.
    """
    snapshot = read_with_model(store, project_id)
    project = snapshot.project
    if snapshot.model is None or project.model is None:
        raise NoModel(project_id)
    if project.text is not None:
        problem = "is for models of numbers; this one reads texts, whose features depend on the pool"
        raise InvalidRequest.at("/query/format", problem)
    try:
        if project.target == "labels":
            thresholds = threshold_array(project.model.thresholds, snapshot.model)
            model = plain_label_model(snapshot.model, project.classes, thresholds, project.n_features)
        else:
            model = plain_model(snapshot.model, project.classes, project.n_features)
        if model_format == "skops":
            return ExportedModel(project, to_skops(model))
        return ExportedModel(project, to_onnx(model, project.n_features, allows_missing=project.allows_missing))
    except NotExportable as error:
        raise InvalidRequest.at("/query/format", str(error)) from None
