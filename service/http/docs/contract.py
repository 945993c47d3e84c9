"""From the document to what the template writes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from service.http.docs.requests import Request, address, shown, tinted
from service.http.docs.views import (
    Body,
    Example,
    Failure,
    Field,
    Operation,
    Reference,
    Reply,
    Shape,
    Shared,
    Span,
)
from service.http.docs.words import Json, Words, anchor_of, any_of, code, name_of, text_of, words_of
from service.http.problem_document import MEDIA_TYPE as PROBLEM

PROBLEM_SCHEMA = "Problem"
"""What every error carries; it is described once."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One operation as the document has it: bodies that it takes by media type, what it may answer by status."""

    name: str
    method: str
    path: str
    anchor: str
    summary: str
    description: str
    roles: Sequence[str]
    parameters: Sequence[Json]
    content: Mapping[str, Json]
    responses: Mapping[str, Json]

    @classmethod
    def of(cls, method: str, path: str, described: Json) -> Endpoint:
        """Read one operation."""
        return cls(
            name=f"{method} {path}",
            method=method,
            path=path,
            anchor=described["operationId"],
            summary=described["summary"],
            description=described.get("description", ""),
            roles=[role for scheme in described.get("security", ()) for roles in scheme.values() for role in roles],
            parameters=described.get("parameters", ()),
            content=described.get("requestBody", {}).get("content", {}),
            responses=described["responses"],
        )


@dataclass(frozen=True, slots=True)
class Contract:
    """A document, and what has to be known of all of it to show any part.

    A schema met once is shown where it is met, any other in a place of its own; a header of all replies is shown once.
    """

    document: Json
    endpoints: tuple[Endpoint, ...]
    headers: Mapping[str, Json]
    words: Words

    @classmethod
    def of(cls, document: Json) -> Contract:
        """Look the document over."""
        endpoints = tuple(
            Endpoint.of(method.upper(), path, described)
            for path, item in document["paths"].items()
            for method, described in item.items()
        )
        first, *others = [response["headers"] for endpoint in endpoints for response in endpoint.responses.values()]
        schemas = document["components"]["schemas"]
        times_met = Counter(references(document))
        return cls(
            document=document,
            endpoints=endpoints,
            headers={name: header for name, header in first.items() if all(name in headers for headers in others)},
            words=Words(
                schemas=schemas,
                linked=frozenset(name for name in schemas if times_met[name] != 1),
                links={endpoint.name: f"#{endpoint.anchor}" for endpoint in endpoints},
            ),
        )

    def reference(self) -> Reference:
        """Return the whole page."""
        info, schemas = self.document["info"], self.words.schemas
        schemes = self.document["components"].get("securitySchemes", {}).values()
        places = [name for name in schemas if name in self.words.linked and name != PROBLEM_SCHEMA]
        return Reference(
            title=info["title"],
            version=info["version"],
            license=info["license"]["name"],
            description=self.words.paragraphs(info["description"]),
            access=tuple(text for scheme in schemes for text in self.words.paragraphs(scheme["description"])),
            headers=tuple(self.field(name, header, "always") for name, header in self.headers.items()),
            operations=tuple(self.operation(endpoint) for endpoint in self.endpoints),
            problem=self.words.shape(schemas[PROBLEM_SCHEMA], "always").fields,
            failures=self.failures(),
            shared=tuple(self.shared(name, schemas[name]) for name in places),
        )

    def operation(self, endpoint: Endpoint) -> Operation:
        """Return one endpoint."""
        replies = [self.reply(status, response) for status, response in endpoint.responses.items()]
        return Operation(
            anchor=endpoint.anchor,
            method=endpoint.method,
            path=tuple(re.findall(r"[^/]*/|[^/]+", endpoint.path)),
            summary=self.words.spans(endpoint.summary),
            description=self.words.paragraphs(endpoint.description),
            roles=any_of([(code(role),) for role in endpoint.roles]) if endpoint.roles else (),
            parameters=tuple(self.parameter(parameter) for parameter in endpoint.parameters),
            bodies=tuple(Body(media_type, self.body(media)) for media_type, media in endpoint.content.items()),
            replies=tuple(reply for reply in replies if reply.kind == "good"),
            failures=tuple(reply for reply in replies if reply.kind == "bad"),
            examples=tuple(self.examples(endpoint)),
        )

    def parameter(self, parameter: Json) -> Field:
        """Return a parameter of the path, the query or the headers."""
        field = self.field(parameter["name"], parameter, "required")
        return replace(field, type=(*field.type, Span(f", in the {parameter['in']}")))

    def field(self, name: str, value: Json, presence: str) -> Field:
        """Return a parameter or a header, which is described beside its schema."""
        schema = {**value["schema"], "description": value["description"]}
        return self.words.field(name, schema, presence, value["required"])

    def body(self, media: Json) -> Shape:
        """Return what a request carries; a part of a form says as which media types it may come."""
        shape = self.words.shape(media["schema"], "required")
        types = {name: encoding["contentType"].split(", ") for name, encoding in media.get("encoding", {}).items()}
        fields = [as_part(field, types[field.name]) if field.name in types else field for field in shape.fields]
        return replace(shape, fields=tuple(fields))

    def reply(self, status: str, response: Json) -> Reply:
        """Return one way to answer; the body of a problem is the same everywhere, and shown elsewhere."""
        headers, content = response["headers"].items(), response.get("content", {}).items()
        bodies = [Body(name, self.words.shape(media["schema"], "always")) for name, media in content if name != PROBLEM]
        return Reply(
            status=status_of(status),
            kind="good" if is_good(status) else "bad",
            description=self.words.spans(response["description"]),
            headers=tuple(self.field(name, header, "always") for name, header in headers if name not in self.headers),
            bodies=tuple(bodies),
        )

    def failures(self) -> tuple[Failure, ...]:
        """Return every status of an error, with the operations that name it."""
        links: dict[tuple[str, str], list[Span]] = {}
        for endpoint in self.endpoints:
            for status, response in endpoint.responses.items():
                if not is_good(status):
                    link = Span(endpoint.name, "code", f"#{endpoint.anchor}")
                    links.setdefault((status_of(status), response["description"]), []).append(link)
        return tuple(
            Failure(
                status,
                self.words.spans(description),
                tuple(found) if len(found) < len(self.endpoints) else (Span("every operation"),),
            )
            for (status, description), found in sorted(links.items())
        )

    def shared(self, name: str, schema: Json) -> Shared:
        """Return a schema that has a place of its own."""
        return Shared(
            anchor=anchor_of(name),
            name=name,
            title=words_of(name).capitalize(),
            description=self.words.spans(schema.get("description", "")),
            shape=self.words.shape(schema, "always"),
        )

    def examples(self, endpoint: Endpoint) -> Iterator[Example]:
        """Return every example by its name, wherever the parts of it stand: body, parameters, reply."""
        replies = [media for response in endpoint.responses.values() for media in response.get("content", {}).values()]
        titles: dict[str, str] = {}
        for place in (*endpoint.content.values(), *endpoint.parameters, *replies):
            for name, example in place.get("examples", {}).items():
                titles.setdefault(name, example["summary"])
        for name, title in (titles or {"request": endpoint.summary}).items():
            yield from self.example(endpoint, name, title)

    def example(self, endpoint: Endpoint, name: str, title: str) -> Iterator[Example]:
        """Return one example, and after a form with a matrix, the same form with the matrix in a file."""
        status, media_type, value = answered(endpoint, name)
        response = endpoint.responses[status]
        usual = next(iter(response.get("content", ())), "")
        request = Request(
            endpoint.method,
            address(endpoint.path, given(endpoint, name, "path"), given(endpoint, name, "query")),
            given(endpoint, name, "header") | ({} if media_type in ("", PROBLEM, usual) else {"Accept": media_type}),
            *shown_in(endpoint.content, name),
        )
        anchor = f"{endpoint.anchor}-{name}"
        yield Example(
            anchor=anchor,
            title=title,
            curl=tinted(request.curl()),
            reply=self.reply(status, response),
            code=shown(media_type, value) if media_type else (),
        )
        if files := request.matrices:
            saved = ", ".join(f'numpy.save("{file}.npy", {file})' for file in files)
            yield Example(
                anchor=f"{anchor}-npy",
                title=f"{title}, with {' and '.join(files)} as .npy",
                curl=tinted(request.curl(files)),
                note=(Span("After "), Span(saved, "code"), Span(" in Python.")),
            )


