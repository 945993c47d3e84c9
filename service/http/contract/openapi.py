"""From the endpoints and their schemas to openapi.yaml (OpenAPI 3.1). Needs the extra `dev`; the service does not."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, cast

import yaml
from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from marshmallow import Schema, fields

from service import __version__
from service.auth.keys import Role
from service.domain.project import PROJECT_ID
from service.http import problem_document
from service.http.body.reader import FORMATS
from service.http.contract.examples import STORY
from service.http.contract.operations import Operation, Reply, route_of_contract
from service.http.csv_writer import SAFE_HEADER
from service.http.docs import GUIDES
from service.http.media_types import JSON, MULTIPART, NDJSON
from service.http.middleware.idempotency import HEADER as KEY_HEADER
from service.http.middleware.idempotency import REPLAYED
from service.http.routes import OPERATIONS
from service.http.schemas.base import RuleField
from service.http.schemas.label_fields import LABEL_SCHEMA
from service.settings import Settings

DESCRIPTION = """\
Which samples should be labelled next? Send a pool of feature vectors and the few labels there are to `POST /fit`, ask
`POST /query` for the next batch, hand back what people answered to `POST /label`, and repeat.

Indices are positions in the project's pool; labelling never shifts them. Labels are strings, integers or booleans, of
one type in a project, and come back with the type they came in. Unknown fields are refused. Every error is a problem
document (RFC 9457) that names each wrong field and what would have been right, and nothing was changed.\
"""

SECURITY_SCHEME = "apiKey"
SECURITY = """\
A service that was given API keys (`AQ_API_KEYS_FILE`) answers only with one: `Authorization: Bearer <key>`. A service
without keys asks nobody for one.

A key has a role. A `reader` looks and asks: every GET, and `POST /query` without a lease. An `annotator` also hands
back labels, holds samples and takes answers back. An `admin` also makes, trains, grows and deletes projects. A key may
touch all projects or some of them; any other is answered like one that there is not. A key that belongs to an
annotator answers as this one: `annotator` may be left out and must not name another.\
"""

PATH_PARAMETERS = {
    "project_id": ({"type": "string", "pattern": f"^{PROJECT_ID}$"}, "The project's name."),
    "query_id": ({"type": "string", "minLength": 1}, "The question that the lease was given for."),
    "page": ({"type": "string", "enum": list(GUIDES)}, "The page's name."),
    "index": ({"type": "integer", "minimum": 0, "maximum": 10**18 - 1}, "The sample's position in the pool."),
}

REQUEST_ID_HEADER = {
    problem_document.REQUEST_ID_HEADER: {
        "description": "Names the request in the log.",
        "schema": {"type": "string"},
        "required": True,
    }
}
ETAG_HEADER = {
    "ETag": {
        "description": "Tells this version of the project from all others.",
        "schema": {"type": "string"},
        "required": True,
    }
}
CHALLENGE_HEADER = {"WWW-Authenticate": {"description": "`Bearer`.", "schema": {"type": "string"}, "required": True}}
REPLAYED_HEADER = {
    REPLAYED: {
        "description": "`true` where an earlier reply is given again.",
        "schema": {"type": "string"},
        "required": False,
    }
}
"""Headers of replies."""

HEADER_PARAMETERS = {
    "Prefer": "`respond-async`: reply before the fit, which follows (RFC 7240).",
    "If-Match": "ETags, or `*`: only if the project has one of these, or is there at all; else 412.",
    "If-None-Match": "ETags, or `*`: only if the project has none of these, or is not there at all; else 412.",
}
"""Headers of requests."""

KEY = """\
Names this request, for a day: what is sent again under the same key is answered as the first was, and not done again. 1
to 255 visible ASCII characters, such as a UUID. The method, path, query, body, what the caller may do and the headers
that the answer follows from must be the same, else 422; while the first is at work, 409 with `Retry-After`. Refusals
and failures are not kept.\
"""

UNLESS_KNOWN = "The ETags of what the caller has: 304 instead of the same again."

HEADERS = {
    SAFE_HEADER: "How the cells of CSV are written: the value of `safe`.",
    "Location": "Where the project is.",
    "Preference-Applied": "`respond-async`.",
    "Retry-After": "In how many seconds to ask again: others hold all that is left.",
}
"""What some replies carry beside those."""


MAXIMA = {"batch_size": Settings().max_batch}
"""Default maxima of the fields that a setting limits."""

EVERY_BODY = (400, 408)
"""Statuses that every request with a body may get."""

MEANINGS = {
    400: "The body cannot be read: it is cut short, or not JSON, or not a form.",
    401: "The API key is missing, or is not known.",
    403: "The key may not do this: by its role, its projects or its annotator.",
    404: "There is no such project, label, lease or page.",
    406: "It is not to be had as any media type that was asked for.",
    408: "The body comes too slowly.",
    409: "The project is not in the state that this needs, there are too many, or the same request is still at work.",
    411: "The request says neither how long its body is nor that it comes in chunks.",
    412: "The project is not at the version that the request is meant for; the ETag that it has is told.",
    413: "The body is larger than the service was told to take.",
    415: "The body is of a media type or an encoding that is not understood.",
    422: "The request can be read but not followed; each wrong field is named.",
    503: "Heavy requests hold the service, another holds the project, or the disk cannot be written; try again.",
    504: "The selection takes longer than the service was told to allow.",
    507: "The disk is full.",
}
"""What each error status means."""


def render() -> str:
    """Return the text of openapi.yaml."""
    head = "# Made from the code by `active-query openapi`; do not edit.\n"
    return head + yaml.dump(build(), Dumper=Plain, sort_keys=False, allow_unicode=True, width=120)


class Plain(yaml.SafeDumper):
    """Writes every value where it stands, without anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        """Say that no value is worth an anchor."""
        return True

    def write_text(self, text: str) -> yaml.Node:
        """Write text of several lines as such."""
        return self.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)

    def write_list(self, values: list[Any]) -> yaml.Node:
        """Write a list of plain values in one line."""
        is_plain = not any(isinstance(value, dict | list) for value in values)
        return self.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=is_plain)


