"""POST /fit: creating a project, and training it again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient

from service.app import create_app
from service.settings import Settings
from tests.support.calls import end_labels, get, line_pool, post, post_form
from tests.support.estimators import CLASSIFIERS


def test_a_project_without_labels_is_stored_without_a_model(client: FlaskClient) -> None:
    made = post(client, "/fit", 201, project_id="p", X=line_pool())
    assert (made["n_samples"], made["n_features"], made["n_labeled"], made["n_unlabeled"]) == (20, 2, 0, 20)
    assert (made["model_version"], made["classes"], made["test_score"]) == (None, [], None)


def test_one_class_gives_no_model(client: FlaskClient) -> None:
    made = post(client, "/fit", 201, project_id="p", X=line_pool(), y=["a", *[None] * 19])
    assert (made["model_version"], made["n_labeled"], made["classes"], made["n_labels_since_fit"]) == (
        None,
        1,
        ["a"],
        1,
    )


def test_the_reply_describes_the_project(client: FlaskClient) -> None:
    made = post(
        client,
        "/fit",
        201,
        project_id="p",
        X=line_pool(),
        y=end_labels(),
        X_test=[[0, 1], [19, 1]],
        y_test=[0, 1],
        random_state=7,
    )
    assert made["version"] == made["model_version"] == 1
    assert (made["classes"], made["class_counts"], made["random_state"]) == ([0, 1], [1, 1], 7)
    assert made["estimator"]["name"] == "logistic_regression"
    assert made["test_score"]["accuracy"] == 1.0
    assert made["created_at"] <= made["updated_at"]
    assert get(client, "/projects/p") | {"notes": made["notes"]} == made


@pytest.mark.parametrize(("low", "high"), [("a", "b"), (0, 1), (-(2**63), 2**63 - 1), (False, True), ("1", "2")])
def test_labels_come_back_with_the_type_they_came_in(client: FlaskClient, low: Any, high: Any) -> None:
    made = post(client, "/fit", 201, project_id="p", X=line_pool(), y=end_labels(low=low, high=high))
    assert made["classes"] == [low, high]
    labels = [record["label"] for record in get(client, "/projects/p/labels")["labels"]]
    assert labels == [low, high]
    assert [type(label) for label in labels] == [type(low), type(high)]


def test_declared_classes_keep_their_order_and_may_grow(client: FlaskClient) -> None:
    made = post(
        client, "/fit", 201, project_id="p", X=line_pool(), y=end_labels(low="b", high="a"), classes=["c", "b", "a"]
    )
    assert (made["classes"], made["class_counts"]) == (["c", "b", "a"], [0, 1, 1])
    grown = post(client, "/fit", project_id="p", classes=["a", "b", "c", "d"])
    assert grown["classes"] == ["c", "b", "a", "d"]


def test_another_estimator_later(client: FlaskClient) -> None:
    post(client, "/fit", 201, project_id="p", X=line_pool(), y=end_labels())
    spec = {"name": "k_neighbors", "params": {"n_neighbors": 1}}
    trained = post(client, "/fit", project_id="p", estimator=spec)
    assert (trained["version"], trained["model_version"]) == (2, 2)
    assert trained["estimator"]["params"]["n_neighbors"] == 1
    assert post(client, "/query", project_id="p", strategy="margin")["scores"] == [0.0]


@pytest.mark.parametrize("name", sorted(CLASSIFIERS))
def test_every_estimator_can_fit_and_query(client: FlaskClient, name: str) -> None:
    made = post(client, "/fit", 201, project_id="p", X=line_pool(12), y=end_labels(12), estimator=name)
    assert made["model_version"] == 1
    assert len(post(client, "/query", project_id="p", batch_size=3, strategy="entropy")["indices"]) == 3


def test_a_new_held_out_set_is_scored_at_once(client: FlaskClient) -> None:
    post(client, "/fit", 201, project_id="p", X=line_pool(), y=end_labels(), X_test=[[0, 1]], y_test=[0])
    scored = post(client, "/fit", project_id="p", X_test=[[0, 1], [1, 1]], y_test=[0, 1])
    assert scored["test_score"]["accuracy"] == 0.5
    assert (scored["n_samples"], scored["n_labeled"]) == (20, 2)


def test_a_held_out_class_may_be_new(client: FlaskClient) -> None:
    made = post(
        client, "/fit", 201, project_id="p", X=line_pool(), y=end_labels(), X_test=[[0, 1], [5, 1]], y_test=[0, 2]
    )
    assert (made["classes"], made["class_counts"]) == ([0, 1, 2], [1, 1, 0])
    assert made["test_score"]["log_loss"] > 10


def test_replace_keeps_nothing_of_the_old_pool(client: FlaskClient) -> None:
    old = post(client, "/fit", 201, project_id="p", X=line_pool(), y=end_labels(), ids=[f"s{i}" for i in range(20)])
    new = post(client, "/fit", project_id="p", X=[[1.0], [2.0], [3.0]], y=["x", None, "y"], replace=True)
    assert (new["n_samples"], new["n_features"], new["classes"]) == (3, 1, ["x", "y"])
    assert (new["version"], new["model_version"], new["created_at"]) == (2, 2, old["created_at"])
    assert post(client, "/query", project_id="p")["ids"] is None


def test_replace_creates_a_missing_project(client: FlaskClient) -> None:
    post(client, "/fit", 201, project_id="p", X=line_pool(), replace=True)


def test_a_form_of_npy_makes_the_same_project_as_json(client: FlaskClient) -> None:
    X, X_test = np.array(line_pool()), np.array([[0.0, 1.0], [19.0, 1.0]])
    ids = [f"s{i}" for i in range(20)]
    sent = post(
        client,
        "/fit",
        201,
        project_id="json",
        X=X.tolist(),
        y=end_labels(),
        ids=ids,
        X_test=X_test.tolist(),
        y_test=[0, 1],
    )
    y = np.array([np.nan if label is None else label for label in end_labels()])
    form = post_form(
        client, config={"project_id": "form"}, X=X, y=y, ids=np.array(ids), X_test=X_test, y_test=np.array([0, 1])
    )
    differ = {name for name in sent if sent[name] != form[name]}
    assert differ <= {"project_id", "created_at", "updated_at"}
    asked = [post(client, "/query", project_id=name, batch_size=20) for name in ("json", "form")]
    assert asked[0]["indices"] == asked[1]["indices"]
    assert asked[0]["ids"] == asked[1]["ids"] == [f"s{i}" for i in asked[0]["indices"]]


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i1", "u2", "i8", ">f4"])
def test_a_pool_keeps_the_dtype_it_came_with(client: FlaskClient, tmp_path: Any, dtype: str) -> None:
    X = np.array([[0, 1], [50, 2], [99, 3], [100, 4]], dtype)
    made = post_form(client, config={"project_id": "p"}, X=X, y=np.array([0.0, np.nan, np.nan, 1.0]))
    assert made["model_version"] == 1
    [pool] = (tmp_path / "data/projects/p/pool").iterdir()
    kept = np.dtype(dtype).newbyteorder("=")
    assert len(pool.read_bytes()) < X.nbytes + 400
    from_disk = np.frombuffer(pool.read_bytes()[-X.nbytes - 1 : -1], kept).reshape(X.shape)
    assert (from_disk == X).all()
    assert post(client, "/query", project_id="p")["indices"][0] in (1, 2)


@pytest.mark.parametrize(
    ("column", "classes"),
    [
        (np.array([3, 4, 3, 4], np.uint8), [3, 4]),
        (np.array([True, False, True, False]), [False, True]),
        (np.array(["b", "a", "b", "a"]), ["a", "b"]),
        (np.array([7.0, np.nan, np.nan, -2.0]), [-2, 7]),
    ],
)
def test_labels_may_be_npy_of_many_dtypes(client: FlaskClient, column: np.ndarray, classes: list[Any]) -> None:
    made = post_form(client, config={"project_id": "p"}, X=np.array(line_pool(4)), y=column)
    assert made["classes"] == classes
    assert [type(label) for label in made["classes"]] == [type(label) for label in classes]


def test_a_failed_fit_changes_nothing(client: FlaskClient, tmp_path: Any) -> None:
    post(client, "/fit", 201, project_id="p", X=line_pool(), y=end_labels())
    before = get(client, "/projects/p")
    # Equal rows have no variance for naive Bayes to divide by.
    X = [[5.0, 5.0]] * 20
    problem = post(client, "/fit", 422, project_id="p", X=X, y=end_labels(), replace=True, estimator="gaussian_nb")
    assert "gaussian_nb cannot learn from these numbers" in problem["detail"]
    assert get(client, "/projects/p") == before
    assert [path.name for path in (tmp_path / "data/staging").iterdir()] == ["lock"]


def test_fit_twice_gives_the_same_answers(client: FlaskClient) -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 4)).tolist(), [0, 1, 2] * 5 + [None] * 45
    asked = []
    for name in ("p", "q"):
        post(client, "/fit", 201, project_id=name, X=X, y=y, estimator="random_forest", random_state=3)
        reply = post(client, "/query", project_id=name, batch_size=10)
        asked.append((reply["indices"], reply["scores"]))
    assert asked[0] == asked[1]


def test_too_many_projects(tmp_path: Any) -> None:
    client = create_app(Settings(data_dir=tmp_path, max_projects=1, log_level="error")).test_client()
    post(client, "/fit", 201, project_id="p", X=line_pool())
    problem = post(client, "/fit", 409, project_id="q", X=line_pool())
    assert "AQ_MAX_PROJECTS" in problem["detail"]
    post(client, "/fit", project_id="p", X=line_pool(), replace=True)
    assert [path.name for path in (tmp_path / "projects").iterdir()] == ["p"]
