"""The rules of labels: lists, columns, and the records of POST /label."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
from marshmallow import ValidationError
from numpy.typing import NDArray

from service.domain.label_sets import IndicatorLabels
from service.domain.labels import (
    INT64_MAX,
    INT64_MIN,
    LARGEST_NUMBER,
    MAX_LABEL_LENGTH,
    EncodedLabels,
    Label,
    is_blank,
    wrong_label,
    wrong_number,
)
from service.domain.parameters import unknown_name
from service.domain.project import MAX_CLASSES, quote_label, type_name
from service.errors import MAX_ERRORS
from service.http.schemas.base import JsonSchema, Rule, named
from service.http.schemas.fields import (
    boolean,
    first_few,
    integer,
    pattern,
    refuse_broken_text,
    sample_id,
    text,
)
from service.http.schemas.label_sets import ClassLists, encode_class_lists, encode_indicators, encode_sparse_indicators
from service.store.staging import StagedRows
from service.usecases.label import MAX_ANNOTATORS, SubmittedLabel

MAX_RECORDS = 100_000
LABEL_MISSING = "must be a label: every row of the held-out set needs one"

CLASS_TYPES: list[JsonSchema] = [
    {"type": "string", "minLength": 1, "maxLength": MAX_LABEL_LENGTH},
    {"type": "integer", "minimum": INT64_MIN, "maximum": INT64_MAX},
    {"type": "boolean"},
]
LABEL = named(
    "LabelValue",
    "A string of 1 to 256 characters, a 64-bit integer or a boolean; one type per project. In a project with the "
    "target `number`, a number; with the target `labels`, a list of such classes, which may be empty.",
    {
        "anyOf": [
            *CLASS_TYPES,
            {"type": "number", "minimum": -LARGEST_NUMBER, "maximum": LARGEST_NUMBER},
            *({"type": "array", "items": each, "uniqueItems": True, "maxItems": MAX_CLASSES} for each in CLASS_TYPES),
        ],
    },
)
LABEL_OR_NULL: JsonSchema = {"anyOf": [LABEL, {"type": "null"}]}


def label_list(*, unlabeled: bool, lists: bool = True) -> Rule:
    """A list of labels of one type -> EncodedLabels (n,); null means unlabelled if that is allowed.

    Labels may be lists of classes if `lists`, and an array (n, c) becomes IndicatorLabels.

    Numbers are of one type if one of them is no integer; whether they can be labels depends on the target.

    Blank text may then be unlabelled too: it is refused where the request's `missing_label` is known.
    """

    def read(value: Any) -> EncodedLabels | IndicatorLabels:
        if isinstance(value, StagedRows):
            return encode_sparse_indicators(value)
        if not isinstance(value, list | np.ndarray) or not len(value):
            raise ValidationError("must be a non-empty list of labels")
        null_is = None if unlabeled else LABEL_MISSING
        if isinstance(value, np.ndarray):
            if value.ndim == 2:
                return encode_indicators(value, nan_is=null_is)
            return encode_column(value, unlabeled=unlabeled)
        if lists and isinstance(next((label for label in value if label is not None), None), list):
            return encode_class_lists(value, null_is=null_is)
        has_fractions = any(type(label) is float for label in value)
        find_wrong = wrong_numbers if has_fractions else wrong_labels
        wrong = first_few(find_wrong(value, unlabeled=unlabeled))
        if wrong:
            raise ValidationError(wrong)
        if not has_fractions:
            return EncodedLabels.encode(value)
        float_rows = islice((row for row, label in enumerate(value) if type(label) is float), MAX_ERRORS + 1)
        return replace(EncodedLabels.of_numbers(np.array(value, np.float64)), float_rows=tuple(float_rows))

    return Rule(read, {"type": "array", "minItems": 1, "items": LABEL_OR_NULL if unlabeled else LABEL})


def wrong_labels(values: list[Any], *, unlabeled: bool) -> Iterable[tuple[int, str]]:
    """Yield the values that are not labels, or of another type than the first."""

    def problem_of(value: Any) -> str | None:
        return None if unlabeled and is_blank(value) else wrong_label(value)

    first: Any = next((value for value in values if value is not None), None)
    # Each distinct value is checked once: a million labels have few classes.
    checked: dict[tuple[type, Any], str | None] = {}
    for position, value in enumerate(values):
        if value is None:
            if not unlabeled:
                yield position, LABEL_MISSING
            continue
        if isinstance(value, list | dict | float):
            yield position, wrong_label(value) or ""
            continue
        key = (type(value), value)
        if key not in checked:
            checked[key] = problem_of(value)
            if checked[key] is None and type(value) is not type(first) and problem_of(first) is None:
                checked[key] = f"is {type_name(value)}, but the first label is {type_name(first)}"
        if checked[key]:
            yield position, checked[key] or ""


def wrong_numbers(values: list[Any], *, unlabeled: bool) -> Iterable[tuple[int, str]]:
    """Yield the values that are not numbers."""
    for position, value in enumerate(values):
        if value is None and not unlabeled:
            yield position, LABEL_MISSING
        elif value is not None and (problem := wrong_number(value)):
            yield position, f"{problem}, as the other labels"


def class_list() -> Rule:
    """A list of distinct labels of one type -> list."""
    labels = label_list(unlabeled=False, lists=False)

    def read(value: Any) -> list[Label]:
        encoded: EncodedLabels = labels.read(value)
        if len(encoded.codes) > MAX_CLASSES:
            raise ValidationError(f"has {len(encoded.codes)} classes; at most {MAX_CLASSES} are allowed")
        if encoded.are_numbers:
            raise ValidationError("must be a list of strings, integers or booleans: other numbers are not classes")
        seen: set[int] = set()
        repeated = []
        for position, code in enumerate(encoded.codes.tolist()):
            if code in seen:
                repeated.append((position, f"{quote_label(encoded.values[code])} is listed twice"))
            seen.add(code)
        if repeated:
            raise ValidationError(first_few(repeated))
        return list(encoded.values)

    return Rule(read, {**labels.schema, "uniqueItems": True, "maxItems": MAX_CLASSES})


def encode_column(column: NDArray[Any], *, unlabeled: bool) -> EncodedLabels:
    """Encode a column of .npy; NaN means unlabelled if that is allowed, and blank text may."""
    given = given_in_column(column)
    if column.dtype.kind == "f" and not are_whole(column[given]):
        return encode_numbers(column.astype(np.float64), given)
    if not unlabeled and not given.all():
        raise ValidationError(first_few((at, LABEL_MISSING) for at in np.flatnonzero(~given).tolist()))
    found, inverse = np.unique(column[given], return_inverse=True)
    values: list[Label] = [int(value) for value in found] if found.dtype.kind == "f" else found.tolist()
    codes = np.full(len(column), -1, np.int32)
    codes[given] = inverse
    wrong = {
        code: LABEL_MISSING if is_blank(value) else problem
        for code, value in enumerate(values)
        if not (unlabeled and is_blank(value)) and (problem := wrong_label(value))
    }
    if wrong:
        at = np.flatnonzero(np.isin(codes, list(wrong))).tolist()
        raise ValidationError(first_few((position, wrong[int(codes[position])]) for position in at))
    return EncodedLabels(tuple(values), codes)


def are_whole(numbers: NDArray[np.floating[Any]]) -> bool:
    """Return whether all numbers are whole, and fit 64 bits."""
    wide = numbers.astype(np.float64, copy=False)  # float16 cannot represent the limits of int64
    return bool(((np.abs(wide) < 2.0**63) & (wide == np.floor(wide))).all())


def encode_numbers(numbers: NDArray[np.float64], given: NDArray[np.bool_]) -> EncodedLabels:
    """Encode a column of numbers, of which NaN means unlabelled."""
    wrong = np.flatnonzero(given & ~(np.abs(numbers) <= LARGEST_NUMBER)).tolist()
    if wrong:
        raise ValidationError(first_few((at, f"{wrong_number(np.inf)}, or NaN for unlabelled") for at in wrong))
    fractions = np.flatnonzero(given & (numbers != np.floor(numbers)))[: MAX_ERRORS + 1]
    return replace(EncodedLabels.of_numbers(numbers), float_rows=tuple(fractions.tolist()))


def given_in_column(column: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which rows of a column have a label. Raises ValidationError for a wrong dtype."""
    kind = column.dtype.kind
    if kind == "U":
        refuse_broken_text(column)
    if kind in "Uiub":
        return np.ones(len(column), np.bool_)
    if kind != "f":
        raise ValidationError(f"has dtype {column.dtype}; send numbers, booleans or fixed-width text")
    given: NDArray[np.bool_] = ~np.isnan(column)
    return given


