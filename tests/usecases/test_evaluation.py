"""The evaluation without a held-out set: from a uniform sample of the pool, out of fold, with intervals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from scipy.stats import binomtest
from sklearn.datasets import make_classification
from sklearn.metrics import balanced_accuracy_score, f1_score

from service.learning.evaluation import (
    balanced_accuracy,
    bootstrap_interval,
    f1_macro,
    prediction_powered_accuracy,
    wilson_interval,
)
from tests.support.calls import get, post

PATH = "/projects/p/evaluation"


def make_project(client: FlaskClient, n: int = 200) -> list[int]:
    """A pool of two overlapping classes, ten of its samples labelled; returns the labels of all."""
    X, y = make_classification(n, 6, n_informative=3, flip_y=0.1, random_state=1)
    labels = y.tolist()
    given = [label if i < 10 else None for i, label in enumerate(labels)]
    post(client, "/fit", 201, project_id="p", X=X.tolist(), y=given, random_state=3)
    return labels


def label_next(client: FlaskClient, labels: list[int], n: int, **query: Any) -> list[int]:
    """Ask for n samples and label them."""
    indices: list[int] = post(client, "/query", project_id="p", batch_size=n, **query)["indices"]
    records = [{"index": i, "label": labels[i]} for i in indices]
    post(client, "/label", project_id="p", labels=records)
    return indices


def test_too_few_uniform_samples_give_no_estimate_but_a_reason(client: FlaskClient) -> None:
    labels = make_project(client)
    found = get(client, PATH)
    assert found["n"] < 20
    assert found["accuracy"] is None and "purpose" in found["reason"]
    label_next(client, labels, 40, strategy="margin", explore=0.0)
    assert get(client, PATH)["accuracy"] is None


def test_explored_samples_make_the_uniform_sample(client: FlaskClient) -> None:
    labels = make_project(client)
    label_next(client, labels, 30, strategy="margin", explore=0.0)
    label_next(client, labels, 30, strategy="random", explore=1.0)
    found = get(client, PATH)
    assert found["n"] >= 30 and found["reason"] is None
    for name in ("accuracy", "accuracy_prediction_powered", "balanced_accuracy", "f1_macro", "log_loss"):
        assert found[name]["low"] <= found[name]["value"] <= found[name]["high"]
    n, n_right = found["n"], found["accuracy"]["value"] * found["n"]
    wilson = wilson_interval(n_right * 3 / 4, n * 3 / 4)  # predictions out of fold vary more
    assert (found["accuracy"]["low"], found["accuracy"]["high"]) == pytest.approx((wilson.low, wilson.high))
    assert found["model_version"] == get(client, "/projects/p")["model_version"]
    assert found == get(client, PATH)


def test_labels_of_chosen_samples_do_not_count_but_serve_to_fit(client: FlaskClient) -> None:
    labels = make_project(client)
    label_next(client, labels, 25, explore=1.0)
    before = get(client, PATH)["n"]
    label_next(client, labels, 25, strategy="margin", explore=0.0)
    after = get(client, PATH)["n"]
    assert before <= after < before + 25


def test_all_samples_are_a_uniform_sample_once_all_are_labelled_or_skipped(client: FlaskClient) -> None:
    labels = make_project(client, 60)
    records: list[dict[str, Any]] = [{"index": i, "label": labels[i]} for i in range(10, 59)]
    post(client, "/label", project_id="p", labels=[*records, {"index": 59, "skip": True}])
    assert get(client, PATH)["n"] == 59


def test_a_project_without_a_model_says_so(client: FlaskClient) -> None:
    get(client, PATH, 404)
    post(client, "/fit", 201, project_id="p", X=[[0.0], [1.0]], y=["a", None])
    found = get(client, PATH)
    assert (found["model_version"], found["accuracy"]) == (None, None)
    assert "no model" in found["reason"]


@pytest.mark.parametrize(("n_right", "n"), [(0, 20), (20, 20), (1, 1), (15, 20), (997, 1000), (0, 1)])
def test_the_interval_of_the_accuracy_is_wilsons(n_right: int, n: int) -> None:
    interval = binomtest(n_right, n).proportion_ci(method="wilson")
    found = wilson_interval(n_right, n)
    assert (found.low, found.value, found.high) == pytest.approx((interval.low, n_right / n, interval.high), abs=1e-12)


def test_the_statistics_are_those_of_scikit_learn_on_every_resample() -> None:
    rng = np.random.default_rng(0)
    true, predicted = rng.integers(4, size=(2, 50)).astype(np.int32)
    rows = rng.integers(50, size=(30, 50))
    for ours, theirs in (
        (balanced_accuracy(true, predicted, 5), balanced_accuracy_score),
        (f1_macro(true, predicted, 5), lambda t, p: f1_score(t, p, average="macro", zero_division=0)),
    ):
        np.testing.assert_allclose(ours(rows), [theirs(true[row], predicted[row]) for row in rows], atol=1e-12)


def test_a_bootstrap_interval_covers_a_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        sample = rng.normal(size=60)
        found = bootstrap_interval(lambda rows, x=sample: x[rows].mean(axis=1), 60, rng)
        covered += found.low <= 0 <= found.high
    assert 180 <= covered <= 198


def test_prediction_power_narrows_the_interval_where_the_confidence_is_right() -> None:
    rng = np.random.default_rng(0)
    covered, narrower = 0, 0
    for _ in range(200):
        confidence = rng.uniform(0.2, 1.0, 5_000)
        right = rng.random(5_000) < confidence
        sample = rng.choice(5_000, 60, replace=False)
        found = prediction_powered_accuracy(
            right[sample], confidence[sample], confidence.mean(), confidence.var(), len(confidence)
        )
        plain = wilson_interval(int(right[sample].sum()), 60)
        covered += found.low <= right.mean() <= found.high
        narrower += found.high - found.low < plain.high - plain.low
    assert covered >= 182
    assert narrower > 150


def test_a_confidence_that_says_nothing_leaves_the_plain_share() -> None:
    right = np.arange(40) % 4 > 0
    found = prediction_powered_accuracy(right, np.full(40, 0.9), 0.9, 0.0, 1_000)
    assert found.value == 0.75
    assert found.low < 0.75 < found.high


def test_questions_for_evaluation_are_the_next_samples_of_the_random_order_and_nothing_else(client) -> None:
    labels = make_project(client)
    first = label_next(client, labels, 8, purpose="evaluation")
    again = post(client, "/query", project_id="p", batch_size=8, purpose="evaluation", strategy="margin")["indices"]
    assert again == post(client, "/query", project_id="p", batch_size=8, explore=1.0, strategy="entropy")["indices"]
    post(client, "/label", project_id="p", labels=[{"index": first[0], "label": 1, "annotator": "ada"}])
    asked = post(client, "/query", project_id="p", batch_size=8, purpose="evaluation", overlap=2, annotator="bob")
    assert asked["indices"] == again, "samples that need a second label are for another question"
    label_next(client, labels, 20, purpose="evaluation")
    assert get(client, PATH)["n"] >= 28


def test_explore_and_evaluation_do_not_go_together(client: FlaskClient) -> None:
    make_project(client)
    problem = post(client, "/query", 422, project_id="p", purpose="evaluation", explore=0.5)
    assert problem["errors"][0]["pointer"] == "/explore"
    assert post(client, "/query", 422, project_id="p", purpose="test")["errors"][0]["pointer"] == "/purpose"
