"""Build openapi.yaml (OpenAPI 3.1) from the endpoints and their schemas. Needs the extra `dev`."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterable, Mapping
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
from service.http.docs.curl import pretty
from service.http.media_types import CSV, FORM, HTML, JSON, MULTIPART, NDJSON, YAML
from service.http.middleware.idempotency import HEADER as KEY_HEADER
from service.http.middleware.idempotency import REPLAYED
from service.http.routes import OPERATIONS
from service.http.schemas.base import COMPONENTS, RawField, RuleField, named
from service.settings import Settings

DESCRIPTION = """\
Which samples should be labelled next? Send a pool of feature vectors and its first labels to `POST /fit`, ask
`POST /query` for the next batch, send the new labels to `POST /label`, and repeat.

Indices are positions in the project's pool; labelling never shifts them. Labels are strings, integers or booleans, of
one type per project, and are returned with the type they came in. Unknown fields are refused. Every error is a problem
document (RFC 9457) that names each wrong field and says what would be right; the request has then changed nothing.\
"""

SECURITY_SCHEME = "apiKey"
SECURITY = """\
If API keys are configured (`AQ_API_KEYS_FILE`), every request needs one: `Authorization: Bearer <key>`.

A key has a role. A `reader` may send every GET, and `POST /query` without a lease. An `annotator` may also send and
retract labels and lease samples. An `admin` may also create, train, extend, import and delete projects. A key may
access all projects or some; others look as if they did not exist. A key may belong to an annotator: its requests then
count as this annotator's, and `annotator` may be left out but must not name another.\
"""

BASIC_SCHEME = "apiKeyAsPassword"
BASIC = "The API key as the password, with any name of a user, as Label Studio sends it."

PATH_PARAMETERS = {
    "project_id": ({"type": "string", "pattern": f"^{PROJECT_ID}$"}, "The project's name."),
    "query_id": ({"type": "string", "minLength": 1}, "The query that made the lease."),
    "simulation_id": ({"type": "string", "minLength": 1}, "The id in the reply to POST /simulate."),
    "page": (
        named("GuidePage", "The name of a page of the guide.", {"type": "string", "enum": list(GUIDES)}),
        "The page's name.",
    ),
    "sample_id": ({"type": "string", "minLength": 1}, "The sample's id, as text."),
    "index": ({"type": "integer", "minimum": 0, "maximum": 10**18 - 1}, "The sample's position in the pool."),
}

REQUEST_ID_HEADER = {
    problem_document.REQUEST_ID_HEADER: {
        "description": "Id of the request, also in the log.",
        "schema": {"type": "string"},
        "required": True,
    }
}
ETAG_HEADER = {
    "ETag": {
        "description": "Identifies this version of the project.",
        "schema": {"type": "string"},
        "required": True,
    }
}
CHALLENGE_HEADER = {"WWW-Authenticate": {"description": "`Bearer`.", "schema": {"type": "string"}, "required": True}}
REPLAYED_HEADER = {
    REPLAYED: {
        "description": "`true` if this is the stored reply to an earlier request with the same key.",
        "schema": {"type": "string"},
        "required": False,
    }
}
"""Headers of replies."""

HEADER_PARAMETERS = {
    "Prefer": "`respond-async`: do not wait for the fit (RFC 7240).",
    "If-Match": "ETags: proceed only if the project has one of them. `*`: only if it exists. Else 412.",
    "If-None-Match": "ETags: proceed only if the project has none of them. `*`: only if it does not exist. Else 412.",
}
"""Headers of requests."""

KEY = """\
Makes the request safe to repeat for a day: sent again with the same key, it gets the stored reply and changes nothing.
1 to 255 visible ASCII characters, such as a UUID. Method, path, query, body, the key's rights and the headers that
matter must be the same, else 422; while the first request is running, 409 with `Retry-After`. Replies to refused and
failed requests are not stored.\
"""

UNLESS_KNOWN = "ETags the caller has: the reply is 304 if one of them is current."

HEADERS = {
    SAFE_HEADER: "How the cells of CSV are written: the value of `safe`.",
    "Location": "Path of the project or simulation.",
    "Preference-Applied": "`respond-async`.",
    "Retry-After": "Seconds until a leased sample may be free again.",
}
"""Headers of some replies."""


