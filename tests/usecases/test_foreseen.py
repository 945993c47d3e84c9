"""Evaluations and predictions of models that would take too long: a sample, or the reason and what would do."""

from __future__ import annotations

import numpy as np
import pytest

from service.errors import OutOfTime
from service.learning.scoring import score_some
from service.strategies.engine import slow_models
from service.usecases import evaluation, foreseen, predictions
from service.usecases.predictions import PredictionBlock
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


def test_a_page_of_predictions_beyond_the_limit_of_a_query_is_refused_at_once(client, monkeypatch):
    monkeypatch.setattr(foreseen, "seconds_per_row", lambda *_: 10.0)
    [error] = get(client, "/projects/p/predictions?limit=50", 422)["errors"]
    assert error["pointer"] == "/query/limit"
    assert "svc would take about 500 s of one core to predict 50 samples" in error["detail"]
    assert "logistic_regression is quick" in error["detail"]
    assert len(get(client, "/projects/p/predictions?limit=12")["predictions"]) == 12
    assert client.get("/projects/p/predictions", headers={"Accept": "text/csv"}).status_code == 200


def slow_blocks(n_in_time, confidence):
    """Return a `predict_blocks` that makes some predictions of a sample, and then runs out of time."""

    def predict_blocks(snapshot, *_):
        for index in range(n_in_time):
            P = np.full((1, 2), confidence)
            yield PredictionBlock(np.array([index]), np.zeros(1, np.int64), P[:, 0], P)
        raise OutOfTime(120)

    return predict_blocks


def test_a_search_for_sure_predictions_ends_with_what_it_found_in_time(client, monkeypatch):
    path = "/projects/p/predictions?min_confidence=0.9"
    monkeypatch.setattr(predictions, "predict_blocks", slow_blocks(3, 0.95))
    found = get(client, path)
    assert ([each["index"] for each in found["predictions"]], found["next"]) == ([0, 1, 2], 2)
    monkeypatch.setattr(predictions, "predict_blocks", slow_blocks(0, 0.95))
    [error] = get(client, path, 422)["errors"]
    assert (error["pointer"], "send a lower one" in error["detail"]) == ("/query/min_confidence", True)
    get(client, "/projects/p/predictions", 504)


def test_a_csv_of_the_first_predictions_is_never_shorter_without_saying_so(client, monkeypatch):
    monkeypatch.setattr(predictions, "predict_blocks", slow_blocks(3, 0.95))
    reply = client.get("/projects/p/predictions?limit=5", headers={"Accept": "text/csv"})
    assert reply.status_code == 504
