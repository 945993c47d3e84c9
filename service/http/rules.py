"""The rules by which fields of a request are read: each turns what JSON gives into a value, or says what is wrong.

A rule and the JSON Schema that documents it are made together. marshmallow's own fields are too kind for a contract
(they take "1" and true for an integer) and too slow for a million numbers.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from marshmallow import ValidationError, fields
from numpy.typing import NDArray

from service.http.wire import StagedMatrix
from service.parameters import unknown_name
from service.project import MAX_CLASSES, MAX_ERRORS, shown, type_name
from service.usecases.label import Answer
from service.votes import EncodedLabels, Label

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
MAX_LABEL_LENGTH = 256
MAX_RECORDS = 100_000
MAX_MEMBERS = 100

LABEL_MISSING = "must be a label; every row of the held-out set has one"
LATER = "comes with a later version of this service"

JsonSchema = dict[str, Any]

LABEL: JsonSchema = {"$ref": "#/components/schemas/LabelValue"}
LABEL_OR_NULL: JsonSchema = {"anyOf": [LABEL, {"type": "null"}]}
LABEL_SCHEMA: JsonSchema = {
    "description": "A string of 1 to 256 characters, an integer of 64 bits or a boolean; one type per project.",
    "oneOf": [
        {"type": "string", "minLength": 1, "maxLength": MAX_LABEL_LENGTH},
        {"type": "integer", "minimum": INT64_MIN, "maximum": INT64_MAX},
        {"type": "boolean"},
    ],
}


@dataclass(frozen=True, slots=True)
class Rule:
    """How a value is read (ValidationError says what would have been right), and its JSON Schema."""

    read: Callable[[Any], Any]
    schema: JsonSchema

    def documented(self, **keywords: Any) -> Rule:
        """Return the same rule with more said in its schema, where what is taken is decided elsewhere."""
        return Rule(self.read, self.schema | keywords)


class Ruled(fields.Field[Any]):
    """A field of a request that is read by a rule."""

    default_error_messages = {"required": "is required", "null": "must not be null"}  # noqa: RUF012 - marshmallow's

    def __init__(self, rule: Rule, description: str, **options: Any) -> None:
        super().__init__(metadata={"description": description}, **options)
        self.rule = rule

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> Any:
        return self.rule.read(value)


def integer(minimum: int, maximum: int) -> Rule:
    """An integer of a range; neither 1.0 nor true is one."""

    def read(value: Any) -> int:
        if type(value) is not int or not minimum <= value <= maximum:
            raise ValidationError(f"must be an integer from {minimum} to {maximum}")
        return value

    return Rule(read, {"type": "integer", "minimum": minimum, "maximum": maximum})


def integer_text(minimum: int, maximum: int) -> Rule:
    """An integer of a range as it stands in a URL."""

    def read(value: Any) -> int:
        if not re.fullmatch(r"[0-9]{1,18}", str(value)) or not minimum <= int(value) <= maximum:
            raise ValidationError(f"must be an integer from {minimum} to {maximum}")
        return int(value)

    return Rule(read, {"type": "integer", "minimum": minimum, "maximum": maximum})


def boolean() -> Rule:
    """True or false."""

    def read(value: Any) -> bool:
        if not isinstance(value, bool):
            raise ValidationError("must be true or false")
        return value

    return Rule(read, {"type": "boolean"})


def text(minimum: int, maximum: int) -> Rule:
    """A string of some characters."""

    def read(value: Any) -> str:
        if not isinstance(value, str) or not minimum <= len(value) <= maximum:
            raise ValidationError(f"must be a string of {minimum} to {maximum} characters")
        return value

    return Rule(read, {"type": "string", "minLength": minimum, "maxLength": maximum})


def pattern(expression: str) -> Rule:
    """A string that a regular expression matches from end to end."""

    def read(value: Any) -> str:
        if not isinstance(value, str) or not re.fullmatch(expression, value):
            raise ValidationError(f"must be a string that matches {expression}")
        return value

    return Rule(read, {"type": "string", "pattern": f"^{expression}$"})


def one_of(*choices: str, later: tuple[str, ...] = ()) -> Rule:
    """One of some strings; those of `later` are not on offer yet, and are told so."""

    def read(value: Any) -> str:
        if not isinstance(value, str) or value not in choices:
            hint = f"; {value!r} {LATER}" if value in later else ""
            raise ValidationError("must be " + " or ".join(repr(choice) for choice in choices) + hint)
        return value

    return Rule(read, {"type": "string", "enum": list(choices)})


def only(constant: int, why: str) -> Rule:
    """A single integer, as long as there is no choice."""

    def read(value: Any) -> int:
        if type(value) is not int or value != constant:
            raise ValidationError(f"must be {constant}: {why}")
        return value

    return Rule(read, {"type": "integer", "minimum": constant, "maximum": constant})


def json_object() -> Rule:
    """An object whose members are checked later, against what somebody declared."""

    def read(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise ValidationError("must be an object")
        if len(value) > MAX_MEMBERS:  # whoever declared them would look for what was meant by each
            raise ValidationError(f"has {len(value)} members; {MAX_MEMBERS} are allowed")
        return value

    return Rule(read, {"type": "object", "additionalProperties": True})


def estimator() -> Rule:
    """An estimator's name, or an object with its name and parameters; which there are is looked up later."""
    parameters = json_object()

    def read(value: Any) -> str | dict[str, Any]:
        if isinstance(value, str):
            return value
        if not isinstance(value, dict) or not isinstance(value.get("name"), str):
            raise ValidationError("must be an estimator's name, or an object with 'name' and 'params'")
        unknown = [key for key in value if key not in ("name", "params")]
        if unknown:
            raise ValidationError({key: ["is not a field here"] for key in unknown[: MAX_ERRORS + 1]})
        try:
            parameters.read(value.get("params", {}))
        except ValidationError as error:
            raise ValidationError({"params": error.messages}) from None
        return value

    return Rule(read, {})


