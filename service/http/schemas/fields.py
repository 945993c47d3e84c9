"""The rules of request fields: each converts a JSON value, or raises ValidationError.

A rule comes with the JSON Schema that documents it. marshmallow's own fields are too lenient for a contract (they
accept "1" and true as an integer) and too slow for a million numbers.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Sequence, Set
from itertools import islice
from typing import Any

import numpy as np
import orjson
from marshmallow import ValidationError
from numpy.typing import NDArray

from service.domain.columns import ROLES, Columns
from service.domain.labels import INT64_MAX, INT64_MIN, MAX_LABEL_LENGTH
from service.domain.parameters import Parameter, unknown_name
from service.domain.sample_ids import SampleId, type_of_ids, wrong_id
from service.errors import MAX_ERRORS
from service.http.body.limits import MAX_URL_LENGTH
from service.http.schemas.base import JsonSchema, Rule, named
from service.learning.pool import StagedMatrix
from service.learning.texts import MAX_TEXT_LENGTH
from service.usecases.samples import SAMPLES_OF_STATUS

MAX_MEMBERS = 100

URL = r"(https?://[^\s\\]|/(?!/)|[?#]|[^\s:/?#\\]+([/?#]|$))[^\s\\]*"
"""An address of http or https, or a relative one. A browser would run those of other schemes, such as javascript."""

NUMBERS: Set[type] = {int, float}
"""Types of the cells of a matrix."""

NUMBER: JsonSchema = {"type": "number"}

COLUMN_DESCRIPTIONS = {
    "features": "The columns of numbers and booleans that are features; by default all that have no other role.",
    "id": "The column of ids, the same as `ids`.",
    "label": "The column of labels, the same as `y`, or `y_test` in X_test.",
    "text": "The column of texts, the same as `texts`, or texts in X_test. Columns of numbers are then left out.",
    "url": "The column of addresses, the same as `urls`.",
}


def integer(minimum: int, maximum: int) -> Rule:
    """An integer in a range, but not 1.0 or true."""
    must = f"must be an integer from {minimum} " + ("up" if maximum == INT64_MAX else f"to {maximum}")

    def read(value: Any) -> int:
        if type(value) is not int or not minimum <= value <= maximum:
            raise ValidationError(must)
        return value

    return Rule(read, {"type": "integer", "minimum": minimum, "maximum": maximum})


def number(minimum: float, maximum: float) -> Rule:
    """A number in a range."""

    def read(value: Any) -> float:
        if type(value) not in (int, float) or not minimum <= value <= maximum:
            raise ValidationError(f"must be a number from {minimum:g} to {maximum:g}")
        return float(value)

    return Rule(read, {"type": "number", "minimum": minimum, "maximum": maximum})


def integer_text(minimum: int, maximum: int) -> Rule:
    """An integer in a range, written in a URL."""
    number = integer(minimum, maximum)

    def read(value: Any) -> Any:
        return number.read(int(value) if re.fullmatch(r"[0-9]{1,18}", str(value)) else value)

    return Rule(read, number.schema)


def boolean() -> Rule:
    """True or false."""

    def read(value: Any) -> bool:
        if not isinstance(value, bool):
            raise ValidationError("must be true or false")
        return value

    return Rule(read, {"type": "boolean"})


def text(minimum: int, maximum: int) -> Rule:
    """A string with a length in a range."""

    def read(value: Any) -> str:
        if not isinstance(value, str) or not minimum <= len(value) <= maximum:
            raise ValidationError(f"must be a string of {minimum} to {maximum} characters")
        return value

    return Rule(read, {"type": "string", "minLength": minimum, "maxLength": maximum})


def pattern(expression: str) -> Rule:
    """A string that matches a regular expression completely."""
    matches = re.compile(expression).fullmatch

    def read(value: Any) -> str:
        if not isinstance(value, str) or not matches(value):
            raise ValidationError(f"must be a string that matches ^{expression}$")
        return value

    return Rule(read, {"type": "string", "pattern": f"^{expression}$"})


def one_of(*choices: str) -> Rule:
    """One of a few strings."""

    def read(value: Any) -> str:
        if not isinstance(value, str) or value not in choices:
            raise ValidationError("must be " + " or ".join(repr(choice) for choice in choices))
        return value

    return Rule(read, {"type": "string", "enum": list(choices)})


def names_of(schema: JsonSchema, *choices: str) -> Rule:
    """A list of names out of a few, which `schema` describes -> tuple without repetitions."""

    def read(value: Any) -> tuple[str, ...]:
        if not isinstance(value, list) or len(value) > len(choices):
            raise ValidationError("must be a list of " + " and ".join(map(repr, choices)))
        wrong = first_few(
            (at, unknown_name("thing to include", str(name), choices))
            for at, name in enumerate(value)
            if not isinstance(name, str) or name not in choices
        )
        if wrong:
            raise ValidationError(wrong)
        return tuple(dict.fromkeys(value))

    return Rule(read, {"type": "array", "maxItems": len(choices), "items": schema})


def parameter_schema(parameter: Parameter) -> JsonSchema:
    """Return the JSON Schema of a declared parameter that is a boolean, an integer or a choice."""
    schema: JsonSchema = {"description": parameter.summary, "default": parameter.default}
    if parameter.kind == "choice":
        title = parameter.name.title().replace("_", "")
        return {**schema, **named(title, parameter.summary, {"type": "string", "enum": list(parameter.choices)})}
    limits = {"minimum": parameter.minimum, "maximum": parameter.maximum}
    return {**schema, "type": parameter.kind, **{name: at for name, at in limits.items() if at is not None}}


def json_object() -> Rule:
    """An object whose members are checked later against declared parameters."""

    def read(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise ValidationError("must be an object")
        if len(value) > MAX_MEMBERS:  # each unknown name is later compared with all known ones
            raise ValidationError(f"has {len(value)} members; at most {MAX_MEMBERS} are allowed")
        return value

    return Rule(read, {"type": "object", "additionalProperties": True})


def json_text() -> Rule:
    """A JSON object, written as text -> dict."""

    def read(value: Any) -> dict[str, Any]:
        try:
            found = orjson.loads(value)
        except orjson.JSONDecodeError as error:
            raise ValidationError(f"is not JSON: {error}") from None
        if not isinstance(found, dict):
            raise ValidationError("must be a JSON object")
        return found

    return Rule(read, {"type": "string"})


def estimator() -> Rule:
    """An estimator's name, or an object with name and parameters; whether it exists is checked later."""
    parameters = json_object()

    def read(value: Any) -> str | dict[str, Any]:
        if isinstance(value, str):
            return value
        if not isinstance(value, dict) or not isinstance(value.get("name"), str):
            raise ValidationError("must be the name of an estimator, or an object with 'name' and 'params'")
        known = "name", "params"
        unknown = [key for key in value if key not in known][: MAX_ERRORS + 1]
        if unknown:
            raise ValidationError({key: [unknown_name("field here", key, known)] for key in unknown})
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
            (position, "must be an index: an integer from 0 up")
            for position, item in enumerate(value)
            if type(item) is not int or not 0 <= item <= INT64_MAX
        )
        raise ValidationError(first_few(wrong))

    return Rule(read, {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": INT64_MAX}})


def first_few(wrong: Iterable[tuple[int, Any]]) -> dict[Any, Any]:
    """Return the first errors by position, one more than a reply lists: there may be millions."""
    messages: dict[Any, Any] = {}
    for position, problem in wrong:
        messages[position] = problem if isinstance(problem, dict) else [problem]
        if len(messages) > MAX_ERRORS:
            break
    return messages


def features(*, nullable: bool = False) -> Rule:
    """A matrix that may hold booleans, which count as 0 and 1, and if `nullable` null, which becomes NaN."""
    text = "A number, or a boolean that counts as 0 or 1"
    if nullable:
        cell = named("FeatureValueOrNull", f"{text}; null is a missing value.", {"type": ["number", "boolean", "null"]})
        return without_texts(matrix({int, float, bool, type(None)}, cell))
    cell = named("FeatureValue", f"{text}.", {"type": ["number", "boolean"]})
    return without_texts(matrix({int, float, bool}, cell))


def without_texts(rule: Rule) -> Rule:
    """A matrix, with an error of its own for a list of texts."""

    def read(value: Any) -> Any:
        if isinstance(value, list) and value and isinstance(value[0], str):
            raise ValidationError("is a list of texts, which are sent as 'texts'")
        return rule.read(value)

    return Rule(read, rule.schema)


def samples() -> Rule:
    """Features, in JSON also as objects, which are turned to a table before they are read."""
    rule = features(nullable=True)
    record = named(
        "SampleRecord", "A sample as an object: its columns by name.", {"type": "object", "additionalProperties": True}
    )
    return rule.documented(items={"anyOf": [rule.schema["items"], record]})


def features_or_texts() -> Rule:
    """Samples as above, or a list of texts -> list."""
    rows, strings = samples(), texts()

    def read(value: Any) -> Any:
        is_text = isinstance(value, np.ndarray) or (isinstance(value, list) and value and isinstance(value[0], str))
        return (strings if is_text else rows).read(value)

    # One list: generators of clients fail at a choice between lists.
    kinds = [*rows.schema["items"]["anyOf"], strings.schema["items"]]
    return Rule(read, {**rows.schema, "items": {"anyOf": kinds}})


def matrix(types: Set[type] = NUMBERS, cell: JsonSchema = NUMBER) -> Rule:
    """A list of rows of finite numbers, all of one length -> float64 (n, d); or a staged matrix."""

    def read(value: Any) -> NDArray[np.float64] | StagedMatrix:
        if isinstance(value, StagedMatrix):
            return value
        if not isinstance(value, list) or not value:
            raise ValidationError("must be a non-empty list of rows, each a list of numbers")
        wrong = first_few(wrong_rows(value, types))
        if wrong:
            raise ValidationError(wrong)
        # With a dtype, numpy accepts "2" and true as numbers, but wrong_rows has found only `types`.
        return np.array(value, np.float64)

    row = {"type": "array", "minItems": 1, "items": cell}
    return Rule(read, {"type": "array", "minItems": 1, "items": row})


def members() -> Rule:
    """A list of matrices of one shape -> float64 (m, n, c); or a staged array."""
    of_member = matrix()

    def read(value: Any) -> NDArray[np.float64] | StagedMatrix:
        if isinstance(value, StagedMatrix):
            return value
        if not isinstance(value, list) or not value:
            raise ValidationError("must be a non-empty list of matrices, one for each member")
        matrices: list[NDArray[np.float64]] = []
        for number, rows in enumerate(value):
            try:
                matrices.append(of_member.read(rows))
            except ValidationError as error:
                raise ValidationError({number: error.messages}) from None
            if matrices[-1].shape != matrices[0].shape:
                shapes = [" x ".join(map(str, matrices[which].shape)) for which in (-1, 0)]
                raise ValidationError({number: [f"is {shapes[0]}, but member 0 is {shapes[1]}"]})
        return np.stack(matrices)

    return Rule(read, {"type": "array", "minItems": 1, "items": of_member.schema})


def wrong_rows(rows: list[Any], types: Set[type]) -> Iterable[tuple[int, Any]]:
    """Yield the rows that are not lists of as many numbers as the first. Numbers in JSON are finite."""
    first = next((position for position, row in enumerate(rows) if isinstance(row, list) and row), 0)
    width = len(rows[first]) if isinstance(rows[first], list) else 0
    for position, row in enumerate(rows):
        if not isinstance(row, list) or not row:
            yield position, "must be a non-empty list of numbers"
        elif len(row) != width:
            yield position, f"has {len(row)} numbers, but row {first} has {width}"
        elif not set(map(type, row)) <= types:
            yield (
                position,
                first_few((at, "must be a finite number") for at, v in enumerate(row) if type(v) not in types),
            )


def refuse_broken_text(column: NDArray[Any]) -> None:
    """Raise ValidationError for a column of fixed-width text that is not valid Unicode."""
    # Checked as numbers: CPython raises SystemError for a number that is not a character.
    points = column.view(f"{column.dtype.byteorder}u4")
    if (points > sys.maxunicode).any() or ((points >= 0xD800) & (points <= 0xDFFF)).any():
        raise ValidationError("has text that is not valid Unicode")


SAMPLE_STATUS = one_of(*SAMPLES_OF_STATUS).named(
    "SampleStatus", "Whether a sample has a label, was skipped or was removed."
)
SAMPLE_ID = named(
    "SampleId",
    "A string of 1 to 256 characters or a 64-bit integer; one type per project.",
    {
        "oneOf": [
            {"type": "string", "minLength": 1, "maxLength": MAX_LABEL_LENGTH},
            {"type": "integer", "minimum": INT64_MIN, "maximum": INT64_MAX},
        ]
    },
)
SAMPLE_ID_OR_NULL: JsonSchema = {"anyOf": [SAMPLE_ID, {"type": "null"}]}


def sample_id() -> Rule:
    """The id of a sample."""

    def read(value: Any) -> SampleId:
        if problem := wrong_id(value):
            raise ValidationError(problem)
        found: SampleId = value
        return found

    return Rule(read, SAMPLE_ID)


def sample_ids() -> Rule:
    """A list of unique strings or unique integers -> list; or a column of fixed-width text or integers."""

    def read(value: Any) -> list[SampleId]:
        if isinstance(value, np.ndarray):
            if value.dtype.kind not in "Uiu":
                raise ValidationError(f"has dtype {value.dtype}; send integers or fixed-width text")
            if value.dtype.kind == "U":
                refuse_broken_text(value)
            value = value.tolist()
        if not isinstance(value, list) or not value:
            raise ValidationError("must be a non-empty list of ids")
        if wrong := first_few(wrong_ids(value)):
            raise ValidationError(wrong)
        if len(set(value)) < len(value):
            raise ValidationError(first_few(repeated_names(value, "ids")))
        return value

    return Rule(read, {"type": "array", "minItems": 1, "uniqueItems": True, "items": SAMPLE_ID})


def id_list() -> Rule:
    """A list of ids of samples, which may be empty -> list."""

    def read(value: Any) -> list[SampleId]:
        if not isinstance(value, list):
            raise ValidationError("must be a list of ids")
        if wrong := first_few(wrong_ids(value)):
            raise ValidationError(wrong)
        return value

    return Rule(read, {"type": "array", "items": SAMPLE_ID})


def wrong_ids(values: list[Any]) -> Iterable[tuple[int, str]]:
    """Yield the values that are not ids, or of another type than the first."""
    first: Any = next(iter(values), None)
    for at, value in enumerate(values):
        if problem := wrong_id(value):
            yield at, problem
        elif type(value) is not type(first) and not wrong_id(first):
            yield at, f"is {type_of_ids(value)}, but the first id is {type_of_ids(first)}"


def texts() -> Rule:
    """A list of texts -> list; or a column of fixed-width text."""
    return text_list(text_problem, {"type": "string", "maxLength": MAX_TEXT_LENGTH})


def text_problem(text: str) -> str | None:
    """Return why a string is not a text, or None."""
    if len(text) > MAX_TEXT_LENGTH:
        return f"has {len(text)} characters; at most {MAX_TEXT_LENGTH} are allowed"
    return None


def urls() -> Rule:
    """A list of addresses -> list; or a column of fixed-width text."""
    return text_list(url_problem, {"type": "string", "pattern": f"^{URL}$", "maxLength": MAX_URL_LENGTH})


def url_problem(url: str) -> str | None:
    """Return why a string is not an address that a browser can open without running code, or None."""
    if not 1 <= len(url) <= MAX_URL_LENGTH:
        return f"must be 1 to {MAX_URL_LENGTH} characters long"
    if not re.fullmatch(URL, url) or not url.isprintable():
        return "must be an address that starts with http:// or https://, or a relative one, without blanks"
    return None


def text_list(problem_of: Callable[[str], str | None], schema: JsonSchema) -> Rule:
    """A list of strings without a problem -> list; or a column of fixed-width text."""

    def read(value: Any) -> list[str]:
        if isinstance(value, np.ndarray) and value.dtype.kind == "U":
            refuse_broken_text(value)
            value = value.tolist()
        if not isinstance(value, list) or not value:
            raise ValidationError("must be a non-empty list of strings")
        wrong = first_few(
            (at, problem)
            for at, text in enumerate(value)
            if (problem := problem_of(text) if isinstance(text, str) else "must be a string")
        )
        if wrong:
            raise ValidationError(wrong)
        return value

    return Rule(read, {"type": "array", "minItems": 1, "items": schema})


def feature_names() -> Rule:
    """A list of unique strings -> list."""
    return unique_names("names")


def columns() -> Rule:
    """An object that names the columns of a table by their roles -> Columns."""
    names, name = feature_names(), text(1, MAX_LABEL_LENGTH)
    rules = {"features": names, **dict.fromkeys(ROLES, name)}

    def read(value: Any) -> Columns:
        if not isinstance(value, dict):
            raise ValidationError("must be an object such as " + '{"features": [names], "id": name, "label": name}')
        wrong: dict[str, Any] = {}
        for role, given in value.items():
            try:
                if role not in rules:
                    raise ValidationError(unknown_name("field here", role, rules))
                rules[role].read(given)
            except ValidationError as error:
                wrong[role] = error.messages
        if wrong:
            raise ValidationError(dict(islice(wrong.items(), MAX_ERRORS + 1)))
        found = Columns(**{**value, "features": tuple(value["features"])} if "features" in value else value)
        if found.text is not None and found.features is not None:
            raise ValidationError({"features": ["must be omitted with 'text': the features are made of the texts"]})
        if repeated := repeated_roles(found):
            raise ValidationError(repeated)
        return found

    properties = {role: {**rule.schema, "description": COLUMN_DESCRIPTIONS[role]} for role, rule in rules.items()}
    rule = Rule(read, {"type": "object", "properties": properties, "additionalProperties": False})
    return rule.named("TableColumns", "What the columns of a table are, by their names.")


def repeated_roles(columns: Columns) -> dict[str, list[str]]:
    """Return an error for each role whose column has another role, too."""
    roles: dict[str, str] = dict.fromkeys(columns.features or (), "features")
    wrong = {}
    for role, name in columns.named.items():
        if roles.setdefault(name, role) != role:
            wrong[role] = [f"{name!r} is named in {roles[name]!r}, too"]
    return wrong


def unique_names(what: str) -> Rule:
    """A list of unique strings -> list; `what` names them in errors."""

    def read(value: Any) -> list[str]:
        if not isinstance(value, list) or not value:
            raise ValidationError("must be a non-empty list of strings")
        wrong = first_few(
            (at, f"must be a string of 1 to {MAX_LABEL_LENGTH} characters")
            for at, name in enumerate(value)
            if not isinstance(name, str) or not 1 <= len(name) <= MAX_LABEL_LENGTH
        )
        if wrong:
            raise ValidationError(wrong)
        if len(set(value)) < len(value):
            raise ValidationError(first_few(repeated_names(value, what)))
        return value

    items = {"type": "string", "minLength": 1, "maxLength": MAX_LABEL_LENGTH}
    return Rule(read, {"type": "array", "minItems": 1, "uniqueItems": True, "items": items})


def repeated_names(names: Sequence[SampleId], what: str) -> Iterable[tuple[int, str]]:
    """Yield the names that occur earlier in the list."""
    first: dict[SampleId, int] = {}
    for position, name in enumerate(names):
        if first.setdefault(name, position) != position:
            yield position, f"is the same as entry {first[name]}; {what} must be unique"
