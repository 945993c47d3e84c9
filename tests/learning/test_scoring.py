"""Passes over the pool: fixed edges, and metrics checked against plain implementations."""

import math

import numpy as np
import pytest
from sklearn import metrics
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from threadpoolctl import threadpool_info, threadpool_limits

from service.learning import scoring
from service.learning.pool import Pool
from service.strategies.uncertainty import entropy, margin


class Lookup:
    """A classifier that predicts row i of its table for a row whose first feature is i."""

    def __init__(self, classes, table):
        self.classes_ = np.array(classes)
        self.table = np.array(table)

    def predict_proba(self, X):
        return self.table[np.asarray(X)[:, 0].astype(int)]


def mapped_pool(tmp_path, n_rows, n_columns):
    X = np.random.default_rng(1).normal(size=(n_rows, n_columns)).astype(np.float32)
    np.save(tmp_path / "X.npy", X)
    return np.load(tmp_path / "X.npy", mmap_mode="r")


def logistic(X):
    y = np.random.default_rng(2).integers(0, 3, 60)
    return LogisticRegression().fit(X[:60], y)


def test_pool_scores_equal_the_scores_of_the_rows(tmp_path):
    X = mapped_pool(tmp_path, 9000, 64)
    model = logistic(X)
    expected = [margin(model.predict_proba(row[np.newaxis]))[0] for row in X[::97]]
    [scores] = scoring.score_pool(model, Pool.of(X), margin, np.ones(9000, bool))
    assert scores[::97] == pytest.approx(expected, rel=1e-5)


def test_a_score_does_not_depend_on_which_rows_are_wanted(tmp_path):
    X = mapped_pool(tmp_path, 13_000, 64)
    model = logistic(X)
    [everything] = scoring.score_pool(model, Pool.of(X), entropy, np.ones(13_000, bool))
    for seed, share in enumerate([0.5, 0.01, 0.0002]):
        wanted = np.random.default_rng(seed).random(13_000) < share
        [scores] = scoring.score_pool(model, Pool.of(X), entropy, wanted)
        assert np.array_equal(scores[wanted], everything[wanted])


def test_chunks_without_a_wanted_row_are_not_computed():
    seen = []

    class Watched(Lookup):
        def predict_proba(self, X):
            seen.append(len(X))
            return super().predict_proba(X)

    wanted = np.zeros(20_000, bool)
    wanted[9000] = True
    pool = Pool.of(np.zeros((20_000, 64)))
    [scores] = scoring.score_pool(Watched([0, 1], [[0.5, 0.5]]), pool, margin, wanted)
    assert seen == [8192]
    assert np.flatnonzero(scores != scoring.INVALID_SCORE).tolist() == list(range(8192, 16_384))


def test_a_model_computes_in_one_thread():
    seen = []

    class Watched(Lookup):
        def predict_proba(self, X):
            seen.extend(pool["num_threads"] for pool in threadpool_info())
            return super().predict_proba(X)

    with threadpool_limits(2):
        scoring.predict_probabilities(Watched([0], [[1.0]]), np.zeros((1, 1)))
    assert set(seen) == {1}


def test_many_classes_make_the_chunks_shorter():
    model = Lookup(range(1024), np.full((1, 1024), 1 / 1024))
    wanted = np.zeros(1000, bool)
    wanted[0] = True
    [scores] = scoring.score_pool(model, Pool.of(np.zeros((1000, 1))), margin, wanted)
    assert (scores != scoring.INVALID_SCORE).sum() == 512


def test_overflow_gives_non_finite_probabilities_without_a_warning():
    X = np.random.default_rng(0).normal(size=(60, 3))
    model = GaussianNB().fit(X, np.arange(60) % 2)
    assert np.isnan(scoring.predict_probabilities(model, X * 1e300)).all()


