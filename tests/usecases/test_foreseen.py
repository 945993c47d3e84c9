"""Evaluations and predictions of models that would take too long: a sample, or the reason and what would do."""

from __future__ import annotations

import numpy as np
import pytest

from service.learning.scoring import score_some
from service.strategies.engine import slow_models
from service.usecases import evaluation, foreseen
from tests.support.calls import get, post

N = 120
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, 3)).round(3)
Y = np.where(X[:, 0] + RNG.normal(size=N) / 2 > 0, "a", "b").tolist()


@pytest.fixture
def client(client):
    """A project of an svc whose uniform sample is long enough for an evaluation."""
    post(client, "/fit", 201, project_id="p", X=X.tolist(), y=[*Y[:20], *[None] * 100], estimator="svc")
    asked = post(client, "/query", project_id="p", batch_size=40, purpose="evaluation")["indices"]
    post(client, "/label", project_id="p", labels=[{"index": index, "label": Y[index]} for index in asked])
    return client


def test_an_evaluation_scores_a_sample_of_the_pool_if_the_model_is_slow(client, monkeypatch):
    monkeypatch.setattr(slow_models, "PASS_SECONDS", 1e-9)
    monkeypatch.setattr(slow_models, "MIN_SAMPLE", 90)
    scored = []
    monkeypatch.setattr(evaluation, "score_some", lambda *given: scored.append(len(given[3])) or score_some(*given))
    found = get(client, "/projects/p/evaluation")
    assert scored == [90]
    assert found["reason"] is None
    powered = found["accuracy_prediction_powered"]
    assert powered["low"] <= powered["value"] <= powered["high"]


def test_an_evaluation_of_fits_beyond_the_limit_of_a_query_gives_the_reason(client, monkeypatch):
    monkeypatch.setattr(foreseen, "fit_seconds", lambda *_: 60.0)
    found = get(client, "/projects/p/evaluation")
    reason = found["reason"]
    assert reason.startswith("5 fits of svc to 60 labels would take about 300 s of one core")
    assert "logistic_regression is quick" in reason
    assert (found["accuracy"], found["lure"]["accuracy"], found["lure"]["reason"]) == (None, None, reason)
    report = get(client, "/projects/p/report")
    assert report["evaluation"]["reason"] == reason
    assert report["suspect_labels"] == []


@pytest.mark.parametrize(
    ("query", "pointer", "n"), [("limit=50", "/query/limit", 50), ("min_confidence=0.9", "/query/min_confidence", N)]
)
def test_predictions_beyond_the_limit_of_a_query_are_refused_at_once(client, monkeypatch, query, pointer, n):
    monkeypatch.setattr(foreseen, "seconds_per_row", lambda *_: 10.0)
    [error] = get(client, f"/projects/p/predictions?{query}", 422)["errors"]
    assert error["pointer"] == pointer
    assert f"to predict {n} samples" in error["detail"]
    assert "logistic_regression is quick" in error["detail"]
    assert len(get(client, "/projects/p/predictions?limit=12")["predictions"]) == 12
    assert client.get("/projects/p/predictions", headers={"Accept": "text/csv"}).status_code == 200
