"""Background fits: requested in the state, resumed by the next request, and reported when they fail."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient

from service.app import create_app
from service.compute import admission
from service.compute.threads import SELECTIONS, n_cores
from service.domain.project import format_time, now
from service.errors import ProjectNotFound, StoreFull
from service.settings import Settings
from service.store import Store
from service.store.staging import Staging
from service.store.store import FIT_MARK
from service.usecases import background_fits, training
from service.usecases.fit import FitRequest, fit_project
from tests.support.calls import end_labels, get, line_pool, post
from tests.support.serving import Service, wait_until

BACKGROUND = {"Prefer": "respond-async"}


def answer(client: FlaskClient, *indices: int, refit: str = "background") -> Any:
    records = [{"index": index, "label": index % 2} for index in indices]
    return post(client, "/label", project_id="p", labels=records, refit=refit)


def settle(client: FlaskClient) -> Any:
    """Wait until no fit is due or running, without requesting one over HTTP, and return the project."""
    store = client.application.extensions["active-query"].store
    wait_until(lambda: not store.read("p").project.fit_is_wanted and store.fitting_since("p") is None)
    return get(client, "/projects/p")


class Held:
    """Blocks every fit of this process until `let_go` is set, and counts them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.let_go = threading.Semaphore(0), Event()
        self.n_begun = self.n_at_once = self.most_at_once = 0
        train = training.train

        def held(snapshot: Any) -> Any:
            self.n_begun += 1
            self.n_at_once += 1
            self.most_at_once = max(self.most_at_once, self.n_at_once)
            self.begun.release()
            assert self.let_go.wait(30)
            self.n_at_once -= 1
            return train(snapshot)

        monkeypatch.setattr(training, "train", held)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Held:
    return Held(monkeypatch)


@pytest.fixture
def project(client: FlaskClient) -> str:
    """Twenty rows on a line with a label at each end, and a first model."""
    post(client, "/fit", 201, project_id="p", X=line_pool(), y=end_labels())
    return "p"


# The reply does not wait for the fit.


def test_the_reply_is_sent_before_the_fit(client: FlaskClient, project: str, held: Held) -> None:
    reply = answer(client, 3)
    assert (reply["n_labeled"], reply["model_version"], reply["n_labels_since_fit"]) == (3, 1, 1)
    assert held.begun.acquire(timeout=30)
    at_work = get(client, "/projects/p")
    assert (at_work["fit"]["due"], at_work["fit"]["last_error"]) == (True, None)
    assert reply["n_labels_since_fit"] == post(client, "/query", project_id="p")["n_labels_since_fit"]
    assert at_work["updated_at"] <= at_work["fit"]["running_since"]
    held.let_go.set()
    done = settle(client)
    assert (done["model_version"], done["n_labels_since_fit"]) == (2, 0)
    assert done["fit"] == {"due": False, "running_since": None, "last_error": None}


def test_a_burst_of_labels_needs_one_more_fit(client: FlaskClient, project: str, held: Held) -> None:
    answer(client, 3)
    assert held.begun.acquire(timeout=30)
    for index in range(4, 14):
        answer(client, index)
    held.let_go.set()
    assert settle(client)["n_labels_since_fit"] == 0
    assert (held.n_begun, held.most_at_once) == (2, 1)


def test_a_project_rests_between_two_fits(
    client: FlaskClient, project: str, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background_fits, "REST", 10_000.0)
    monkeypatch.setattr(background_fits, "LONGEST_REST_SECONDS", 0.5)
    held.let_go.set()
    answer(client, 3)
    settle(client)
    for index in range(4, 8):
        answer(client, index)
    assert held.n_begun == 1
    assert settle(client)["n_labels_since_fit"] == 0
    assert held.n_begun == 2


