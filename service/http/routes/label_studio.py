"""The ML-backend protocol of Label Studio: pre-labels, and labels that arrive as webhooks.

Each request becomes the one that a client would send: POST /fit, POST /projects/{id}/pool or POST /label.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import isnan
from typing import Any

import numpy as np
from flask import Response
from flask.globals import request_ctx

from service.auth.keys import Role
from service.bridges.labeling_config import (
    Annotation,
    ConfigError,
    LabelingConfig,
    TaskFields,
    answer_in,
    last_of_annotators,
    read_config,
)
from service.domain.project import PROJECT_ID, Project
from service.domain.votes import ANONYMOUS
from service.errors import InvalidRequest, NoModel, ProjectNotFound
from service.http.body.reader import read_json
from service.http.contract.operations import Operations, Reply
from service.http.middleware import auth
from service.http.responses import json_response
from service.http.routes.context import current_context
from service.http.routes.label import store_labels
from service.http.routes.query_string import read_query
from service.http.schemas import label_studio as schemas
from service.http.schemas.append import AppendSchema, append_request
from service.http.schemas.fit import FitSchema, fit_request
from service.http.schemas.label import LabelSchema, label_request
from service.store import Part
from service.usecases import append, fit, predictions, removal

FIT, APPEND, LABEL = FitSchema(), AppendSchema(), LabelSchema()
SETUP, PREDICT, WEBHOOK, FIELDS = (
    schemas.SetupSchema(),
    schemas.PredictSchema(),
    schemas.WebhookSchema(),
    schemas.TaskFieldsSchema(),
)

JsonObject = dict[str, Any]
Task = Mapping[str, Any]

operations = Operations("Label Studio", "Label Studio uses the service as an ML backend.")


def read_body(schema: schemas.ToolSchema) -> JsonObject:
    """Load the body of a request."""
    data: JsonObject = schema.load(read_json(request_ctx.request, current_context().limits))
    return data


@operations.add(
    "GET",
    "/label-studio/<project_id>/health",
    role=Role.READER,
    query=schemas.TaskFieldsSchema,
    replies={200: Reply("The service answers.", schemas.HealthOfModelSchema)},
    problems=(404, 422),
)
def check_ml_backend(project_id: str) -> Response:
    """Check that the service is up.

    Also before the project exists.
    """
    read_query(FIELDS)
    find_project(project_id)
    return json_response({"status": "UP", "model_class": "ActiveQuery"})


@operations.add(
    "POST",
    "/label-studio/<project_id>/setup",
    role=Role.READER,
    body=schemas.SetupSchema,
    query=schemas.TaskFieldsSchema,
    replies={200: Reply("The model.", schemas.ModelVersionSchema)},
    problems=(404, 411, 413, 415, 422),
)
def set_up_ml_backend(project_id: str) -> Response:
    """Check the labelling config, and return the version of the model.

    Nothing is changed. The first tasks that come make the project, with the classes of the config.
    """
    read_query(FIELDS)
    read_body(SETUP)
    return json_response({"model_version": version_of(find_project(project_id))})


@operations.add(
    "GET",
    "/label-studio/<project_id>/versions",
    role=Role.READER,
    query=schemas.TaskFieldsSchema,
    replies={200: Reply("The versions.", schemas.ModelVersionsSchema)},
    problems=(404, 422),
)
def list_ml_backend_versions(project_id: str) -> Response:
    """List the versions of the model.

    There is one, the current version.
    """
    read_query(FIELDS)
    return json_response({"versions": [version_of(find_project(project_id))]})


@operations.add(
    "POST",
    "/label-studio/<project_id>/predict",
    role=Role.ADMIN,
    body=schemas.PredictSchema,
    query=schemas.TaskFieldsSchema,
    replies={200: Reply("The predictions.", schemas.TaskPredictionsSchema)},
    problems=(409, 411, 413, 415, 422, 503, 504, 507),
)
def predict_tasks(project_id: str) -> Response:
    """Predict tasks, with the confidence of the model as their scores.

    Tasks that the project does not have yet are added to its pool, and the first ones create it.
    """
    task_fields, data = fields_of_query(), read_body(PREDICT)
    config: LabelingConfig = data["config"]
    add_tasks(project_id, config, task_fields, data["tasks"])
    version, found = predictions_of(project_id, [str(task["id"]) for task in data["tasks"]])
    results: list[JsonObject] = []
    for task in data["tasks"]:
        labels, confidence = found.get(str(task["id"]), ((), 0.0))
        result = config.result_of(labels, confidence) if labels else []
        results.append({"result": result, "score": round(confidence, 6), "model_version": version})
    return json_response({"results": results, "model_version": version})


@operations.add(
    "POST",
    "/label-studio/<project_id>/webhook",
    role=Role.ADMIN,
    body=schemas.WebhookSchema,
    query=schemas.TaskFieldsSchema,
    replies={200: Reply("What was done.", schemas.WebhookReplySchema)},
    problems=(404, 409, 411, 413, 415, 422, 503, 507),
)
def receive_label_studio_webhook(project_id: str) -> Response:
    """Take tasks and annotations; fits follow in the background.

    `TASKS_CREATED` adds samples, and `TASKS_DELETED` removes them. Annotations that are created or updated are labels
    and skips, and `ANNOTATIONS_DELETED` retracts those that came as webhooks. `START_TRAINING` trains the model.
    """
    task_fields, data = fields_of_query(), read_body(WEBHOOK)
    match data["action"]:
        case "START_TRAINING":
            train(project_id)
        case "TASKS_CREATED":
            add_tasks(project_id, config_of(data), task_fields, objects(data, "tasks"))
        case "TASKS_DELETED":
            remove_tasks(project_id, numbers(data, "tasks"))
        case "ANNOTATION_CREATED" | "ANNOTATIONS_CREATED" | "ANNOTATION_UPDATED":
            label_tasks(project_id, config_of(data), task_fields, data)
        case "ANNOTATIONS_DELETED":
            retract_annotations(project_id, numbers(data, "annotations"))
        case _:
            return json_response({"status": "ignored"})
    return json_response({"status": "done"})


def fields_of_query() -> TaskFields:
    """Return the fields that the query string names."""
    given = read_query(FIELDS)
    return TaskFields(given.get("text_field"), given.get("vector_field"))


def find_project(project_id: str) -> Project | None:
    """Return a project, None if there is none yet. Raises ProjectNotFound for a name that no project can have."""
    try:
        return current_context().store.read(project_id).project
    except ProjectNotFound:
        if not re.fullmatch(PROJECT_ID, project_id):
            raise
        return None


def version_of(project: Project | None) -> str:
    """Return the version of a project's model."""
    return f"aq-{0 if project is None or project.model is None else project.model.version}"