def literal_score(classes, probabilities, truth):
    """The definitions, one row and one class at a time."""
    guesses = [classes[max(range(len(p)), key=lambda k: p[k])] for p in probabilities]
    pairs = list(zip(truth, guesses, strict=True))
    recalls = [sum(g == k for t, g in pairs if t == k) / truth.count(k) for k in set(truth)]
    f1 = []
    for k in set(truth) | set(guesses):
        hit, false, missed = pairs.count((k, k)), sum(g == k != t for t, g in pairs), sum(t == k != g for t, g in pairs)
        f1.append(2 * hit / (2 * hit + false + missed))
    losses = [
        -math.log(max(p[classes.index(t)] if t in classes else 0.0, 2.0**-52))
        for p, t in zip(probabilities, truth, strict=True)
    ]
    return [sum(t == g for t, g in pairs) / len(pairs), np.mean(recalls), np.mean(f1), np.mean(losses)]


def measured(classes, probabilities, truth, n_classes):
    X = np.arange(len(truth), dtype=np.float64)[:, np.newaxis]
    score = scoring.evaluate(Lookup(classes, probabilities), Pool.of(X), np.array(truth), n_classes)
    return [score.accuracy, score.balanced_accuracy, score.f1_macro, score.log_loss]


@pytest.mark.parametrize("classes", [[0, 1, 2], [0, 1], [2, 0], [3, 1, 0, 2], [1], [4]])
def test_evaluation_agrees_with_the_literal_one(classes):
    rng = np.random.default_rng(len(classes))
    for _ in range(20):
        probabilities = rng.dirichlet(np.ones(len(classes)), 12)
        truth = rng.integers(0, rng.integers(1, 6), 12).tolist()
        assert measured(classes, probabilities, truth, 5) == pytest.approx(
            literal_score(classes, probabilities.tolist(), truth)
        )


def test_evaluation_agrees_with_scikit_learn_if_all_classes_are_known():
    rng = np.random.default_rng(0)
    probabilities, truth = rng.dirichlet(np.ones(4), 500), rng.integers(0, 4, 500)
    guess = probabilities.argmax(axis=1)
    assert measured([0, 1, 2, 3], probabilities, truth.tolist(), 4) == pytest.approx(
        [
            metrics.accuracy_score(truth, guess),
            metrics.balanced_accuracy_score(truth, guess),
            metrics.f1_score(truth, guess, average="macro"),
            metrics.log_loss(truth, probabilities),
        ]
    )


@pytest.mark.parametrize(
    ("classes", "probabilities", "truth", "expected"),
    [
        ([0, 1], [[1.0, 0.0], [0.0, 1.0]], [0, 1], [1, 1, 1, 0]),
        ([0, 1], [[0.8, 0.2], [0.6, 0.4]], [0, 1], [0.5, 0.5, (2 / 3 + 0) / 2, -math.log(0.8 * 0.4) / 2]),
        # Columns belong to `classes_`, here in descending order.
        ([1, 0], [[0.8, 0.2], [0.6, 0.4]], [1, 1], [1, 1, 1, -math.log(0.8 * 0.6) / 2]),
        # The model has not seen class 2.
        ([0, 1], [[1.0, 0.0], [0.0, 1.0]], [0, 2], [0.5, 0.5, (1 + 0 + 0) / 3, 52 * math.log(2) / 2]),
        # Probabilities that overflowed count as 0.
        ([0, 1], [[math.nan, math.nan], [0.0, 1.0]], [1, 1], [0.5, 0.5, (0 + 2 / 3) / 2, 52 * math.log(2) / 2]),
    ],
)
def test_evaluation_worked_by_hand(classes, probabilities, truth, expected):
    assert measured(classes, probabilities, truth, 3) == pytest.approx(expected)


def test_evaluation_in_chunks_equals_that_of_all_rows():
    rng = np.random.default_rng(0)
    probabilities, truth = rng.dirichlet(np.ones(3), 300_000), rng.integers(0, 3, 300_000)
    score = measured([0, 1, 2], probabilities, truth.tolist(), 3)
    assert score[0] == np.mean(probabilities.argmax(axis=1) == truth)
    assert score[3] == pytest.approx(-np.log(probabilities[np.arange(300_000), truth]).mean())


def test_evaluation_is_silent_with_almost_as_many_classes_as_rows():
    classes = list(range(40))
    assert measured(classes, np.eye(40), classes, 40) == [1, 1, 1, 0]