def new_class_names() -> Rule:
    """An object with the new name of each class, by its text -> dict."""

    def read(value: Any) -> dict[str, Label]:
        if not isinstance(value, dict) or not 1 <= len(value) <= MAX_CLASSES:
            raise ValidationError(f"must be an object with 1 to {MAX_CLASSES} classes and their new names")
        wrong = {old: [problem] for old, new in value.items() if (problem := wrong_label(new))}
        if wrong:
            raise ValidationError(dict(islice(wrong.items(), MAX_ERRORS + 1)))
        return value

    shape = {"type": "object", "minProperties": 1, "maxProperties": MAX_CLASSES, "additionalProperties": LABEL}
    return Rule(read, shape)


def vote_position() -> Rule:
    """An index, or an index and a number of an annotator with a point between them -> both, the annotator's code last.

    An index alone is the position behind all records of its sample.
    """
    digits = r"([0-9]{1,12})(?:\.([0-9]{1,7}))?"

    def read(value: Any) -> tuple[int, int]:
        found = re.fullmatch(digits, str(value))
        if found is None:
            raise ValidationError("must be an index, or `next` of the previous page")
        return int(found[1]), MAX_ANNOTATORS - 1 if found[2] is None else int(found[2]) - 1

    return Rule(read, {"type": "string", "pattern": f"^{digits}$"})