def test_no_fit_starts_soon_after_another_while_queries_wait_for_a_core(
    client: FlaskClient, project: str, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background_fits, "BUSY_SECONDS", 0.01)
    held.let_go.set()
    cores = [SELECTIONS.take() for _ in range(n_cores())]
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(SELECTIONS.take, 30)
        wait_until(lambda: SELECTIONS.n_waiting)
        answer(client, 3)
        assert not held.begun.acquire(timeout=0.2)
        for _ in [*cores, waiting]:
            SELECTIONS.give_back()
        assert waiting.result()
    assert settle(client)["n_labels_since_fit"] == 0


def test_concurrent_fits_are_limited(tmp_path: Path, held: Held) -> None:
    client = create_app(Settings(data_dir=tmp_path, background_fits=2, log_level="error")).test_client()
    for name in "abcd":
        body = {"project_id": name, "X": line_pool(), "y": end_labels(), "estimator": "logistic_regression"}
        assert client.post("/fit", json=body, headers=BACKGROUND).status_code == 202
    for _ in range(2):
        assert held.begun.acquire(timeout=30)
    assert not held.begun.acquire(timeout=0.1)
    held.let_go.set()
    wait_until(lambda: all(get(client, f"/projects/{name}")["model_version"] == 1 for name in "abcd"))
    assert held.most_at_once == 2


def test_a_waiting_request_gets_the_model_of_the_running_fit(client: FlaskClient, project: str, held: Held) -> None:
    answer(client, 3)
    assert held.begun.acquire(timeout=30)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(answer, client.application.test_client(), 3, refit="wait")
        held.let_go.set()
        assert waiting.result()["n_labels_since_fit"] == 0
    assert held.n_begun == 1


# Which requests start a fit.


def restarted(app: Flask, **settings: Any) -> FlaskClient:
    """A client of another process over the same directory."""
    root = app.extensions["active-query"].store.root
    return create_app(Settings(data_dir=root, log_level="error", **settings)).test_client()