def config_of(data: JsonObject) -> LabelingConfig:
    """Return the labelling config of a webhook's project. Raises InvalidRequest."""
    try:
        return read_config(str(data.get("project", {}).get("label_config", "")))
    except ConfigError as error:
        raise InvalidRequest.at("/project/label_config", str(error)) from None


def objects(data: JsonObject, name: str) -> list[JsonObject]:
    """Return the objects of a field that has one or a list of them. Raises InvalidRequest."""
    found = data.get(name)
    entries = found if isinstance(found, list) else [found]
    found_objects = [entry for entry in entries if isinstance(entry, dict)]
    if len(found_objects) < len(entries):
        raise InvalidRequest.at(f"/{name}", "must be an object or a list of objects")
    return found_objects


def numbers(data: JsonObject, name: str) -> list[int]:
    """Return the numbers of the objects of a field, which Label Studio also sends alone. Raises InvalidRequest."""
    found = data.get(name)
    entries = found if isinstance(found, list) else [None]
    ids = [entry.get("id") if isinstance(entry, dict) else entry for entry in entries]
    given = [number for number in ids if type(number) is int]
    if len(given) < len(ids):
        raise InvalidRequest.at(f"/{name}", "must be a list of numbers, or of objects with a number as `id`")
    return given


def add_tasks(project_id: str, config: LabelingConfig, task_fields: TaskFields, tasks: Sequence[Task]) -> None:
    """Add the tasks that the pool does not have yet; the first ones create the project."""
    context = current_context()
    is_new = find_project(project_id) is None
    contents = {
        str(task["id"]): content
        for task in (tasks if is_new else unknown_tasks(project_id, tasks))
        if (content := task_fields.content_of(task.get("data", {}), config)) is not None
    }
    if not contents:
        return
    name = "texts" if all(isinstance(content, str) for content in contents.values()) else "X"
    samples: JsonObject = {name: [*contents.values()], "ids": [*contents]}
    with context.store.stage() as staging:
        if not is_new:
            data = APPEND.load({**samples, "if_known": "ignore"})
            appending = append_request(project_id, data, staging, context.limits)
            append.append_samples(context.store, staging, appending, context.settings.max_pool_cells)
            return
        auth.check_may_write(project_id)
        target = {"target": "labels"} if config.has_several else {}
        classes = {"classes": [*config.classes]} if config.classes else {}
        created = FIT.load({"project_id": project_id, "similar_labels": "allow", **target, **classes, **samples})
        fit.fit_project(context.store, staging, fit_request(created, staging, context.limits))


def unknown_tasks(project_id: str, tasks: Sequence[Task]) -> Sequence[Task]:
    """Return the tasks that are no samples of a project."""
    ids = current_context().store.read(project_id, Part.IDS).ids
    return tasks if ids is None else [task for task in tasks if ids.find(str(task["id"])) is None]


