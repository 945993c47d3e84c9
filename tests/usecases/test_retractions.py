"""Answers that are taken back, by record and by path, and records of unknown samples."""

from __future__ import annotations

from typing import Any

import pytest
from flask.testing import FlaskClient

from service.domain.events import replay, votes_of
from service.store import Store
from tests.support.calls import get, line_pool, post

IDS = ["0", "a/b", "a//b", "ü", "12", "x y", "%2F", "7"]


@pytest.fixture
def project(client: FlaskClient) -> None:
    """Make a project whose sample 3 has two answers, sample 4 a skip by ada, and sample 5 an anonymous skip."""
    y = ["a", "b", "a", None, None, None, None, "b"]
    post(client, "/fit", 201, project_id="p", X=line_pool(8), y=y, ids=IDS, estimator="gaussian_nb")
    answers = [
        {"index": 3, "label": "a", "annotator": "ada"},
        {"index": 3, "label": "b", "annotator": "bob"},
        {"index": 4, "skip": True, "annotator": "ada"},
        {"index": 5, "skip": True},
    ]
    post(client, "/label", project_id="p", labels=answers)


def send(client: FlaskClient, *records: Any, expect: int = 200, **more: Any) -> Any:
    return post(client, "/label", expect, project_id="p", labels=list(records), **more)


def answers(client: FlaskClient) -> set[tuple[int, str | None, str | None]]:
    labels = get(client, "/projects/p/labels")["labels"]
    return {(each["index"], each["annotator"], each["label"]) for each in labels}


ADA, BOB = {"annotator": "ada"}, {"annotator": "bob"}
RETRACTIONS = {
    "a label": ({"index": 3, **ADA}, {(3, "ada", "a")}),
    "a label by id": ({"id": "ü", **BOB}, {(3, "bob", "b")}),
    "a skip": ({"index": 4, **ADA}, {(4, "ada", None)}),
    "a skip without annotator": ({"index": 5}, {(5, None, None)}),
    "a label without annotator": ({"id": "7"}, {(7, None, "b")}),
    "nobody's answer beside others'": ({"index": 3}, set()),
    "an answer that is not there": ({"index": 6}, set()),
    "an unknown annotator's": ({"index": 3, "annotator": "eve"}, set()),
}


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(("record", "gone"), RETRACTIONS.values(), ids=RETRACTIONS)
def test_a_label_of_null_retracts_one_answer(client: FlaskClient, store: Store, record: Any, gone: set[Any]) -> None:
    before, version = answers(client), get(client, "/projects/p")["version"]
    reply = send(client, {**record, "label": None})
    assert (reply["n_accepted"], reply["n_changed"]) == (1, len(gone))
    assert answers(client) == before - gone
    events = get(client, "/projects/p/events")["events"]
    assert replay(events) == votes_of(store.read("p").project)
    assert (get(client, "/projects/p")["version"] > version) == bool(gone)


@pytest.mark.usefixtures("project")
def test_retractions_and_labels_are_one_commit_and_one_fit(client: FlaskClient, store: Store) -> None:
    before = get(client, "/projects/p")
    reply = send(
        client,
        {"index": 3, "label": None, **ADA},
        {"index": 3, "label": "a", **BOB},
        {"index": 0, "label": None},
        {"index": 6, "label": "b"},
    )
    assert (reply["n_changed"], reply["model_version"]) == (4, before["model_version"] + 1)
    events = get(client, f"/projects/p/events?after={before['version']}")["events"]
    assert [event["kind"] for event in events] == ["label", "fit"]
    assert events[0]["details"]["retracted"] == {"index": [0, 3], "annotator": [None, "ada"]}
    assert replay(get(client, "/projects/p/events")["events"]) == votes_of(store.read("p").project)


@pytest.mark.usefixtures("project")
def test_a_retraction_sent_again_with_its_key_has_the_same_reply(client: FlaskClient) -> None:
    body = {"project_id": "p", "labels": [{"index": 3, "label": None, **ADA}]}
    first, again = (client.post("/label", json=body, headers={"Idempotency-Key": "k"}).json for _ in range(2))
    assert first == again


WRONG = {
    "with a skip": ([{"index": 3, "label": None, "skip": True}], "/labels/0"),
    "with a query": ([{"index": 3, "label": None, "query_id": "q"}], "/labels/0/query_id"),
    "with new_class": ([{"index": 3, "label": None, "new_class": True}], "/labels/0/new_class"),
    "twice": ([{"index": 3, "label": None, **ADA}, {"index": 3, "label": "a", **ADA}], "/labels/1/index"),
    "beyond the pool": ([{"index": 99, "label": None}], "/labels/0/index"),
}


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(("records", "pointer"), WRONG.values(), ids=WRONG)
def test_a_wrong_retraction_changes_nothing(client: FlaskClient, records: list[Any], pointer: str) -> None:
    before = get(client, "/projects/p")
    assert send(client, *records, expect=422)["errors"][0]["pointer"] == pointer
    assert get(client, "/projects/p") == before


@pytest.mark.usefixtures("project")
def test_a_retraction_does_not_revive_a_lease(client: FlaskClient) -> None:
    lease = post(client, "/query", project_id="p", annotator="eve", lease_seconds=60, strategy="random")
    [index] = lease["indices"]
    send(client, {"index": index, "label": "a", "annotator": "eve"})
    send(client, {"index": index, "label": None, "annotator": "eve"})
    assert get(client, "/projects/p/leases")["leases"] == []


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("index", [0, 1, 2, 7])
def test_all_answers_are_retracted_by_id(client: FlaskClient, index: int) -> None:
    path = "/projects/p/labels/by-id/" + IDS[index].replace("%", "%25").replace("/", "%2F")
    assert client.delete(path).status_code == 204
    assert index not in {each[0] for each in answers(client)}
    assert client.delete(path).status_code == 404
    assert client.delete("/projects/p/labels/by-id/no").status_code == 404


