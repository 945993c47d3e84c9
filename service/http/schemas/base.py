"""The base class of all schemas, and the two kinds of field that its shortcuts know."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from operator import attrgetter
from typing import Any

from marshmallow import RAISE, Schema, ValidationError, fields, missing, pre_load

from service.domain.parameters import unknown_name
from service.errors import MAX_ERRORS

JsonSchema = dict[str, Any]

COMPONENTS: dict[str, JsonSchema] = {}
"""Schemas that the contract names, beside those of the subclasses of BaseSchema; see `named`."""


def named(name: str, description: str, schema: JsonSchema) -> JsonSchema:
    """Name a schema in the contract, and return a reference to it. Raises ValueError if another one has the name.

    Generators of clients turn each enumeration and each object into a type, whose name is made up unless it has one.
    """
    described = {"description": description, **schema}
    if COMPONENTS.setdefault(name, described) != described:
        raise ValueError(f"{name!r} is the name of another schema")
    return {"$ref": f"#/components/schemas/{name}"}


@dataclass(frozen=True, slots=True)
class Rule:
    """How a value is read, and the JSON Schema that documents it. `read` raises ValidationError."""

    read: Callable[[Any], Any]
    schema: JsonSchema

    def documented(self, **keywords: Any) -> Rule:
        """Return the same rule with more keywords in its schema, for limits that are checked elsewhere."""
        return Rule(self.read, self.schema | keywords)

    def named(self, name: str, description: str) -> Rule:
        """Return the same rule with a schema that the contract names."""
        return Rule(self.read, named(name, description, self.schema))


class RuleField(fields.Field[Any]):
    """A field of a request, read by a rule."""

    default_error_messages = {"required": "is required", "null": "must not be null"}  # noqa: RUF012 - marshmallow's

    def __init__(self, rule: Rule, description: str = "", **options: Any) -> None:
        super().__init__(metadata={"description": description}, **options)
        self.rule = rule

    def read(self, value: Any) -> Any:
        """Return the value read, or raise ValidationError."""
        if value is None:
            if self.allow_none:
                return None
            raise self.make_error("null")
        return self.rule.read(value)

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> Any:
        return self.rule.read(value)


class RawField(fields.Field[Any]):
    """A field of a response whose value is JSON already."""

    def __init__(self, schema: JsonSchema, description: str, **options: Any) -> None:
        super().__init__(required=True, metadata={"description": description}, **options)
        self.schema = schema


class BaseSchema(Schema):
    """A JSON object. Unknown fields of a request are refused.

    `load` reads a valid document by the rules alone, and `dump` takes values that are JSON already as they are.
    marshmallow collects all errors of an invalid document, and dumps lists and nested objects. For a small POST /query
    its own `load` takes 176 µs where this takes 21, and its `dump` of the result 64 µs where this takes 10
    (`python -m tests.benchmarks.schemas`).
    """

    class Meta:
        """Options of marshmallow."""

        unknown = RAISE

    error_messages = {"unknown": "is not a field here", "type": "must be a JSON object"}  # noqa: RUF012 - marshmallow's

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        rules = {name: field for name, field in self.load_fields.items() if isinstance(field, RuleField)}
        self._has_only_rules = len(rules) == len(self.load_fields) and not self._hooks["validates_schema"]
        self._readers = {field.data_key or name: (name, field.read) for name, field in rules.items()}
        self._required = {name for name, field in rules.items() if field.required}
        self._defaults = [(name, field.load_default) for name, field in rules.items()]
        self._getters = [
            (name, attrgetter(field.attribute or name), field, isinstance(field, RawField))
            for name, field in self.dump_fields.items()
        ]

    @pre_load
    def refuse_many_unknown(self, data: Any, **_: Any) -> Any:
        """Refuse a document with too many unknown fields to list, without an error for each."""
        if isinstance(data, dict) and len(data) > len(self.load_fields) + MAX_ERRORS:
            known = {field.data_key or name for name, field in self.load_fields.items()}
            unknown = islice((name for name in data if name not in known), MAX_ERRORS + 1)
            raise ValidationError({name: [self.error_messages["unknown"]] for name in unknown})
        return data

    def handle_error(self, error: ValidationError, data: Any, *, many: bool, **_: Any) -> None:
        """Say for each unknown field which fields are known and which one was probably meant."""
        known = [field.data_key or name for name, field in self.load_fields.items()]
        unknown = [self.error_messages["unknown"]]
        messages = error.messages_dict
        for name in [name for name, errors in messages.items() if errors == unknown]:
            messages[name] = [unknown_name("field here", name, known)]

    def load(self, data: Any, **options: Any) -> Any:
        """Return the values of a document, or raise ValidationError with all of its errors."""
        if self._has_only_rules and type(data) is dict and not options:
            with suppress(KeyError, ValidationError):
                return self._read(data)
        return super().load(data, **options)

    def _read(self, data: dict[str, Any]) -> dict[str, Any]:
        """Read a document, or raise KeyError or ValidationError at its first error."""
        values = {}
        for key, value in data.items():
            name, read = self._readers[key]
            values[name] = read(value)
        if not self._required <= values.keys():
            raise ValidationError("a field is missing")
        for name, default in self._defaults:
            if default is not missing and name not in values:
                values[name] = default() if callable(default) else default
        return values

    def dump(self, obj: Any, *, many: bool | None = None) -> Any:
        """Return an object, or with `many` a list of objects, as JSON values."""
        if many or isinstance(obj, Mapping):
            return super().dump(obj, many=many)
        values = {}
        for name, get, field, is_raw in self._getters:
            try:
                value = get(obj)
            except AttributeError:  # the object has no such part: a project without a model, say
                if not field.required and field.dump_default is missing:
                    continue
                if field.dump_default is missing:
                    raise
                value = field.dump_default
            values[name] = value if is_raw else field._serialize(value, name, obj)
        return values


def nested(schema: type[BaseSchema]) -> Rule:
    """An object of another schema."""
    loader = schema()

    def read(value: Any) -> Any:
        if not isinstance(value, dict):
            raise ValidationError(loader.error_messages["type"])
        return loader.load(value)

    return Rule(read, {})


def list_of(rule: Rule, minimum: int, maximum: int) -> Rule:
    """A list of `minimum` to `maximum` values."""

    def read(value: Any) -> list[Any]:
        if not isinstance(value, list) or not minimum <= len(value) <= maximum:
            raise ValidationError(f"must be a list of {minimum} to {maximum} entries")
        return [read_below(rule, position, entry) for position, entry in enumerate(value)]

    return Rule(read, {"type": "array", "minItems": minimum, "maxItems": maximum, "items": rule.schema})


def map_of(rule: Rule) -> Rule:
    """An object with any names, and values of one kind."""

    def read(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise ValidationError("must be a JSON object")
        return {name: read_below(rule, name, entry) for name, entry in value.items()}

    return Rule(read, {"type": "object", "additionalProperties": rule.schema})


def read_below(rule: Rule, key: int | str, value: Any) -> Any:
    """Return an entry of a list or an object, or raise ValidationError with its position or name."""
    try:
        return rule.read(value)
    except ValidationError as error:
        raise ValidationError({key: error.messages}) from None
