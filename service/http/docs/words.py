"""Schemas in words, and prose with its code and links told apart.

Only what openapi.yaml says of a schema has words here; a test finds what it says beyond them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.http.docs.views import Field, Shape, Span, Spans

Json = Any
Schema = Mapping[str, Any]

POWERS = {2**32 - 1: "2³² − 1", 2**63 - 1: "2⁶³ − 1", -(2**63): "−2⁶³"}
"""Numbers that people know as powers of two."""


@dataclass(frozen=True, slots=True)
class Words:
    """What has to be known of a document to say any part of it in words.

    `linked` names the schemas that have a place of their own, and `links` leads from "GET /docs" to where that stands.
    """

    schemas: Mapping[str, Schema]
    linked: frozenset[str]
    links: Mapping[str, str]

    def shape(self, schema: Schema, presence: str) -> Shape:
        """Return a schema in words; `presence` says of a field inside that it cannot be missing."""
        if "$ref" in schema:
            name = name_of(schema)
            return link_to(name) if name in self.linked else self.shape(self.schemas[name], presence)
        if alternatives := alternatives_of(schema):
            return either([self.shape(alternative, presence) for alternative in alternatives])
        if schema.get("type") == "array":
            return list_of(self.shape(schema["items"], presence), schema)
        required, members = schema.get("required", ()), schema.get("properties", {}).items()
        fields = tuple(self.field(name, below, presence, name in required) for name, below in members)
        one, many = nouns(schema)
        return Shape((Span(one),), (Span(many),), tuple(limits(schema)), fields)

    def field(self, name: str, schema: Schema, presence: str, is_required: bool) -> Field:
        """Return a field, with whatever stands inside."""
        shape = self.shape(schema, presence)
        said = {**self.schemas[name_of(schema)], **schema} if "$ref" in schema else schema
        default = ((Span("default "), code(schema["default"])),) if "default" in schema else ()
        return Field(
            name=name,
            type=shape.one,
            presence=presence if is_required else "",
            limits=(*default, *shape.limits),
            description=self.spans(said.get("description", "")),
            fields=shape.fields,
        )

    def paragraphs(self, text: str) -> tuple[Spans, ...]:
        """Return text in paragraphs."""
        return tuple(self.spans(" ".join(paragraph.split())) for paragraph in re.split(r"\n\s*\n", text) if paragraph)

    def spans(self, text: str) -> Spans:
        """Return text with its `code` told apart, and with links to the operations that it names."""
        found = []
        for run in re.split(r"(`[^`]+`|\b[A-Z]{3,6} /[\w{}/.-]*[\w}])", text):
            bare = run.strip("`")
            is_code = run != bare or bare in self.links
            found.append(Span(bare, "code", self.links.get(bare, "")) if is_code else Span(run))
        return tuple(span for span in found if span.text)


def name_of(reference: Schema) -> str:
    """Return the name of the schema that is referred to."""
    return str(reference["$ref"]).rpartition("/")[2]


def anchor_of(name: str) -> str:
    """Return where a schema is shown."""
    return f"object-{name}"


def words_of(name: str) -> str:
    """Return a schema's name in words: TestScore -> test score."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name).lower()


def text_of(value: Json) -> str:
    """Return a value as JSON shows it, but for a string's quotes."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def code(value: Json) -> Span:
    """Return a value as code."""
    return Span(text_of(value), "code")


def any_of(runs: Sequence[Spans]) -> Spans:
    """Return runs with commas between them, and "or" before the last."""
    found: list[Span] = []
    for position, run in enumerate(runs):
        if position:
            found.append(Span(" or " if position == len(runs) - 1 else ", "))
        found += run
    return tuple(found)


def link_to(name: str) -> Shape:
    """Return a schema that is described in its own place."""
    href = f"#{anchor_of(name)}"
    return Shape((Span(words_of(name), "", href),), (Span(f"{words_of(name)}s", "", href),))


def alternatives_of(schema: Schema) -> Sequence[Schema]:
    """Return the schemas of which a value follows one; empty where there is no choice."""
    kinds = schema.get("type")
    if isinstance(kinds, list):
        return [{**schema, "type": kind} if kind != "null" else {"type": kind} for kind in kinds]
    return schema.get("anyOf") or schema.get("oneOf") or ()


def either(shapes: Sequence[Shape]) -> Shape:
    """Return the choice between shapes; with several beside null, each limit says of which it is."""
    solid = [shape for shape in shapes if shape.one != (Span("null"),)]
    return Shape(
        any_of([shape.one for shape in shapes]),
        any_of([shape.many for shape in shapes]),
        tuple(
            limit if len(solid) == 1 else (*shape.one, Span(": "), *limit) for shape in solid for limit in shape.limits
        ),
        tuple(field for shape in solid for field in shape.fields),
    )


def list_of(item: Shape, schema: Schema) -> Shape:
    """Return a list in words."""
    each = tuple((Span("each: "), *limit) for limit in item.limits)
    one, many = ((Span(words), *item.many) for words in ("list of ", "lists of "))
    return Shape(one, many, (*limits(schema), *each), item.fields)


def nouns(schema: Schema) -> tuple[str, str]:
    """Return what one such value is called, and what several are."""
    if "type" not in schema:
        return "value of any type", "values of any type"
    if schema.get("format") == "date-time":
        return "time (RFC 3339)", "times (RFC 3339)"
    noun = "file" if "contentMediaType" in schema else schema["type"]
    return noun, f"{noun}s"


def limits(schema: Schema) -> Iterator[Spans]:
    """Return what else a value keeps to."""
    get = schema.get
    if size := between(get("minimum"), get("maximum")):
        yield (Span(size),)
    if "enum" not in schema and (size := between(get("minLength"), get("maxLength"))):
        yield (Span(f"{size} characters"),)
    if get("minItems") == 1 and "maxItems" not in schema:
        yield (Span("not empty"),)
    elif size := between(get("minItems"), get("maxItems")):
        yield (Span(f"{size} items"),)
    if get("uniqueItems"):
        yield (Span("no item twice"),)
    if "pattern" in schema:
        yield Span("matches "), code(schema["pattern"])
    if "enum" in schema:
        yield Span("one of "), *any_of([(code(value),) for value in schema["enum"]])
    for rule in get("allOf", ()):
        yield Span("either "), *any_of([set_of_fields(alternative) for alternative in rule["oneOf"]])


def between(minimum: int | None, maximum: int | None) -> str:
    """Return a range in words."""
    if minimum is None:
        return "" if maximum is None else f"at most {number(maximum)}"
    if maximum is None:
        return f"{number(minimum)} or more"
    return f"only {number(minimum)}" if minimum == maximum else f"{number(minimum)} to {number(maximum)}"


def number(value: int) -> str:
    """Return a number as people write it."""
    return POWERS.get(value) or (f"{value:,}" if abs(value) >= 10_000 else str(value))


def set_of_fields(schema: Schema) -> Spans:
    """Return one of several sets of fields: the one that must be there, what it and others are, and what must not."""
    (needed,) = schema["required"]
    found = [Span(needed, "code")]
    for name, below in schema.get("properties", {}).items():
        constant = code(below["const"])
        if name == needed:
            found += Span(": "), constant
        else:
            found += Span(" ("), Span(name, "code"), Span(" left out or "), constant, Span(")")
    for name in schema.get("not", {}).get("required", ()):
        found += Span(" without "), Span(name, "code")
    return tuple(found)
