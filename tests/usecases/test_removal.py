"""DELETE /projects/{id}/samples and POST /projects/{id}/samples/restore."""

from __future__ import annotations

from typing import Any

import pytest
from flask.testing import FlaskClient

from service.store import Part, Store
from service.store.check import check_project
from tests.support.calls import end_labels, get, line_pool, post

NAMES = [f"row {n}" for n in range(20)]


@pytest.fixture
def project(client: FlaskClient) -> str:
    post(client, "/fit", 201, project_id="p", X=line_pool(), y=end_labels(), ids=NAMES, estimator="gaussian_nb")
    return "p"


def remove(client: FlaskClient, expect: int = 200, **body: Any) -> Any:
    response = client.delete("/projects/p/samples", json=body)
    assert response.status_code == expect, response.text
    return response.json


def restore(client: FlaskClient, expect: int = 200, **body: Any) -> Any:
    return post(client, "/projects/p/samples/restore", expect, **body)


def store_of(client: FlaskClient) -> Store:
    context: Any = client.application.extensions["active-query"]
    store: Store = context.store
    return store


def statuses(client: FlaskClient) -> list[str]:
    return [sample["status"] for sample in get(client, "/projects/p/samples")["samples"]]


def test_removed_samples_are_not_asked_about_and_not_counted(client, project) -> None:
    reply = remove(client, indices=[3, 4], ids=["row 5"])
    assert (reply["n_changed"], reply["n_removed"], reply["n_unlabeled"], reply["n_skipped"]) == (3, 3, 15, 0)
    asked = post(client, "/query", project_id="p", batch_size=50)
    assert sorted(asked["indices"]) == [1, 2, *range(6, 19)]
    assert asked["n_unlabeled"] == 15
    assert statuses(client)[2:7] == ["unlabeled", "removed", "removed", "removed", "unlabeled"]
    listed = get(client, "/projects/p/samples?status=removed")["samples"]
    assert [(sample["index"], sample["id"]) for sample in listed] == [(3, "row 3"), (4, "row 4"), (5, "row 5")]
    assert get(client, "/projects/p/samples?status=skipped")["samples"] == []
    alone = post(client, "/query", project_id="p", candidates=[3])
    assert (alone["indices"], "1 removed" in alone["fallback_reason"]) == ([], True)


def test_removed_samples_are_not_predicted_unless_named(client, project) -> None:
    remove(client, indices=[3])
    shown = get(client, "/projects/p/predictions")["predictions"]
    assert [each["index"] for each in shown] == [n for n in range(20) if n != 3]
    assert [each["index"] for each in get(client, "/projects/p/predictions?indices=3")["predictions"]] == [3]


def test_labels_of_removed_samples_leave_training_and_come_back(client, project) -> None:
    for index, label, who in ((1, 0, "ann"), (1, 1, "bob"), (2, 1, None)):
        record = {"index": index, "label": label} | ({"annotator": who} if who else {})
        post(client, "/label", project_id="p", labels=[record], refit="never")
    post(client, "/label", project_id="p", labels=[{"index": 4, "skip": True}], refit="never")
    before = get(client, "/projects/p/labels")["labels"]
    counts = get(client, "/projects/p")["class_counts"]
    reply = remove(client, ids=["row 1", "row 2", "row 4", "row 19"])
    assert (reply["n_labeled"], reply["n_skipped"], reply["n_removed"], reply["model_version"]) == (1, 0, 4, None)
    assert [label["index"] for label in get(client, "/projects/p/labels")["labels"]] == [0]
    reply = restore(client, indices=[1, 2, 4, 19, 7])
    assert (reply["n_changed"], reply["n_labeled"], reply["n_skipped"], reply["n_removed"]) == (4, 4, 1, 0)
    assert get(client, "/projects/p/labels")["labels"] == before
    assert get(client, "/projects/p")["class_counts"] == counts
    assert list(check_project(store_of(client).directory("p"))) == []


def test_a_model_is_the_same_as_without_the_removed_samples(client, project) -> None:
    post(client, "/label", project_id="p", labels=[{"index": 2, "label": 1}, {"index": 1, "label": 0}])
    remove(client, indices=[2])
    fitted = post(client, "/fit", project_id="p")
    assert fitted["n_labels_since_fit"] == 0
    pool = line_pool()
    y = [0, 0, *[None] * 17, 1]
    post(client, "/fit", 201, project_id="q", X=pool, y=y, estimator="gaussian_nb")
    found = [get(client, f"/projects/{name}/predictions?probabilities=true")["predictions"] for name in "pq"]
    assert [p["probabilities"] for p in found[0]] == [q["probabilities"] for q in found[1] if q["index"] != 2]


WRONG = {
    "nothing": ({}, "/indices", "or ids is required"),
    "an empty list": ({"indices": []}, "/indices", "or ids is required"),
    "beyond the pool": ({"indices": [3, 20]}, "/indices/1", "must be from 0 to 19"),
    "an unknown id": ({"ids": ["row 3", "x"]}, "/ids/1", "is not an id of the pool"),
    "an id of another type": ({"ids": [3]}, "/ids/0", "each id of this project is a string"),
    "text": ({"indices": ["3"]}, "/indices/0", "must be an index"),
    "another field": ({"index": 3}, "/index", "is not a field here"),
}


