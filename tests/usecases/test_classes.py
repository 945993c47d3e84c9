"""Renaming and merging classes: labels, held-out set, model and events change in one commit."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from scipy import sparse

from service.domain.events import replay, votes_of
from service.store import Part, Store
from service.store.check import check_project
from service.usecases.training import commit_model, train
from tests.support.calls import get, line_pool, post

PATH = "/projects/p/classes"
Y = ["a", "b", "c", None, None, "a", "b", "c"]


def make(client: FlaskClient, y: list[Any] = Y, **more: Any) -> Any:
    post(client, "/fit", 201, project_id="p", X=line_pool(len(y)), y=y, estimator="gaussian_nb", **more)
    return get(client, "/projects/p")


def rename(client: FlaskClient, expect: int = 200, refit: str = "wait", **names: Any) -> Any:
    return post(client, PATH, expect, rename=names, refit=refit)


def labels(client: FlaskClient, name: str = "p") -> list[Any]:
    return [record["label"] for record in get(client, f"/projects/{name}/labels")["labels"]]


def events(client: FlaskClient, name: str = "p") -> list[Any]:
    return get(client, f"/projects/{name}/events")["events"]


RENAMES = {
    "one": ({"a": "x"}, ["x", "b", "c"], ["x", "b", "c", "x", "b", "c"]),
    "a swap": ({"a": "b", "b": "a"}, ["b", "a", "c"], ["b", "a", "c", "b", "a", "c"]),
    "a cycle": ({"a": "b", "b": "c", "c": "a"}, ["b", "c", "a"], ["b", "c", "a", "b", "c", "a"]),
    "a chain": ({"a": "b", "b": "x"}, ["b", "x", "c"], ["b", "x", "c", "b", "x", "c"]),
    "another case": ({"a": "A"}, ["A", "b", "c"], ["A", "b", "c", "A", "b", "c"]),
    "into another": ({"a": "b"}, ["b", "c"], ["b", "b", "c", "b", "b", "c"]),
    "into a later one": ({"a": "c"}, ["c", "b"], ["c", "b", "c", "c", "b", "c"]),
    "into a new one": ({"a": "x", "c": "x"}, ["x", "b"], ["x", "b", "x", "x", "b", "x"]),
    "into a renamed one": ({"a": "x", "b": "x", "c": "a"}, ["x", "a"], ["x", "x", "a", "x", "x", "a"]),
    "all into one": ({"a": "c", "b": "c"}, ["c"], ["c"] * 6),
}


@pytest.mark.parametrize(("names", "classes", "found"), RENAMES.values(), ids=RENAMES)
def test_all_labels_get_their_new_names(
    client: FlaskClient, store: Store, names: dict[str, str], classes: list[str], found: list[str]
) -> None:
    before = make(client, X_test=line_pool(3), y_test=["a", "b", "c"], classes=["a", "b", "c"])
    post(client, "/label", project_id="p", labels=[{"index": 0, "label": "a", "annotator": "ada"}], refit="never")
    after = rename(client, refit="never", **names)
    assert (after["classes"], labels(client), after["version"]) == (classes, found, before["version"] + 2)
    assert sum(after["class_counts"]) == 6
    project = store.read("p", Part.HELD_OUT)
    assert [classes[code] for code in project.y_test] == [names.get(label, label) for label in "abc"]
    assert replay(events(client)) == votes_of(project.project)
    assert events(client)[-1]["kind"] == "rename"
    assert not check_project(store.directory("p"))
    post(client, "/label", 422, project_id="p", labels=[{"index": 3, "label": "zebra"}])  # still declared


def test_a_new_name_keeps_the_model(client: FlaskClient) -> None:
    before = make(client, X_test=line_pool(3), y_test=["a", "b", "c"])
    p = get(client, "/projects/p/predictions?probabilities=true")
    after = rename(client, a="x")
    same = ("model_version", "test_score", "n_labels_since_fit", "fit", "class_counts")
    assert {name: after[name] for name in same} == {name: before[name] for name in same}
    q = get(client, "/projects/p/predictions?probabilities=true")
    assert q["classes"] == ["x", "b", "c"]
    assert [each["probabilities"] for each in q["predictions"]] == [each["probabilities"] for each in p["predictions"]]


@pytest.mark.parametrize("refit", ["wait", "background", "never"])
def test_a_merge_is_followed_by_a_fit_if_one_is_asked_for(client: FlaskClient, store: Store, refit: str) -> None:
    make(client, X_test=line_pool(3), y_test=["a", "b", "c"])
    after = rename(client, refit=refit, a="b")
    assert after["model_version"] == (2 if refit == "wait" else None)
    assert (after["test_score"] is not None) == (refit == "wait")
    assert post(client, "/query", project_id="p", strategy="margin")["indices"]
    again = post(client, "/fit", project_id="p")
    assert again["model_version"] is not None
    assert {each["label"] for each in get(client, "/projects/p/predictions")["predictions"]} <= {"b", "c"}


@pytest.mark.parametrize("names", [{"a": "b"}, {"a": "b", "b": "a"}])
def test_a_model_fitted_meanwhile_to_the_old_classes_is_not_taken(
    client: FlaskClient, store: Store, names: dict[str, str]
) -> None:
    make(client)
    post(client, "/label", project_id="p", labels=[{"index": 3, "label": "b"}], refit="never")
    snapshot = store.read("p", Part.POOL)
    trained = train(snapshot)
    rename(client, refit="never", **names)
    before = store.read("p").project
    commit_model(store, snapshot.project, trained)
    assert store.read("p").project.model == before.model


def test_votes_of_several_annotators_are_merged_each_for_itself(client: FlaskClient) -> None:
    make(client)
    votes = [("ada", "a"), ("bob", "b"), ("eve", "c")]
    records = [{"index": 3, "label": label, "annotator": who} for who, label in votes]
    post(client, "/label", project_id="p", labels=[*records, {"index": 4, "skip": True, "annotator": "ada"}])
    rename(client, a="b")
    found = get(client, "/projects/p/labels")["labels"][3:7]
    assert [(each["annotator"], each["label"]) for each in found] == [
        ("ada", "b"),
        ("bob", "b"),
        ("eve", "c"),
        ("ada", None),
    ]
    assert found[0]["consensus"] == "b"


OTHER_TYPES = {
    "integers": ([1, 2, -3, 1], {"1": 7, "-3": 2}, [7, 2, 2, 7]),
    "booleans": ([True, False, True], {"true": False}, [False, False, False]),
}


@pytest.mark.parametrize(("y", "names", "found"), OTHER_TYPES.values(), ids=OTHER_TYPES)
def test_numbers_and_booleans_go_by_their_text(
    client: FlaskClient, store: Store, y: list[Any], names: dict[str, Any], found: list[Any]
) -> None:
    make(client, y)
    rename(client, **names)
    assert json.dumps(labels(client)) == json.dumps(found)
    assert replay(events(client)) == votes_of(store.read("p").project)


WRONG = {
    "no names": ({}, "/rename", "1 to 10000"),
    "an unknown class": ({"bb": "x"}, "/rename/bb", "did you mean 'b'"),
    "a number": ({"a": 1}, "/rename/a", "is an integer; each label of this project is a string"),
    "null": ({"a": None}, "/rename/a", "must be a label"),
    "empty text": ({"a": ""}, "/rename/a", "1 to 256 characters"),
    "blanks": ({"a": " "}, "/rename/a", "blank"),
    "a line break": ({"a": "x\n"}, "/rename/a", "control character"),
    "the look of a class": ({"a": "B "}, "/rename/a", "looks like"),
    "the look of another name": ({"a": "x", "b": "X"}, "/rename/b", "looks like"),
    "a missing label": ({"a": "nan"}, "/rename/a", "missing label"),
    "an unknown class beside a known one": ({"a": "x", "q": "y"}, "/rename/q", "not a class"),
}


@pytest.mark.parametrize(("names", "pointer", "problem"), WRONG.values(), ids=WRONG)
def test_wrong_names_change_nothing(client: FlaskClient, names: Any, pointer: str, problem: str) -> None:
    before = make(client)
    [error] = post(client, PATH, 422, rename=names)["errors"]
    assert error["pointer"] == pointer
    assert problem in error["detail"]
    assert get(client, "/projects/p") == before


def test_a_class_of_this_name_already_is_no_change(client: FlaskClient) -> None:
    before = make(client)
    assert rename(client, a="a") == before


def test_the_old_name_may_become_a_class_again(client: FlaskClient) -> None:
    make(client)
    rename(client, a="cat")
    post(client, "/label", project_id="p", labels=[{"index": 3, "label": "a"}])
    assert get(client, "/projects/p")["classes"] == ["cat", "b", "c", "a"]
    rename(client, a="Dog", refit="never")
    post(client, "/label", 422, project_id="p", labels=[{"index": 4, "label": "dog"}])


def test_a_condition_and_a_key_are_honoured(client: FlaskClient) -> None:
    make(client)
    body = {"rename": {"a": "b"}}
    assert client.post(PATH, json=body, headers={"If-Match": '"other"'}).status_code == 412
    first, again = (client.post(PATH, json=body, headers={"Idempotency-Key": "k"}) for _ in range(2))
    assert (first.status_code, first.json) == (200, again.json)
    assert client.post("/projects/q/classes", json=body).status_code == 404


def test_a_copy_has_the_new_names_and_their_events(client: FlaskClient, store: Store) -> None:
    before = make(client, X_test=line_pool(3), y_test=["a", "b", "c"])
    rename(client, a="x", b="x")
    archive = client.get("/projects/p/export").data
    reply = client.post("/projects/import?project_id=q", data=archive, content_type="application/zip")
    assert reply.json["classes"] == ["x", "c"]
    assert labels(client, "q") == labels(client)
    assert replay(events(client, "q")) == votes_of(store.read("q").project)
    assert reply.json["test_score"] == get(client, "/projects/p")["test_score"] != before["test_score"]


def test_a_sparse_held_out_set_survives_a_merge(client: FlaskClient, store: Store) -> None:
    def npz(rows: Any) -> tuple[Any, str, str]:
        out = io.BytesIO()
        sparse.save_npz(out, sparse.csr_array(np.array(rows)))
        return io.BytesIO(out.getvalue()), "X", "application/x-npz"

    config = {"project_id": "p", "y": Y, "y_test": ["a", "b", "c"]}
    parts = {
        "config": (io.BytesIO(json.dumps(config).encode()), "config", "application/json"),
        "X": npz(line_pool(8)),
        "X_test": npz(line_pool(3)),
    }
    assert client.post("/fit", data=parts).status_code == 201
    after = rename(client, b="a")
    assert (after["classes"], after["model_version"]) == (["a", "c"], 2)
    assert store.read("p", Part.HELD_OUT).y_test.tolist() == [0, 0, 1]