def test_a_number_in_the_path_is_an_id_and_not_an_index(client: FlaskClient) -> None:
    post(client, "/fit", 201, project_id="p", X=line_pool(3), y=["a", "b", "a"], ids=[2, -1, 0])
    for name, index in (("2", 0), ("-1", 1)):
        assert client.delete(f"/projects/p/labels/by-id/{name}").status_code == 204
        assert index not in {each[0] for each in answers(client)}
    for name in ("02", "+2", "2.0", "two", str(2**70)):
        assert client.delete(f"/projects/p/labels/by-id/{name}").status_code == 404


@pytest.mark.usefixtures("project")
def test_records_of_unknown_samples_are_refused_or_left_out(client: FlaskClient) -> None:
    unknown = [{"id": "gone", "label": "zebra"}, {"index": 99, "label": "a"}, {"id": "nobody", "label": None}]
    records = [unknown[0], {"id": "12", "label": "b"}, *unknown[1:], {"index": 6, "label": "dog"}]
    refused = send(client, *records, expect=422)
    assert [error["pointer"] for error in refused["errors"]] == ["/labels/0/id", "/labels/2/index", "/labels/3/id"]
    reply = send(client, *records, unknown="ignore")
    assert (reply["n_accepted"], reply["n_changed"]) == (2, 2)
    assert get(client, "/projects/p")["classes"] == ["a", "b", "dog"]
    before = get(client, "/projects/p")
    assert send(client, *unknown, unknown="ignore")["n_accepted"] == 0
    assert get(client, "/projects/p") == before
    send(client, {"id": 12, "label": "a"}, unknown="ignore", expect=422)  # of another type than the ids
    wrong = send(client, unknown[0], {"index": 0, "label": "nan"}, unknown="ignore", expect=422)
    assert wrong["errors"][0]["pointer"] == "/labels/1/label"


def put(client: FlaskClient, *records: Any, expect: int = 200, **more: Any) -> Any:
    response = client.put("/projects/p/labels", json={"labels": list(records), **more})
    assert response.status_code == expect, response.text
    return response.json


@pytest.mark.usefixtures("project")
def test_labels_are_made_what_they_should_be_in_one_commit(client: FlaskClient, store: Store) -> None:
    before = get(client, "/projects/p")
    wanted = {
        (0, None, "a"),
        (1, None, "a"),
        (3, "ada", "a"),
        (3, "eve", "b"),
        (5, None, "dog"),
        (6, None, "b"),
        (6, "ada", None),
    }
    records = [
        {"index": index, "annotator": who, **({"skip": True} if label is None else {"label": label})}
        for index, who, label in sorted(wanted, key=str)
    ]
    records = [{name: value for name, value in record.items() if value is not None} for record in records]
    reply = put(client, *records)
    # New: 3 by eve, 5, and 6 twice; changed: 1; gone: 2 and 7, 3 by bob, and 4.
    assert (reply["n_accepted"], reply["n_changed"]) == (7, 9)
    assert answers(client) == wanted
    events = get(client, f"/projects/p/events?after={before['version']}")["events"]
    assert [event["kind"] for event in events] == ["label", "fit"]
    assert replay(get(client, "/projects/p/events")["events"]) == votes_of(store.read("p").project)
    after = get(client, "/projects/p")
    assert put(client, *records)["n_changed"] == 0
    assert get(client, "/projects/p") == after


@pytest.mark.usefixtures("project")
def test_labels_that_replace_all_others_keep_the_model_without_a_fit(client: FlaskClient) -> None:
    before = get(client, "/projects/p")
    reply = put(client, {"id": "x y", "label": "b"}, {"id": "12", "label": "a"}, refit="never")
    assert (reply["n_changed"], reply["n_labeled"]) == (9, 2)
    assert reply["model_version"] == before["model_version"]


@pytest.mark.usefixtures("project")
def test_an_anonymous_label_in_place_of_named_ones_stands_alone(client: FlaskClient) -> None:
    post(client, "/label", project_id="p", labels=[{"index": 3, "label": "a", "annotator": "bob"}])
    put(client, {"index": 3, "label": "a"})
    assert answers(client) == {(3, None, "a")}


@pytest.mark.usefixtures("project")
def test_an_empty_list_retracts_all_labels(client: FlaskClient) -> None:
    assert put(client)["n_changed"] == 8
    assert answers(client) == set()


@pytest.mark.usefixtures("project")
def test_a_wrong_list_changes_nothing(client: FlaskClient) -> None:
    before = get(client, "/projects/p")
    reply = put(client, {"index": 0, "label": "a"}, {"id": "gone", "label": "b"}, expect=422)
    assert reply["errors"][0]["pointer"] == "/labels/1/id"
    assert put(client, {"index": 0, "label": 1}, expect=422)["errors"][0]["pointer"] == "/labels/0/label"
    assert client.put("/projects/p/labels", json={"labels": []}, headers={"If-Match": '"x"'}).status_code == 412
    assert get(client, "/projects/p") == before
    assert put(client, {"index": 0, "label": "a"}, {"id": "gone", "label": "b"}, unknown="ignore")["n_accepted"] == 1
