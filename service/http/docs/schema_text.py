"""JSON schemas described in words, as Markdown."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Json = Any
Schema = Mapping[str, Any]

POWERS = {2**32 - 1: "2³² − 1", 2**63 - 1: "2⁶³ − 1", -(2**63): "−2⁶³"}
"""Numbers that are clearer as powers of two."""


@dataclass(frozen=True, slots=True)
class SchemaText:
    """Describe schemas of a document; those named in `linked` have a section of their own and are linked to."""

    schemas: Mapping[str, Schema]
    linked: frozenset[str]

    def type_of(self, schema: Schema, many: bool = False) -> str:
        """Return the type of a value, in the plural with `many`."""
        plural = "s" if many else ""
        if "$ref" in schema:
            name = name_of(schema)
            linked = f"[{words_of(name)}{plural}](#{anchor_of(name)})"
            return linked if name in self.linked else self.type_of(self.schemas[name], many)
        if alternatives := alternatives_of(schema):
            return any_of([self.type_of(alternative, many) for alternative in alternatives])
        if schema.get("type") == "array":
            return f"list{plural} of {self.type_of(schema['items'], many=True)}"
        if "type" not in schema:
            return f"value{plural} of any type"
        if schema.get("format") == "date-time":
            return f"time{plural} (RFC 3339)"
        return ("file" if schema.get("format") == "binary" else str(schema["type"])) + plural

    def limits_of(self, schema: Schema) -> list[str]:
        """Return the limits of a value; where several types are allowed, each limit names its type."""
        if "$ref" in schema:
            name = name_of(schema)
            return [] if name in self.linked else self.limits_of(self.schemas[name])
        if alternatives := alternatives_of(schema):
            solid = [alternative for alternative in alternatives if alternative.get("type") != "null"]
            return [
                limit if len(solid) == 1 else f"{self.type_of(alternative)}: {limit}"
                for alternative in solid
                for limit in self.limits_of(alternative)
            ]
        each = self.limits_of(schema["items"]) if schema.get("type") == "array" else ()
        return [*limits(schema), *(f"each: {limit}" for limit in each)]

    def members_of(self, schema: Schema) -> list[tuple[str, Schema, bool]]:
        """Return name, schema and whether it is required of every field of an object, or of the objects of a list."""
        if "$ref" in schema:
            name = name_of(schema)
            return [] if name in self.linked else self.members_of(self.schemas[name])
        if alternatives := alternatives_of(schema):
            return [member for alternative in alternatives for member in self.members_of(alternative)]
        if schema.get("type") == "array":
            return self.members_of(schema["items"])
        required = schema.get("required", ())
        return [(name, below, name in required) for name, below in schema.get("properties", {}).items()]

    def description_of(self, schema: Schema) -> str:
        """Return the description of a value, or else of the schema that it refers to."""
        referred = self.schemas[name_of(schema)] if "$ref" in schema else {}
        return str({**referred, **schema}.get("description", ""))


def name_of(reference: Schema) -> str:
    """Return the name of the schema that is referred to."""
    return str(reference["$ref"]).rpartition("/")[2]


def anchor_of(name: str) -> str:
    """Return the anchor of a schema's section."""
    return f"object-{name}"


def words_of(name: str) -> str:
    """Return a schema's name in words: TestScore -> test score."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name).lower()


def text_of(value: Json) -> str:
    """Return a value as JSON, a string without quotes."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def code(value: Json) -> str:
    """Return a value as a code span of Markdown."""
    text = text_of(value)
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    padding = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{padding}{text}{padding}{fence}"


def any_of(texts: Sequence[str]) -> str:
    """Return texts with commas between them, and "or" before the last."""
    *others, last = texts
    return f"{', '.join(others)} or {last}" if others else last


def alternatives_of(schema: Schema) -> Sequence[Schema]:
    """Return the schemas that a value may follow; empty where the schema leaves no choice."""
    kinds = schema.get("type")
    if isinstance(kinds, list):
        return [{**schema, "type": kind} if kind != "null" else {"type": kind} for kind in kinds]
    return schema.get("anyOf") or schema.get("oneOf") or ()


def limits(schema: Schema) -> Iterator[str]:
    """Yield the limits that a schema itself states."""
    get = schema.get
    if size := between(get("minimum"), get("maximum")):
        yield size
    if "enum" not in schema and (size := between(get("minLength"), get("maxLength"))):
        yield f"{size} characters"
    if get("minItems") == 1 and "maxItems" not in schema:
        yield "not empty"
    elif size := between(get("minItems"), get("maxItems")):
        yield f"{size} items"
    if size := between(get("minProperties"), get("maxProperties")):
        yield f"{size} members"
    if get("uniqueItems"):
        yield "no item twice"
    if "pattern" in schema:
        yield f"matches {code(schema['pattern'])}"
    if "const" in schema:
        yield f"only {code(schema['const'])}"
    if "enum" in schema:
        yield f"one of {any_of([code(value) for value in schema['enum']])}"


def between(minimum: int | None, maximum: int | None) -> str:
    """Return a range in words."""
    if minimum is None:
        return "" if maximum is None else f"at most {number(maximum)}"
    if maximum is None:
        return f"{number(minimum)} or more"
    return f"only {number(minimum)}" if minimum == maximum else f"{number(minimum)} to {number(maximum)}"


def number(value: int) -> str:
    """Return a number with thousands separators."""
    return POWERS.get(value) or (f"{value:,}" if abs(value) >= 10_000 else str(value))
