"""The contrastive strategy, against its definition and an example worked by hand."""

import math

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from service.learning.pool import Pool
from tests.support.questions import (
    TableModel,
    make_question,
    question_from_probabilities,
    run_strategy,
    selected_indices,
    sparse_pool,
)


def learnt(X, n_classes=3):
    rng = np.random.default_rng(5)
    return LogisticRegression().fit(rng.normal(size=(60, X.shape[1])), np.arange(60) % n_classes)


def in_segments(X):
    return Pool((X[:7], X[7:11], X[11:]))


def divergence(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def contrast_literally(X, P, labeled, k):
    """The definition: the mean KL(neighbour || row) over the k labelled rows nearest to each row."""
    scores = {}
    for i in range(len(X)):
        if i not in labeled:
            near = sorted(labeled, key=lambda j: sum((X[i] - X[j]) ** 2))[:k]
            scores[i] = sum(divergence(P[j], P[i]) for j in near) / len(near)
    return scores


def test_contrastive_worked_by_hand():
    # The rows 0, 1, 2 and 3 on a line, 0 and 3 labelled. KL of (1/2, 1/2) from (1/4, 3/4) is ln 2 / 2 + ln(2/3) / 2,
    # and that of (1, 0) from (1/2, 1/2) is ln 2.
    question = question_from_probabilities([[0.5, 0.5], [0.25, 0.75], [0.5, 0.5], [1.0, 0.0]], labeled=[0, 3])
    answer = run_strategy("contrastive", question, 2, n_neighbors=1)
    assert answer.indices.tolist() == [2, 1]
    assert answer.scores == pytest.approx([math.log(2), math.log(4 / 3) / 2])
    both = run_strategy("contrastive", question, 2)
    # With two neighbours each: (KL + ln 4) / 2 for row 1, and (0 + ln 2) / 2 for row 2.
    assert both.indices.tolist() == [1, 2]
    assert both.scores == pytest.approx([(math.log(4 / 3) / 2 + math.log(4)) / 2, math.log(2) / 2])


@pytest.mark.parametrize("kind", [Pool.of, in_segments, sparse_pool])
@pytest.mark.parametrize("k", [1, 3, 10])
@pytest.mark.parametrize("n_labeled", [1, 5, 30])
def test_contrastive_matches_its_definition(kind, k, n_labeled):
    X = np.random.default_rng(1).normal(size=(60, 4))
    model, labeled = learnt(X), list(range(0, 2 * n_labeled, 2))
    answer = run_strategy("contrastive", make_question(kind(X), labeled, model, 3), 20, n_neighbors=k)
    expected = contrast_literally(X, model.predict_proba(X), labeled, k)
    assert answer.indices.tolist() == sorted(expected, key=expected.get, reverse=True)[:20]
    assert answer.scores == pytest.approx([expected[i] for i in answer.indices.tolist()])


def test_contrastive_over_many_blocks():
    X = np.random.default_rng(1).normal(size=(6000, 30)).astype(np.float32)
    model, labeled = learnt(X), np.arange(0, 6000, 3)
    P = model.predict_proba(X)
    answer = run_strategy("contrastive", make_question(X, labeled, model, 3), 50)
    for i, score in zip(answer.indices[:5].tolist(), answer.scores[:5].tolist(), strict=True):
        near = labeled[np.argsort(((X[labeled].astype(np.float64) - X[i]) ** 2).sum(axis=1))[:10]]
        assert score == pytest.approx(np.mean([divergence(P[j], P[i]) for j in near]))


@pytest.mark.parametrize("scale", [2.0**1000, 2.0**-1000])
def test_neither_scale_nor_a_probability_of_0_matters(scale):
    X = np.random.default_rng(1).normal(size=(40, 3))
    P = np.eye(3)[np.arange(40) % 3]
    answers = []
    for change in (1.0, scale):
        model = TableModel(P)
        model.predict_proba = lambda Z, s=change: P[[int(np.flatnonzero((X * s == z).all(axis=1))[0]) for z in Z]]
        answers.append(run_strategy("contrastive", make_question(X * change, [0, 1, 2], model, 3), 10))
    assert np.isfinite(answers[0].scores).all()
    assert answers[0].indices.tolist() == answers[1].indices.tolist()


def test_without_a_labelled_row_rows_are_random_with_a_note():
    question = question_from_probabilities([[0.5, 0.5], [0.9, 0.1], [0.2, 0.8]])
    answers = [run_strategy("contrastive", question, 3, seed) for seed in range(40)]
    assert {answer.indices[0] for answer in answers} == {0, 1, 2}
    assert answers[0].scores.tolist() == [0, 0, 0]
    assert answers[0].fallback_reason == "contrastive has no labelled row to compare to, so rows are drawn at random"


def test_rows_without_finite_probabilities_come_last_and_labelled_ones_do_not_count():
    question = question_from_probabilities(
        [[0.5, 0.5], [math.nan, 0.5], [math.inf, 0.0], [0.9, 0.1], [0.6, 0.4]], labeled=[0, 1]
    )
    answer = run_strategy("contrastive", question, 3)
    assert answer.indices.tolist() == [3, 4, 2]
    assert answer.scores.tolist() == pytest.approx([math.log(5 / 3), math.log(0.5 / 0.24**0.5), -1])
    assert "no finite probabilities for 1 of the 3 candidates" in answer.fallback_reason


def test_a_sample_of_many_labelled_rows_is_used_with_a_note(monkeypatch):
    monkeypatch.setattr("service.strategies.neighbours.HELD_CELLS", 100)
    P = np.random.default_rng(0).dirichlet([1, 1], 300)
    answer = run_strategy("contrastive", question_from_probabilities(P, labeled=range(200)), 5)
    assert answer.fallback_reason == "contrastive used a sample of 100 of the 200 labelled rows"


def test_contrastive_considers_a_sample_with_a_note():
    question = question_from_probabilities(np.random.default_rng(0).dirichlet([1, 1], 500), labeled=[3])
    answer = run_strategy("contrastive", question, 20, sample=100)
    assert answer.fallback_reason == "contrastive considered a sample of 100 of the 499 candidates"
    assert len({*selected_indices("contrastive", question, 20, sample=100)} - {3}) == 20
