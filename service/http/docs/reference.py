"""The API reference as Markdown, written from openapi.yaml and nothing else."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from service.http.docs.curl import Request, address, pretty
from service.http.docs.schema_text import Json, Schema, SchemaText, anchor_of, any_of, code, name_of, text_of, words_of
from service.http.problem_document import MEDIA_TYPE as PROBLEM

PROBLEM_SCHEMA = "Problem"
"""The body of every error; it is described once."""

ADDRESS = "http://127.0.0.1:8000"
"""The address of a service with default settings; `docs.served_page` puts in the one of the request."""

START = """\
## Start here {#start}

The examples are `curl` commands. They take the address of the service from `$AQ`:

```bash
export AQ=ADDRESS
```

The replies are those of one session with a small project. Ids and times differ from run to run, and so may the last
digits of a model's numbers. This page is made from [`openapi.yaml`](openapi.yaml), the same contract for machines.
""".replace("ADDRESS", ADDRESS)

SEND_KEY = """\
With a key in `$KEY`, add this to each command:

```bash
-H "Authorization: Bearer $KEY"
```
"""


@dataclass(frozen=True, slots=True)
class Operation:
    """One endpoint: its name, such as "GET /docs", and what the document says of it; bodies are by media type."""

    name: str
    anchor: str
    described: Json
    parameters: list[Json]
    content: Mapping[str, Json]
    responses: Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class Reference:
    """Writes the reference of a document.

    A schema that is used once is described where it is used, any other in its own section; a header of all replies is
    described once.
    """

    document: Json
    operations: tuple[Operation, ...]
    headers: Mapping[str, Json]
    schema_text: SchemaText

    @classmethod
    def of(cls, document: Json) -> Reference:
        """Read a document."""
        operations = tuple(
            Operation(
                name=f"{method.upper()} {path}",
                anchor=described["operationId"],
                described=described,
                parameters=described.get("parameters", []),
                content=described.get("requestBody", {}).get("content", {}),
                responses=described["responses"],
            )
            for path, item in document["paths"].items()
            for method, described in item.items()
        )
        first, *others = [response["headers"] for each in operations for response in each.responses.values()]
        schemas = document["components"]["schemas"]
        times_used = Counter(references(document))
        return cls(
            document=document,
            operations=operations,
            headers={name: header for name, header in first.items() if all(name in headers for headers in others)},
            schema_text=SchemaText(schemas, frozenset(name for name in schemas if times_used[name] != 1)),
        )

    def markdown(self) -> str:
        """Return the whole page."""
        return "\n\n".join(self.blocks())

    def blocks(self) -> Iterator[str]:
        """Yield the blocks of the page."""
        info, schemas = self.document["info"], self.schema_text.schemas
        yield f"# {info['title']} {info['version']}"
        yield self.prose(info["description"])
        yield START
        if schemes := self.document["components"].get("securitySchemes", {}).values():
            yield "### Access"
            yield from (self.prose(scheme["description"]) for scheme in schemes)
            yield SEND_KEY
        if self.headers:
            yield "### Headers of every reply"
            yield self.headers_or_parameters(self.headers)
        for operation in self.operations:
            yield from self.operation(operation)
        yield "## Errors {#errors}"
        yield f"Every error has a body of type `{PROBLEM}`:"
        yield self.fields(schemas[PROBLEM_SCHEMA])
        for name in schemas:
            if name in self.schema_text.linked and name != PROBLEM_SCHEMA:
                yield f"## {words_of(name).capitalize()} {{#{anchor_of(name)}}}"
                yield f"{code(name)}: *{self.schema_text.type_of(schemas[name])}*"
                yield self.shape(schemas[name])
        yield f"{info['title']} {info['version']}, {info['license']['name']}."

    def operation(self, operation: Operation) -> Iterator[str]:
        """Yield the section of one endpoint."""
        described = operation.described
        yield f"## {operation.name} {{#{operation.anchor}}}"
        yield f"**{self.prose(described['summary'])}**"
        yield self.prose(described.get("description", ""))
        roles = [role for scheme in described.get("security", ()) for roles in scheme.values() for role in roles]
        yield f"Lowest role of a key: {any_of([code(role) for role in roles])}." if roles else "Needs no key."
        if operation.parameters:
            yield "### Parameters"
            yield self.headers_or_parameters({parameter["name"]: parameter for parameter in operation.parameters})
        for media_type, media in operation.content.items():
            yield f"### Request as {code(media_type)}"
            kinds = {name: encoding["contentType"].split(", ") for name, encoding in media.get("encoding", {}).items()}
            yield self.shape(media["schema"], kinds, is_request=True)
        yield "### Replies"
        for status, response in operation.responses.items():
            if is_good(status):
                yield from self.reply(status, response)
        yield f"### Errors {{#{operation.anchor}-errors}}"
        yield "\n".join(
            f"- {self.status_line(status, response)}"
            for status, response in operation.responses.items()
            if not is_good(status)
        )
        yield "### Examples"
        replies = [media for response in operation.responses.values() for media in response.get("content", {}).values()]
        titles: dict[str, str] = {}
        for place in (*operation.content.values(), *operation.parameters, *replies):
            for name, example in place.get("examples", {}).items():
                titles.setdefault(name, example["summary"])
        for name, title in (titles or {"request": described["summary"]}).items():
            yield from self.example(operation, name, title)

    def headers_or_parameters(self, described: Mapping[str, Json]) -> str:
        """Return headers of a reply, or parameters of a request, as a list: each is described beside its schema."""
        lines: list[str] = []
        for name, value in described.items():
            notes = [f"in the {value['in']}"] if "in" in value else [] if value["required"] else ["optional"]
            if "in" in value and value["required"]:
                notes.append("**required**")
            lines += self.field(name, {**value["schema"], "description": value["description"]}, notes)
        return "\n".join(lines)

    def shape(self, schema: Schema, kinds: Mapping[str, list[str]] | None = None, *, is_request: bool = False) -> str:
        """Return the description of a body, its limits, and a list of its fields."""
        limits = ", ".join(self.schema_text.limits_of(schema))
        description = "" if "$ref" in schema else self.prose(schema.get("description", ""))
        return "\n\n".join([description, limits and f"*{limits}*", self.fields(schema, kinds, is_request=is_request)])

    def fields(
        self,
        schema: Schema,
        kinds: Mapping[str, list[str]] | None = None,
        indent: str = "",
        *,
        is_request: bool = False,
    ) -> str:
        """Return the fields of an object as a list; `kinds` are the media types of the parts of a form."""
        lines: list[str] = []
        for name, below, is_required in self.schema_text.members_of(schema):
            note = "**required**" if is_request else "optional"
            notes = [note] if is_required == is_request else []
            if kinds and name in kinds:
                notes.append(f"as {any_of([code(kind) for kind in kinds[name]])}")
            lines += self.field(name, below, notes, indent)
            if nested := self.fields(below, indent=indent + "  ", is_request=is_request):
                lines.append(nested)
        return "\n".join(lines)

    def field(self, name: str, schema: Schema, notes: Iterable[str], indent: str = "") -> Iterator[str]:
        """Yield the lines of a field: name, type, notes and limits, and below them its description."""
        default = [f"default {code(schema['default'])}"] if "default" in schema else []
        facts = ", ".join([self.schema_text.type_of(schema), *notes, *default, *self.schema_text.limits_of(schema)])
        description = self.prose(self.schema_text.description_of(schema))
        yield f"{indent}- **{code(name)}** *{facts}*" + (f"  \n{indent}  {description}" if description else "")

    def reply(self, status: str, response: Json) -> Iterator[str]:
        """Yield one successful reply."""
        yield self.status_line(status, response)
        for media_type, media in response.get("content", {}).items():
            yield f"{code(media_type)}: *{self.schema_text.type_of(media['schema'])}*"
            yield self.shape(media["schema"])
        if headers := {name: header for name, header in response["headers"].items() if name not in self.headers}:
            yield "Headers:"
            yield self.headers_or_parameters(headers)

    def status_line(self, status: str, response: Json) -> str:
        """Return a status and what it means; OpenAPI's `default` stands for those that are not listed."""
        return f"**{'other' if status == 'default' else status}** {self.prose(response['description'])}"

    def example(self, operation: Operation, name: str, title: str) -> Iterator[str]:
        """Yield the request of an example and its reply; the parts of both have this name."""
        status, media_type, value = reply_of(operation, name)
        response = operation.responses[status]
        usual = next(iter(response.get("content", ())), "")
        accept = {} if media_type in ("", PROBLEM, usual) else {"Accept": media_type}
        method, _, path = operation.name.partition(" ")
        request = Request(
            method,
            address(path, values_of(operation, name, "path"), values_of(operation, name, "query")),
            values_of(operation, name, "header") | accept,
            *body_of(operation.content, name),
        )
        yield f"#### {title} {{#{operation.anchor}-{name}}}"
        yield fenced(request.curl(), "bash")
        yield self.status_line(status, response)
        if media_type:
            is_json = media_type.endswith("json")
            yield fenced(pretty(value) if is_json else value.replace("\r\n", "\n"), "json" if is_json else "text")

    def prose(self, text: str) -> str:
        """Return text in paragraphs, with a link on every operation that it names."""
        links = {operation.name: f"[{code(operation.name)}](#{operation.anchor})" for operation in self.operations}
        paragraphs = [" ".join(paragraph.split()) for paragraph in re.split(r"\n\s*\n", text)]
        name = re.compile(r"`?\b([A-Z]{3,6} /[\w{}/.-]*[\w}])`?")
        return "\n\n".join(name.sub(lambda found: links.get(found[1], found[0]), text) for text in paragraphs)


