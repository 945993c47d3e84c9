"""Limits of a worker: the time of a query, concurrent heavy requests, projects and pool sizes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient

from service.app import create_app
from service.compute import admission
from service.compute.deadline import check_deadline, time_limit
from service.compute.threads import run_in_threads
from service.errors import OutOfTime
from service.settings import Settings
from service.strategies import STRATEGIES
from service.usecases.query import query_project
from service.usecases.query_request import HEAVY_SAMPLES, QueryRequest
from tests.support.calls import end_labels, get, line_pool, post
from tests.support.strategies import FOR_CLASSES

# Time.


def test_work_in_threads_stops_at_the_deadline() -> None:
    done: list[int] = []

    def work(item: int) -> None:
        done.append(item)
        time.sleep(0.02)

    with pytest.raises(OutOfTime, match=r"AQ_QUERY_SECONDS=0\.3"), time_limit(0.3):
        run_in_threads(work, range(1000))
    assert 1 <= len(done) < 1000
    check_deadline()  # the limit went with its block


@pytest.fixture
def scored(client: FlaskClient) -> FlaskClient:
    """A project of 300 rows in three classes, with a small forest."""
    X = np.random.default_rng(0).normal(size=(300, 4)).tolist()
    y = [0, 1, 2] * 5 + [None] * 285
    forest = {"name": "random_forest", "params": {"n_estimators": 10}}
    post(client, "/fit", 201, project_id="p", X=X, y=y, estimator=forest)
    return client


# `random` only draws; `k_means` passes a sample of bounded size to one call of scikit-learn.
QUICK = {"random", "k_means"}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(FOR_CLASSES) - QUICK))
def test_every_strategy_stops_at_the_deadline(app: Flask, scored: FlaskClient, name: str) -> None:
    store = app.extensions["active-query"].store
    params = {parameter.name: parameter.default for parameter in STRATEGIES[name].parameters}
    request = QueryRequest("p", STRATEGIES[name], params, batch_size=10)
    with pytest.raises(OutOfTime), time_limit(-1):
        query_project(store, request)
    assert len(query_project(store, request).indices) == 10


def test_a_query_that_takes_too_long_is_504(tmp_path: Any) -> None:
    client = create_app(Settings(data_dir=tmp_path, query_seconds=0, log_level="error")).test_client()
    post(client, "/fit", 201, project_id="p", X=line_pool(), y=end_labels())
    problem = post(client, "/query", 504, project_id="p", strategy="margin")
    assert "AQ_QUERY_SECONDS=0" in problem["detail"]


# Heavy requests.


@pytest.fixture
def taken(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[FlaskClient]:
    """A service with its only heavy request in progress, a small project `p` and a large one `large`."""
    monkeypatch.setattr(admission, "ADMISSION_WAIT_SECONDS", 0.01)
    app = create_app(Settings(data_dir=tmp_path, heavy_requests=1, log_level="error"))
    client = app.test_client()
    post(client, "/fit", 201, project_id="p", X=line_pool(), y=end_labels())
    post(client, "/fit", 201, project_id="large", X=line_pool(HEAVY_SAMPLES), y=end_labels(HEAVY_SAMPLES))
    post(client, "/query", project_id="large", strategy="entropy")
    with app.extensions["active-query"].admission.enter():
        yield client


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/fit", {"project_id": "p"}),
        ("/fit", {"project_id": "new", "X": [[1.0]]}),
        ("/query", {"project_id": "large", "strategy": "margin"}),
    ],
)
def test_too_many_heavy_requests_are_503_with_retry_after(taken: FlaskClient, path: str, body: Any) -> None:
    before = get(taken, "/projects")
    reply = taken.post(path, json=body)
    assert (reply.status_code, reply.headers["Retry-After"]) == (503, "1")
    assert "AQ_HEAVY_REQUESTS=1" in reply.json["detail"]
    assert get(taken, "/projects") == before


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/fit", {"project_id": "p", "estimator": "k_neighbors"}),
        ("/query", {"project_id": "p", "strategy": "margin"}),
        ("/query", {"project_id": "large", "strategy": "entropy"}),
        ("/label", {"project_id": "p", "labels": [{"index": 3, "label": 0}]}),
    ],
)
def test_quick_requests_are_served_meanwhile(taken: FlaskClient, path: str, body: Any) -> None:
    headers = {"Prefer": "respond-async"} if path == "/fit" else {}
    assert taken.post(path, json=body, headers=headers).status_code in (200, 202)


def test_a_failed_request_does_not_count_any_more(tmp_path: Any) -> None:
    client = create_app(Settings(data_dir=tmp_path, heavy_requests=1, log_level="error")).test_client()
    for _ in range(2):
        post(client, "/fit", 422, project_id="p", X=[[5.0]] * 4, y=[0, 1, 0, 1], estimator="gaussian_nb")


# Races at a limit.


def statuses_of(n_threads: int, call: Callable[[int], int]) -> list[int]:
    """Call a function in threads at once, and return the sorted results."""
    start = Barrier(n_threads)

    def begin(number: int) -> int:
        start.wait()
        return call(number)

    with ThreadPoolExecutor(n_threads) as threads:
        return sorted(threads.map(begin, range(n_threads)))


def test_concurrent_requests_do_not_exceed_the_limit_of_projects(tmp_path: Path) -> None:
    app = create_app(Settings(data_dir=tmp_path, max_projects=3, heavy_requests=8, log_level="error"))

    def create(number: int) -> int:
        return app.test_client().post("/fit", json={"project_id": f"p{number}", "X": line_pool()}).status_code

    assert statuses_of(8, create) == [201] * 3 + [409] * 5
    assert len(get(app.test_client(), "/projects")["projects"]) == 3
    assert len(list((tmp_path / "projects").iterdir())) == 3


def test_concurrent_requests_do_not_exceed_the_limit_of_a_pool(tmp_path: Path) -> None:
    app = create_app(Settings(data_dir=tmp_path, max_pool_cells=200, log_level="error"))
    post(app.test_client(), "/fit", 201, project_id="p", X=line_pool(20))

    def grow(_: int) -> int:
        return app.test_client().post("/projects/p/pool", json={"X": line_pool(30)}).status_code

    assert statuses_of(6, grow) == [200] * 2 + [422] * 4
    assert get(app.test_client(), "/projects/p")["n_samples"] == 80
