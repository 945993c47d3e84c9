"""The fast fit of extra trees against scikit-learn's own."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import sklearn
from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor

from service.compute import threads
from service.learning import fast_forest
from service.learning.fast_forest import TRIED, FastExtraTreesClassifier, FastExtraTreesRegressor

RNG = np.random.default_rng(0)
X = RNG.normal(size=(80, 5)).astype(np.float32)
Y = 2 * np.argmax(X[:, :3] + RNG.normal(size=(80, 3)), axis=1)
NUMBERS = X[:, 0] + RNG.normal(size=80)
KINDS = {"classes": (FastExtraTreesClassifier, ExtraTreesClassifier, Y)}
KINDS["numbers"] = FastExtraTreesRegressor, ExtraTreesRegressor, NUMBERS
KINDS["indicators"] = FastExtraTreesRegressor, ExtraTreesRegressor, np.eye(5)[Y][:, [0, 2, 4]]
PARAMS = [{}, {"min_samples_leaf": 4, "max_depth": 3}, {"max_features": None}, {"n_estimators": 1}]
WEIGHTS = [{"class_weight": "balanced"}, {"class_weight": "balanced_subsample"}]


def assert_same(fitted, expected):
    for name in vars(expected).keys() - {"estimator", "estimator_", "estimators_"}:
        assert np.array_equal(getattr(fitted, name), getattr(expected, name)), name
    assert vars(fitted).keys() == vars(expected).keys()
    for one, other in zip(fitted.estimators_, expected.estimators_, strict=True):
        assert one.get_params() == other.get_params()
        assert vars(one).keys() == vars(other).keys()
        for name in ("nodes", "values"):
            assert np.array_equal(one.tree_.__getstate__()[name], other.tree_.__getstate__()[name])


def test_the_installed_release_of_scikit_learn_is_one_that_was_tried():
    assert sklearn.__version__.startswith(TRIED)


@pytest.mark.parametrize(
    ("kind", "params"),
    [*((kind, params) for kind in KINDS for params in PARAMS), *(("classes", params) for params in WEIGHTS)],
)
def test_the_trees_are_those_of_scikit_learn(kind, params):
    fast, plain, y = KINDS[kind]
    params = {"n_estimators": 5, "random_state": 7, **params}
    assert_same(fast(**params).fit(X, y), plain(**params).fit(X, y))


@pytest.mark.parametrize("rows", [X[:, ::-1], np.asfortranarray(X), np.where(X > 2, np.float32(np.nan), X)])
def test_layout_and_missing_values_make_no_difference(rows):
    expected = ExtraTreesClassifier(3, random_state=7).fit(rows, Y)
    assert_same(FastExtraTreesClassifier(3, random_state=7).fit(rows, Y), expected)


def test_the_number_of_threads_makes_no_difference(monkeypatch):
    forests = []
    for n_cores in (1, 3):
        monkeypatch.setattr(threads, "n_cores", lambda n=n_cores: n)
        forests.append(FastExtraTreesClassifier(9, random_state=0).fit(X, Y))
    assert_same(*forests)


def test_another_release_of_scikit_learn_does_the_whole_fit(monkeypatch):
    monkeypatch.setattr(fast_forest, "TRIED", "0.0.")
    monkeypatch.delattr(fast_forest, "grow")
    forest = FastExtraTreesClassifier(3, random_state=0).fit(X, Y)
    assert_same(forest, ExtraTreesClassifier(3, random_state=0).fit(X, Y))


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_stored_as_scikit_learns(kind):
    fast, plain, y = KINDS[kind]
    forest = fast(3, random_state=0).fit(X, y)
    stored = pickle.loads(pickle.dumps(forest))
    assert type(stored) is plain
    assert np.array_equal(stored.predict(X), forest.predict(X))
