"""The manifest of an import: every value of a wrong type or out of range is refused with a 4xx."""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from service.app import create_app
from service.settings import Settings
from tests.usecases.test_transfer import export, make, members_of, packed

JSON_VALUES = [None, True, 0, -1, 7, 2**64, 1e308, 0.5, "", "text", [], [7], [[]], {}, {"a": {}}]
SAME_BELOW = ("members", "estimator", "learning_curve", "test_score")
"""The values below these need be tried in one entry only."""

Place = tuple[str | int, ...]


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    client = new_client(tmp_path_factory.mktemp("exporter"))
    make(client)
    return members_of(export(client))


def new_client(path: Path) -> FlaskClient:
    return create_app(Settings(data_dir=path, log_level="critical", max_projects=10_000)).test_client()


def places(value: Any, place: Place = ()) -> Iterator[Place]:
    """The path of each value of a document."""
    yield place
    if isinstance(value, dict):
        entries = list(value.items())
    else:
        entries = list(enumerate(value)) if isinstance(value, list) else []
    for name, below in entries[:1] if place and place[-1] in SAME_BELOW else entries:
        yield from places(below, (*place, name))


def with_value(document: Any, place: Place, value: Any) -> Any:
    if not place:
        return value
    changed = deepcopy(document)
    target = changed
    for name in place[:-1]:
        target = target[name]
    target[place[-1]] = value
    return changed


def send(client: FlaskClient, members: dict[str, bytes], manifest: Any, name: str) -> tuple[int, Any]:
    data = packed(members | {"manifest.json": json.dumps(manifest).encode()})
    reply = client.post(
        "/projects/import", data=data, content_type="application/zip", query_string={"project_id": name}
    )
    return reply.status_code, reply.get_json()


@pytest.mark.slow
def test_no_value_anywhere_in_the_manifest_is_a_fault_of_the_service(members: dict[str, bytes], tmp_path: Path) -> None:
    client = new_client(tmp_path / "data")
    manifest = json.loads(members["manifest.json"])
    found = {}
    for number, place in enumerate(places(manifest)):
        for which, value in enumerate(JSON_VALUES):
            status, reply = send(client, members, with_value(manifest, place, value), f"p{number}-{which}")
            if status not in (201, 400, 422):
                found[place, repr(value)] = status
            elif status == 422:
                pointers = [error["pointer"] for error in reply["errors"]]
                assert all(pointer.startswith("/") for pointer in pointers), (place, value, reply)
    assert not found


COUNTERS = [("project", "version"), ("project", "labels_revision"), ("project", "last_model")]


@pytest.mark.parametrize("place", COUNTERS, ids="/".join)
@pytest.mark.parametrize("value", [2**63 - 1, 2**53, 2**53 - 1, 2**40 + 1, 2**40])
def test_a_project_with_a_large_counter_is_refused_or_its_later_numbers_are_exact(
    members: dict[str, bytes], tmp_path: Path, place: Place, value: int
) -> None:
    client = new_client(tmp_path / "data")
    manifest = with_value(json.loads(members["manifest.json"]), place, value)
    status, _ = send(client, members, manifest, "p")
    if value > 2**40:
        assert status == 422
        return
    assert status == 201
    again = json.loads(members_of(export(client))["manifest.json"])
    # Readers of JSON that know only float64 see whole numbers exactly up to here.
    assert again["project"][place[-1]] < 2**53 - 2**52