@pytest.mark.parametrize("change", [remove, restore])
@pytest.mark.parametrize(("body", "pointer", "detail"), WRONG.values(), ids=WRONG)
def test_wrong_requests_change_nothing(client, project, change, body, pointer, detail) -> None:
    before = get(client, "/projects/p")
    errors = change(client, 422, **body)["errors"]
    assert any(error["pointer"] == pointer and detail in error["detail"] for error in errors), errors
    assert get(client, "/projects/p") == before


def test_a_removed_sample_takes_no_label_until_it_is_back(client, project) -> None:
    remove(client, indices=[3])
    for record in ({"index": 3, "label": 1}, {"id": "row 3", "skip": True}, {"index": 3, "label": None}):
        [error] = post(client, "/label", 422, project_id="p", labels=[record])["errors"]
        assert "samples/restore puts it back" in error["detail"]
    both = [{"index": 3, "label": 1}, {"index": 4, "label": 1}]
    assert post(client, "/label", project_id="p", labels=both, unknown="ignore")["n_accepted"] == 1
    restore(client, ids=["row 3"])
    assert post(client, "/label", project_id="p", labels=[{"index": 3, "label": 1}])["n_changed"] == 1


def test_a_lease_of_a_removed_sample_ends_for_good(client, project) -> None:
    leased = post(client, "/query", project_id="p", batch_size=2, annotator="ann", lease_seconds=600)["indices"]
    remove(client, indices=leased[:1])
    restore(client, indices=leased[:1])
    assert [lease["indices"] for lease in get(client, "/projects/p/leases")["leases"]] == [leased[1:]]


def test_only_new_changes_are_commits_and_events(client, project) -> None:
    remove(client, indices=[3, 3, 19])
    assert remove(client, indices=[3])["n_changed"] == 0
    restore(client, indices=[3, 19])
    events = [e for e in get(client, "/projects/p/events")["events"] if e["kind"] in ("remove", "restore")]
    removed, restored = (event["details"] for event in events)
    assert (removed["removed"], removed["retracted"]["index"]) == ({"index": [3, 19]}, [19])
    assert (restored["restored"], restored["labels"]["index"]) == ({"index": [3, 19]}, [19])


def test_conditions_and_keys_hold(client, project) -> None:
    stale = client.delete("/projects/p/samples", json={"indices": [3]}, headers={"If-Match": '"x"'})
    assert stale.status_code == 412
    remove(client, indices=[3])
    key = {"Idempotency-Key": "once"}
    first = client.post("/projects/p/samples/restore", json={"indices": [3]}, headers=key)
    for path in store_of(client).replies.root.rglob("*"):
        if path.is_file():
            path.unlink()  # as if the process had died after the commit
    remove(client, indices=[3])
    again = client.post("/projects/p/samples/restore", json={"indices": [3]}, headers=key)
    assert (first.json["n_changed"], again.json["n_changed"], again.json["n_removed"]) == (1, 1, 1)


def test_renamed_classes_come_back_with_their_samples(client, project) -> None:
    post(client, "/label", project_id="p", labels=[{"index": 1, "label": 5}], refit="never")
    remove(client, indices=[1])
    post(client, "/projects/p/classes", rename={"5": 1}, refit="never")
    restore(client, indices=[1])
    assert get(client, "/projects/p/labels")["labels"][1]["label"] == 1


def test_numbers_come_back_with_their_samples(client) -> None:
    y = [0.5, 1.5, *[None] * 18]
    post(client, "/fit", 201, project_id="p", X=line_pool(), y=y, target="number", estimator="ridge")
    remove(client, indices=[1])
    post(client, "/label", project_id="p", labels=[{"index": 2, "label": 7.25}], refit="never")
    restore(client, indices=[1])
    assert [label["label"] for label in get(client, "/projects/p/labels")["labels"]] == [0.5, 1.5, 7.25]


def test_a_copy_has_the_same_samples_removed(client, project) -> None:
    remove(client, indices=[0, 3])
    archive = client.get("/projects/p/export").data
    assert client.post("/projects/import?project_id=c", data=archive, content_type="application/zip").status_code == 201
    assert get(client, "/projects/c")["n_removed"] == 2
    assert post(client, "/projects/c/samples/restore", indices=[0, 3])["n_labeled"] == 2
    assert list(check_project(store_of(client).directory("c"))) == []


def test_removed_samples_survive_on_disk_and_a_new_pool_has_none(client, project) -> None:
    remove(client, indices=[0, 3])
    fresh = Store(store_of(client).root).read("p", Part.POOL).project
    assert (fresh.removed.tolist(), fresh.removed_votes.index.tolist(), fresh.n_labeled) == ([0, 3], [0], 1)
    post(client, "/fit", project_id="p", X=line_pool(), ids=NAMES, replace=True)
    assert get(client, "/projects/p")["n_removed"] == 0
    assert "removed" not in statuses(client)
