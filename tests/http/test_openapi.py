"""openapi.yaml is up to date, valid and complete; its examples get the replies shown."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from io import BytesIO
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from flask import Flask
from flask.testing import FlaskClient
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from service.auth.keys import Role
from service.http.contract import openapi
from service.http.contract.examples import STORY
from service.http.contract.examples.example import Example
from service.http.routes import OPERATIONS
from tests.support.calls import wait_for_simulation
from tests.support.placeholders import approx_nested, with_placeholders

COMMITTED = Path(__file__).parents[2] / "openapi.yaml"
DOCUMENT = yaml.load(COMMITTED.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
ROUTES = {operation.name: operation for operation in OPERATIONS.all}


def test_the_committed_file_is_up_to_date() -> None:
    assert COMMITTED.read_text() == openapi.render(), "run `active-query openapi`"


def test_the_contract_is_valid() -> None:
    validate(DOCUMENT)


def test_every_route_of_the_application_is_in_the_contract(app: Flask) -> None:
    documented = {(method.upper(), path) for path, item in openapi.build()["paths"].items() for method in item}
    routed = {
        (method, re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule))
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert documented == routed


def test_every_write_may_find_the_disk_full() -> None:
    writers = [operation for operation in OPERATIONS.all if operation.role in (Role.ANNOTATOR, Role.ADMIN)]
    assert [operation.name for operation in writers if 507 not in operation.problems] == []


def parts_of(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Yield each object of the contract but those in examples, with its path."""
    if isinstance(value, dict):
        yield path, value
        for name, below in value.items():
            if name not in ("examples", "example"):
                yield from parts_of(below, (*path, name))
    elif isinstance(value, list):
        for position, below in enumerate(value):
            yield from parts_of(below, (*path, str(position)))


PARTS = dict(parts_of(DOCUMENT))
COMPONENTS = DOCUMENT["components"]["schemas"]


def test_each_object_and_enumeration_has_a_name_of_its_own() -> None:
    """Generators of clients make a type of each of these; see `named` in service/http/schemas/base.py."""
    types = [path for path, part in PARTS.items() if "enum" in part or isinstance(part.get("properties"), dict)]
    types = [path for path in types if path[-1] != "properties"]
    assert [path for path in types if path[:-1] != ("components", "schemas")] == []


def test_no_two_schemas_are_the_same() -> None:
    without_prose = {name: {**schema, "description": ""} for name, schema in COMPONENTS.items()}
    pairs = combinations(without_prose, 2)
    assert [(one, other) for one, other in pairs if without_prose[one] == without_prose[other]] == []


def test_no_schema_has_a_field_of_its_own_name() -> None:
    """A generated Python client would use one variable for both."""
    assert [name for name, schema in COMPONENTS.items() if name.lower() in schema.get("properties", {})] == []


def test_the_schemas_of_requests_are_named_after_them() -> None:
    ends = {"application/json": "Request", "multipart/form-data": "Form"}
    for path, body in PARTS.items():
        if "requestBody" in path and path[-1] in ends:
            assert body["schema"]["$ref"].endswith(ends[path[-1]]), path


def test_everything_is_described() -> None:
    described = {
        *((*path, name) for path, part in PARTS.items() if path[-1:] == ("properties",) for name in part),
        *(path for path, part in PARTS.items() if "operationId" in part),
        *(path for path in PARTS if path[:-1] in {("components", "schemas"), ("components", "securitySchemes")}),
        *(path for path in PARTS if path[-2:-1] in {("parameters",), ("responses",), ("headers",), ("tags",)}),
    }
    assert sorted(path for path in described if not PARTS[path].get("description", "").endswith(".")) == []


def test_each_operation_has_a_tag() -> None:
    names = [tag["name"] for tag in DOCUMENT["tags"]]
    assert len(names) == len(set(names))
    tagged = [part["tags"] for part in PARTS.values() if "operationId" in part]
    assert {len(tags) for tags in tagged} == {1}
    assert {tag for tags in tagged for tag in tags} == {*names}


