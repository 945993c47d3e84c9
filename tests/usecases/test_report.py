"""The report over HTTP: go on or stop, and the evidence, in every state of a project."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from sklearn.datasets import make_blobs

from service.usecases.stop_advice import StabilizingPredictions, decide
from tests.support.calls import get, post

PATH = "/projects/p/report"
EASY = make_blobs(200, 2, centers=[[-4, 0], [4, 0]], random_state=0)
HARD = make_blobs(200, 2, centers=[[-1, 0], [1, 0]], random_state=0)


def make_project(client: FlaskClient, data: Any = EASY, n_labeled: int = 10, names: Sequence[Any] = ("a", "b")) -> Any:
    X, codes = data
    labels = [names[code] for code in codes]
    given = [label if i < n_labeled else None for i, label in enumerate(labels)]
    post(client, "/fit", 201, project_id="p", X=X.tolist(), y=given, estimator="gaussian_nb")
    return labels


def label_next(client: FlaskClient, labels: Sequence[Any], n: int, **query: Any) -> None:
    asked = post(client, "/query", project_id="p", batch_size=n, **query)
    records = [{"index": i, "label": labels[i], "annotator": "ada"} for i in asked["indices"]]
    post(client, "/label", project_id="p", labels=records, query_id=asked["query_id"])


def test_an_easy_pool_needs_no_more_labels_after_a_few_batches(client: FlaskClient) -> None:
    labels = make_project(client)
    assert get(client, PATH)["verdict"] == "continue"
    for _ in range(4):
        label_next(client, labels, 20, explore=0.5)
    found = get(client, PATH)
    assert found["verdict"] == "stop"
    assert found["stabilizing_predictions"] == {"kappa": pytest.approx(1.0, abs=0.01), "threshold": 0.99, "n_models": 3}
    gain = found["expected_gain"]
    assert 0 <= gain["low"] <= gain["next_batch"] <= gain["high"] < 0.01
    assert gain["n_labels"] == 20
    assert found["evaluation"] == get(client, "/projects/p/evaluation")
    assert all(reason.endswith((".", "." + " ")) for reason in found["reasons"])
    assert found == get(client, PATH)


def test_a_hard_pool_goes_on(client: FlaskClient) -> None:
    labels = make_project(client, HARD)
    for _ in range(2):
        label_next(client, labels, 10, explore=1.0)
    found = get(client, PATH)
    assert found["verdict"] in ("continue", "nearly")
    assert found["stabilizing_predictions"]["n_models"] == 2


def test_without_uniform_samples_the_gain_is_unknown_and_says_what_it_takes(client: FlaskClient) -> None:
    labels = make_project(client)
    for _ in range(4):
        label_next(client, labels, 5, strategy="margin", explore=0.0)
    found = get(client, PATH)
    assert found["verdict"] in ("nearly", "continue")
    assert found["expected_gain"]["next_batch"] is None and "purpose" in found["expected_gain"]["measured_on"]
    assert found["evaluation"]["accuracy"] is None


def test_the_scores_on_a_held_out_set_make_the_curve(client: FlaskClient) -> None:
    X, _ = EASY
    labels = make_project(client)
    post(client, "/fit", project_id="p", X_test=X[:50].tolist(), y_test=labels[:50])
    for _ in range(4):
        label_next(client, labels, 5, strategy="margin", explore=0.0)
    found = get(client, PATH)["expected_gain"]
    assert "held-out" in found["measured_on"] and found["next_batch"] >= 0


def test_fits_to_the_same_labels_do_not_make_predictions_stable(client: FlaskClient) -> None:
    labels = make_project(client)
    label_next(client, labels, 5)
    for _ in range(3):
        post(client, "/fit", project_id="p", estimator={"name": "gaussian_nb", "params": {"var_smoothing": 1e-8}})
        post(client, "/fit", project_id="p", estimator="gaussian_nb")
    assert get(client, PATH)["stabilizing_predictions"]["n_models"] == 1


@pytest.mark.parametrize("names", [("a", "b"), (7, 3), (True, False)], ids=["text", "integers", "booleans"])
def test_suspect_labels_come_in_order_with_the_better_class(client: FlaskClient, names: Any) -> None:
    _, codes = EASY
    labels = make_project(client, names=names, n_labeled=0)
    wrong = {3: labels[3], 50: labels[50], 120: labels[120]}
    given = [names[1 - codes[i]] if i in wrong else label for i, label in enumerate(labels)]
    post(client, "/label", project_id="p", labels=[{"index": i, "label": given[i]} for i in range(150)])
    found = get(client, PATH)["suspect_labels"]
    assert {entry["index"]: entry["suggested"] for entry in found} == wrong
    assert all(entry["given"] != entry["suggested"] and entry["id"] is None for entry in found)
    assert [entry["quality"] for entry in found] == sorted(entry["quality"] for entry in found)


def test_classes_annotators_and_days_count_the_labels(client: FlaskClient) -> None:
    labels = make_project(client, n_labeled=4)
    label_next(client, labels, 6)
    found = get(client, PATH)
    assert sum(entry["n_labeled"] for entry in found["classes"]) == 10
    assert sum(entry["share"] for entry in found["classes"]) == pytest.approx(1)
    assert found["annotators"] == get(client, "/projects/p/annotators")["annotators"]
    (day,) = found["labels_per_day"]
    assert day["n_labels"] == 10
    assert day["annotators"] == [{"annotator": None, "n_labels": 4}, {"annotator": "ada", "n_labels": 6}]


@pytest.mark.parametrize(
    ("y", "verdict", "reason"),
    [
        ([None] * 12, "continue", "no model"),
        (["a"] * 3 + [None] * 9, "continue", "no model"),
        (["a", "b"] * 6, "stop", "nothing left"),
        (["a"] * 12, "stop", "nothing left"),
        (["a", "b", *[None] * 10], "continue", "fewer than 5 labels"),
    ],
    ids=["no label", "one class", "all labelled", "all of one class", "two labels"],
)
def test_every_state_of_a_project_has_a_report(client: FlaskClient, y: Any, verdict: str, reason: str) -> None:
    post(client, "/fit", 201, project_id="p", X=[[float(i)] for i in range(12)], y=y)
    found = get(client, PATH)
    assert found["verdict"] == verdict
    assert any(reason in text for text in found["reasons"]), found["reasons"]


def test_a_hundred_classes_have_a_report(client: FlaskClient) -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(300, 3)), [f"class {i % 100}" for i in range(300)]
    post(client, "/fit", 201, project_id="p", X=X.tolist(), y=y, estimator="gaussian_nb")
    found = get(client, PATH)
    assert len(found["classes"]) == 100
    assert max(map(len, found["reasons"])) < 500


def test_a_missing_project_and_a_parameter_are_refused(client: FlaskClient) -> None:
    get(client, PATH, 404)
    make_project(client)
    assert client.get(f"{PATH}?format=csv").status_code == 422
    assert client.get(PATH, headers={"If-None-Match": client.get(PATH).headers["ETag"]}).status_code == 304


STABLE, CHANGING, FEW = (StabilizingPredictions(kappa, 0.99, n) for kappa, n in ((0.995, 3), (0.9, 3), (0.999, 2)))
SMALL, LARGE = True, False


@pytest.mark.parametrize(
    ("stability", "gain", "verdict"),
    [
        (STABLE, SMALL, "stop"),
        (STABLE, LARGE, "nearly"),
        (CHANGING, LARGE, "continue"),
        (FEW, LARGE, "continue"),
        (STABLE, None, "nearly"),
        (CHANGING, None, "continue"),
    ],
)
def test_the_verdict_needs_both_stable_predictions_and_a_small_gain(stability, gain, verdict) -> None:
    assert decide(stability, gain) == verdict