def indices() -> Rule:
    """A list of indices into the pool -> int64 (n,)."""

    def read(value: Any) -> NDArray[np.int64]:
        if not isinstance(value, list):
            raise ValidationError("must be a list of indices")
        if set(map(type, value)) <= {int} and (not value or (min(value) >= 0 and max(value) <= INT64_MAX)):
            return np.array(value, np.int64)
        wrong = (
            (position, "must be an index, an integer from 0 up")
            for position, item in enumerate(value)
            if type(item) is not int or not 0 <= item <= INT64_MAX
        )
        raise ValidationError(first_few(wrong))

    return Rule(read, {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": INT64_MAX}})


def first_few(wrong: Iterable[tuple[int, Any]]) -> dict[Any, Any]:
    """Collect errors by position, a few more than a reply lists and no more: there may be millions."""
    messages: dict[Any, Any] = {}
    for position, problem in wrong:
        messages[position] = problem if isinstance(problem, dict) else [problem]
        if len(messages) > MAX_ERRORS:
            break
    return messages


def matrix() -> Rule:
    """A list of rows of finite numbers, all of one length -> float64 (n, d); or a matrix that came as .npy."""

    def read(value: Any) -> NDArray[np.float64] | StagedMatrix:
        if isinstance(value, StagedMatrix):
            return value
        if not isinstance(value, list) or not value:
            raise ValidationError("must be a list of rows, each a list of numbers, and not empty")
        wrong = first_few(wrong_rows(value))
        if wrong:
            raise ValidationError(wrong)
        # Told a type, numpy takes "2" and true for numbers; the rows are known to hold int and float alone.
        return np.array(value, np.float64)

    row = {"type": "array", "minItems": 1, "items": {"type": "number"}}
    return Rule(read, {"type": "array", "minItems": 1, "items": row})


def wrong_rows(rows: list[Any]) -> Iterable[tuple[int, Any]]:
    """Find the rows that are not lists of as many numbers as the first. JSON has no other numbers than finite ones."""
    first = next((position for position, row in enumerate(rows) if isinstance(row, list) and row), 0)
    width = len(rows[first]) if isinstance(rows[first], list) else 0
    for position, row in enumerate(rows):
        if not isinstance(row, list) or not row:
            yield position, "must be a list of numbers, and not empty"
        elif len(row) != width:
            yield position, f"has {len(row)} numbers, but row {first} has {width}"
        elif not set(map(type, row)) <= {int, float}:
            yield (
                position,
                first_few((at, "must be a finite number") for at, v in enumerate(row) if type(v) not in (int, float)),
            )


def wrong_label(value: Any) -> str | None:
    """Say why a value is no label, None when it is one."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        return None if 1 <= len(value) <= MAX_LABEL_LENGTH else f"must be 1 to {MAX_LABEL_LENGTH} characters long"
    if isinstance(value, int):
        return None if INT64_MIN <= value <= INT64_MAX else "must fit 64 bits"
    return "must be a label: a string, an integer or a boolean"


def label_list(*, unlabeled: bool) -> Rule:
    """A list of labels of one type -> EncodedLabels (n,); null stands for unlabelled where that is allowed."""

    def read(value: Any) -> EncodedLabels:
        if not isinstance(value, list | np.ndarray) or not len(value):
            raise ValidationError("must be a list of labels, and not empty")
        if isinstance(value, np.ndarray):
            return encode_column(value, unlabeled=unlabeled)
        wrong = first_few(wrong_labels(value, unlabeled=unlabeled))
        if wrong:
            raise ValidationError(wrong)
        return EncodedLabels.encode(value)

    return Rule(read, {"type": "array", "minItems": 1, "items": LABEL_OR_NULL if unlabeled else LABEL})


def wrong_labels(values: list[Any], *, unlabeled: bool) -> Iterable[tuple[int, str]]:
    """Find what is no label, or of another type than the first."""
    first: Any = next((value for value in values if value is not None), None)
    # Checked by distinct value and type: a million labels are a handful of classes.
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
            checked[key] = wrong_label(value)
            if checked[key] is None and type(value) is not type(first) and wrong_label(first) is None:
                checked[key] = f"is {type_name(value)}, but the first label is {type_name(first)}"
        if checked[key]:
            yield position, checked[key] or ""


def class_list() -> Rule:
    """A list of different labels of one type -> list."""
    labels = label_list(unlabeled=False)

    def read(value: Any) -> list[Label]:
        encoded: EncodedLabels = labels.read(value)
        if len(encoded.codes) > MAX_CLASSES:
            raise ValidationError(f"has {len(encoded.codes)} classes; {MAX_CLASSES} are allowed")
        seen: set[int] = set()
        repeated = []
        for position, code in enumerate(encoded.codes.tolist()):
            if code in seen:
                repeated.append((position, f"{shown(encoded.values[code])} is listed twice"))
            seen.add(code)
        if repeated:
            raise ValidationError(first_few(repeated))
        return list(encoded.values)

    return Rule(read, {**labels.schema, "uniqueItems": True, "maxItems": MAX_CLASSES})


def encode_column(column: NDArray[Any], *, unlabeled: bool) -> EncodedLabels:
    """Encode a column that came as .npy; NaN and the empty text stand for unlabelled where that is allowed."""
    given = given_in_column(column)
    if not unlabeled and not given.all():
        raise ValidationError(first_few((at, LABEL_MISSING) for at in np.flatnonzero(~given).tolist()))
    found, inverse = np.unique(column[given], return_inverse=True)
    values: list[Label] = [int(value) for value in found] if found.dtype.kind == "f" else found.tolist()
    codes = np.full(len(column), -1, np.int32)
    codes[given] = inverse
    wrong = {code: problem for code, value in enumerate(values) if (problem := wrong_label(value))}
    if wrong:
        at = np.flatnonzero(np.isin(codes, list(wrong))).tolist()
        raise ValidationError(first_few((position, wrong[int(codes[position])]) for position in at))
    return EncodedLabels(tuple(values), codes)


def given_in_column(column: NDArray[Any]) -> NDArray[np.bool_]:
    """Tell which rows of a column have a label, or raise ValidationError for a column that holds something else."""
    kind = column.dtype.kind
    if kind == "U":
        refuse_broken_text(column)
        return np.asarray(column != "", np.bool_)
    if kind in "iub":
        return np.ones(len(column), np.bool_)
    if kind != "f":
        raise ValidationError(f"holds {column.dtype}; integers, booleans, fixed-width text or whole numbers are taken")
    numbers = column.astype(np.float64, copy=False)  # the limits of 64 bits are beyond float16
    given = ~np.isnan(numbers)
    wrong = np.flatnonzero(given & ~((np.abs(numbers) < 2.0**63) & (numbers == np.floor(numbers)))).tolist()
    if wrong:
        raise ValidationError(first_few((at, "must be a whole number, or NaN for unlabelled") for at in wrong))
    return given


def refuse_broken_text(column: NDArray[Any]) -> None:
    """Raise ValidationError for a column of fixed-width text that UTF-8 cannot hold."""
    # Looked at as numbers: CPython answers one that is no character with a SystemError.
    points = column.view(f"{column.dtype.byteorder}u4")
    if (points > sys.maxunicode).any() or ((points >= 0xD800) & (points <= 0xDFFF)).any():
        raise ValidationError("holds text that is not valid Unicode")


def sample_ids() -> Rule:
    """A list of unique strings -> list; or a column of fixed-width text that came as .npy."""

    def read(value: Any) -> list[str]:
        if isinstance(value, np.ndarray):
            if value.dtype.kind != "U":
                raise ValidationError(f"holds {value.dtype}; fixed-width text is taken")
            refuse_broken_text(value)
            value = value.tolist()
        if not isinstance(value, list) or not value:
            raise ValidationError("must be a list of strings, and not empty")
        wrong = first_few(
            (at, f"must be a string of 1 to {MAX_LABEL_LENGTH} characters")
            for at, name in enumerate(value)
            if not isinstance(name, str) or not 1 <= len(name) <= MAX_LABEL_LENGTH
        )
        if wrong:
            raise ValidationError(wrong)
        if len(set(value)) < len(value):
            raise ValidationError(first_few(repeated_names(value)))
        return value

    items = {"type": "string", "minLength": 1, "maxLength": MAX_LABEL_LENGTH}
    return Rule(read, {"type": "array", "minItems": 1, "uniqueItems": True, "items": items})


def repeated_names(names: list[str]) -> Iterable[tuple[int, str]]:
    """Find the names that stood before."""
    first: dict[str, int] = {}
    for position, name in enumerate(names):
        if first.setdefault(name, position) != position:
            yield position, f"is the same as entry {first[name]}; ids are unique"


ANNOTATOR = text(1, 256)
QUERY_ID = pattern("[A-Za-z0-9_-]{1,64}")
ANSWER_RULES = {
    "index": integer(0, INT64_MAX),
    "id": text(1, MAX_LABEL_LENGTH),
    "label": Rule(lambda value: value, LABEL),
    "skip": boolean(),
    "annotator": ANNOTATOR,
    "query_id": QUERY_ID,
}


def answers() -> Rule:
    """A list of records, each a sample by index or by id with its label or a skip -> list of Answer."""

    def read(value: Any) -> list[Answer]:
        if not isinstance(value, list) or not 1 <= len(value) <= MAX_RECORDS:
            raise ValidationError(f"must be a list of 1 to {MAX_RECORDS} records")
        wrong = first_few((at, problem) for at, record in enumerate(value) if (problem := wrong_answer(record)))
        if not wrong:
            wrong = first_few(mixed_types(value))
        if wrong:
            raise ValidationError(wrong)
        return [
            Answer(
                record.get("index"),
                record.get("id"),
                record.get("label"),
                record.get("annotator"),
                record.get("query_id"),
            )
            for record in value
        ]

    return Rule(read, {"type": "array", "minItems": 1, "maxItems": MAX_RECORDS, "items": answer_schema()})


def wrong_answer(record: Any) -> dict[str, list[str]] | str | None:
    """Say what is wrong with a record, None when nothing is."""
    if not isinstance(record, dict):
        return "must be an object with 'index' or 'id', and 'label' or 'skip': true"
    wrong: dict[str, list[str]] = {}
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
    if "label" in record and (problem := wrong_label(record["label"])):
        wrong["label"] = [problem]
    if wrong:
        return wrong
    if ("index" in record) == ("id" in record):
        return "must name its sample by 'index' or by 'id', and not by both"
    if ("label" in record) == bool(record.get("skip", False)):
        return "must have either a 'label' or 'skip': true"
    return None


def mixed_types(records: list[dict[str, Any]]) -> Iterable[tuple[int, dict[str, list[str]]]]:
    """Find the labels that are of another type than the first."""
    first: Any = None
    for position, record in enumerate(records):
        label = record.get("label")
        if first is None:
            first = label
        elif label is not None and type(label) is not type(first):
            yield position, {"label": [f"is {type_name(label)}, but the first label is {type_name(first)}"]}


def answer_schema() -> JsonSchema:
    """Return the JSON Schema of one record."""
    descriptions = {
        "index": "The sample's position in the pool.",
        "id": "The sample's name, for a project that was made with ids.",
        "skip": "true = it cannot be labelled, never ask again.",
        "annotator": "Who answered.",
        "query_id": "Which query asked.",
    }
    properties = {
        name: {**rule.schema, **({"description": descriptions[name]} if name in descriptions else {})}
        for name, rule in ANSWER_RULES.items()
    }
    named = [{"required": ["index"]}, {"required": ["id"]}]
    told = [
        {"required": ["label"], "properties": {"skip": {"const": False}}},
        {"required": ["skip"], "properties": {"skip": {"const": True}}, "not": {"required": ["label"]}},
    ]
    return {
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        "allOf": [{"oneOf": named}, {"oneOf": told}],
    }
