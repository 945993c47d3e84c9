"""The schemas of the ML-backend protocol of Label Studio, as far as the service reads it."""

from __future__ import annotations

from typing import Any

from marshmallow import EXCLUDE, ValidationError

from service.bridges.labeling_config import ConfigError, LabelingConfig, read_config
from service.http.schemas import fields
from service.http.schemas.base import BaseSchema, JsonSchema, RawField, Rule, RuleField, list_of
from service.http.schemas.responses import string

MAX_TASKS = 100_000
OBJECT: JsonSchema = {"type": "object", "additionalProperties": True}


def labeling_config() -> Rule:
    """A labelling config with choices -> LabelingConfig."""

    def read(value: Any) -> LabelingConfig:
        if not isinstance(value, str):
            raise ValidationError("must be a labelling config in XML")
        try:
            return read_config(value)
        except ConfigError as error:
            raise ValidationError(str(error)) from None

    return Rule(read, {"type": "string"})


def task() -> Rule:
    """A task of Label Studio with its data -> the task."""

    def read(value: Any) -> dict[str, Any]:
        if not (isinstance(value, dict) and type(value.get("id")) is int and isinstance(value.get("data"), dict)):
            raise ValidationError("must be a task: an object with a number as `id`, and with `data`")
        return value

    return Rule(read, OBJECT)


class ToolSchema(BaseSchema):
    """A JSON object of Label Studio, which sends more than is read here."""

    class Meta:
        """Options of marshmallow."""

        unknown = EXCLUDE

    def refuse_many_unknown(self, data: Any, **_: Any) -> Any:
        """Accept unknown fields."""
        return data


class SetupSchema(ToolSchema):
    """Label Studio connects a model, or looks whether it is there."""

    config = RuleField(
        labeling_config(), "The labelling config; it must have `<Choices>`.", required=True, data_key="schema"
    )


class PredictSchema(ToolSchema):
    """Tasks to predict."""

    tasks = RuleField(list_of(task(), 0, MAX_TASKS), "The tasks.", required=True)
    config = RuleField(labeling_config(), "The labelling config.", required=True, data_key="label_config")


class WebhookSchema(ToolSchema):
    """What happened in Label Studio."""

    action = RuleField(fields.text(1, 128), "What happened, such as `ANNOTATION_CREATED`.", required=True)
    project = RuleField(fields.json_object(), "The project, with its `label_config`.")
    task = RuleField(Rule(lambda value: value, {}), "The annotated task, or a list of them.")
    annotation = RuleField(Rule(lambda value: value, {}), "The annotation, or a list of them.")
    tasks = RuleField(Rule(lambda value: value, {}), "The tasks that were created or deleted.")
    annotations = RuleField(Rule(lambda value: value, {}), "The annotations that were deleted, each with its `id`.")


class TaskFieldsSchema(BaseSchema):
    """Which fields of the tasks are samples."""

    text_field = RuleField(
        fields.text(1, 256),
        "Field of the tasks with the text; default: that of the config. It may also be a part of the path, "
        "`/label-studio/{project_id}/text_field=body/predict`, since Label Studio drops the query of a backend's URL.",
    )
    vector_field = RuleField(
        fields.text(1, 256),
        "Field with a list of numbers; default: the first such field, if no text is shown. It may also be a part of "
        "the path, as `text_field`.",
    )


class HealthOfModelSchema(BaseSchema):
    """The state of the model's server."""

    status = string("`UP`.")
    model_class = string("`ActiveQuery`.")


class ModelVersionSchema(BaseSchema):
    """The version of the model, which changes with every fit."""

    model_version = string("`aq-` and the project's model version; `aq-0` without a model.")


class TaskPredictionsSchema(ModelVersionSchema):
    """A prediction for each task."""

    results = RawField(
        {"type": "array", "items": OBJECT},
        "For each task, in their order: `result`, the class as Label Studio shows it, empty without a model; `score`, "
        "its confidence; and `model_version`.",
    )


class ModelVersionsSchema(BaseSchema):
    """The versions of the model that can be used."""

    versions = RawField({"type": "array", "items": {"type": "string"}}, "The current version.")


class WebhookReplySchema(BaseSchema):
    """What was done."""

    status = string("`done`, or `ignored` if nothing follows from the action.")
