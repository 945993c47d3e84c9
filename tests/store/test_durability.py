"""Acknowledged changes survive concurrent writers and killed processes, and are never seen in part."""

from __future__ import annotations

import http.client
import itertools
import multiprocessing
import os
import signal
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Barrier, Event

import numpy as np
import pytest

from tests.support.serving import HTTPClient, Service, Upload

pytestmark = pytest.mark.slow

BROKEN = (OSError, http.client.HTTPException)
"""Errors of a client whose server is killed."""


def right_label(index):
    """The label that all annotators of these tests give a sample."""
    return f"label-{index % 7}"


def create(service, n_samples=1000):
    X = np.arange(n_samples * 3).reshape(-1, 3) % 17 / 7
    service.post("/fit", {"project_id": "p", "X": X.tolist(), "estimator": "logistic_regression"}, expect=201)


def label(service, *indices, refit="never"):
    answers = [{"index": index, "label": right_label(index)} for index in indices]
    return service.post("/label", {"project_id": "p", "labels": answers, "refit": refit})


def labels_of(service):
    """All labels of the project as index -> label."""
    reply = service.call("GET", "/projects/p/labels")
    assert reply.status == 200
    return {record["index"]: record["label"] for record in reply.json["labels"]}


def project_of(service):
    reply = service.call("GET", "/projects/p")
    assert reply.status == 200
    return reply.json


def side_by_side(*functions):
    """Run functions in threads, and return their results."""
    with ThreadPoolExecutor(len(functions)) as threads:
        return [future.result() for future in [threads.submit(function) for function in functions]]


class Pool:
    """A pool that every reply identifies: its name is the first letter of ids and labels."""

    def __init__(self, name, n_samples, n_features, n_labeled):
        self.n_samples, self.n_features, self.n_labeled = n_samples, n_features, n_labeled
        self.classes = [f"{name}-0", f"{name}-1"]
        self.X = np.random.default_rng(n_samples).normal(size=(n_samples, n_features)).tolist()
        self.ids = [f"{name}{index}" for index in range(n_samples)]
        self.y = [self.classes[index % 2] for index in range(n_labeled)] + [None] * (n_samples - n_labeled)

    def put(self, service):
        body = {
            "project_id": "r",
            "estimator": "logistic_regression",
            "X": self.X,
            "y": self.y,
            "ids": self.ids,
            "replace": True,
        }
        reply = service.call("POST", "/fit", body)
        assert reply.status in (200, 201), reply.body
        self.check_project(reply.json)

    def check_project(self, project):
        assert (project["n_samples"], project["n_features"]) == (self.n_samples, self.n_features)
        assert (project["n_labeled"], project["n_labels_since_fit"]) == (self.n_labeled, 0)
        assert project["classes"] == self.classes
        assert sum(project["class_counts"]) == self.n_labeled

    def check_answer(self, answer):
        assert answer["ids"] == [self.ids[index] for index in answer["indices"]]
        assert sorted(answer["indices"]) == list(range(self.n_labeled, self.n_samples))
        assert len(answer["scores"]) == self.n_samples - self.n_labeled
        assert answer["n_labeled"] == self.n_labeled
        assert answer["fallback_reason"] in (None, f"only {len(answer['indices'])} are left to ask")

    def check_labels(self, labels):
        assert [record["id"] for record in labels["labels"]] == self.ids[: self.n_labeled]
        assert [record["label"] for record in labels["labels"]] == self.y[: self.n_labeled]


POOLS = {"a": Pool("a", 60, 3, 20), "b": Pool("b", 35, 5, 10)}


def look(service):
    """Get project `r`, check the whole reply, and return the name of its pool."""
    reply = service.call("GET", "/projects/r")
    assert reply.status == 200, reply.body
    name = reply.json["classes"][0][0]
    POOLS[name].check_project(reply.json)
    return name


def ask(service):
    """Query project `r` in the same way."""
    reply = service.call("POST", "/query", {"project_id": "r", "strategy": "margin", "batch_size": 100})
    assert reply.status == 200, reply.body
    name = reply.json["ids"][0][0]
    POOLS[name].check_answer(reply.json)
    return name