def test_files_are_binary_in_both_spellings() -> None:
    bodies = [(path[-1], part) for path, part in PARTS.items() if path[-2:-1] == ("content",)]
    for media_type, body in bodies:
        has_fields = media_type.startswith("text/") or media_type.endswith(
            ("json", "yaml", "form-data", "form-urlencoded")
        )
        assert has_fields or body["schema"]["contentMediaType"] == media_type
    for path, part in PARTS.items():
        assert (part.get("format") == "binary") == ("contentMediaType" in part), path


def examples_with_schema() -> Iterator[tuple[str, Any, Any]]:
    """Yield each example of the contract: its path, its value and its schema."""
    for path, part in PARTS.items():
        for name, example in part.get("examples", {}).items() if "schema" in part else ():
            yield "/".join((*path, name)), example["value"], part["schema"]


@pytest.mark.parametrize(
    ("value", "schema"), [pytest.param(value, schema, id=path) for path, value, schema in examples_with_schema()]
)
def test_an_example_is_valid_against_its_schema(value: Any, schema: Any) -> None:
    Draft202012Validator({**schema, "components": DOCUMENT["components"]}).validate(value)


def test_all_examples_but_those_of_files_are_in_the_contract() -> None:
    shown = [part["examples"] for part in PARTS.values() if "schema" in part and "examples" in part]
    titles = {example["summary"] for examples in shown for example in examples.values()}
    assert {example.title for example in STORY if example.reply is not None} <= titles


def test_a_lease_ends_after_it_starts() -> None:
    leases = [example.reply for example in STORY if example.operation == "renew_lease"]
    assert all(lease["leased_at"] < lease["expires_at"] for lease in leases)


def test_every_operation_has_an_example_of_every_way_to_succeed() -> None:
    shown = {(example.operation, example.status) for example in STORY}
    succeeding = {(operation.name, status) for operation in OPERATIONS.all for status in operation.replies}
    assert succeeding <= shown


def test_every_example_gets_the_reply_shown(client: FlaskClient) -> None:
    replies: dict[str, bytes] = {}
    for example in STORY:
        response = send(client, example, replies)
        if response.status_code in (200, 202):
            replies[example.operation] = response.data
        assert response.status_code == example.status, (example.title, response.get_data(as_text=True))
        if example.reply is None:
            continue
        if example.media_type == "application/json":
            assert with_placeholders(response.get_json()) == approx_nested(with_placeholders(example.reply)), (
                example.title
            )
        else:
            assert with_placeholders(response.get_data(as_text=True)) == with_placeholders(example.reply), example.title


def send(client: FlaskClient, example: Example, replies: dict[str, bytes]) -> Any:
    """Send an example's request."""
    operation = ROUTES[example.operation]
    given = dict(example.path)
    if "query_id" in given:
        given["query_id"] = json.loads(replies["query_project"])["query_id"]
    if "simulation_id" in given:
        given["simulation_id"] = json.loads(replies["simulate"])["simulation_id"]
        wait_for_simulation(client, given["simulation_id"])
    path = re.sub(r"<(?:\w+:)?(\w+)>", lambda match: given[match[1]], operation.path)
    options: dict[str, Any] = {"query_string": dict(example.query), "headers": dict(example.headers)}
    if example.body is not None:
        options["json"] = example.body
    if example.form is not None:
        options["data"] = example.form
    if example.parts is not None:
        options["data"] = {
            name: (BytesIO(json.dumps(value).encode()), f"{name}.json", "application/json")
            for name, value in example.parts.items()
        }
    if example.upload is not None:
        options |= {"data": replies[example.upload], "content_type": operation.files[0]}
    return client.open(path, method=operation.method, **options)


def test_parameters_have_type_range_default_and_source(client: FlaskClient) -> None:
    offers = client.get("/strategies").json["strategies"] + client.get("/estimators").json["estimators"]
    by_name = {offer["name"]: offer for offer in offers}
    [sample] = by_name["k_means"]["params"]
    assert (sample["type"], sample["minimum"], sample["maximum"], sample["default"]) == (
        "integer",
        100,
        100_000,
        10_000,
    )
    assert all(offer["description"] and offer["source"] for offer in offers)
    assert all(parameter["description"] for offer in offers for parameter in offer["params"])
