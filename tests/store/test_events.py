"""Every commit has an event, failed commits have none, and the labels follow from the events."""

from __future__ import annotations

import json
import pickle
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from service.domain.events import replay
from service.domain.project import EventLog
from service.errors import StoreDamaged
from service.store.check import check_project
from service.store.events import line_of, read_page
from service.store.files import write_small
from service.store.state_format import to_record
from service.usecases.label import retract_label
from tests.store.test_store import append, fit, label
from tests.support.calls import end_labels, get, line_pool, post


@pytest.fixture(params=[0, 700, 2**16], ids=["all in the log", "some in the log", "none in the log"])
def tail_bytes(request, monkeypatch):
    monkeypatch.setattr("service.store.events.TAIL_BYTES", request.param)


def events(store, after=0, limit=1000):
    return list(map(json.loads, store.events("p", after, limit)[1]))


def versions(store, *page):
    return [event["version"] for event in events(store, *page)]


def log_of(store):
    return store.directory("p") / "events.log"


def change_all(store):
    """Make every kind of commit, version by version."""
    fit(store)
    label(store, 2, "a")
    label(store, 2, "b", "wait")
    append(store)
    retract_label(store, "p", 2)
    fit(store, X=None, y=None, names=None, held_out=False, random_state=5)
    fit(store, X=np.arange(6.0).reshape(3, 2), y=["x", None, "y"], names=None, replace=True)
    label(store, 1, "y")


KINDS = ["create", "label", "label", "fit", "append", "retract", "fit", "replace", "label"]


def test_every_commit_is_an_event(store, tail_bytes):
    change_all(store)
    assert [event["kind"] for event in events(store)] == KINDS
    assert versions(store) == list(range(1, len(KINDS) + 1))
    assert check_project(store.directory("p")) == []


def test_an_event_holds_the_changes(store):
    change_all(store)
    create, label, change, fit, append, retract, *_ = (event["details"] for event in events(store))
    assert create["labels"]["index"] == [0, 1]
    assert create["held_out"] == {"number": 2, "n_samples": 2}
    assert (label["labels"]["label"], change["labels"]["label"]) == (["a"], ["b"])
    assert fit.keys() == {"model_version", "test_score", "target"}
    assert append == {"n_samples": 12, "labels": append["labels"]}
    assert retract == {"retracted": {"index": [2], "annotator": [None]}}


def record(index, answer, annotator=None):
    said = {"skip": True} if answer is None else {"label": answer}
    return {"index": index, **said, **({"annotator": annotator, "query_id": f"q{index}"} if annotator else {})}


@pytest.mark.parametrize("seed", range(2))
def test_the_labels_can_be_rebuilt_from_the_events(client, tail_bytes, seed):
    rng = np.random.default_rng(seed)
    post(client, "/fit", 201, project_id="p", X=line_pool(), y=end_labels())
    for turn in range(30):
        act, index = rng.integers(8), int(rng.integers(20))
        if act == 0:
            client.delete(f"/projects/p/labels/{index}")
        elif act == 1 and turn % 4 == 0:
            post(client, "/fit", project_id="p", X=line_pool(), y=end_labels(low=2, high=3), replace=True)
        else:
            answer = (2, 3, None)[rng.integers(3)]
            who = (None, "ada", "bob")[rng.integers(3)]
            body = {"project_id": "p", "labels": [record(index, answer, who)], "refit": "never"}
            client.post("/label", json=body)
    labels = get(client, "/projects/p/labels")["labels"]
    names = ("label", "query_id", "labeled_at")
    wanted = {(kept["index"], kept["annotator"]): tuple(kept[name] for name in names) for kept in labels}
    assert replay(pages(client, limit=3)) == wanted


def pages(client, limit):
    """All events, page by page."""
    after = 0
    while after is not None:
        page = get(client, f"/projects/p/events?limit={limit}&after={after}")
        assert len(page["events"]) <= limit
        yield from page["events"]
        after = page["next"]


@pytest.mark.parametrize("limit", [1, 2, 4, 9, 10])
def test_pages_hold_each_event_once(client, tail_bytes, limit):
    post(client, "/fit", 201, project_id="p", X=line_pool(), y=end_labels())
    for index in range(8):
        post(client, "/label", project_id="p", labels=[record(index, 1, "ada")], refit="never")
    assert [event["version"] for event in pages(client, limit)] == list(range(1, 10))


@pytest.mark.parametrize(
    ("query", "pointer"),
    [("limit=0", "limit"), ("limit=1001", "limit"), ("after=-1", "after"), ("after=x", "after"), ("page=1", "page")],
)
def test_a_page_that_there_cannot_be_is_refused(client, query, pointer):
    problem = get(client, f"/projects/p/events?{query}", 422)
    assert problem["errors"][0]["pointer"] == f"/query/{pointer}"


def test_the_events_of_no_project_are_not_found(client):
    get(client, "/projects/p/events", 404)


def test_a_page_past_the_last_event_is_empty(client, tail_bytes):
    post(client, "/fit", 201, project_id="p", X=line_pool())
    assert get(client, "/projects/p/events?after=1") == {"events": [], "next": None}


def test_the_events_go_with_the_project(store, tail_bytes):
    change_all(store)
    store.delete("p")
    fit(store)
    assert versions(store) == [1]


