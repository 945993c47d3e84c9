"""Committees: their scores, by hand and by the definitions, and how they are fitted and cached."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from service.errors import FitFailed
from service.learning.committees import BaggedCommittee, bootstrap
from service.learning.estimators import committee_in, fit, resolve_estimator
from service.learning.models import predict_probabilities
from service.strategies import STRATEGIES
from service.strategies.committee import vote_shares
from service.usecases import training
from tests.support.calls import end_labels, line_pool, post

NAMES = ["vote_entropy", "consensus_entropy", "bald", "max_disagreement", "variation_ratio"]

SURE = [[1.0, 0.0, 0.0]]
EVEN = [[1 / 3, 1 / 3, 1 / 3]]


def scores(name, *members):
    """The scores of rows with these member probabilities."""
    return STRATEGIES[name].function(np.array(members, np.float64)).tolist()


@pytest.mark.parametrize(
    ("name", "members", "expected"),
    [
        # All members agree and are certain.
        ("vote_entropy", [SURE, SURE], 0),
        ("consensus_entropy", [SURE, SURE], 0),
        ("bald", [SURE, SURE], 0),
        ("max_disagreement", [SURE, SURE], 0),
        ("variation_ratio", [SURE, SURE], 0),
        # All members have uniform probabilities: uncertain, but without disagreement.
        ("consensus_entropy", [EVEN, EVEN], 1),
        ("bald", [EVEN, EVEN], 0),
        ("max_disagreement", [EVEN, EVEN], 0),
        # Two members contradict each other, and both are certain.
        ("vote_entropy", [[[1, 0, 0]], [[0, 1, 0]]], 1),
        ("consensus_entropy", [[[1, 0, 0]], [[0, 1, 0]]], math.log(2) / math.log(3)),
        ("bald", [[[1, 0, 0]], [[0, 1, 0]]], math.log(2)),
        ("max_disagreement", [[[1, 0, 0]], [[0, 1, 0]]], math.log(2)),
        ("variation_ratio", [[[1, 0, 0]], [[0, 1, 0]]], 0.5),
        # Three against one.
        ("variation_ratio", [[[0.9, 0.1]], [[0.6, 0.4]], [[0.8, 0.2]], [[0.1, 0.9]]], 0.25),
        ("vote_entropy", [[[1, 0]], [[1, 0]], [[1, 0]], [[0, 1]]], -(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25))),
        ("max_disagreement", [[[1, 0]], [[1, 0]], [[1, 0]], [[0, 1]]], math.log(4)),
        # With a single class members cannot disagree.
        *[(name, [[[1.0]], [[1.0]]], 0) for name in NAMES],
    ],
)
def test_worked_by_hand(name, members, expected):
    assert scores(name, *members) == pytest.approx([expected])


def literal(name, row):
    """The definition, one row and one class at a time; `row` holds each member's probabilities."""
    m, c = len(row), len(row[0])
    mean = [sum(p[k] for p in row) / m for k in range(c)]
    votes = [sum(max(range(c), key=lambda k: p[k]) == code for p in row) / m for code in range(c)]

    def entropy(p):
        return -sum(q * math.log(q) for q in p if q > 0)

    def divergence(p):
        return sum(q * math.log(q / r) for q, r in zip(p, mean, strict=True) if q > 0)

    return {
        "vote_entropy": entropy(votes) / math.log(min(m, c)),
        "consensus_entropy": entropy(mean) / math.log(c),
        "bald": sum(divergence(p) for p in row) / m,
        "max_disagreement": max(divergence(p) for p in row),
        "variation_ratio": 1 - max(votes),
    }[name]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("m", "c"), [(2, 2), (7, 3), (3, 10)])
def test_agrees_with_the_definition(name, m, c):
    members = np.random.default_rng(m).dirichlet(np.ones(c) / 2, (m, 30))
    expected = [literal(name, members[:, row].tolist()) for row in range(30)]
    assert scores(name, *members) == pytest.approx(expected)


@pytest.mark.parametrize("name", NAMES)
def test_probabilities_that_overflow_in_one_member_give_no_score(name):
    assert np.isnan(scores(name, [[0.5, 0.5], [1, 0]], [[math.nan, math.nan], [1, 0]])).tolist() == [True, False]