def references(value: Json) -> Iterator[str]:
    """Return the name of every schema that is referred to, as often as it is."""
    if isinstance(value, dict):
        if "$ref" in value:
            yield name_of(value)
        for key, below in value.items():
            if key != "examples":
                yield from references(below)
    elif isinstance(value, list):
        for below in value:
            yield from references(below)


def given(endpoint: Endpoint, name: str, place: str) -> dict[str, str]:
    """Return the parameters that an example has in a place."""
    return {
        parameter["name"]: text_of(parameter["examples"][name]["value"])
        for parameter in endpoint.parameters
        if parameter["in"] == place and name in parameter.get("examples", {})
    }


def shown_in(content: Json, name: str) -> tuple[str, Json]:
    """Return media type and body that an example has among some bodies, nothing where it has none."""
    for media_type, media in content.items():
        if name in media.get("examples", {}):
            return media_type, media["examples"][name]["value"]
    return "", None


def answered(endpoint: Endpoint, name: str) -> tuple[str, str, Json]:
    """Return status, media type and body that an example gets; without a body, its status is the first good one."""
    for status, response in endpoint.responses.items():
        media_type, value = shown_in(response.get("content", {}), name)
        if media_type:
            return status, media_type, value
    return next(status for status in endpoint.responses if is_good(status)), "", None


def is_good(status: str) -> bool:
    """Tell whether a status is no error."""
    return status.startswith(("2", "3"))


def status_of(status: str) -> str:
    """Return a status as it is shown; OpenAPI's `default` stands for those that are not listed."""
    return "other" if status == "default" else status


def as_part(field: Field, media_types: list[str]) -> Field:
    """Return a part of a form, which says as which media types it may come."""
    kinds = any_of([(code(media_type),) for media_type in media_types])
    return replace(field, limits=((Span("as "), *kinds), *field.limits))