def references(value: Json) -> Iterator[str]:
    """Yield the name of every schema that is referred to, once for each reference."""
    if isinstance(value, dict):
        if "$ref" in value:
            yield name_of(value)
        for key, below in value.items():
            if key != "examples":
                yield from references(below)
    elif isinstance(value, list):
        for below in value:
            yield from references(below)


def values_of(operation: Operation, name: str, place: str) -> dict[str, str]:
    """Return the parameters of an example in the path, the query or the headers."""
    return {
        parameter["name"]: text_of(parameter["examples"][name]["value"])
        for parameter in operation.parameters
        if parameter["in"] == place and name in parameter.get("examples", {})
    }


def body_of(content: Json, name: str) -> tuple[str, Json]:
    """Return media type and body of an example, or an empty media type."""
    for media_type, media in content.items():
        if name in media.get("examples", {}):
            return media_type, media["examples"][name]["value"]
    return "", None


def reply_of(operation: Operation, name: str) -> tuple[str, str, Json]:
    """Return status, media type and body of an example's reply; without a body, the first successful status."""
    for status, response in operation.responses.items():
        media_type, value = body_of(response.get("content", {}), name)
        if media_type:
            return status, media_type, value
    return next(status for status in operation.responses if is_good(status)), "", None


def is_good(status: str) -> bool:
    """Return whether a status is no error."""
    return status.startswith(("2", "3"))


def fenced(text: str, language: str) -> str:
    """Return a code block of Markdown."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text}\n{fence}"
