"""Uncertainty weighted by gradient length or density, against the definitions and examples worked by hand."""

import math
import tracemalloc

import numpy as np
import pytest
from scipy import sparse
from sklearn.linear_model import LogisticRegression

from service.learning.pool import Pool, SparseRows
from service.strategies.feature_weighted import expected_error, unit_rows
from tests.support.edge_case_pools import GOOD, POOLS
from tests.support.questions import (
    TableModel,
    make_question,
    question_from_probabilities,
    run_strategy,
    selected_indices,
    sparse_pool,
)

NAMES = ["expected_gradient_length", "information_density"]


def learnt(X):
    return LogisticRegression().fit(np.random.default_rng(5).normal(size=(60, X.shape[1])), np.arange(60) % 3)


def in_segments(X):
    return Pool((X[:7], X[7:11], X[11:]))


class Same:
    """A model that is equally uncertain about every row."""

    classes_ = np.arange(2)

    def predict_proba(self, X):
        return np.full((X.shape[0], 2), 0.5)


# expected_gradient_length


@pytest.mark.parametrize(
    ("p", "expected"),
    [
        ([1.0, 0.0, 0.0], 0),
        ([1.0], 0),
        ([0.5, 0.5], math.sqrt(0.5)),
        ([0.75, 0.25], 2 * 0.75 * 0.25 * math.sqrt(2)),
        ([0.5, 0.5, 0.0], math.sqrt(0.5)),
        ([0.25] * 4, math.sqrt(0.75)),
        # 1/2 sqrt(1/4 + 1/16 + 1/16) + 2/4 sqrt(9/16 + 1/4 + 1/16)
        ([0.5, 0.25, 0.25], 0.5 * math.sqrt(0.375) + 0.5 * math.sqrt(0.875)),
        # Nearly certain: close to 1 the plain formula is all rounding error.
        ([1 - 1e-12, 1e-12], 2 * math.sqrt(2) * 1e-12),
        ([1e-12, 1 - 1e-12, 0.0], 2 * math.sqrt(2) * 1e-12),
    ],
)
def test_the_expected_error_worked_by_hand(p, expected):
    assert expected_error(np.array([p])) == pytest.approx([expected], rel=1e-3)


def gradient_length(x, p):
    """The definition: the length of the gradient (p - e_k) x' of the log loss, expected over the class k."""
    return sum(p_k * np.linalg.norm(np.outer(p - np.eye(len(p))[k], x)) for k, p_k in enumerate(p))


@pytest.mark.parametrize("kind", [Pool.of, in_segments, sparse_pool])
def test_expected_gradient_length_matches_its_definition(kind):
    X = np.random.default_rng(1).normal(size=(60, 4))
    model = learnt(X)
    expected = [gradient_length(x, p) for x, p in zip(X, model.predict_proba(X), strict=True)]
    answer = run_strategy("expected_gradient_length", make_question(kind(X), [], model, 3), 60)
    assert answer.indices.tolist() == np.argsort(expected)[::-1].tolist()
    assert answer.scores == pytest.approx(np.sort(expected)[::-1])


def test_the_gradient_is_that_of_the_log_loss():
    # By differences, in the weights of two classes.
    x, p, step = np.array([0.6, -0.8]), np.array([0.7, 0.3]), 1e-6

    def loss(W, k):
        return -math.log(np.exp(W @ x)[k] / np.exp(W @ x).sum())

    W = np.outer(np.log(p), x)  # |x| = 1, so W x = ln p
    moves = [step * np.eye(4)[n].reshape(2, 2) for n in range(4)]
    lengths = [np.linalg.norm([(loss(W + move, k) - loss(W, k)) / step for move in moves]) for k in range(2)]
    answer = run_strategy("expected_gradient_length", make_question(x[np.newaxis], [], TableModel([p])), 1)
    assert answer.scores == pytest.approx([p @ lengths], rel=1e-4)


@pytest.mark.parametrize("pool", ["huge", "at both ends of float64", "tiny", "subnormal", "huge float32", "integers"])
def test_norms_neither_overflow_nor_underflow(pool):
    X = POOLS[pool]
    units, norms = unit_rows(X)
    expected = np.minimum([math.hypot(*x) for x in X.astype(np.float64).tolist()], np.finfo(np.float64).max)
    assert norms == pytest.approx(expected, rel=1e-6)
    assert np.linalg.norm(units, axis=1) == pytest.approx(np.ones(len(X)))


