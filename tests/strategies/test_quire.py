"""QUIRE, against a version that inverts the matrices of the paper, and an example worked by hand."""

import numpy as np
import pytest

from service.learning.pool import Pool
from tests.support.edge_case_pools import GOOD
from tests.support.questions import make_question, run_strategy, selected_indices, sparse_pool

LABELED = [0, 5, 11, 20, 21]


def about(X, labeled, codes, **more):
    return make_question(X, labeled, codes=None if codes is None else np.array(codes, np.int32), **more)


def risks_literally(K, labeled, y, regularization):
    """The paper: L over all rows inverted, the other unlabelled rows minimised away, the worse label of each row."""
    n = len(K)
    L = np.linalg.inv(K + regularization * np.eye(n))
    risks = {}
    for s in sorted(set(range(n)) - set(labeled)):
        a, u = [*labeled, s], [i for i in range(n) if i not in labeled and i != s]
        inner = L[np.ix_(a, a)] - L[np.ix_(a, u)] @ np.linalg.inv(L[np.ix_(u, u)]) @ L[np.ix_(u, a)]
        risks[s] = max(np.array([*y, label]) @ inner @ np.array([*y, label]) for label in (-1, 1))
    return risks


def kernel(X, width):
    squares = ((X[:, np.newaxis] - X) ** 2).sum(axis=2)
    return np.exp(-squares / 2 / width**2)


def unit(X):
    """The power of two that features are divided by."""
    return 2.0 ** np.floor(np.log2(np.abs(X).max()))


@pytest.fixture(autouse=True)
def _width_of_one_unit(monkeypatch):
    monkeypatch.setattr("service.strategies.quire.median_distance", lambda points: 1.0)


def test_quire_worked_by_hand():
    # One labelled row: its kernel with the candidates is 1 and exp(-1/2); the regularised diagonal is 2.
    # The risk is 1/2 + (1 + k/2)^2 / (2 - k^2/2).
    k = np.array([1, np.exp(-0.5)])
    answer = run_strategy("quire", about([[0.0], [0.0], [1.0]], [0], [7]), 2, bandwidth=1)
    expected = -(0.5 + (1 + k / 2) ** 2 / (2 - k**2 / 2))
    assert answer.indices.tolist() == [2, 1]
    assert answer.scores == pytest.approx(expected[::-1])


@pytest.mark.parametrize("kind", [Pool.of, sparse_pool])
@pytest.mark.parametrize("regularization", [0.01, 1, 50])
def test_quire_of_two_classes_matches_the_paper(kind, regularization):
    X, y = GOOD / 8, [1, -1, -1, 1, 1]
    expected = risks_literally(kernel(X, unit(X)), LABELED, y, regularization)
    answer = run_strategy("quire", about(kind(X), LABELED, y), 20, bandwidth=1, regularization=regularization)
    assert answer.scores == pytest.approx(sorted([-risk for risk in expected.values()], reverse=True)[:20])
    assert [-expected[i] for i in answer.indices.tolist()] == pytest.approx(answer.scores)


def test_quire_of_many_classes_is_the_mean_of_each_against_the_rest():
    X, codes = GOOD, np.array([3, 1, 0, 1, 3])
    K = kernel(X, unit(X))
    each = [risks_literally(K, LABELED, np.where(codes == code, 1, -1), 1.0) for code in (0, 1, 3)]
    expected = {i: -np.mean([risks[i] for risks in each]) for i in each[0]}
    answer = run_strategy("quire", about(X, LABELED, codes), 35, bandwidth=1)
    assert answer.scores == pytest.approx([expected[i] for i in answer.indices.tolist()])
    assert answer.indices[0] == max(expected, key=expected.get)


def test_without_a_labelled_row_rows_are_random():
    answers = [run_strategy("quire", about(GOOD, [], []), 1, seed) for seed in range(30)]
    assert len({answer.indices[0] for answer in answers}) > 15
    assert answers[0].scores.tolist() == [-0.5]


def test_without_labels_only_the_features_count_with_a_note():
    answer = run_strategy("quire", about(GOOD, LABELED, None), 3)
    assert answer.fallback_reason == "quire has no labels: only the features of the labelled rows count"
    assert answer.indices[0] not in LABELED


def test_a_sample_of_many_labelled_rows_is_used_with_a_note(monkeypatch):
    monkeypatch.setattr("service.strategies.quire.MAX_LABELED", 3)
    answer = run_strategy("quire", about(GOOD, LABELED, [0, 1, 2, 0, 1]), 3)
    assert answer.fallback_reason == "quire used a sample of 3 of the 5 labelled rows"


def test_quire_considers_a_sample_with_a_note():
    X = np.random.default_rng(0).normal(size=(500, 3))
    question = about(X, [3, 4], [0, 1])
    assert (
        run_strategy("quire", question, 20, sample=100).fallback_reason
        == "quire considered a sample of 100 of the 498 candidates"
    )
    assert len({*selected_indices("quire", question, 200, sample=100)} - {3, 4}) == 200


@pytest.mark.parametrize("scale", [2.0**1000, 2.0**-1000])
def test_scale_does_not_matter(scale):
    codes = [0, 1, 2, 0, 1]
    expected = selected_indices("quire", about(GOOD, LABELED, codes), 9)
    assert selected_indices("quire", about(GOOD * scale, LABELED, codes), 9) == expected
