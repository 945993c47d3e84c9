import pickle
from copy import deepcopy

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from service.compute import threads
from service.learning import fast_logistic
from service.learning.estimators import fit, resolve_estimator
from service.learning.fast_logistic import FastLogisticRegression

RNG = np.random.default_rng(0)
N, WIDTH = 1_200, 5
X = RNG.normal([0, 0, 0, 3, -10], 1, (N, WIDTH))
LOGITS = X @ RNG.standard_normal((WIDTH, 4)) + RNG.gumbel(size=(N, 4))


def codes(n_classes):
    """Return skewed classes (n,), coded 0, 2, 4, ..."""
    return 2 * (LOGITS[:, :n_classes] + np.arange(n_classes)).argmax(axis=1)


@pytest.mark.parametrize("n_classes", [2, 3, 4])
@pytest.mark.parametrize("class_weight", [None, "balanced"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64])
def test_it_is_scikit_learns_on_centred_features(n_classes, class_weight, dtype):
    rows, y = (10 * X).astype(dtype), codes(n_classes)
    params = {"C": 0.3, "class_weight": class_weight}
    model = fit(resolve_estimator("logistic_regression", params), rows, y, 0)
    centred = rows.astype(np.float64) - rows.mean(axis=0)
    bare = LogisticRegression(max_iter=1000, **params).fit(centred, y)
    assert isinstance(model, FastLogisticRegression)
    assert model.predict_proba(rows) == pytest.approx(bare.predict_proba(centred), abs=1e-3)


def test_an_offset_of_the_features_makes_no_difference():
    model, moved = FastLogisticRegression().fit(X, codes(3)), FastLogisticRegression().fit(X + 1e6, codes(3))
    assert moved.predict_proba(X + 1e6) == pytest.approx(model.predict_proba(X), abs=1e-4)


@pytest.mark.parametrize("scale", [1e-20, 1e20, 1e200])
def test_features_beyond_float32_are_fitted_as_by_scikit_learn(scale):
    rows, y = X * [1, 1, 1, 1, scale], codes(3)
    model = fit(resolve_estimator("logistic_regression", {}), rows, y, 0)
    with np.errstate(over="ignore"):
        bare = LogisticRegression(max_iter=1000).fit(rows, y)
    assert np.array_equal(model.coef_, bare.coef_)


def test_it_is_the_same_whatever_was_fitted_before_and_however_many_threads_there_are(monkeypatch):
    monkeypatch.setattr(fast_logistic, "PART_CELLS", 1_000)
    spec, y = resolve_estimator("auto", {"pass_seconds": 1e-9}), codes(4)
    coefficients = []
    for n_cores in (1, 2, 7):
        monkeypatch.setattr(threads, "n_cores", lambda n=n_cores: n)
        fit(spec, X[: N - n_cores], y[: N - n_cores], 0, N)
        coefficients.append(fit(spec, X, y, 0, N)[-1].linear.coef_)
    assert all(np.array_equal(coefficients[0], each) for each in coefficients)


@pytest.mark.parametrize("copied", [deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_it_is_copied_and_stored_as_scikit_learns(copied):
    model = FastLogisticRegression(C=0.5).fit(X, codes(3))
    plain = copied(model)
    assert type(plain) is LogisticRegression
    assert plain.get_params() == model.get_params()
    assert np.array_equal(plain.predict_proba(X), model.predict_proba(X))