@pytest.mark.parametrize("matrix", [np.array, sparse.csr_array])
def test_a_row_of_zeros_has_norm_0_and_stays_zero(matrix):
    units, norms = unit_rows(matrix([[0.0, 0.0, 0.0], [0.0, -2.0, 0.0]]))
    assert norms.tolist() == [0, 2]
    assert np.abs(units.toarray() if sparse.issparse(units) else units).tolist() == [[0, 0, 0], [0, 1, 0]]


# information_density


def density_literally(X, P, similarity, beta):
    """The definition over all pairs, with every row as a reference and a given unit of distance."""
    doubts = [1 - (sorted(p)[-1] - sorted(p)[-2]) for p in P]
    return [s * (sum(similarity(x, other) for other in X) / len(X)) ** beta for s, x in zip(doubts, X, strict=True)]


def cosine(x, y):
    return max(sum(x * y) / math.sqrt(sum(x * x) * sum(y * y)), 0)


@pytest.mark.parametrize("kind", [Pool.of, in_segments, sparse_pool])
@pytest.mark.parametrize("beta", [0, 1, 3.5])
def test_information_density_by_cosine_matches_its_definition(kind, beta):
    X = np.random.default_rng(1).normal(size=(60, 4))
    model = learnt(X)
    expected = np.array(density_literally(X, model.predict_proba(X), cosine, beta))
    question = make_question(kind(X), [], model, 3)
    answer = run_strategy("information_density", question, 60, similarity="cosine", beta=beta)
    assert answer.indices.tolist() == np.argsort(expected)[::-1].tolist()
    assert answer.scores == pytest.approx(np.sort(expected)[::-1])


def test_information_density_by_distance_worked_by_hand():
    # The distance equals the median: the similarity of a row to itself is 1, and to the other 1/2.
    answer = run_strategy("information_density", question_from_probabilities([[0.75, 0.25], [0.5, 0.5]]), 2)
    assert answer.indices.tolist() == [1, 0]
    assert answer.scores == pytest.approx([0.75, 0.5 * 0.75])


@pytest.mark.parametrize("kind", [Pool.of, sparse_pool])
def test_information_density_by_distance_matches_its_definition(kind, monkeypatch):
    monkeypatch.setattr("service.strategies.feature_weighted.median_distance", lambda points: 2.0)
    X = np.random.default_rng(1).normal(size=(60, 4))
    model = learnt(X)
    largest = 2.0 ** np.floor(np.log2(np.abs(X).max()))  # the unit of the space

    def near(x, y):
        return 1 / (1 + np.linalg.norm(x - y) / (2 * largest))

    expected = np.array(density_literally(X, model.predict_proba(X), near, 1))
    answer = run_strategy("information_density", make_question(kind(X), [], model, 3), 60)
    assert answer.indices.tolist() == np.argsort(expected)[::-1].tolist()
    assert answer.scores == pytest.approx(np.sort(expected)[::-1])


@pytest.mark.parametrize("away", [30.0, 1e6, 1e300])
@pytest.mark.parametrize("direction", [[1.0, 1.0, 1.0], [-1.0, 0.0, 0.0]])
def test_an_outlier_never_ranks_above_equally_uncertain_dense_rows(away, direction):
    X = np.r_[GOOD, [np.array(direction) * away]]
    answer = run_strategy("information_density", make_question(X, [], Same()), len(X))
    assert answer.indices[-1] == len(GOOD)


def test_an_outlier_wins_by_gradient_length():
    assert selected_indices("expected_gradient_length", make_question(np.r_[GOOD, [[30.0] * 3]], [], Same()), 1) == [
        len(GOOD)
    ]


def test_the_similarity_of_opposite_or_zero_rows_is_0():
    X = np.array([[1.0, 0.0], [2.0, 0.0], [-1.0, 0.0], [0.0, 0.0]])
    answer = run_strategy("information_density", make_question(X, [], Same()), 4, similarity="cosine")
    assert sorted(zip(answer.indices.tolist(), answer.scores.tolist(), strict=True)) == [
        (0, 0.5),
        (1, 0.5),
        (2, 0.25),
        (3, 0.0),
    ]


def test_information_density_uses_the_margin_by_default():
    P = np.random.default_rng(0).dirichlet([1, 1, 1], 60)
    first = selected_indices("information_density", question_from_probabilities(P), 9)
    assert first == selected_indices(
        "information_density", question_from_probabilities(P), 9, scorer="margin", beta=1, similarity="distance"
    )
    assert first != selected_indices("information_density", question_from_probabilities(P), 9, scorer="entropy")
    by_margin = selected_indices("margin", question_from_probabilities(P), 9)
    assert selected_indices("information_density", question_from_probabilities(P), 9, beta=0) == by_margin