@pytest.fixture
def lost(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drop every background fit, as if its process had died."""
    monkeypatch.setattr(app.extensions["active-query"].fits, "start_if_wanted", lambda project: None)


REQUESTS = {
    "GET": lambda client: client.get("/projects/p"),
    "query": lambda client: client.post("/query", json={"project_id": "p"}),
    "label": lambda client: client.post(
        "/label", json={"project_id": "p", "labels": [{"index": 0, "label": 0}], "refit": "never"}
    ),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_a_lost_fit_is_taken_up_by_the_next_request(
    app: Flask, client: FlaskClient, project: str, lost: None, name: str
) -> None:
    answer(client, 3)
    other = restarted(app)
    assert REQUESTS[name](other).status_code == 200
    assert settle(other)["model_version"] == 2


@pytest.mark.parametrize("name", REQUESTS)
def test_refit_never_starts_no_fit_on_later_requests(app: Flask, client: FlaskClient, project: str, name: str) -> None:
    answer(client, 3, refit="never")
    assert REQUESTS[name](client).status_code == 200
    fits = app.extensions["active-query"].fits
    assert (fits._waiting, fits._n_alive) == ({}, 0)
    found = get(client, "/projects/p")
    assert (found["n_labels_since_fit"], found["fit"]["due"], found["version"]) == (1, True, 2)


def test_a_repeated_label_requests_the_missing_fit(app: Flask, client: FlaskClient, project: str, lost: None) -> None:
    answer(client, 3, refit="never")
    assert answer(client, 3)["n_changed"] == 0
    other = restarted(app)
    assert get(other, "/projects/p")["fit"]["due"]
    assert settle(other)["n_labels_since_fit"] == 0


def test_who_asks_twice_writes_once(client: FlaskClient, project: str, lost: None) -> None:
    answer(client, 3)
    version = get(client, "/projects/p")["version"]
    answer(client, 3)
    assert get(client, "/projects/p")["version"] == version


def test_who_waited_in_a_process_that_died_is_served_too(
    app: Flask, client: FlaskClient, project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(snapshot: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patches, pytest.raises(KeyboardInterrupt):
        patches.setattr(training, "train", die)
        answer(client, 3, refit="wait")
    other = restarted(app)
    get(other, "/projects/p")
    assert settle(other)["n_labels_since_fit"] == 0


def test_deleting_a_project_cancels_its_fit(client: FlaskClient, project: str, held: Held) -> None:
    answer(client, 3)
    assert held.begun.acquire(timeout=30)
    assert client.delete("/projects/p").status_code == 204
    held.let_go.set()
    fits = client.application.extensions["active-query"].fits
    wait_until(lambda: fits._n_alive == 0)
    assert (fits._waiting, get(client, "/projects")["projects"]) == ({}, [])


def test_without_a_thread_the_labels_are_kept_and_the_next_request_fits(
    client: FlaskClient, project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patches:
        patches.setattr(Thread, "start", raising(RuntimeError("can't start new thread")))
        assert answer(client, 3)["n_labels_since_fit"] == 1
    get(client, "/projects/p")
    assert settle(client)["n_labels_since_fit"] == 0


def raising(error: Exception) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise error

    return fail


# Failing fits.


@pytest.fixture
def hopeless(client: FlaskClient) -> str:
    """A project whose rows are equal: no variance for naive Bayes to divide by."""
    post(client, "/fit", 201, project_id="p", X=[[5.0, 5.0]] * 20, estimator="gaussian_nb")
    return "p"


@pytest.mark.parametrize("refit", ["wait", "background"])
def test_a_failed_fit_is_reported_and_loses_no_label(client: FlaskClient, hopeless: str, refit: str) -> None:
    answer(client, 2, 3, refit=refit)
    found = settle(client)
    assert (found["n_labeled"], found["model_version"]) == (2, None)
    assert found["fit"]["due"]
    assert "gaussian_nb cannot learn from these numbers" in found["fit"]["last_error"]


def test_a_failed_fit_is_tried_again_only_on_request(client: FlaskClient, hopeless: str, held: Held) -> None:
    held.let_go.set()
    answer(client, 2, 3)
    version = settle(client)["version"]
    for _ in range(3):
        get(client, "/projects/p")
    answer(client, 4, refit="never")
    assert (held.n_begun, settle(client)["version"]) == (1, version + 1)
    answer(client, 4)
    settle(client)
    assert held.n_begun == 2


def test_a_failure_that_cannot_be_kept_is_not_repeated_at_once(
    client: FlaskClient, hopeless: str, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background_fits, "FIRST_PAUSE_SECONDS", 0.3)
    monkeypatch.setattr(background_fits.log, "exception", lambda *_: None)
    held.let_go.set()
    with monkeypatch.context() as patches:
        patches.setattr(training, "commit_failure", lambda *_, **__: None)
        answer(client, 2, 3)
        assert held.begun.acquire(timeout=30)
        assert not held.begun.acquire(timeout=0.2)
    assert settle(client)["fit"]["last_error"] is not None
    assert held.n_begun == 2


def test_a_failure_is_reported_until_a_fit_succeeds(client: FlaskClient, hopeless: str) -> None:
    answer(client, 2, 3)
    assert settle(client)["fit"]["last_error"] is not None
    answer(client, 4, refit="never")
    assert get(client, "/projects/p")["fit"]["last_error"] is not None
    body = {"project_id": "p", "estimator": "logistic_regression"}
    assert client.post("/fit", json=body, headers=BACKGROUND).status_code == 202
    found = settle(client)
    assert (found["model_version"], found["fit"]["last_error"]) == (1, None)


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        (StoreFull("no space is left"), "no space is left"),
        (MemoryError(), "not enough memory"),
        (RuntimeError("the secret"), "internal error"),
    ],
)
def test_a_transient_failure_is_reported_and_tried_again(
    client: FlaskClient, project: str, monkeypatch: pytest.MonkeyPatch, trouble: Exception, words: str
) -> None:
    monkeypatch.setattr(background_fits, "FIRST_PAUSE_SECONDS", 0.05)
    store, dump, told = client.application.extensions["active-query"].store, Staging.dump, []

    def fail_twice(staging: Staging, value: Any) -> Path:
        told.append(store.read("p").project.fit_error)
        if len(told) < 3:
            raise trouble
        return dump(staging, value)

    monkeypatch.setattr(Staging, "dump", fail_twice)
    monkeypatch.setattr(background_fits.log, "exception", lambda *_: None)
    answer(client, 3)
    found = settle(client)
    assert told[0] is None
    assert words in told[1] == told[2]
    assert (found["n_labels_since_fit"], found["fit"]["last_error"]) == (0, None)
    assert found["version"] == 1 + 1 + 1 + 1, "the project, a label, one word of the failure, a model"


# The number of waiting requests is limited.


def test_labels_are_stored_although_no_slot_for_the_fit_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "ADMISSION_WAIT_SECONDS", 0.01)
    app = create_app(Settings(data_dir=tmp_path, heavy_requests=1, log_level="error"))
    client = app.test_client()
    post(client, "/fit", 201, project_id="p", X=line_pool(), y=end_labels())
    held = Held(monkeypatch)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(answer, app.test_client(), 3, refit="wait")
        assert held.begun.acquire(timeout=30)
        reply = answer(client, 4, refit="wait")
        assert (reply["n_labeled"], reply["model_version"], reply["n_labels_since_fit"]) == (4, 1, 2)
        held.let_go.set()
        assert waiting.result()["model_version"] == 2
    assert settle(client)["n_labels_since_fit"] == 0


# Prefer: respond-async.


@pytest.mark.parametrize("preference", ["respond-async", "Respond-Async, wait=10", 'a="b,c", respond-async; x=1'])
def test_a_project_is_created_before_its_fit(client: FlaskClient, held: Held, preference: str) -> None:
    body = {"project_id": "p", "X": line_pool(), "y": end_labels(), "estimator": "logistic_regression"}
    made = client.post("/fit", json=body, headers={"Prefer": preference})
    assert (made.status_code, made.headers["Location"]) == (202, "/projects/p")
    assert made.headers["Preference-Applied"] == "respond-async"
    assert (made.json["n_labeled"], made.json["model_version"], made.json["fit"]["due"]) == (2, None, True)
    assert len(post(client, "/query", project_id="p")["indices"]) == 1
    held.let_go.set()
    assert settle(client)["model_version"] == 1


@pytest.mark.parametrize("preference", ["respond-asynchronously", "wait=10", "", 'a="respond-async"'])
def test_another_preference_is_none(client: FlaskClient, preference: str) -> None:
    body = {"project_id": "p", "X": line_pool(), "y": end_labels(), "estimator": "logistic_regression"}
    made = client.post("/fit", json=body, headers={"Prefer": preference})
    assert (made.status_code, made.json["model_version"]) == (201, 1)
    assert "Preference-Applied" not in made.headers


def test_without_anything_to_fit_the_reply_is_not_202(client: FlaskClient, project: str) -> None:
    made = client.post("/fit", json={"project_id": "q", "X": line_pool()}, headers=BACKGROUND)
    again = client.post("/fit", json={"project_id": "p"}, headers=BACKGROUND)
    assert (made.status_code, again.status_code) == (201, 200)
    assert "Location" not in made.headers


def test_a_held_out_set_is_scored_by_the_background_fit(client: FlaskClient, project: str) -> None:
    body = {"project_id": "p", "X_test": [[0, 1], [19, 1]], "y_test": [0, 1]}
    sent = client.post("/fit", json=body, headers=BACKGROUND)
    assert (sent.status_code, sent.json["test_score"], sent.json["model_version"]) == (202, None, 1)
    assert settle(client)["test_score"]["accuracy"] == 1.0


def test_a_wrong_request_is_refused_at_once_and_changes_nothing(client: FlaskClient, project: str) -> None:
    body = {"project_id": "p", "X_test": [[0, 1, 2]], "y_test": [0]}
    assert client.post("/fit", json=body, headers=BACKGROUND).status_code == 422
    assert get(client, "/projects/p")["version"] == 1


# The mark with the start of a fit.


def test_a_mark_means_nothing_without_its_holder_and_is_swept(store: Store) -> None:
    with store.stage() as staging:
        fit_project(store, staging, FitRequest("p", X=staging.rows(np.array(line_pool()))))
    path = store.directory("p") / FIT_MARK
    for left in (path, path.with_name(f"{FIT_MARK}.1")):
        left.write_text("17")
    assert store.fitting_since("p") is None
    with store.fitting("p"):
        since = store.fitting_since("p")
        assert since is not None
        assert 0 <= now() - since < 10_000_000
        store.sweep()
        assert store.fitting_since("p") == since
    store.sweep()
    assert [left.name for left in store.directory("p").iterdir() if left.name.startswith(FIT_MARK)] == []


def test_no_fit_is_marked_in_a_project_that_is_gone(store: Store) -> None:
    with pytest.raises(ProjectNotFound), store.fitting("p"):
        raise AssertionError("it was marked")
    assert store.fitting_since("p") is None


# Processes.


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Two workers that all tests below share; each uses projects of its own."""
    directory = tmp_path_factory.mktemp("background")
    service = Service(directory / "data", directory / "log", AQ_WORKERS="2").start()
    yield service
    service.kill()


def make(service: Service, name: str, estimator: Any) -> None:
    """Create a project of 1,000 labelled rows with a background fit."""
    X = np.random.default_rng(0).normal(size=(1000, 20)).round(3)
    body = {"project_id": name, "X": X.tolist(), "y": [row % 10 for row in range(1000)], "estimator": estimator}
    made = service.call("POST", "/fit", body, BACKGROUND)
    assert made.status == 202, made.body


def look(service: Service, name: str) -> Any:
    reply = service.call("GET", f"/projects/{name}")
    assert reply.status == 200, reply.body
    return reply.json


def fitters(service: Service) -> list[int]:
    """The workers that are fitting."""
    return [pid for pid in service.workers() if FIT_MARK in open_files(pid)]


def open_files(pid: int) -> set[str]:
    """The names of a process's open files; some may be closed meanwhile."""
    names = set()
    with suppress(FileNotFoundError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):
                names.add(link.readlink().name)
    return names


FOREST = {"name": "random_forest", "params": {"n_estimators": 500}}
BOOSTING = {"name": "hist_gradient_boosting", "params": {"max_iter": 1000}}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_fit_of_a_killed_worker_is_repeated_once(service: Service) -> None:
    make(service, "p", FOREST)
    wait_until(lambda: look(service, "p")["fit"]["running_since"])
    first = look(service, "p")["fit"]["running_since"]
    (killed,) = fitters(service)
    os.kill(killed, signal.SIGKILL)
    store = Store(Path(service.environment["AQ_DATA_DIR"]))
    # Its lock ends with its last thread. The other worker may know that a fit is due, and start at once.
    wait_until(lambda: (since := store.fitting_since("p")) is None or format_time(since) > first)
    at_once, found = Counter(), look(service, "p")
    while found["fit"]["due"]:
        at_once[len(fitters(service))] += 1
        assert found["fit"]["running_since"] is None or found["fit"]["running_since"] > first
        found = look(service, "p")
    assert set(at_once) <= {0, 1}
    assert at_once[1] > 0
    assert (found["model_version"], found["version"], found["fit"]["last_error"]) == (1, 2, None)


@pytest.mark.slow
def test_a_service_that_is_stopped_does_not_wait_for_a_fit_which_is_taken_up(service: Service) -> None:
    make(service, "q", BOOSTING)
    wait_until(lambda: look(service, "q")["fit"]["running_since"])
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", service.port)):  # and says nothing
        assert service.stop() == 0
    assert time.monotonic() - began < 18  # the silent client alone would have 20 seconds
    assert "Traceback" not in service.log.read_text()
    service.start()
    assert look(service, "q")["fit"] == {"due": True, "running_since": None, "last_error": None}
    wait_until(lambda: look(service, "q")["fit"]["running_since"])
