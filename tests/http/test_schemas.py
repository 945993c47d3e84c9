"""The short ways through the schemas of small requests lead where marshmallow's own leads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from marshmallow import Schema, ValidationError

from service.http.contract.examples import STORY
from service.http.routes import OPERATIONS
from service.http.schemas import responses
from service.http.schemas.requests import PlainSchema, RequestSchema
from tests.support.calls import end_labels, line_pool, post

PLAIN = {
    operation.name: operation.body for operation in OPERATIONS.all if issubclass(operation.body or Schema, PlainSchema)
}
BODIES = [(PLAIN[each.operation], each.body) for each in STORY if each.operation in PLAIN and each.body is not None]


def outcome(load: Any, body: Any) -> Any:
    try:
        loaded = load(body)
    except ValidationError as error:
        return error.messages
    return {name: value.tolist() if isinstance(value, np.ndarray) else repr(value) for name, value in loaded.items()}


def test_small_requests_are_read_in_the_short_way() -> None:
    assert PLAIN.keys() == {"query_project", "label_project", "renew_lease"}


@pytest.mark.parametrize(("schema", "body"), BODIES)
def test_the_short_way_reads_what_marshmallow_reads(schema: type[PlainSchema], body: dict[str, Any]) -> None:
    plain = schema()
    spoiled = [{**body, name: None} for name in body] + [{**body, name: {"wrong": 1}} for name in body]
    lacking = [{name: value for name, value in body.items() if name != left_out} for left_out in body]
    for document in (body, {**body, "unknown": 1}, *spoiled, *lacking):
        assert outcome(plain.load, document) == outcome(lambda data: RequestSchema.load(plain, data), document)


def test_replies_are_shown_as_marshmallow_shows_them(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = []

    def both(schema: Schema, obj: Any, **options: Any) -> Any:
        found = dump(schema, obj, **options)
        shown.append((found, Schema.dump(schema, obj)))
        return found

    dump = responses.FlatSchema.dump
    monkeypatch.setattr(responses.FlatSchema, "dump", both)
    post(client, "/fit", 201, project_id="p", X=line_pool(), y=end_labels(), X_test=line_pool(2), y_test=[0, 1])
    post(client, "/fit", 201, project_id="bare", X=line_pool())
    for project_id in ("p", "bare"):
        post(client, "/query", project_id=project_id, explain=True)
        post(client, "/label", project_id=project_id, labels=[{"index": 3, "label": 0}])
    assert len(shown) == 4
    for found, expected in shown:
        assert found == expected