MAXIMA = {"batch_size": Settings().max_batch}
"""Default maxima of the fields that a setting limits."""

EVERY_REQUEST = (422,)
"""Error statuses of every request: a query parameter may be unknown."""

EVERY_BODY = (400, 408)
"""Error statuses of every request with a body."""

READERS: dict[str, Callable[[str], Any]] = {"integer": int, "number": float, "boolean": json.loads}
"""How parameters that are not strings are read."""

MEANINGS = {
    400: "The body cannot be parsed: it is incomplete, or not JSON, or not a form.",
    401: "The API key is missing or unknown.",
    403: "The key's role, projects or annotator do not allow this.",
    404: "There is no such project, label, lease or page.",
    406: "No media type in `Accept` is available.",
    408: "The body arrives too slowly.",
    409: "The state of the project does not allow this, there are too many projects, or this request is still running.",
    411: "The request has neither Content-Length nor Transfer-Encoding: chunked.",
    412: "The project has another version than the conditions require; the detail names its ETag.",
    413: "The body is larger than the configured limit.",
    415: "The media type or the encoding of the body is not supported.",
    422: "The request has wrong values; each wrong field is named.",
    503: "The service is busy with heavy requests, the project is locked, or the disk is read-only; try again.",
    504: "The query takes longer than the configured limit.",
    507: "The disk is full.",
}
"""The meaning of each error status."""


def render() -> str:
    """Return the text of openapi.yaml."""
    head = "# Made from the code by `active-query openapi`; do not edit.\n"
    return head + yaml.dump(build(), Dumper=Plain, sort_keys=False, allow_unicode=True, width=120)


class Plain(yaml.SafeDumper):
    """Writes YAML without anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        """Write no anchors."""
        return True

    def write_text(self, text: str) -> yaml.Node:
        """Write text of several lines as a block."""
        return self.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)

    def write_list(self, values: list[Any]) -> yaml.Node:
        """Write a list of plain values in one line."""
        is_plain = not any(isinstance(value, dict | list) for value in values)
        return self.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=is_plain)


Plain.add_representer(str, Plain.write_text)
Plain.add_representer(list, Plain.write_list)


def build() -> dict[str, Any]:
    """Return the contract as plain values."""
    plugin = MarshmallowPlugin(schema_name_resolver=name_of_schema)
    spec = APISpec(
        title="Active Query",
        version=__version__,
        openapi_version="3.1.0",
        plugins=[plugin],
        info={"description": DESCRIPTION, "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"}},
        servers=[{"url": "/", "description": "This service."}],
        tags=[{"name": group.tag, "description": group.description} for group in OPERATIONS.tags],
    )
    converter: Any = plugin.converter
    converter.add_attribute_function(schema_of_field)
    for name, schema in COMPONENTS.items():
        spec.components.schema(name, schema)
    spec.components.security_scheme(SECURITY_SCHEME, {"type": "http", "scheme": "bearer", "description": SECURITY})
    spec.components.security_scheme(BASIC_SCHEME, {"type": "http", "scheme": "basic", "description": BASIC})
    for operation in OPERATIONS.all:
        if operation.parts:
            spec.components.schema(name_of_form(operation), form_schema(operation, converter))
        spec.path(path=route_of_contract(operation.path), operations={operation.method.lower(): describe(operation)})
    document: dict[str, Any] = tidy(spec.to_dict())
    for (schema, *_), name in converter.refs.items():
        described = document["components"]["schemas"]
        described[name] = {"description": " ".join((inspect.getdoc(schema) or "").split()), **described[name]}
    for item in document["paths"].values():
        for described in item.values():
            for parameter in described.get("parameters", ()):
                add_examples(parameter, described["operationId"])
    return {key: document[key] for key in ("openapi", "info", "servers", "tags", "paths", "components")}


def name_of_schema(schema: Any) -> str:
    """Return the name of a schema in the contract; those of requests and replies differ."""
    kind = schema if isinstance(schema, type) else type(schema)
    name = kind.__name__.removesuffix("Schema")
    return f"{name}Request" if any(kind is operation.body for operation in OPERATIONS.all) else name


def name_of_form(operation: Operation) -> str:
    """Return the name of the schema of an operation's form."""
    return cast("type[Schema]", operation.body).__name__.removesuffix("Schema") + "Form"