def test_members_need_not_know_every_class():
    known = [[0, 2], [1, 2], [2, 0]]
    members = [fit(resolve_estimator("logistic_regression", {}), np.eye(2), np.array(codes), 0) for codes in known]
    bag = BaggedCommittee.of(members)
    assert bag.classes_.tolist() == [0, 1, 2]
    probabilities = bag.member_probabilities(np.eye(2))
    assert probabilities.shape == (3, 2, 3)
    assert probabilities.sum(axis=2) == pytest.approx(np.ones((3, 2)))
    assert (probabilities[1, :, 0] == 0).all()


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 1e-5)])
@pytest.mark.parametrize("n_known", [[3, 3, 3], [3, 2, 3], [2, 2]])
def test_linear_members_computed_together_equal_each_on_its_own(n_known, dtype, tolerance):
    X = np.random.default_rng(0).normal(size=(60, 4)).astype(dtype)
    members = [LogisticRegression().fit(X[n:], (np.arange(60 - n) ** 2 // 5) % k) for n, k in enumerate(n_known)]
    found = BaggedCommittee.of(members).member_probabilities(X)
    for of_member, member in zip(found, members, strict=True):
        assert of_member[:, member.classes_] == pytest.approx(member.predict_proba(X), abs=tolerance)
        assert of_member.sum(axis=1) == pytest.approx(np.ones(60))
    assert found.dtype == dtype


def test_the_first_of_equally_likely_classes_has_the_vote():
    assert vote_shares(np.array([[[0.5, 0.5, 0]], [[0, 0.5, 0.5]]])).ravel().tolist() == [0.5, 0.5, 0]


@pytest.mark.parametrize("name", ["random_forest", "extra_trees"])
@pytest.mark.parametrize("scale", [False, True])
def test_a_forest_is_the_committee_of_its_trees(name, scale):
    X = np.random.default_rng(0).normal(size=(60, 4))
    model = fit(resolve_estimator(name, {"n_estimators": 10, "scale": scale}), X, np.arange(60) % 3 * 2, 0)
    trees = committee_in(model)
    members = trees.member_probabilities(X)
    assert members.shape == (trees.n_members, 60, len(trees.classes_)) == (10, 60, 3)
    assert members.mean(axis=0) == pytest.approx(predict_probabilities(model, X))


def test_a_linear_model_is_no_committee():
    assert committee_in(LogisticRegression()) is None


def test_a_bootstrap_sample_contains_every_class():
    codes = np.array([0] * 50 + [1, 2])
    draws = [bootstrap(codes, np.random.default_rng(seed)) for seed in range(50)]
    assert all(set(codes[rows].tolist()) == {0, 1, 2} for rows in draws)
    assert 0.55 < np.mean([len(np.unique(rows)) / 52 for rows in draws]) < 0.75  # 1 - 1/e without the added rows


@pytest.fixture
def project(client):
    post(client, "/fit", 201, project_id="p", X=line_pool(40), y=end_labels(40))
    post(client, "/label", project_id="p", labels=[{"index": n, "label": n // 20} for n in (3, 9, 30, 34)])
    return "p"


@pytest.mark.parametrize("name", NAMES)
def test_asked_over_http(client, project, name):
    asked = post(client, "/query", project_id=project, strategy=name, batch_size=5)
    assert asked["strategy"] == name
    assert asked["fallback_reason"] is None
    assert np.mean([abs(index - 19.5) for index in asked["indices"]]) < 10  # where the members may differ


def test_a_committee_is_fitted_once_and_refitted_after_labels(client, project, monkeypatch):
    fits: list[int] = []
    real = training.fit
    monkeypatch.setattr(training, "fit", lambda *given: fits.append(1) or real(*given))
    for name in ("bald", "vote_entropy", "bald"):
        post(client, "/query", project_id=project, strategy=name, params={"members": 5}, batch_size=3)
    assert len(fits) == 5
    post(client, "/label", project_id=project, labels=[{"index": 17, "label": 0}], refit="never")
    post(client, "/query", project_id=project, strategy="bald", params={"members": 5}, batch_size=3)
    assert len(fits) == 10


def test_another_process_gives_the_same_answer(client, project, app):
    answers = []
    for _ in range(2):
        app.extensions["active-query"].store.cache.drop(lambda key: True)
        answers.append(post(client, "/query", project_id=project, strategy="bald", batch_size=7))
    assert answers[0] == answers[1]


def test_a_member_that_cannot_learn_is_left_out(client, project, app, monkeypatch):
    context: Any = app.extensions["active-query"]
    snapshot = context.store.read("p", *training.Part)
    real, turns = training.fit, iter(range(100))

    def sometimes(*given):
        if next(turns) % 2:
            raise FitFailed("no")
        return real(*given)

    monkeypatch.setattr(training, "fit", sometimes)
    assert training.train_committee(snapshot, 5).n_members == 3
