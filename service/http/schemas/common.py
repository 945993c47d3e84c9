"""Fields of several requests, and the estimator that a request names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from service import strategies
from service.domain.project import PROJECT_ID, EstimatorSpec
from service.errors import InvalidRequest
from service.http.plots import THEMES
from service.http.schemas import fields
from service.http.schemas.base import RuleField, named
from service.learning import estimators
from service.usecases.label import Refit

MAX_SEED = 2**32 - 1
ESTIMATOR_NAME = named(
    "EstimatorName", "The name of an estimator.", {"type": "string", "enum": sorted(estimators.ESTIMATORS)}
)
ESTIMATOR_REQUEST = named(
    "EstimatorRequest",
    "An estimator, with parameters that differ from the defaults.",
    {
        "type": "object",
        "required": ["name"],
        "additionalProperties": False,
        "properties": {
            "name": {**ESTIMATOR_NAME, "description": "Which estimator."},
            "params": {"type": "object", "additionalProperties": True, "description": "Its parameters."},
        },
    },
)
STRATEGY_NAME = (
    fields.text(1, 64)
    .documented(enum=sorted(strategies.STRATEGIES))
    .named("StrategyName", "The name of a query strategy.")
)


def project_id_field(description: str = "The project's name.", *, required: bool = True) -> RuleField:
    """Return the field for the name of a project."""
    return RuleField(fields.pattern(PROJECT_ID), description, required=required)


def refit_field(when: str = "") -> RuleField:
    """Return the field for whether the reply waits for a fit."""
    return RuleField(
        fields.one_of(*get_args(Refit)).named("Refit", "When the model is fitted again."),
        f"{when}`wait`: the reply waits for the fit and carries the new model. `background`: the fit follows the "
        "reply. `never`: no fit until a later request asks for one.",
        load_default="wait",
    )


def seed_field(description: str) -> RuleField:
    """Return a field for a seed."""
    return RuleField(fields.integer(0, MAX_SEED), description)


def safe_field() -> RuleField:
    """Return the parameter for how CSV cells are written."""
    return RuleField(
        fields.one_of("spreadsheet", "none").named("CsvSafety", "How the cells of CSV are written."),
        "How CSV is written: with `spreadsheet` an apostrophe precedes cells that begin with `=`, `+`, `-`, `@`, a tab "
        "or a carriage return and are not numbers; with `none` cells are the raw values.",
        load_default="spreadsheet",
    )


def theme_field() -> RuleField:
    """Return the parameter for the colours of a picture."""
    return RuleField(
        fields.one_of(*THEMES).named("Theme", "The colours of a picture."),
        "The colours of a picture.",
        load_default="light",
    )


def estimator_spec(spec: str | Mapping[str, Any]) -> EstimatorSpec:
    """Return the estimator with this name, or this name and parameters. Raises InvalidRequest."""
    try:
        if isinstance(spec, str):
            return estimators.resolve_estimator(spec, {})
        return estimators.resolve_estimator(spec["name"], spec.get("params", {}))
    except InvalidRequest as error:
        if isinstance(spec, str):
            raise InvalidRequest.at("/estimator", error.errors[0].detail) from None
        raise error.with_prefix("/estimator") from None
