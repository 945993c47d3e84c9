"""Backends: the scores are those of threads, even if a cluster fails."""

from __future__ import annotations

import logging
import pickle
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient

from service import backends
from service.backends import cluster
from service.backends.cluster import Cluster, ClusterLink, make_tasks, watch_for_stalls
from service.backends.task import ScoringState, Task, WorkerMismatch, score_task
from service.learning.pool import Chunk, Pool
from service.learning.scoring import score_pool
from service.settings import Settings, SettingsError
from service.store import Part, Snapshot, Store
from service.strategies.uncertainty import entropy, margin
from tests.support.calls import post
from tests.support.serving import Upload

N_ROWS = 20_000


class Here:
    """A cluster of this process only."""

    def __init__(self, n_cores: int = 2) -> None:
        self.cores = n_cores

    def n_cores(self) -> int:
        return self.cores

    def run(self, work: Callable[[Any], Any], tasks: Sequence[Any], n_at_once: int) -> Iterator[tuple[Any, Any]]:
        for task in tasks:
            sent_work, sent = pickle.loads(pickle.dumps((work, task)))
            yield task, sent_work(sent)

    def close(self) -> None:
        self.cores = 0


class Dying(Here):
    """A cluster that is lost after its first result."""

    def run(self, work: Callable[[Any], Any], tasks: Sequence[Any], n_at_once: int) -> Iterator[tuple[Any, Any]]:
        yield from super().run(work, tasks[:1], n_at_once)
        raise ConnectionResetError("the head is gone")


class Silent(Here):
    """A cluster that never returns a result."""

    def run(self, work: Callable[[Any], Any], tasks: Sequence[Any], n_at_once: int) -> Iterator[tuple[Any, Any]]:
        threading.Event().wait(20)
        yield from super().run(work, tasks, n_at_once)


@pytest.fixture
def project(client: FlaskClient, request: pytest.FixtureRequest) -> str:
    """A project of three chunks and a second segment, with a model."""
    rng = np.random.default_rng(0)
    estimator = getattr(request, "param", "logistic_regression")
    X = rng.normal(size=(N_ROWS, 64)).astype(np.float32)
    upload = Upload({"project_id": "cats", "estimator": estimator}, "<f4", X.shape, [X.tobytes()])
    assert client.post("/fit", data=b"".join(upload), content_type=upload.content_type).status_code == 201
    labels = [{"index": row, "label": row % 3} for row in range(30)]
    post(client, "/label", project_id="cats", labels=labels)
    post(client, "/projects/cats/pool", X=rng.normal(size=(300, 64)).tolist())
    return "cats"


def opened(tmp_path: Path) -> Snapshot:
    return Store(tmp_path / "data").read("cats", Part.POOL, Part.MODEL)


def scored(snapshot: Snapshot, backend: Cluster | None = None, scorer=margin) -> np.ndarray:
    assert snapshot.pool is not None
    wanted = np.ones(len(snapshot.pool), bool)
    chosen = {} if backend is None else {"backend": backend}
    return np.concatenate(score_pool(snapshot.model, snapshot.pool, scorer, wanted, **chosen))


def task_of(tmp_path: Path, scorer=margin) -> Task:
    snapshot = opened(tmp_path)
    basis = ScoringState.of(tmp_path / "data", snapshot.project)
    assert basis is not None and snapshot.pool is not None
    return Task(basis, scorer, tuple(snapshot.pool.chunks(len(snapshot.model.classes_))))


def label_one_more(client: FlaskClient) -> None:
    post(client, "/label", project_id="cats", labels=[{"index": 100, "label": 1}])


@pytest.mark.parametrize("scorer", [margin, entropy])
@pytest.mark.parametrize("project", ["logistic_regression", "gaussian_nb", "random_forest"], indirect=True)
def test_a_worker_gives_the_scores_of_threads_to_the_bit(project, tmp_path, scorer):
    scores = score_task(pickle.loads(pickle.dumps(task_of(tmp_path, scorer))))
    assert np.array_equal(scores, scored(opened(tmp_path), scorer=scorer))