def schema_of_field(self: Any, field: fields.Field[Any], **_: Any) -> dict[str, Any]:
    """Return the JSON Schema of a field that has one of its own."""
    if isinstance(field, RawField):
        return field.schema
    if not isinstance(field, RuleField):
        return {}
    return field.rule.schema | ({"maximum": MAXIMA[field.name]} if field.name in MAXIMA else {})


def describe(operation: Operation) -> dict[str, Any]:
    """Return one operation."""
    described: dict[str, Any] = {
        "operationId": operation.name,
        "tags": [operation.tag],
        "summary": operation.summary,
        "description": operation.description,
    }
    schemes = [SECURITY_SCHEME, *([BASIC_SCHEME] if operation.takes_password else [])]
    described["security"] = [] if operation.role is None else [{scheme: [str(operation.role)]} for scheme in schemes]
    parameters = path_parameters(operation) + ([{"in": "query", "schema": operation.query}] if operation.query else [])
    if operation.runs_once:
        parameters.append(header_parameter(KEY_HEADER, KEY))
    parameters += [header_parameter(name, HEADER_PARAMETERS[name]) for name in operation.headers]
    if is_cached(operation):
        parameters += [
            header_parameter("If-Match", HEADER_PARAMETERS["If-Match"]),
            header_parameter("If-None-Match", UNLESS_KNOWN),
        ]
    if parameters:
        described["parameters"] = parameters
    if operation.files:
        content = {
            media_type: {"schema": FORM_FIELDS if media_type == FORM else binary(media_type)}
            for media_type in operation.files
        }
        described["requestBody"] = {"required": True, "content": content}
    if operation.body:
        described["requestBody"] = {"required": not operation.optional, "content": request_content(operation)}
    described["responses"] = responses(operation)
    return described


def path_parameters(operation: Operation) -> list[dict[str, Any]]:
    """Return the path parameters."""
    return [
        {"in": "path", "name": name, "required": True, "schema": schema, "description": description}
        for name in re.findall(r"<(?:\w+:)?(\w+)>", operation.path)
        for schema, description in [PATH_PARAMETERS[name]]
    ]


def header_parameter(name: str, description: str) -> dict[str, Any]:
    """Return a request header."""
    return {
        "in": "header",
        "name": name,
        "required": False,
        "schema": {"type": "string"},
        "description": description,
    }


def is_cached(operation: Operation) -> bool:
    """Return whether an operation supports conditional GET."""
    return operation.method == "GET" and any(reply.etag for reply in operation.replies.values())


def request_content(operation: Operation) -> dict[str, Any]:
    """Return the media types of a body, each with its examples from the story."""
    told = [example for example in STORY if example.operation == operation.name]
    content: dict[str, Any] = {JSON: {"schema": operation.body}}
    bodies = examples((example.title, example.body) for example in told if example.body is not None)
    if bodies:
        content[JSON]["examples"] = bodies
    if operation.parts:
        content[MULTIPART] = form(operation)
        forms = examples((example.title, sent_parts(example.parts)) for example in told if example.parts is not None)
        if forms:
            content[MULTIPART]["examples"] = forms
    if operation.lines:
        content[NDJSON] = {"schema": {**binary(NDJSON), "description": f"Each line is {operation.lines}."}}
        table = "A table with a line of column names; `columns` says what they are."
        content[CSV] = {"schema": {**binary(CSV), "description": table}}
    return content


FORM_FIELDS = {"type": "object", "additionalProperties": {"type": "string"}}


def binary(media_type: str) -> dict[str, Any]:
    """Return the schema of a file: by `format` as most generators of clients read it, and as OpenAPI 3.1 wants it."""
    return {"type": "string", "format": "binary", "contentMediaType": media_type}


