"""Fields of requests that bring samples, and the samples and labels read from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.domain.label_sets import IndicatorLabels
from service.domain.labels import EncodedLabels, Label
from service.domain.parameters import Parameters
from service.domain.project import type_name
from service.errors import InvalidRequest
from service.http.body.formats.spool import first_missing_in_rows
from service.http.body.limits import Limits, check_cells
from service.http.schemas import fields, label_fields
from service.http.schemas.base import BaseSchema, RuleField, named
from service.learning.texts import TEXT_PARAMETERS, resolve_text
from service.store.staging import StagedRows, Staging
from service.usecases.texts import Samples, TextUpload
from service.usecases.uploads import name_columns

TEXTS = "The samples as texts, instead of X: words and runs of characters become sparse features, as `text` says."
TEXT_SCHEMA = named(
    "TextParameters",
    "How texts become features.",
    {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            **{parameter.name: fields.parameter_schema(parameter) for parameter in TEXT_PARAMETERS},
            "embeddings": {"type": "string", "description": "Instead of all others: a model in AQ_EMBEDDINGS_DIR."},
        },
    },
)


def missing_label_field() -> RuleField:
    """Return the field for the label that means unlabelled."""
    return RuleField(
        label_fields.missing_label(),
        "A label of `y` that means unlabelled, such as `nan` or -1. Without it, a label that looks like a missing one "
        "and is not a class yet is refused: blank text, `nan`, `NaN`, `None`, `null`, `<NA>`, `N/A`, and -1 if no "
        "other class is negative. null = these are classes, except blank text. With the target `number` no number is "
        "refused.",
        allow_none=True,
    )


def columns_field(more: str) -> RuleField:
    """Return the field for the columns of a table."""
    return RuleField(fields.columns(), "What the columns of a table in X or X_test are." + more)


class ConfigQuerySchema(BaseSchema):
    """The fields beside a body that is a table."""

    config = RuleField(
        fields.json_text(),
        "A JSON object with the other fields of the request, the same as the part `config` of a form; only with a body "
        "of CSV or JSON lines.",
    )


def samples(data: Mapping[str, Any], staging: Staging, limits: Limits) -> Samples | None:
    """Return the samples of a request, None without any. Raises InvalidRequest."""
    if {"X", "texts"} <= data.keys():
        raise InvalidRequest.at("/texts", "must be omitted with X: the features are made of one or the other")
    if "texts" in data:
        return TextUpload(data["texts"], limits.cells, limits.embeddings)
    return staged("X", data["X"], staging, limits) if "X" in data else None


def text_parameters(data: Mapping[str, Any], limits: Limits) -> Parameters | None:
    """Return the parameters of the texts of a request, None without texts. Raises InvalidRequest."""
    try:
        return resolve_text(data.get("text", {}), limits.embeddings) if "texts" in data else None
    except InvalidRequest as error:
        raise error.with_prefix("/text") from None


def labels_of(name: str, data: Mapping[str, Any]) -> EncodedLabels:
    """Return the labels of a request, those that are its missing label as unlabelled. Raises InvalidRequest."""
    sent: EncodedLabels | IndicatorLabels = data[name]
    labels = named_by_classes(name, sent, data.get("classes")) if isinstance(sent, IndicatorLabels) else sent
    missing = data.get("missing_label")
    if missing is None or not len(labels.values):
        return labels
    is_number = isinstance(missing, int | float) and not isinstance(missing, bool)
    if isinstance(labels.values, np.ndarray) and is_number:
        return labels.without(missing)
    if isinstance(missing, float) and missing.is_integer():
        missing = int(missing)
    if type(missing) is not type(labels.values[0]):
        raise InvalidRequest.at(
            "/missing_label", f"is {type_name(missing)}, but each label of {name} is {type_name(labels.values[0])}"
        )
    return labels.without(missing)


def named_by_classes(name: str, labels: IndicatorLabels, classes: Sequence[Label] | None) -> EncodedLabels:
    """Return the labels of an indicator matrix, whose columns are these classes. Raises InvalidRequest."""
    if classes is None:
        problem = "is an indicator matrix, which takes 'classes' with the class of each column"
        raise InvalidRequest.at(f"/{name}", f"{problem}; or send lists of classes")
    return name_columns(name, labels, classes)


def missing_is_class(data: Mapping[str, Any]) -> bool:
    """Return whether a request takes the spellings of a missing label as classes."""
    return "missing_label" in data and data["missing_label"] is None


def staged(name: str, matrix: StagedRows | NDArray[np.float64], staging: Staging, limits: Limits) -> StagedRows:
    """Return a matrix as staged rows; one that came as JSON is written now. Raises InvalidRequest."""
    if isinstance(matrix, StagedRows):
        return matrix
    check_cells(f"/{name}", matrix.shape, limits.cells)
    return replace(staging.rows(matrix), missing=first_missing_in_rows(matrix, f"/{name}", 0))