def test_a_worker_notices_a_new_model(project, client, tmp_path):
    task = task_of(tmp_path)
    label_one_more(client)
    assert score_task(task) is None


def test_a_worker_sees_that_the_pool_grew(project, client, tmp_path):
    task = task_of(tmp_path)
    post(client, "/projects/cats/pool", X=[[0.0] * 64])
    assert score_task(task) is None


def test_a_worker_sees_that_the_project_is_gone_or_another(project, client, tmp_path):
    task = task_of(tmp_path)
    assert client.delete("/projects/cats").status_code == 204
    assert score_task(task) is None
    X = [[float(i)] * 64 for i in range(4)]
    post(client, "/fit", expect=201, project_id="cats", X=X, y=[0, None, None, 1])
    assert score_task(task) is None


def test_a_worker_of_other_versions_refuses(project, tmp_path):
    task = task_of(tmp_path)
    with pytest.raises(WorkerMismatch, match=r"has active-query .*, and the service has numpy 1\.0"):
        score_task(replace(task, basis=replace(task.basis, platform="numpy 1.0")))


def test_a_worker_without_the_data_directory_refuses(project, tmp_path):
    task = task_of(tmp_path)
    with pytest.raises(WorkerMismatch, match=r"has no data directory .*elsewhere"):
        score_task(replace(task, basis=replace(task.basis, root=tmp_path / "elsewhere")))
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("n_cores", [1, 3, 1000])
@pytest.mark.parametrize("n_chunks", [32, 33, 1000, 122_071])
def test_every_chunk_is_dealt_out_once(n_chunks, n_cores):
    chunks = [Chunk(0, slice(start, start + 1), slice(start, start + 1)) for start in range(n_chunks)]
    basis = ScoringState(Path("data"), "cats", "1", 1, (1,), "")
    tasks = make_tasks(basis, margin, chunks, n_cores)
    assert [chunk for task in tasks for chunk in task.chunks] == chunks
    assert max(len(task.chunks) for task in tasks) <= cluster.TASK_CHUNKS[1]
    assert min(len(task.chunks) for task in tasks[:-1]) >= cluster.TASK_CHUNKS[0]


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Use the cluster for small pools, shorten its timeouts, and return the log."""
    monkeypatch.setattr(cluster, "MIN_CHUNKS", 1)
    monkeypatch.setattr(cluster, "TASK_CHUNKS", (1, 1))
    monkeypatch.setattr(cluster, "STALL_SECONDS", 0.5)
    monkeypatch.setattr(logging.getLogger("service"), "propagate", True)
    caplog.set_level(logging.DEBUG, "service.backends")
    return caplog


def refused() -> Here:
    raise ConnectionRefusedError("nobody listens")


@pytest.mark.parametrize(
    ("connect", "n_done", "words"),
    [
        (Here, 4, None),
        (Dying, 1, "ConnectionResetError: the head is gone"),
        (Silent, 0, "no result for 0 seconds"),
        (refused, 0, "ConnectionRefusedError: nobody listens"),
        (lambda: Here(n_cores=0), 0, "it has no workers"),
    ],
)
def test_the_scores_are_the_same_if_the_cluster_fails(project, tmp_path, busy, connect, n_done, words):
    snapshot = opened(tmp_path)
    backend = Cluster(ClusterLink("ray", connect), tmp_path / "data", snapshot.project)
    assert np.array_equal(scored(snapshot, backend), scored(snapshot))
    assert f"ray scored {n_done} of 4 chunks of cats" in busy.text
    warnings = [record.getMessage() for record in busy.records if record.levelname == "WARNING"]
    assert len(warnings) == (words is not None)
    assert all(words in warning for warning in warnings)


def test_chunks_of_an_outdated_state_are_scored_locally(project, client, tmp_path, busy):
    before = opened(tmp_path)
    backend = Cluster(ClusterLink("ray", Here), tmp_path / "data", before.project)
    label_one_more(client)
    assert np.array_equal(scored(before, backend), scored(before))
    assert "ray scored 0 of 4 chunks" in busy.text


def test_a_failed_cluster_is_not_used_for_a_while(project, tmp_path, busy, monkeypatch):
    tried = []

    def connect() -> Here:
        tried.append(1)
        return refused()

    snapshot = opened(tmp_path)
    backend = Cluster(ClusterLink("ray", connect), tmp_path / "data", snapshot.project)
    for _ in range(3):
        scored(snapshot, backend)
    assert len(tried) == 1
    monkeypatch.setattr(time, "monotonic", lambda now=time.monotonic: now() + cluster.RETRY_SECONDS)
    scored(snapshot, backend)
    assert len(tried) == 2


def test_a_small_pool_is_not_worth_the_way(project, tmp_path):
    snapshot = opened(tmp_path)
    scores = scored(
        snapshot, Cluster(ClusterLink("ray", lambda: pytest.fail("asked")), tmp_path / "data", snapshot.project)
    )
    assert np.array_equal(scores, scored(snapshot))


def test_an_error_of_a_watched_iterator_is_raised():
    def broken() -> Iterator[int]:
        yield 1
        raise ZeroDivisionError

    seen = watch_for_stalls(broken, 5)
    assert next(seen) == 1
    with pytest.raises(ZeroDivisionError):
        next(seen)


@pytest.mark.parametrize(
    ("backend", "address"),
    [
        ("threads", "none"),
        ("dask", "tcp://scheduler:8786"),
        ("dask", "tls://10.0.0.1:8786"),
        ("dask", "tcp://[::1]:8786"),
        ("ray", "ray://head:10001"),
    ],
)
def test_a_cluster_and_its_address_are_read(backend, address):
    settings = Settings.from_env({"AQ_BACKEND": backend, "AQ_BACKEND_ADDRESS": address})
    assert (settings.backend, settings.backend_address) == (backend, address)


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"AQ_BACKEND": "spark"}, "AQ_BACKEND='spark': must be one of threads, dask, ray"),
        ({"AQ_BACKEND": "dask"}, "with AQ_BACKEND=dask it must be tcp://host:port or tls://host:port"),
        ({"AQ_BACKEND": "ray"}, "with AQ_BACKEND=ray it must be ray://host:port"),
        ({"AQ_BACKEND": "ray", "AQ_BACKEND_ADDRESS": "head:6379"}, "it must be ray://host:port"),
        ({"AQ_BACKEND": "ray", "AQ_BACKEND_ADDRESS": "ray://head"}, "it must be ray://host:port"),
        ({"AQ_BACKEND": "dask", "AQ_BACKEND_ADDRESS": "ray://head:1"}, "it must be tcp://host:port"),
        ({"AQ_BACKEND_ADDRESS": "tcp://a:1"}, "an address is only used if AQ_BACKEND is dask or ray"),
    ],
)
def test_a_cluster_that_cannot_be_stops_the_start(environment, words):
    with pytest.raises(SettingsError) as caught:
        Settings.from_env(environment)
    assert words in str(caught.value)


def test_a_cluster_without_its_library_stops_the_start(monkeypatch):
    monkeypatch.setitem(backends.LIBRARIES, "dask", "no_such_library")
    with pytest.raises(SettingsError, match=r"pip install 'active-query\[dask\]'"):
        backends.make_backend_factory(Settings(backend="dask", backend_address="tcp://a:1"))


def test_without_a_model_nothing_is_asked_of_a_cluster(client, tmp_path, busy):
    post(client, "/fit", expect=201, project_id="cats", X=[[0.0], [1.0]])
    project = opened(tmp_path).project
    link = ClusterLink("ray", lambda: pytest.fail("asked"))
    pool = Pool.of(np.zeros((2, 1)))
    kept = []
    model = type("Certain", (), {"predict_proba": lambda self, X: np.ones((len(X), 1))})()
    Cluster(link, tmp_path, project).score(model, pool, margin, list(pool.chunks(1)), lambda *kept_: kept.append(kept_))
    assert len(kept) == 1
