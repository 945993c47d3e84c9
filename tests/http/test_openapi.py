"""openapi.yaml is up to date, valid and complete; its examples get the replies shown."""

from __future__ import annotations

import json
import re
from io import BytesIO
from pathlib import Path
from typing import Any

import yaml
from flask import Flask
from flask.testing import FlaskClient
from openapi_spec_validator import validate

from service.auth.keys import Role
from service.http.contract import openapi
from service.http.contract.examples import STORY, Example
from service.http.routes import OPERATIONS
from tests.support.placeholders import approx_nested, with_placeholders

COMMITTED = Path(__file__).parents[2] / "openapi.yaml"
ROUTES = {operation.name: operation for operation in OPERATIONS.all}


def test_the_committed_file_is_up_to_date() -> None:
    assert COMMITTED.read_text() == openapi.render(), "run `active-query openapi`"


def test_the_contract_is_valid() -> None:
    validate(yaml.safe_load(COMMITTED.read_text()))


def test_every_route_of_the_application_is_in_the_contract(app: Flask) -> None:
    documented = {(method.upper(), path) for path, item in openapi.build()["paths"].items() for method in item}
    routed = {
        (method, re.sub(r"<(\w+)>", r"{\1}", rule.rule))
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert documented == routed


def test_every_write_may_find_the_disk_full() -> None:
    writers = [operation for operation in OPERATIONS.all if operation.role in (Role.ANNOTATOR, Role.ADMIN)]
    assert [operation.name for operation in writers if 507 not in operation.problems] == []


def test_a_lease_ends_after_it_starts() -> None:
    leases = [example.reply for example in STORY if example.operation == "renew_lease"]
    assert all(lease["leased_at"] < lease["expires_at"] for lease in leases)


def test_every_operation_has_an_example_of_every_way_to_succeed() -> None:
    shown = {(example.operation, example.status) for example in STORY}
    assert {(operation.name, status) for operation in OPERATIONS.all for status in operation.replies} <= shown


def test_every_example_gets_the_reply_shown(client: FlaskClient) -> None:
    replies: dict[str, bytes] = {}
    for example in STORY:
        response = send(client, example, replies)
        if response.status_code == 200:
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
    path = re.sub(r"<(\w+)>", lambda match: given[match[1]], operation.path)
    options: dict[str, Any] = {"query_string": dict(example.query), "headers": dict(example.headers)}
    if example.body is not None:
        options["json"] = example.body
    if example.parts is not None:
        options["data"] = {
            name: (BytesIO(json.dumps(value).encode()), f"{name}.json", "application/json")
            for name, value in example.parts.items()
        }
    if example.upload is not None:
        options |= {"data": replies[example.upload], "content_type": operation.file}
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