def remove_tasks(project_id: str, tasks: Iterable[int]) -> None:
    """Remove the samples of deleted tasks."""
    context = current_context()
    ids = context.store.read(project_id, Part.IDS).ids
    known = [str(task) for task in tasks if ids is not None and ids.find(str(task)) is not None]
    result = removal.remove_samples(context.store, removal.SampleChoice(project_id, ids=known))
    context.fits.start_if_wanted(result.project)


def label_tasks(project_id: str, config: LabelingConfig, task_fields: TaskFields, data: JsonObject) -> None:
    """Store annotations as labels and skips, and request a fit in the background."""
    add_tasks(project_id, config, task_fields, [task for task in objects(data, "task") if "id" in task])
    by_task: dict[str, list[JsonObject]] = {}
    try:
        for annotation in objects(data, "annotation"):
            by_task.setdefault(str(annotation["task"]), []).append(annotation)
        records = [
            {"id": task, "annotator": who, **answer_record(config, annotation)}
            for task, annotations in by_task.items()
            for who, annotation in last_of_annotators(annotations).items()
        ]
    except (KeyError, TypeError, AttributeError):
        raise InvalidRequest.at("/annotation", "must have `task`, `completed_by` and `result`") from None
    declare(project_id, (record["label"] for record in records if "label" in record))
    send_records(project_id, records)


def answer_record(config: LabelingConfig, annotation: Annotation) -> JsonObject:
    """Return the fields of a record of POST /label with an answer.

    No query asked for it, so its `query_id` is free for the number of the annotation, by which a deletion finds it.
    """
    answer = answer_in(config, annotation)
    number = annotation.get("id")
    return {
        **({"skip": True} if answer is None else {"label": answer, "new_class": True}),
        **({"query_id": mark_of(number)} if type(number) is int else {}),
    }


def mark_of(annotation: int) -> str:
    """Return the `query_id` of the label of an annotation."""
    return f"label-studio-{annotation}"


def retract_annotations(project_id: str, annotations: Iterable[int]) -> None:
    """Retract the labels and skips of deleted annotations, and request a fit in the background."""
    project = current_context().store.read(project_id).project
    votes, marks = project.votes, [mark_of(number).encode() for number in annotations]
    rows = np.flatnonzero(np.isin(votes.query, marks) & (votes.annotator != ANONYMOUS))
    records = [
        {"index": index, "annotator": project.annotators[code], "label": None}
        for index, code in zip(votes.index[rows].tolist(), votes.annotator[rows].tolist(), strict=True)
    ]
    if records:
        send_records(project_id, records)


def send_records(project_id: str, records: Sequence[JsonObject]) -> None:
    """Send records as POST /label does, without those of tasks that are no samples."""
    body = {"project_id": project_id, "labels": records, "unknown": "ignore", "refit": "background"}
    store_labels(label_request(project_id, LABEL.load(body)))


def declare(project_id: str, labels: Iterable[str | list[str]]) -> None:
    """Add the classes of labels to those of the project: the labelling config may have grown."""
    project = find_project(project_id)
    if project is None or not project.classes:
        return
    given = dict.fromkeys(name for label in labels for name in ([label] if isinstance(label, str) else label))
    new = [name for name in given if name not in project.classes]
    if new:
        train(project_id, classes=[*project.classes, *new])


def train(project_id: str, **changes: Any) -> None:
    """Request a fit in the background, with changes of the project."""
    context = current_context()
    with context.store.stage() as staging:
        request = fit_request(FIT.load({"project_id": project_id, **changes}), staging, context.limits)
        project, _ = fit.fit_project(context.store, staging, replace(request, in_background=True))
    context.fits.start_if_wanted(project)


def predictions_of(project_id: str, ids: Sequence[str]) -> tuple[str, dict[str, tuple[Sequence[str], float]]]:
    """Return the version of the model, and the classes and the confidence of each sample that it can predict, by id."""
    context = current_context()
    project = find_project(project_id)
    if project is None:
        return version_of(None), {}
    names = context.store.read(project_id, Part.IDS).ids
    places = {} if names is None else {index: name for name in ids if (index := names.find(name)) is not None}
    wanted = predictions.PredictionRequest(project_id, indices=sorted(places))
    try:
        found = predictions.list_predictions(context.store, wanted, context.admission)
    except NoModel:
        return version_of(project), {}
    return f"aq-{found.model_version}", {
        places[index]: (label if isinstance(label, tuple) else (str(label),), confidence)
        for block in found.blocks
        for index, label, confidence in zip(
            block.index.tolist(), block.labels(found.project.classes), block.confidence.tolist(), strict=True
        )
        if not isnan(confidence)
    }