def missing_label() -> Rule:
    """A label, a number or blank text, which means unlabelled, or null."""

    def read(value: Any) -> Label | None:
        label: Label | None = value
        is_list = isinstance(value, list)
        problem = (
            None if value is None or is_blank(value) else (wrong_label if is_list else wrong_answered_label)(value)
        )
        if problem:
            raise ValidationError(problem)
        return label

    return Rule(read, {"type": ["string", "number", "boolean", "null"], "maxLength": MAX_LABEL_LENGTH})


ANNOTATOR = text(1, 256)
QUERY_ID = pattern("[A-Za-z0-9_-]{1,64}")
ANSWER_RULES = {
    "index": integer(0, INT64_MAX),
    "id": sample_id(),
    "label": Rule(lambda value: value, LABEL_OR_NULL),
    "skip": boolean(),
    "annotator": ANNOTATOR,
    "query_id": QUERY_ID,
    "new_class": boolean(),
}
RECORD_DESCRIPTIONS = {
    "index": "The sample's position in the pool.",
    "id": "The sample's id, for a project with ids.",
    "label": "The label; null retracts the label or skip of this annotator, or that without one.",
    "skip": "true = the sample cannot be labelled and is not returned again.",
    "annotator": "The annotator.",
    "query_id": "The query that returned the sample.",
    "new_class": "true = the label may be a new class that looks like another one.",
}
SUBMITTED_LABEL = named(
    "SubmittedLabel",
    "A label, or `skip: true`, of one sample, which is named by either `index` or `id`.",
    {
        "type": "object",
        "properties": {
            name: {**rule.schema, "description": RECORD_DESCRIPTIONS[name]} for name, rule in ANSWER_RULES.items()
        },
        "additionalProperties": False,
        # Conditions: generators of clients would make a type of each alternative of oneOf, anyOf or allOf.
        "if": {"required": ["index"]},
        "then": {"not": {"required": ["id"]}},
        "else": {"required": ["id"]},
        "not": {"not": {"anyOf": [{"required": ["label"]}, {"required": ["skip"]}]}},
    },
)