def test_events_beyond_the_state_are_ignored(store, monkeypatch):
    monkeypatch.setattr("service.store.events.TAIL_BYTES", 0)
    fit(store)
    before = events(store)
    real = log_of(store).read_bytes()
    for rubbish in (b"\0" * 9, line_of(before[0] | {"version": 2}), line_of(before[0] | {"version": 2})[:-7]):
        log_of(store).write_bytes(real + rubbish)
        assert events(store) == before
    label(store, 2)
    assert [event["kind"] for event in events(store)] == ["create", "label"]
    assert log_of(store).read_bytes().startswith(real)
    assert log_of(store).stat().st_size == store.read("p").project.event_log.n_bytes


def cut(data):
    return data[:-40]


@pytest.mark.parametrize("damage", [cut, lambda data: b"", None])
def test_a_log_that_lost_events_restarts_with_all_labels(store, monkeypatch, damage):
    monkeypatch.setattr("service.store.events.TAIL_BYTES", 0)
    fit(store)
    label(store, 2)
    data = log_of(store).read_bytes()
    log_of(store).unlink()
    if damage:
        log_of(store).write_bytes(damage(data))
    label(store, 3)
    kinds = [event["kind"] for event in events(store)]
    assert kinds == (["create"] if damage is cut else []) + ["baseline", "label"]
    assert sorted(replay(events(store))) == [(0, None), (1, None), (2, None), (3, None)]


@pytest.mark.parametrize("damage", [cut, lambda data: data[:50] + b"x" + data[51:], None])
def test_a_damaged_log_is_said_and_harms_nothing_else(store, monkeypatch, damage):
    monkeypatch.setattr("service.store.events.TAIL_BYTES", 0)
    fit(store)
    data = log_of(store).read_bytes()
    log_of(store).unlink()
    if damage:
        log_of(store).write_bytes(damage(data))
    with pytest.raises(StoreDamaged, match=r"'p'.*events\.log.*`active-query check --project p`"):
        events(store)
    [finding] = check_project(store.directory("p"))
    assert finding.file == "events.log"
    assert label(store, 2, "b", "wait").n_labeled == 3


def test_events_that_do_not_lead_to_the_state_are_found(store):
    project = fit(store)
    other = replace(project, event_log=EventLog(0, project.event_log.tail[:0]))
    (store.directory("p") / "state.joblib").unlink()
    write_small(store.directory("p") / "state.joblib", to_record(other))
    [finding] = check_project(store.directory("p"))
    assert (finding.file, finding.problem) == ("events.log", "ends with version 0, and the state is 1")


def test_a_project_of_an_earlier_version_begins_with_all_labels(store):
    project = fit(store)
    old = {key: value for key, value in to_record(project).items() if key not in ("checksums", "history")}
    (store.directory("p") / "state.joblib").write_bytes(pickle.dumps(old | {"schema_version": 1}))
    assert events(store) == []
    label(store, 2)
    assert [(event["version"], event["kind"]) for event in events(store)] == [(1, "baseline"), (2, "label")]
    assert sorted(replay(events(store))) == [(0, None), (1, None), (2, None)]


@pytest.mark.slow
def test_a_page_of_a_long_log_takes_little_memory_and_time(store, monkeypatch):
    monkeypatch.setattr("service.store.events.TAIL_BYTES", 0)
    project = fit(store)
    event = events(store)[0] | {"padding": "x" * 4_000}
    data = b"".join(line_of(event | {"version": version}) for version in range(1, 5_001))
    log_of(store).write_bytes(data)
    project = replace(project, version=5_000, event_log=EventLog(len(data), ()))
    tracemalloc.start()
    for after in (0, 2_500, 4_990, 5_000):
        page = read_page(store.directory("p"), project, after, 5)
        found = [json.loads(body)["version"] for body in page]
        assert found == list(range(after + 1, min(after + 6, 5_001)))
        assert page.next == (after + 5 if after < 4_990 else 4_995 if after == 4_990 else None)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**19 < len(data) / 30


def test_a_commit_of_many_labels_is_several_events_of_one_page(store, monkeypatch):
    monkeypatch.setattr("service.domain.events.MAX_LABELS", 2)
    monkeypatch.setattr("service.store.events.TAIL_BYTES", 0)
    fit(store, y=["a", "b", "a", "b", "a", None])
    label(store, 5, "b")
    first = events(store, 0, 1)
    assert [(event["version"], event["kind"], event["details"]["labels"]["index"]) for event in first] == [
        (1, "create", [0, 1]),
        (1, "label", [2, 3]),
        (1, "label", [4]),
    ]
    assert versions(store, 1, 1) == [2]
    assert check_project(store.directory("p")) == []


@pytest.mark.parametrize(("log_bytes", "waits"), [(2**16, ["fdatasync"]), (0, ["fsync", "fsync"])])
def test_a_label_waits_for_the_disk_once_or_twice_if_the_log_is_full(store, monkeypatch, log_bytes, waits):
    monkeypatch.setattr("service.store.state_file.LOG_BYTES", log_bytes)
    fit(store)
    seen = []
    monkeypatch.setattr("os.fdatasync", lambda file: seen.append("fdatasync"))
    monkeypatch.setattr("os.fsync", lambda file: seen.append("fsync"))
    label(store, 2)
    assert seen == waits
