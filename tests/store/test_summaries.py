"""The files that spare the list of projects their states: never another list than that of the states."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from service.app import create_app
from service.settings import Settings
from service.store import Store
from service.store.check import check_project
from service.store.layout import STATE, SUMMARY
from service.usecases import projects
from tests.support.calls import get, post

BODIES: dict[str, dict[str, Any]] = {
    "a": {"X": [[0.0], [1.0], [2.0]], "y": ["x", "y", None], "X_test": [[0.0]], "y_test": ["x"], "random_state": 3},
    "b": {"X": [[0.0], [1.0]], "y": [0.5, None], "feature_names": ["width"], "estimator": {"name": "ridge"}},
    "c": {"texts": ["red", "blue"], "y": [["warm"], []], "target": "labels", "estimator": "logistic_regression"},
}
"""Fields of projects whose summaries have every kind of value."""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def client(data: Path) -> FlaskClient:
    """Return a client of a service with three projects, which were listed once."""
    client = start(data)
    for name, body in BODIES.items():
        post(client, "/fit", 201, project_id=name, **body)
    get(client, "/projects")
    return client


def start(data: Path) -> FlaskClient:
    """Start another service on the same directory: a worker that has nothing cached."""
    return create_app(Settings(data_dir=data, log_level="error")).test_client()


def summary_of(data: Path, name: str = "a") -> Path:
    return data / "projects" / name / SUMMARY


def unread(project: Any) -> Any:
    raise AssertionError(f"the state of {project.project_id} was read")


def test_a_list_reads_no_states_whose_summaries_are_kept(
    client: FlaskClient, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [get(client, f"/projects/{name}") for name in BODIES]
    monkeypatch.setattr(projects, "summarize", unread)
    assert get(start(data), "/projects")["projects"] == expected


@pytest.mark.parametrize("refit", ["never", "wait"])
def test_a_summary_follows_each_commit(client: FlaskClient, data: Path, refit: str) -> None:
    post(client, "/label", project_id="a", labels=[{"index": 2, "label": "y"}], refit=refit)
    for each in (start(data), start(data), client):
        assert get(each, "/projects")["projects"][0] == get(client, "/projects/a")


DAMAGE = {
    "empty": lambda data: b"",
    "cut": lambda data: data[:-5],
    "of another program": lambda data: b"hello",
    "with a flipped bit": lambda data: bytes([*data[:40], data[40] ^ 1, *data[41:]]),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_summary_is_found_and_made_again(client: FlaskClient, data: Path, name: str) -> None:
    file = summary_of(data)
    file.write_bytes(DAMAGE[name](file.read_bytes()))
    assert [finding.file for finding in check_project(file.parent)] == [SUMMARY]
    assert get(start(data), "/projects")["projects"][0] == get(client, "/projects/a")
    assert check_project(file.parent) == []


def test_a_summary_of_another_state_with_the_same_stamp_is_found_and_dropped_at_the_start(
    client: FlaskClient, data: Path
) -> None:
    # After a power cut the new state may be on disk, and its time not.
    state = data / "projects" / "a" / STATE
    before = state.stat()
    post(client, "/label", project_id="a", labels=[{"index": 2, "label": "y"}], refit="never")
    assert state.stat().st_ino == before.st_ino
    os.utime(state, ns=(before.st_mtime_ns, before.st_mtime_ns))
    version = get(client, "/projects/a")["version"]
    problem = f"is that of version {version - 1}, and not of {version}"
    assert [finding.problem for finding in check_project(state.parent)] == [problem]
    assert get(start(data), "/projects")["projects"][0] == get(client, "/projects/a")
    assert check_project(state.parent) == []


def test_a_summary_of_other_classes_is_made_again(
    client: FlaskClient, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.store.summaries.shape_of", lambda value: "those of another version")
    made = []
    store = Store(data)
    for _ in range(2):
        store.summarize("a", lambda project: (made.append(project.version), 1))
    assert made == [1]


def test_a_summary_goes_with_its_project_and_a_directory_may_be_read_only(client: FlaskClient, data: Path) -> None:
    summary_of(data).unlink()
    (data / "projects" / "a" / f"{SUMMARY}.new").mkdir()  # so that nothing can be written there
    assert get(start(data), "/projects")["projects"][0] == get(client, "/projects/a")
    assert not summary_of(data).exists()
    assert client.delete("/projects/b").status_code == 204
    assert [each["project_id"] for each in get(start(data), "/projects")["projects"]] == ["a", "c"]
