"""The shortcuts of the schemas give what marshmallow's own `load` and `dump` give."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from marshmallow import Schema, ValidationError

from service.http.contract.examples import STORY
from service.http.routes import OPERATIONS
from service.http.schemas.base import BaseSchema
from tests.support.calls import end_labels, get, line_pool, post

SCHEMAS = {operation.name: operation.body for operation in OPERATIONS.all if operation.body}
BODIES = [(SCHEMAS[each.operation], each.body) for each in STORY if each.operation in SCHEMAS and each.body is not None]


def outcome(load: Any, body: Any) -> Any:
    try:
        loaded = load(body)
    except ValidationError as error:
        return error.messages
    return {name: value.tolist() if isinstance(value, np.ndarray) else repr(value) for name, value in loaded.items()}


@pytest.mark.parametrize(("schema", "body"), BODIES)
def test_load_gives_what_marshmallow_loads(schema: type[BaseSchema], body: dict[str, Any]) -> None:
    plain = schema()
    wrong = [{**body, name: None} for name in body] + [{**body, name: {"wrong": 1}} for name in body]
    incomplete = [{name: value for name, value in body.items() if name != left_out} for left_out in body]
    for document in (body, {**body, "unknown": 1}, *wrong, *incomplete):
        assert outcome(plain.load, document) == outcome(lambda data: Schema.load(plain, data), document)


def test_dump_gives_what_marshmallow_dumps(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    dumped = {}

    def both(schema: BaseSchema, obj: Any, **options: Any) -> Any:
        found = dump(schema, obj, **options)
        dumped.setdefault(type(schema).__name__, []).append((found, Schema.dump(schema, obj, **options)))
        return found

    dump = BaseSchema.dump
    monkeypatch.setattr(BaseSchema, "dump", both)
    post(client, "/fit", 201, project_id="p", X=line_pool(), y=end_labels(), X_test=line_pool(2), y_test=[0, 1])
    post(client, "/fit", 201, project_id="bare", X=line_pool())
    for project_id in ("p", "bare"):
        post(client, "/query", project_id=project_id, explain=True, annotator="ada", lease_seconds=60)
        post(client, "/label", project_id=project_id, labels=[{"index": 3, "label": 0}])
        for path in ("", "/leases"):
            get(client, f"/projects/{project_id}{path}")
    for path in ("/projects", "/strategies", "/estimators"):
        get(client, path)
    assert len(dumped) >= 10
    for name, pairs in dumped.items():
        for found, expected in pairs:
            assert found == expected, name