Plain.add_representer(str, Plain.write_text)
Plain.add_representer(list, Plain.write_list)


def build() -> dict[str, Any]:
    """Return the contract as plain values."""
    plugin = MarshmallowPlugin()
    spec = APISpec(
        title="Active Query",
        version=__version__,
        openapi_version="3.1.0",
        plugins=[plugin],
        info={"description": DESCRIPTION, "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"}},
        servers=[{"url": "/", "description": "The service that answers this."}],
    )
    converter: Any = plugin.converter
    converter.add_attribute_function(schema_of_rule)
    spec.components.schema("LabelValue", LABEL_SCHEMA)
    spec.components.security_scheme(SECURITY_SCHEME, {"type": "http", "scheme": "bearer", "description": SECURITY})
    for operation in OPERATIONS.all:
        spec.path(path=route_of_contract(operation.path), operations={operation.method.lower(): describe(operation)})
    document: dict[str, Any] = tidy(spec.to_dict())
    for item in document["paths"].values():
        for described in item.values():
            for parameter in described.get("parameters", ()):
                add_examples(parameter, described["operationId"])
    return {key: document[key] for key in ("openapi", "info", "servers", "paths", "components")}


def schema_of_rule(self: Any, field: fields.Field[Any], **_: Any) -> dict[str, Any]:
    """Return the JSON Schema of a field that is read by a rule."""
    if not isinstance(field, RuleField):
        return {}
    return field.rule.schema | ({"maximum": MAXIMA[field.name]} if field.name in MAXIMA else {})


def describe(operation: Operation) -> dict[str, Any]:
    """Return one operation."""
    described: dict[str, Any] = {"operationId": operation.name, "summary": operation.summary}
    if operation.description:
        described["description"] = operation.description
    described["security"] = [] if operation.role is None else [{SECURITY_SCHEME: [str(operation.role)]}]
    parameters = path_parameters(operation) + ([{"in": "query", "schema": operation.query}] if operation.query else [])
    if operation.method == "POST":
        parameters.append(header_parameter(KEY_HEADER, KEY))
    parameters += [header_parameter(name, HEADER_PARAMETERS[name]) for name in operation.headers]
    if is_cached(operation):
        parameters += [
            header_parameter("If-Match", HEADER_PARAMETERS["If-Match"]),
            header_parameter("If-None-Match", UNLESS_KNOWN),
        ]
    if parameters:
        described["parameters"] = parameters
    if operation.file:
        shape = {"type": "string", "contentMediaType": operation.file}
        described["requestBody"] = {"required": True, "content": {operation.file: {"schema": shape}}}
    if operation.body:
        described["requestBody"] = {"required": not operation.optional, "content": request_content(operation)}
    described["responses"] = responses(operation)
    return described


def path_parameters(operation: Operation) -> list[dict[str, Any]]:
    """Return the parameters that stand in the path."""
    return [
        {"in": "path", "name": name, "required": True, "schema": schema, "description": description}
        for name in re.findall(r"<(\w+)>", operation.path)
        for schema, description in [PATH_PARAMETERS[name]]
    ]


def header_parameter(name: str, description: str) -> dict[str, Any]:
    """Return a header that an operation looks at."""
    return {
        "in": "header",
        "name": name,
        "required": False,
        "schema": {"type": "string"},
        "description": description,
    }


def is_cached(operation: Operation) -> bool:
    """Tell whether a caller may keep what an operation answers, and ask whether it is still so."""
    return operation.method == "GET" and any(reply.etag for reply in operation.replies.values())


def request_content(operation: Operation) -> dict[str, Any]:
    """Return the media types of a body, with the examples that the story has of each."""
    told = [example for example in STORY if example.operation == operation.name]
    content: dict[str, Any] = {JSON: {"schema": operation.body}}
    bodies = examples((example.title, example.body) for example in told if example.body is not None)
    if bodies:
        content[JSON]["examples"] = bodies
    if operation.parts:
        content[MULTIPART] = form(operation)
        forms = examples((example.title, dict(example.parts)) for example in told if example.parts is not None)
        if forms:
            content[MULTIPART]["examples"] = forms
    if operation.lines:
        content[NDJSON] = {"schema": {"type": "string", "description": f"Each line is {operation.lines}."}}
    return content


