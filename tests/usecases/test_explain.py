"""POST /query with `explain`: explanations computed by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient

from service.app import create_app
from service.learning.pool import Pool, SparseRows
from service.settings import Settings
from service.strategies.engine.explain import find_nearest, row_distances, uncertainty_scores
from service.usecases import explain
from tests.support.calls import end_labels, line_pool, post
from tests.support.strategies import FOR_CLASSES

P = [[0.5, 0.3, 0.2], [0.25, 0.75, 0.0], [1.0, 0.0, 0.0], [0.2, 0.2, 0.6]]
PLANE = [[0.0, 0.0], [3.0, 4.0], [0.0, 1.0], [6.0, 8.0]]


def explained(client: FlaskClient, **asked: Any) -> Any:
    return post(client, "/query", **asked, explain=True)["explanations"]


def test_it_is_not_said_unasked(client: FlaskClient) -> None:
    reply = post(client, "/query", probabilities=P, X=PLANE)
    assert (reply["classes"], reply["explanations"]) == (None, None)


def test_the_prediction_of_the_model(client: FlaskClient) -> None:
    reply = post(client, "/query", probabilities=P, batch_size=4, strategy="margin", explain=True)
    at = reply["indices"].index(1)
    assert reply["classes"] == [0, 1, 2]
    assert reply["explanations"][at] == {
        "chosen_by": "strategy",
        "predicted_label": 1,
        "probabilities": [0.25, 0.75, 0.0],
        "scores": {
            "least_confidence": 0.25,
            "margin": 0.5,
            "ratio": pytest.approx(1 / 3),
            "entropy": pytest.approx(-(0.25 * np.log(0.25) + 0.75 * np.log(0.75)) / np.log(3)),
        },
        "nearest_labeled": None,
        "cluster": None,
    }
    assert [each["scores"]["margin"] for each in reply["explanations"]] == pytest.approx(reply["scores"])


def test_the_scores_of_a_committee(client: FlaskClient) -> None:
    members = [[[1.0, 0.0]], [[0.0, 1.0]]]
    [asked] = explained(client, member_probabilities=members, strategy="bald")
    assert asked["scores"]["bald"] == pytest.approx(np.log(2))
    assert (asked["scores"]["vote_entropy"], asked["scores"]["variation_ratio"]) == pytest.approx((1.0, 0.5))
    [not_asked] = explained(client, member_probabilities=members, strategy="margin")
    assert set(not_asked["scores"]) == {"least_confidence", "margin", "ratio", "entropy"}


def test_the_nearest_labelled_sample(client: FlaskClient) -> None:
    y = ["far", None, "near", None]
    found = explained(client, probabilities=P, X=PLANE, y=y, batch_size=2, strategy="margin", candidates=[1, 3])
    by_index = {round(each["nearest_labeled"]["distance"] ** 2): each["nearest_labeled"] for each in found}
    near = {"index": 2, "id": None, "label": "near"}
    assert by_index == {
        18: near | {"distance": pytest.approx(18**0.5)},  # (3, 4) from (0, 1)
        85: near | {"distance": pytest.approx(85**0.5)},  # (6, 8) from (0, 1)
    }


def test_the_clusters_of_a_set_strategy(client: FlaskClient) -> None:
    X = [[0.0], [1.0], [2.0], [10.0], [11.0], [40.0]]
    reply = post(
        client, "/query", X=X, batch_size=2, strategy="k_center", random_state=1, y=["a"] + [None] * 5, explain=True
    )
    assert reply["indices"] == [5, 4]
    assert [each["cluster"] for each in reply["explanations"]] == [
        {"n_candidates": 1, "n_looked_at": 5, "share": 0.2},
        {"n_candidates": 4, "n_looked_at": 5, "share": 0.8},
    ]


def test_equal_samples_are_in_the_cluster_of_the_first(client: FlaskClient) -> None:
    found = explained(client, X=[[1.0]] * 6, batch_size=3, strategy="random")
    assert [each["cluster"]["n_candidates"] for each in found] == [6, 0, 0]


def test_samples_drawn_for_exploration_are_marked(client: FlaskClient) -> None:
    found = explained(client, probabilities=P, batch_size=4, strategy="margin", explore=0.5)
    assert [each["chosen_by"] for each in found] == ["exploration", "strategy", "exploration", "strategy"]


@pytest.mark.parametrize("strategy", ["auto", "margin", "k_center", "activelab"])
def test_relabelled_samples_are_not_their_own_neighbors(client: FlaskClient, strategy: str) -> None:
    post(client, "/fit", 201, project_id="p", X=PLANE)
    answers = [{"index": index, "label": index % 2, "annotator": "ada"} for index in range(4)]
    post(client, "/label", project_id="p", labels=answers)
    reply = post(client, "/query", project_id="p", batch_size=4, strategy=strategy, overlap=2, explain=True)
    found = dict(zip(reply["indices"], reply["explanations"], strict=True))
    assert {index: each["nearest_labeled"]["index"] for index, each in found.items()} == {0: 2, 1: 2, 2: 0, 3: 1}
    assert {(each["chosen_by"], each["cluster"]) for each in found.values()} == {("overlap", None)}


def test_the_only_labelled_sample_has_no_neighbour(client: FlaskClient) -> None:
    post(client, "/fit", 201, project_id="p", X=PLANE)
    post(client, "/label", project_id="p", labels=[{"index": 1, "label": 0, "annotator": "ada"}])
    found = explained(client, project_id="p", strategy="margin", overlap=2)
    assert found[0]["nearest_labeled"] is None


def test_explanations_use_the_classes_and_ids_of_the_project(client: FlaskClient) -> None:
    post(
        client,
        "/fit",
        201,
        project_id="p",
        X=line_pool(4),
        y=end_labels(4, "low", "high"),
        ids=list("abcd"),
        classes=["new", "low", "high"],
    )
    reply = post(client, "/query", project_id="p", candidates=[1], explain=True, strategy="margin")
    [found] = reply["explanations"]
    assert reply["classes"] == ["new", "low", "high"]
    assert (found["predicted_label"], found["probabilities"][0], sum(found["probabilities"])) == (
        "low",
        0.0,
        pytest.approx(1),
    )
    assert found["nearest_labeled"] == {"index": 0, "id": "a", "label": "low", "distance": 1.0}


def test_without_a_model_the_nearest_label_is_given(client: FlaskClient) -> None:
    post(client, "/fit", 201, project_id="p", X=line_pool(4), y=["low", None, None, None])
    [found] = explained(client, project_id="p")
    assert (found["predicted_label"], found["probabilities"], found["scores"]) == (None, None, None)
    assert found["nearest_labeled"]["label"] == "low"


@pytest.fixture(scope="module")
def asked_before(tmp_path_factory: pytest.TempPathFactory) -> FlaskClient:
    """A client of a service with a project of 60 samples and a model."""
    client = create_app(Settings(data_dir=tmp_path_factory.mktemp("data"), log_level="error")).test_client()
    X = np.random.default_rng(0).normal(size=(60, 3))
    post(client, "/fit", 201, project_id="p", X=X.tolist(), y=[0, 1, 0, 1] + [None] * 56)
    return client


@pytest.mark.parametrize("name", FOR_CLASSES)
def test_it_chooses_nothing_else_and_says_the_same_again(asked_before: FlaskClient, name: str) -> None:
    asked = {"project_id": "p", "strategy": name, "batch_size": 5}
    plain = post(asked_before, "/query", **asked)
    found, again = (post(asked_before, "/query", **asked, explain=True) for _ in range(2))
    assert found == again
    assert found | {"classes": None, "explanations": None} == plain
    assert len(found["explanations"]) == 5


def test_broken_probabilities_have_no_scores() -> None:
    assert np.isnan([scores[0] for scores in uncertainty_scores(np.array([[np.nan, np.nan]])).values()]).all()


def test_an_empty_batch_has_nothing_to_explain(client: FlaskClient) -> None:
    assert explained(client, probabilities=P, X=PLANE, candidates=[]) == []


def test_too_many_probabilities_are_refused(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explain, "MAX_PROBABILITIES", 8)
    explained(client, probabilities=P, batch_size=2)
    post(client, "/query", probabilities=P, batch_size=3)
    [error] = post(client, "/query", 422, probabilities=P, batch_size=3, explain=True)["errors"]
    assert error == {
        "pointer": "/batch_size",
        "detail": "is too large with 'explain': at most 2 samples of 3 classes are explained",
    }


def test_at_most_max_candidates_are_compared(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explain, "MAX_CANDIDATES", 10)
    found = explained(client, X=line_pool(50), batch_size=2, strategy="random")
    assert [each["cluster"]["n_looked_at"] for each in found] == [10, 10]
    assert sum(each["cluster"]["n_candidates"] for each in found) == 10


@pytest.mark.parametrize("scale", [1.0, 1e300, 1e-300])
@pytest.mark.parametrize("is_sparse", [False, True])
def test_distances_are_exact_at_any_scale(scale: float, is_sparse: bool) -> None:
    X = np.array([[3.0, 0.0], [0.0, 4.0], [0.0, 0.5]]) * scale
    csr = SparseRows(X[X > 0], np.array([0, 1, 1]), np.arange(4), 2)
    pool, rows = Pool.of(csr if is_sparse else X), np.array([0, 1])
    assert find_nearest(pool, rows, np.array([2])).tolist() == [0, 0]
    assert row_distances(pool, rows, np.array([1, 2])) == pytest.approx(np.array([5.0, 3.5]) * scale, rel=1e-15, abs=0)


def test_a_distance_beyond_all_numbers_is_none(client: FlaskClient) -> None:
    largest = float(np.finfo(np.float64).max)
    [found] = explained(client, X=[[largest], [-largest]], y=["a", None], strategy="random")
    assert found["nearest_labeled"]["distance"] is None


def test_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    X = np.random.default_rng(0).normal(size=(400, 3))
    rows, others = np.arange(150), np.arange(150, 400)
    expected = ((X[rows][:, None] - X[others]) ** 2).sum(axis=2).argmin(axis=1)
    for cells in (2**16, 100):
        monkeypatch.setattr("service.strategies.engine.explain.BLOCK_CELLS", cells)
        monkeypatch.setattr("service.strategies.engine.greedy.BLOCK_CELLS", cells)
        assert np.array_equal(find_nearest(Pool.of(X), rows, others), expected)