def list_labels(service):
    """List the labels of project `r`, in the same way."""
    reply = service.call("GET", "/projects/r/labels")
    assert reply.status == 200, reply.body
    name = reply.json["labels"][0]["id"][0]
    POOLS[name].check_labels(reply.json)
    return name


# Concurrent writers.


def hand_back(port, indices):
    """Send one label after another; every tenth waits for a model."""
    for index in indices:
        label(HTTPClient(port), index, refit="wait" if index % 10 == 0 else "never")


def test_two_processes_that_write_to_one_project_lose_nothing(serve):
    service = serve(AQ_WORKERS="2")
    create(service)
    spawn = multiprocessing.get_context("spawn")
    clients = [spawn.Process(target=hand_back, args=(service.port, range(n, 400, 2))) for n in range(2)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert [client.exitcode for client in clients] == [0, 0]
    assert labels_of(service) == {index: right_label(index) for index in range(400)}
    # One commit for the project, one for each label, and one for each model.
    label(service, 400, refit="wait")
    project = project_of(service)
    assert project["version"] == 1 + 401 + project["model_version"]
    assert (project["n_labeled"], project["n_labels_since_fit"]) == (401, 0)


# Servers that are killed.


def hand_back_pairs_until_the_end(service, begin, acknowledged):
    """Label every fourth pair of neighbours from `begin` on, until the server is gone."""
    for n in itertools.count(begin, 4):
        try:
            label(service, 2 * n, 2 * n + 1)
        except BROKEN:
            return
        acknowledged.append(n)


def replace_until_the_end(service, acknowledged):
    """Replace one pool with the other, until the server is gone."""
    for name in itertools.cycle("ab"):
        try:
            POOLS[name].put(service)
        except BROKEN:
            return
        acknowledged.append(name)


def test_killing_the_server_loses_nothing_acknowledged(serve):
    service = serve(AQ_WORKERS="2")
    create(service, 20_000)
    POOLS["a"].put(service)
    acknowledged, pools = [], []
    for enough in (5, 70, 150):
        begin = max(acknowledged, default=-1) + 100
        with ThreadPoolExecutor(5) as threads:
            replacer = threads.submit(replace_until_the_end, service, pools)
            annotators = [
                threads.submit(hand_back_pairs_until_the_end, service, begin + n, acknowledged) for n in range(4)
            ]
            while len(acknowledged) < enough and not any(annotator.done() for annotator in annotators):
                time.sleep(0.001)
            service.kill()
        for thread in (replacer, *annotators):
            thread.result()
        service.start()
        kept = labels_of(service)
        assert {2 * n for n in acknowledged} <= set(kept)
        assert all(kept[index] == right_label(index) for index in kept)
        assert all(index ^ 1 in kept for index in kept), "half of a request was kept"
        project = project_of(service)
        assert project["n_labeled"] == len(kept)
        assert len(service.post("/query", {"project_id": "p", "batch_size": 3})["indices"]) == 3
        # No model has seen the labels; the next label with `refit: wait` fits one, although it changes nothing.
        assert project["n_labels_since_fit"] > 0
        again = label(service, 2 * acknowledged[0], refit="wait")
        assert (again["n_changed"], again["n_labels_since_fit"]) == (0, 0)
        # A pool exists with its ids, labels and model, or not at all.
        assert look(service) == ask(service) == list_labels(service)
        assert service.call("GET", "/projects/r").json["version"] >= 1 + len(pools)


def hand_back_whatever_breaks(service, indices, acknowledged):
    """Send one label after another, each again until it is acknowledged."""
    for index in indices:
        while True:
            try:
                label(service, index, refit="wait" if index % 10 == 0 else "never")
            except BROKEN:
                continue
            break
        acknowledged.append(index)


def test_killing_workers_one_by_one_loses_nothing(serve):
    service = serve(AQ_WORKERS="2")
    create(service)
    acknowledged = []
    with ThreadPoolExecutor(4) as threads:
        annotators = [
            threads.submit(hand_back_whatever_breaks, service, range(n, 400, 4), acknowledged) for n in range(4)
        ]
        for enough in (20, 80, 140, 200):
            while len(acknowledged) < enough and not any(annotator.done() for annotator in annotators):
                time.sleep(0.001)
            killed = service.workers()[enough // 20 % 2]
            os.kill(killed, signal.SIGKILL)
            while killed in service.workers() or len(service.workers()) < 2:
                time.sleep(0.001)
    for annotator in annotators:
        annotator.result()
    assert labels_of(service) == {index: right_label(index) for index in range(400)}
    assert label(service, 0, refit="wait")["n_labels_since_fit"] == 0


def test_killing_the_server_in_the_middle_of_an_upload_leaves_nothing(serve, tmp_path):
    service = serve(AQ_WORKERS="2")
    staging, projects = tmp_path / "data/staging", tmp_path / "data/projects"

    def staged_bytes():
        return sum(path.stat().st_size for path in staging.rglob("*.joblib"))

    def rows():
        yield from [bytes(2**20)] * 8
        while staged_bytes() < 2**22:
            time.sleep(0.001)
        service.kill()
        yield from [bytes(2**20)] * 56

    with pytest.raises(BROKEN):
        service.call("POST", "/fit", Upload({"project_id": "p"}, "<f4", (2**18, 64), rows()))
    assert staged_bytes() >= 2**22
    service.start()
    assert [path.name for path in staging.iterdir()] == ["lock"]
    assert list(projects.iterdir()) == []
    assert service.call("GET", "/projects/p").status == 404
    create(service)


# Races without a killed process.


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """Two workers that all tests below share; each uses projects of its own."""
    directory = tmp_path_factory.mktemp("races")
    service = Service(directory / "data", directory / "log", AQ_WORKERS="2").start()
    yield service
    service.kill()


def append_until_answered(service, name, replies):
    """Append rows one by one, each again with its key until it is acknowledged."""
    for n in range(12):
        while True:
            with suppress(*BROKEN):
                reply = service.call(
                    "POST", "/projects/again/pool", {"X": [[n, 1]]}, {"Idempotency-Key": f"{name}-{n}"}
                )
                assert reply.status in (200, 409), reply.body
                if reply.status == 200:
                    break
            time.sleep(0.001)
        replies[f"{name}-{n}"] = n, reply


def kill_at_a_commit(service, project_id):
    """Kill all workers as soon as one has committed: it has hardly begun to reply."""
    state = Path(service.environment["AQ_DATA_DIR"], "projects", project_id, "state.joblib")
    before, killed = state.stat().st_mtime_ns, service.workers()
    while state.stat().st_mtime_ns == before:
        pass
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    while {*killed} & {*service.workers()} or len(service.workers()) < 2:
        time.sleep(0.001)


def test_appends_that_are_sent_again_until_they_are_answered_are_done_once(service):
    service.post("/fit", {"project_id": "again", "X": [[0, 1], [1, 1]]}, expect=201)
    replies = {}
    with ThreadPoolExecutor(4) as threads:
        callers = [threads.submit(append_until_answered, service, name, replies) for name in "abcd"]
        for enough in (10, 20, 30):
            while len(replies) < enough and not any(caller.done() for caller in callers):
                time.sleep(0.001)
            kill_at_a_commit(service, "again")
    for caller in callers:
        caller.result()
    project = service.call("GET", "/projects/again").json
    assert (project["n_samples"], project["version"]) == (50, 49)
    # Every worker replays the replies of the others.
    for key, (n, first) in list(replies.items())[:10]:
        again = service.call("POST", "/projects/again/pool", {"X": [[n, 1]]}, {"Idempotency-Key": key})
        assert (again.body, again.headers["ETag"]) == (first.body, first.headers["ETag"])
        assert again.headers["Idempotent-Replayed"] == "true"


def repeat(times, call, *arguments):
    """Call repeatedly, and count the statuses of the replies."""
    return Counter(call(*arguments).status for _ in range(times))


def test_deleting_a_project_that_others_work_on_is_never_a_fault(service):
    X = np.arange(60).reshape(20, 3).tolist()
    whole = {
        "project_id": "d",
        "estimator": "logistic_regression",
        "X": X,
        "ids": [f"n{n}" for n in range(20)],
        "y": ["a", "b"] + [None] * 18,
    }
    answer = {"project_id": "d", "labels": [{"id": "n5", "label": "b"}]}
    other = {"project_id": "d", "labels": [{"id": "n5", "label": "a"}]}
    roles = [
        (60, {201, 409}, "POST", "/fit", whole),
        (40, {200, 201}, "POST", "/fit", {**whole, "replace": True}),
        (60, {200, 404, 409, 422}, "POST", "/fit", {"project_id": "d"}),
        (60, {200, 404, 409}, "POST", "/label", answer),
        (60, {200, 404, 409}, "POST", "/label", other),
        (60, {200, 404}, "POST", "/label", {**answer, "refit": "never"}),
        (90, {200, 404}, "POST", "/query", {"project_id": "d", "strategy": "margin"}),
        (90, {200, 404}, "GET", "/projects/d"),
        (90, {200, 404}, "GET", "/projects/d/labels"),
        (60, {204, 404}, "DELETE", "/projects/d/labels/5"),
        (90, {200}, "GET", "/projects"),
        (90, {204, 404}, "DELETE", "/projects/d"),
    ]
    counted = side_by_side(*(partial(repeat, times, service.call, *what) for times, _, *what in roles))
    for (_, allowed, *what), statuses in zip(roles, counted, strict=True):
        assert set(statuses) <= allowed, (what[:2], statuses)
    assert counted[-1][204] > 0


@pytest.mark.parametrize(("replace", "second"), [(False, 409), (True, 200)], ids=["create", "replace"])
def test_one_of_two_concurrent_requests_creates_a_project(service, replace, second):
    start = Barrier(2)

    def create_as(name):
        start.wait()
        body = {"project_id": "twice", "X": [[1, 2], [3, 4]], "y": [name, name], "replace": replace}
        return service.call("POST", "/fit", body)

    for _ in range(25):
        replies = side_by_side(partial(create_as, "x"), partial(create_as, "y"))
        assert sorted(reply.status for reply in replies) == sorted([201, second])
        (winner,) = [reply for reply in replies if reply.status == (200 if replace else 201)]
        kept = service.call("GET", "/projects/twice").json
        assert kept | {"notes": []} == winner.json
        assert service.call("DELETE", "/projects/twice").status == 204


def test_one_of_concurrent_writers_of_all_workers_wins(service):
    service.post(
        "/fit", {"project_id": "c", "estimator": "logistic_regression", "X": [[n, 1] for n in range(10)]}, expect=201
    )
    start = Barrier(4)

    def write(label, tag):
        start.wait()
        answers = {"project_id": "c", "labels": [{"index": 0, "label": label}], "refit": "never"}
        return service.call("POST", "/label", answers, {"If-Match": tag}).status

    for n in range(10):
        tag = service.call("GET", "/projects/c").headers["ETag"]
        statuses = side_by_side(*(partial(write, 4 * n + caller, tag) for caller in range(4)))
        assert sorted(statuses) == [200, 412, 412, 412]
    assert service.call("GET", "/projects/c").json["version"] == 11


def test_readers_see_the_old_project_or_the_new(service):
    POOLS["a"].put(service)
    done = Event()

    def read(reader):
        seen = Counter()
        while not done.is_set():
            seen[reader(service)] += 1
        return seen

    def write():
        try:
            for name in "ba" * 25:
                POOLS[name].put(service)
        finally:
            done.set()

    _, *seen = side_by_side(write, *(partial(read, reader) for reader in (look, ask, ask, list_labels)))
    assert all(set(counter) == {"a", "b"} for counter in seen), seen
