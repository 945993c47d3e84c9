"""The schemas of GET /projects/{project_id}/predictions."""

from __future__ import annotations

from typing import Any

from marshmallow import ValidationError

from service.domain.labels import INT64_MAX
from service.http.schemas.base import BaseSchema, RawField, Rule, RuleField
from service.http.schemas.common import safe_field
from service.http.schemas.fields import SAMPLE_ID_OR_NULL, integer_text, one_of
from service.http.schemas.label_fields import LABEL, LABEL_OR_NULL
from service.http.schemas.responses import count, listed, many, optional, or_null

MAX_PREDICTIONS = 10_000
"""Predictions on one page of JSON."""

MAX_INDICES = 1_000
"""Indices that a query string may name."""


def share_text() -> Rule:
    """A number from 0 to 1 in a URL -> float."""

    def read(value: Any) -> float:
        try:
            share = float(value)
        except ValueError:
            share = -1.0
        if not 0.0 <= share <= 1.0:
            raise ValidationError("must be a number from 0 to 1")
        return share

    return Rule(read, {"type": "number", "minimum": 0, "maximum": 1})


def index_list_text() -> Rule:
    """Indices in a URL, separated by commas -> list."""
    index = integer_text(0, INT64_MAX)

    def read(value: Any) -> list[int]:
        parts = str(value).split(",")
        if len(parts) > MAX_INDICES:
            raise ValidationError(f"must name at most {MAX_INDICES} samples")
        try:
            return [index.read(part) for part in parts]
        except ValidationError:
            raise ValidationError("must be indices separated by commas, such as 0,5,7") from None

    return Rule(read, {"type": "string", "pattern": "^[0-9]+(,[0-9]+)*$"})


def switch_text() -> Rule:
    """`true` or `false` in a URL -> bool."""
    word = one_of("true", "false")
    return Rule(lambda value: word.read(value) == "true", {"type": "boolean"})


class PredictionQuerySchema(BaseSchema):
    """Which predictions are wanted."""

    indices = RuleField(index_list_text(), "Only these samples, separated by commas; default: all samples.")
    min_confidence = RuleField(share_text(), "Only predictions of at least this confidence.", load_default=0.0)
    unlabeled_only = RuleField(switch_text(), "Only samples without a label or skip.", load_default=False)
    probabilities = RuleField(switch_text(), "Add the probability of each class.", load_default=False)
    limit = RuleField(
        integer_text(1, MAX_PREDICTIONS),
        "Largest number of predictions in the reply. Default: 1,000 in JSON, all of them in other formats.",
    )
    safe = safe_field()
    after = RuleField(integer_text(0, INT64_MAX), "The last index of the page before.")


class PredictionSchema(BaseSchema):
    """The prediction for one sample."""

    index = count("The sample's position in the pool.")
    id = RawField(SAMPLE_ID_OR_NULL, "Its id; null without ids.")
    label = RawField(
        LABEL_OR_NULL,
        "The most probable class, the list of predicted classes or the predicted number; null without a finite one.",
    )
    confidence = RawField(
        or_null("number"),
        "The probability of that class, by the model; of a list, of the least sure decision. Null for numbers.",
    )
    probabilities = optional(
        RawField(many({"type": ["number", "null"]}), "The probability of each of `classes`, if they are asked for.")
    )


class PredictionPageSchema(BaseSchema):
    """Predictions of the current model."""

    model_version = count("The model that predicts.")
    classes = RawField(many(LABEL), "The classes, in the order of `probabilities`.")
    predictions = listed(PredictionSchema, "In the order of the pool.")
    next = RawField(or_null("integer"), "Send it as `after` for the next page; null on the last.")
