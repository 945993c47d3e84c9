"""The fast predictor of linear models equals scikit-learn's, and no other model has one."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline

from service.learning.estimators import fast_predictor, fit, resolve_estimator
from service.learning.pool import Pool
from service.learning.scoring import score_pool
from service.strategies.uncertainty import entropy, least_confidence, margin, ratio
from tests.support.estimators import CLASSIFIERS

SCORERS = [least_confidence, margin, ratio, entropy]
QUICK = {"random_forest": {"n_estimators": 10}, "extra_trees": {"n_estimators": 10}, "mlp": {"max_iter": 20}}

# Largest difference of a score between float32 and float64, for logits of the size in these pools.
ROUNDING = {"f2": 2e-5, "f4": 2e-5, "f8": 1e-12, "i2": 1e-12, "u1": 1e-12}


def blobs(n_classes, dtype):
    rng = np.random.default_rng(n_classes)
    y = rng.integers(0, n_classes, 900)
    X = rng.normal(size=(900, 6)) + np.eye(6)[y % 6] * 2
    return (X * 10 + 40).round().astype(dtype) if dtype in ("i2", "u1") else X.astype(dtype), y


@pytest.mark.parametrize("scorer", SCORERS, ids=lambda scorer: scorer.__name__)
@pytest.mark.parametrize("n_classes", [2, 3, 6])
@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize("scale", [False, True])
def test_scores_of_a_linear_model_equal_scikit_learns(scorer, n_classes, dtype, scale):
    X, y = blobs(n_classes, dtype)
    model = fit(resolve_estimator("logistic_regression", {"scale": scale}), X[:200], y[:200], 0)
    assert fast_predictor(model) is not None
    [scores] = score_pool(model, Pool.of(X), scorer, np.ones(len(X), bool))
    assert scores == pytest.approx(scorer(model.predict_proba(X.astype(np.float64))), abs=ROUNDING[dtype])


@pytest.mark.parametrize("name", CLASSIFIERS)
@pytest.mark.parametrize("scorer", SCORERS, ids=lambda scorer: scorer.__name__)
def test_scores_of_every_estimator_are_those_of_its_probabilities(name, scorer):
    X, y = blobs(3, "f8")
    model = fit(resolve_estimator(name, QUICK.get(name, {})), X[:120], y[:120], 0)
    [scores] = score_pool(model, Pool.of(X), scorer, np.ones(len(X), bool))
    assert scores == pytest.approx(scorer(model.predict_proba(X)), rel=1e-9, abs=1e-12)


FAST = {"auto", "extra_trees", "logistic_regression", "random_forest"}


@pytest.mark.parametrize("name", sorted(set(CLASSIFIERS) - FAST))
def test_no_other_estimator_has_a_fast_predictor(name):
    X, y = blobs(2, "f8")
    assert fast_predictor(fit(resolve_estimator(name, QUICK.get(name, {})), X[:60], y[:60], 0)) is None


def test_probabilities_sum_to_one_however_far_the_logits_are_apart():
    model = LogisticRegression()
    model.classes_, model.coef_, model.intercept_ = np.arange(3), np.array([[1e3], [0.0], [-1e3]]), np.zeros(3)
    probabilities = fast_predictor(model)(np.array([[-1e300], [-1.0], [0.0], [1e-4], [1e300]]))
    assert probabilities.sum(axis=1) == pytest.approx(np.ones(5))
    assert probabilities[[0, 4]].tolist() == [[0, 0, 1], [1, 0, 0]]


def test_a_row_that_overflows_float32_ranks_last_and_affects_no_other():
    X = np.array([[1.0, 2.0], [3e38, 3e38], [2.0, 1.0]], np.float32)
    model = LogisticRegression()
    model.classes_, model.coef_, model.intercept_ = np.arange(3), np.array([[9.0, 9], [8, 8], [0, 1]]), np.zeros(3)
    [scores] = score_pool(model, Pool.of(X), margin, np.ones(3, bool))
    assert scores[1] == -1
    assert (scores[[0, 2]] > 0).all()


def test_nothing_is_written_to_the_pool():
    X, y = blobs(3, "f4")
    model = fit(resolve_estimator("logistic_regression", {}), X, y, 0)
    X.flags.writeable = False
    before = X.copy()
    score_pool(model, Pool.of(X), margin, np.ones(len(X), bool))
    assert np.array_equal(X, before)


def test_another_pipeline_has_no_fast_predictor():
    assert fast_predictor(Pipeline([("a", "passthrough"), ("b", object())])) is None