def answers(minimum: int = 1) -> Rule:
    """A list of records, each a sample by index or by id with its label or a skip -> list of Answer."""

    def read(value: Any) -> list[SubmittedLabel]:
        if not isinstance(value, list) or not minimum <= len(value) <= MAX_RECORDS:
            raise ValidationError(f"must be a list of {minimum} to {MAX_RECORDS} records")
        wrong = first_few((at, problem) for at, record in enumerate(value) if (problem := wrong_answer(record)))
        if not wrong:
            wrong = first_few(mixed_types(value))
        if wrong:
            raise ValidationError(wrong)
        return [
            SubmittedLabel(
                record.get("index"),
                record.get("id"),
                as_label(record.get("label")),
                record.get("annotator"),
                record.get("query_id"),
                record.get("new_class", False),
                is_retraction(record),
            )
            for record in value
        ]

    return Rule(read, {"type": "array", "minItems": minimum, "maxItems": MAX_RECORDS, "items": SUBMITTED_LABEL})


def wrong_answer(record: Any) -> dict[str, Any] | str | None:
    """Return the error of a record, or None."""
    if not isinstance(record, dict):
        return "must be an object with 'index' or 'id', and 'label' or 'skip': true"
    wrong: dict[str, Any] = {}
    for name, value in record.items():
        if name not in ANSWER_RULES:
            wrong[name] = [unknown_name("field of a record", name, ANSWER_RULES)]
            if len(wrong) > MAX_ERRORS:
                break
            continue
        try:
            ANSWER_RULES[name].read(value)
        except ValidationError as error:
            wrong[name] = list(error.messages)
    if record.get("label") is not None and (problem := wrong_answered_label(record["label"])):
        wrong["label"] = problem if isinstance(problem, dict) else [problem]
    if wrong:
        return wrong
    if ("index" in record) == ("id" in record):
        return "must have either 'index' or 'id'"
    if ("label" in record) == bool(record.get("skip", False)):
        return "must have either a 'label' or 'skip': true"
    given = [name for name in ("query_id", "new_class") if name in record] if is_retraction(record) else []
    return {name: ["must be left out with 'label': null"] for name in given} or None


def wrong_answered_label(value: Any) -> str | dict[int, list[str]] | None:
    """Return why a value is no class, number or list of classes, or None."""
    if isinstance(value, list):
        return ClassLists().wrong(value)
    return wrong_number(value) if type(value) is float else wrong_label(value)


def is_retraction(record: Mapping[str, Any]) -> bool:
    """Return whether a record retracts a label."""
    return "label" in record and record["label"] is None


def as_label(value: Any) -> Label | None:
    """Return the label of a record, a list of classes as a sorted tuple."""
    label: Label | None = tuple(sorted(value)) if isinstance(value, list) else value
    return label


def mixed_types(records: list[dict[str, Any]]) -> Iterable[tuple[int, dict[str, list[str]]]]:
    """Yield the labels of another type than the first."""
    first: Any = None
    first_class: Any = None
    for position, record in enumerate(records):
        label = as_label(record.get("label"))
        if first is None:
            first = label
        elif label is not None and type(label) is not type(first) and {type(label), type(first)} != {int, float}:
            yield position, {"label": [f"is {type_name(label)}, but the first label is {type_name(first)}"]}
            continue
        if isinstance(label, tuple) and label:
            first_class = label[0] if first_class is None else first_class
            if type(label[0]) is not type(first_class):
                problem = f"has {type_name(label[0])}, but the first class is {type_name(first_class)}"
                yield position, {"label": [problem]}