def form(operation: Operation) -> dict[str, Any]:
    """Return the form of an operation: a configuration where it has other fields than arrays, and arrays as files."""
    schema = cast("type[Schema]", operation.body)
    described = {
        name: {
            "type": "string",
            "contentMediaType": next(iter(FORMATS[name])),
            "description": field.metadata["description"],
        }
        for name, field in schema().fields.items()
        if name in operation.parts
    }
    config = config_of(schema, operation.parts)
    return {
        "schema": {
            "type": "object",
            "required": ["config"] if config else ["X"],
            "additionalProperties": False,
            "properties": {**({"config": config} if config else {}), **described},
        },
        "encoding": {
            **({"config": {"contentType": JSON}} if config else {}),
            **{name: {"contentType": ", ".join(FORMATS[name])} for name in operation.parts},
        },
    }


def config_of(schema: type[Schema], parts: tuple[str, ...]) -> type[Schema] | None:
    """Return the fields of a request that no part of its form brings, None where there are none."""
    options = type("Meta", (schema.Meta,), {"exclude": parts})
    config = type(schema.__name__.replace("Schema", "ConfigSchema"), (schema,), {"Meta": options})
    return config if config().fields else None


def responses(operation: Operation) -> dict[str, Any]:
    """Return what an operation may answer."""
    answered = {str(status): success(operation, status, reply) for status, reply in operation.replies.items()}
    if is_cached(operation):
        answered["304"] = {"description": "It is as the caller has it.", "headers": REQUEST_ID_HEADER | ETAG_HEADER}
    has_body = operation.body or operation.file
    conditions = (412, 422) if is_cached(operation) else ()
    keys = (409, 422) if operation.method == "POST" else ()
    statuses = sorted(
        {*operation.problems, *(EVERY_BODY if has_body else ()), *refusals(operation), *conditions, *keys}
    )
    for status in statuses:
        answered[str(status)] = failure(MEANINGS[status], operation, status)
    answered["default"] = failure("Any other error, a fault of the service (500) among them.", operation, None)
    return answered


def refusals(operation: Operation) -> tuple[int, ...]:
    """Return the statuses of those who may not: without a key, and with one of too low a role."""
    if operation.role is None:
        return ()
    return (401,) if operation.role == min(Role) else (401, 403)


def success(operation: Operation, status: int, reply: Reply) -> dict[str, Any]:
    """Return one way to succeed."""
    described: dict[str, Any] = {
        "description": reply.description,
        "headers": REQUEST_ID_HEADER
        | (ETAG_HEADER if reply.etag else {})
        | (REPLAYED_HEADER if operation.method == "POST" else {})
        | {
            name: {"description": HEADERS[name], "schema": {"type": "string"}, "required": name in reply.headers}
            for name in reply.headers + reply.some_headers
        },
    }
    content: dict[str, Any] = {media_type: {"schema": {"type": "string"}} for media_type in reply.media_types}
    if reply.schema:
        content = {JSON: {"schema": reply.schema}} | content
    for media_type, body in content.items():
        shown = examples(
            (example.title, example.reply)
            for example in STORY
            if (example.operation, example.status, example.media_type) == (operation.name, status, media_type)
            and example.reply is not None
        )
        if shown:
            body["examples"] = shown
    if content:
        described["content"] = content
    return described


def failure(description: str, operation: Operation, status: int | None) -> dict[str, Any]:
    """Return one way to fail."""
    body: dict[str, Any] = {"schema": problem_document.ProblemSchema}
    shown = examples(
        (example.title, example.reply)
        for example in STORY
        if (example.operation, example.status) == (operation.name, status) and example.reply is not None
    )
    if shown:
        body["examples"] = shown
    headers = REQUEST_ID_HEADER | (CHALLENGE_HEADER if status == 401 else {})
    return {"description": description, "headers": headers, "content": {problem_document.MEDIA_TYPE: body}}


def examples(titled: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Return examples under names made of their titles."""
    return {
        re.sub(r"\W+", "_", title.lower()).strip("_"): {"summary": title, "value": value} for title, value in titled
    }


def add_examples(parameter: dict[str, Any], operation: str) -> None:
    """Give a parameter the values that the story has of it, under the names of the examples that they belong to."""
    read = int if parameter["schema"].get("type") == "integer" else str
    told = [
        (example.title, {**example.path, **example.query, **example.headers})
        for example in STORY
        if example.operation == operation
    ]
    name = parameter["name"]
    shown = examples((title, read(given[name])) for title, given in told if name in given)
    if shown:
        parameter["examples"] = shown


def tidy(value: Any) -> Any:
    """Return plain lists and dictionaries, which YAML writes without tags."""
    if isinstance(value, dict):
        return {str(key): tidy(below) for key, below in value.items()}
    if isinstance(value, list | tuple):
        return [tidy(below) for below in value]
    return value
