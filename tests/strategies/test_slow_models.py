"""Queries of models that would take too long to score a large pool: a random sample of the candidates, and a reason."""

from __future__ import annotations

import numpy as np
import pytest

from service.learning.estimators import ESTIMATORS, resolve_estimator, seconds_per_row
from service.strategies.engine import selection, slow_models
from tests.support.calls import post

N = 400
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, 3)).round(3)
LABELS = [None] * N
LABELS[:12] = ["a", "b"] * 6


@pytest.fixture
def slow(client, monkeypatch):
    """A service that lets a model of 12 labels score some fifty rows."""
    monkeypatch.setattr(slow_models, "PASS_SECONDS", 3e-5)
    monkeypatch.setattr(slow_models, "MIN_SAMPLE", 50)
    monkeypatch.setattr(selection, "MOST_AT_ONCE", 5)
    post(client, "/fit", 201, project_id="p", X=X.tolist(), y=LABELS, estimator="svc")
    return client


def ask(client, **request):
    return post(client, "/query", project_id="p", **request)


NOTE = (
    "considered a random sample of {} of the 388 candidates: the model would take about {} s of one core to score all"
)


@pytest.mark.parametrize(
    "strategy", ["margin", "power", "falcun", "badge", "cluster_margin", "auto", "batch_bald", "bald"]
)
def test_a_random_sample_of_the_candidates_is_scored_and_the_reason_says_so(slow, strategy):
    request = {"strategy": strategy, "batch_size": 5, "random_state": 1}
    reply = ask(slow, **request)
    n_drawn, seconds = (50, "0.0015") if "bald" in strategy else (53, "0.00022")
    assert NOTE.format(n_drawn, seconds) in reply["reason"]
    assert len({*reply["indices"]} - {*range(12)}) == 5
    assert reply == ask(slow, **request)
    assert reply["indices"] != ask(slow, **request | {"random_state": 2})["indices"]


def test_the_best_of_the_sample_are_the_best_of_the_pool_that_are_in_it(slow, monkeypatch):
    sampled = ask(slow, strategy="margin", batch_size=40, random_state=1)
    monkeypatch.setattr(slow_models, "PASS_SECONDS", 1.0)
    whole = ask(slow, strategy="margin", batch_size=388, random_state=1)
    assert whole["reason"] is None
    scores = dict(zip(whole["indices"], whole["scores"], strict=True))
    assert sampled["scores"] == pytest.approx([scores[index] for index in sampled["indices"]])
    assert sampled["scores"] == sorted(sampled["scores"], reverse=True)


def test_the_sample_is_of_the_candidates_asked_for(slow):
    candidates = list(range(100, 300))
    reply = ask(slow, strategy="margin", batch_size=40, candidates=candidates)
    assert {*reply["indices"]} < {*candidates}
    assert "of the 200 candidates" in reply["reason"]


@pytest.mark.parametrize("request_", [{"strategy": "k_center"}, {"strategy": "random"}, {"candidates": [20, 21]}])
def test_nothing_is_left_out_where_there_is_time_or_no_model_is_needed(slow, request_):
    assert ask(slow, **{"strategy": "margin"} | request_)["reason"] is None


def test_a_batch_is_never_smaller_than_asked_for(slow):
    assert len(ask(slow, strategy="margin", batch_size=300)["indices"]) == 300


def test_draws_from_a_sample_are_not_kept_for_estimates(slow):
    query = ask(slow, strategy="power", batch_size=3)
    labels = [{"index": index, "label": "a", "query_id": query["query_id"]} for index in query["indices"]]
    post(slow, "/label", project_id="p", labels=labels)
    assert slow.get("/projects/p/evaluation").json["lure"]["n"] == 0


def test_each_of_several_labels_a_sample_has_a_machine(slow):
    sets = [[] if label is None else [label] for label in LABELS[:12]] + [None] * 388
    post(slow, "/fit", 201, project_id="s", X=X.tolist(), y=sets, estimator="svc", target="labels")
    reply = post(slow, "/query", project_id="s", strategy="mean_uncertainty", batch_size=5)
    assert NOTE.format(50, "0.00043") in reply["reason"]


def test_numbers_of_a_gaussian_process_are_sampled_too(slow):
    numbers = [None if label is None else index / 7 for index, label in enumerate(LABELS)]
    post(slow, "/fit", 201, project_id="n", X=X.tolist(), y=numbers, estimator="gaussian_process")
    reply = post(slow, "/query", project_id="n", strategy="greedy_y", batch_size=5)
    assert "considered a random sample of" in reply["reason"]


@pytest.mark.parametrize(
    ("name", "params", "n_labels", "seconds"),
    [
        ("svc", {}, 1_000, 77),
        ("svc", {}, 10_000, 770),
        ("k_neighbors", {}, 10_000, 164),
        ("k_neighbors", {"metric": "manhattan"}, 1_000, 55),
        ("gaussian_process", {}, 1_000, 31),
        ("auto", {}, 10_000, 0),
        ("random_forest", {}, 10_000, 0),
    ],
)
def test_the_time_is_estimated_from_labels_and_features(name, params, n_labels, seconds):
    spec = resolve_estimator(name, params)
    assert 1e6 * seconds_per_row(spec, n_labels, 64) == pytest.approx(seconds, rel=0.02)


def test_only_models_that_compare_a_row_with_all_labels_are_slow():
    assert {name for name, kind in ESTIMATORS.items() if kind.row_seconds} == {"svc", "k_neighbors", "gaussian_process"}