def sent_parts(parts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parts of a form as an example shows them: `config` as an object, the arrays as files of JSON."""
    return {name: value if name == "config" else pretty(value) for name, value in parts.items()}


def form(operation: Operation) -> dict[str, Any]:
    """Return the body of a form, with the media types of its parts."""
    return {
        "schema": {"$ref": f"#/components/schemas/{name_of_form(operation)}"},
        "encoding": {
            "config": {"contentType": JSON},
            **{name: {"contentType": ", ".join(FORMATS[name])} for name in operation.parts},
        },
    }


def form_schema(operation: Operation, converter: Any) -> dict[str, Any]:
    """Return the schema of an operation's form: arrays as files, and all other fields in `config`."""
    schema = cast("type[Schema]", operation.body)
    schema_fields = schema().fields
    described = {
        name: {**binary(next(iter(FORMATS[name]))), "description": field.metadata["description"]}
        for name, field in schema_fields.items()
        if name in operation.parts
    }
    config = converter.resolve_nested_schema(config_of(schema, operation.parts))
    return {
        "description": f"{operation.summary}: a form with arrays as files.",
        "type": "object",
        "required": ["X"] if schema_fields["X"].required else ["config"],
        "additionalProperties": False,
        "properties": {"config": {**config, "description": "All other fields."}, **described},
    }


def config_of(schema: type[Schema], parts: tuple[str, ...]) -> type[Schema]:
    """Return the schema of the part `config`: the fields that have no part of their own."""
    options = type("Meta", (schema.Meta,), {"exclude": parts})
    name = schema.__name__.replace("Schema", "ConfigSchema")
    return type(name, (schema,), {"Meta": options, "__doc__": "The fields of a form that are not files."})


def responses(operation: Operation) -> dict[str, Any]:
    """Return the responses of an operation."""
    responses = {str(status): success(operation, status, reply) for status, reply in operation.replies.items()}
    if is_cached(operation):
        responses["304"] = {"description": "The caller's copy is current.", "headers": REQUEST_ID_HEADER | ETAG_HEADER}
    has_body = operation.body or operation.files
    conditions = (412,) if is_cached(operation) else ()
    keys = (409,) if operation.runs_once else ()
    statuses = sorted(
        {
            *EVERY_REQUEST,
            *operation.problems,
            *(EVERY_BODY if has_body else ()),
            *refusals(operation),
            *conditions,
            *keys,
        }
    )
    for status in statuses:
        responses[str(status)] = failure(MEANINGS[status], operation, status)
    responses["default"] = failure("Any other error, such as an internal error (500).", operation, None)
    return responses


def refusals(operation: Operation) -> tuple[int, ...]:
    """Return the statuses for a missing key and for a key of too low a role."""
    if operation.role is None:
        return ()
    return (401,) if operation.role == min(Role) else (401, 403)


def success(operation: Operation, status: int, reply: Reply) -> dict[str, Any]:
    """Return a response of success."""
    described: dict[str, Any] = {
        "description": reply.description,
        "headers": REQUEST_ID_HEADER
        | (ETAG_HEADER if reply.etag else {})
        | (REPLAYED_HEADER if operation.runs_once else {})
        | {
            name: {"description": HEADERS[name], "schema": {"type": "string"}, "required": name in reply.headers}
            for name in reply.headers + reply.some_headers
        },
    }
    content: dict[str, Any] = {
        media_type: {"schema": {"type": "string"} if is_text(media_type) else binary(media_type)}
        for media_type in reply.media_types
    }
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


def is_text(media_type: str) -> bool:
    """Return whether files of a media type are text."""
    return media_type.startswith("text/") or media_type == YAML


def failure(description: str, operation: Operation, status: int | None) -> dict[str, Any]:
    """Return an error response."""
    body: dict[str, Any] = {"schema": problem_document.ProblemSchema}
    shown = examples(
        (example.title, example.reply)
        for example in STORY
        if (example.operation, example.status) == (operation.name, status) and example.reply is not None
    )
    if shown:
        body["examples"] = shown
    headers = REQUEST_ID_HEADER | (CHALLENGE_HEADER if status == 401 else {})
    content: dict[str, Any] = {problem_document.MEDIA_TYPE: body}
    if operation.page:
        content[HTML] = {"schema": {"type": "string"}}
    return {"description": description, "headers": headers, "content": content}


def examples(titled: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Return examples under names made of their titles."""
    return {
        re.sub(r"\W+", "_", title.lower()).strip("_"): {"summary": title, "value": value} for title, value in titled
    }


def add_examples(parameter: dict[str, Any], operation: str) -> None:
    """Add to a parameter its values in the story, under the names of their examples."""
    read = READERS.get(parameter["schema"].get("type"), str)
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