@pytest.mark.parametrize("similarity", ["distance", "cosine"])
def test_equal_rows_tie_wherever_they_are_in_the_pool(similarity):
    X = np.random.default_rng(0).normal(size=(3, 37))[np.random.default_rng(1).integers(0, 3, 515)]
    answer = run_strategy("information_density", make_question(X, [], Same()), 515, similarity=similarity)
    assert len(np.unique(answer.scores)) == 3


def test_a_sample_of_references_approximates_all():
    X = np.random.default_rng(0).normal(size=(2000, 3))
    question = make_question(X, [], Same())
    scores = [np.empty(2000) for _ in range(2)]
    for found, references in zip(scores, (2000, 500), strict=True):
        answer = run_strategy("information_density", question, 2000, references=references, similarity="cosine")
        found[answer.indices] = answer.scores
    assert scores[1] == pytest.approx(scores[0], abs=0.03)
    assert (scores[0] != scores[1]).any()


def test_wide_rows_are_compared_to_fewer_references(monkeypatch):
    monkeypatch.setattr("service.strategies.feature_weighted.HELD_CELLS", 300)
    read = []
    real = unit_rows
    monkeypatch.setattr("service.strategies.feature_weighted.unit_rows", lambda X: read.append(X.shape[0]) or real(X))
    question = make_question(np.random.default_rng(0).normal(size=(400, 2)), [], Same())
    run_strategy("information_density", question, 5, similarity="cosine")
    assert sum(read) == 400 + 150


def test_information_density_considers_a_sample_with_a_note():
    question = question_from_probabilities(np.random.default_rng(0).dirichlet([1, 1], 500), labeled=[3])
    answer = run_strategy("information_density", question, 20, sample=100)
    assert answer.fallback_reason == "information_density considered a sample of 100 of the 499 candidates"
    assert len({*answer.indices.tolist()} - {3}) == 20


# Both strategies


@pytest.mark.parametrize("name", NAMES)
def test_rows_without_finite_probabilities_come_last_with_a_note(name):
    P = [[0.6, 0.4], [math.nan, 0.5], [0.5, 0.5], [math.inf, 0.0], [1.0, 0.0]]
    answer = run_strategy(name, question_from_probabilities(P), 5)
    assert set(answer.indices[:3].tolist()) == {0, 2, 4}
    assert answer.scores[3:].tolist() == [-1, -1]
    assert "no finite probabilities for 2 of the 5 candidates" in answer.fallback_reason


@pytest.mark.parametrize("name", NAMES)
def test_rows_are_random_with_one_known_class(name):
    question = make_question(GOOD, [3], None, 1)
    answers = [run_strategy(name, question, 5, seed) for seed in range(10)]
    assert all(answer.scores.tolist() == [0] * 5 for answer in answers)
    assert len({answer.indices[0] for answer in answers}) > 3
    assert "only one class is labelled" in answers[0].fallback_reason


@pytest.mark.parametrize("name", NAMES)
def test_equal_rows_are_taken_about_equally_often(name):
    firsts = [selected_indices(name, make_question(np.ones((8, 3)), [7], Same()), 1, seed)[0] for seed in range(350)]
    assert np.abs(np.bincount(firsts, minlength=7) - 50).max() < 30  # one deviation is 7


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scale", [2.0**900, 2.0**-900])
def test_scale_does_not_matter(name, scale):
    P = np.random.default_rng(2).dirichlet([1, 1, 1], 40)
    model = TableModel(P)
    model.predict_proba = lambda Z: P[[int(np.flatnonzero((GOOD * scale == z).all(axis=1))[0]) for z in Z]]
    scaled = selected_indices(name, make_question(GOOD * scale, [], model, 3), 20)
    model.predict_proba = lambda Z: P[[int(np.flatnonzero((z == GOOD).all(axis=1))[0]) for z in Z]]
    assert scaled == selected_indices(name, make_question(GOOD, [], model, 3), 20)


@pytest.mark.parametrize("name", NAMES)
def test_a_sparse_pool_stays_sparse(name):
    d = 2**20  # dense, it would take 2 GB
    X = sparse.random_array((250, d), density=20 / d, format="csr", rng=np.random.default_rng(0))
    pool = Pool.of(SparseRows(X.data, X.indices, X.indptr, d))
    tracemalloc.start()
    answer = run_strategy(name, make_question(pool, [0], Same()), 30)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(set(answer.indices.tolist())) == 30
    assert peak < 20e6
