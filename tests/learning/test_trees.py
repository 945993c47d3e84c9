"""Passes of rows through the trees of a forest, compiled and not: both equal scikit-learn's, bit for bit."""

from __future__ import annotations

import gc

import joblib
import numpy as np
import pytest
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)

from service.compute.threads import run_in_threads
from service.learning import trees as trees_module
from service.learning.estimators import committee_in, fit, resolve_estimator
from service.learning.kernels import Kernel
from service.learning.pool import Pool
from service.learning.scoring import predictor_for
from service.learning.trees import BLOCK_ROWS, PACKED, PackedTrees, Trees

ADD_LEAVES = "service.learning.tree_kernel", "add_leaves"
RNG = np.random.default_rng(0)
Y = RNG.integers(3, size=200)
X = (RNG.normal(size=(200, 5)) + Y[:, np.newaxis]).astype(np.float32).round(1)
NUMBERS = X @ RNG.normal(size=5)
ROWS = np.concatenate(
    [X, RNG.normal(1, 3, size=(BLOCK_ROWS + 7, 5)), [[-0.0] * 5, [1e30] * 5, [-1e30] * 5, [1e-40] * 5]]
)
ROWS = ROWS.astype(np.float32)


@pytest.fixture(scope="module")
def compiled():
    kernel = Kernel(*ADD_LEAVES)
    kernel.start().join()
    assert kernel.get(is_worth_it=False) is not None
    return kernel


@pytest.fixture(params=["compiled", "scikit-learn"])
def way(request, monkeypatch):
    """Each way of a pass."""
    monkeypatch.setattr(trees_module, "KERNEL", request.getfixturevalue("compiled"))
    if request.param == "scikit-learn":
        monkeypatch.setattr(trees_module, "MIN_STEPS", 2**60)
        monkeypatch.setattr(trees_module, "KERNEL", Kernel(*ADD_LEAVES))


FORESTS = {
    "extra trees": (ExtraTreesClassifier(12, random_state=0), Y),
    "random forest": (RandomForestClassifier(12, random_state=0), Y),
    "mixed leaves": (RandomForestClassifier(12, min_samples_leaf=9, class_weight="balanced", random_state=0), Y),
    "stumps": (ExtraTreesClassifier(12, max_depth=1, random_state=0), Y),
    "only roots": (ExtraTreesClassifier(12, max_depth=1, min_samples_leaf=150, random_state=0), Y),
    "numbers": (ExtraTreesRegressor(12, random_state=0), NUMBERS),
    "numbers, mixed leaves": (RandomForestRegressor(12, min_samples_leaf=4, random_state=0), NUMBERS),
    "one tree of each class": (ExtraTreesClassifier(1, random_state=0), Y),
    "zeros": (RandomForestRegressor(12, random_state=0), np.maximum(NUMBERS, 0).round()),
}


@pytest.mark.parametrize(("forest", "y"), FORESTS.values(), ids=FORESTS)
def test_a_pass_equals_scikit_learn_bit_for_bit(forest, y, way):
    forest.fit(X, y)
    is_classifier = hasattr(forest, "predict_proba")
    expected = forest.predict_proba(ROWS) if is_classifier else forest.predict(ROWS)[:, np.newaxis]
    trees = Trees.of(forest)
    assert (trees.mean(ROWS) == expected).all()
    of_tree = [each.predict_proba(ROWS) if is_classifier else each.predict(ROWS)[:, None] for each in forest]
    assert (trees.of_each_tree(ROWS) == np.stack(of_tree)).all()


def test_thresholds_between_two_numbers_of_float32_are_exact(way):
    """Neighbouring numbers of float32 have thresholds in between, which float32 does not have."""
    steps = np.float32(1) + np.arange(64, dtype=np.float32) * np.finfo(np.float32).eps
    rows = np.concatenate([steps, -steps, steps - 1, [0.0, -0.0, 1e-45, -1e-45]]).astype(np.float32)[:, np.newaxis]
    y = np.arange(len(rows)) % 2
    forest = RandomForestClassifier(20, random_state=0).fit(rows, y)
    assert (Trees.of(forest).mean(rows) == forest.predict_proba(rows)).all()


def test_missing_values_go_where_scikit_learn_sends_them(way):
    gaps = X.copy()
    gaps[::3, 1] = np.nan
    forest = RandomForestClassifier(12, random_state=0).fit(gaps, Y)
    rows = np.concatenate([gaps, X])
    assert (Trees.of(forest).mean(rows) == forest.predict_proba(rows)).all()


def test_the_result_depends_neither_on_threads_nor_on_the_cut_of_the_rows(way):
    forest = ExtraTreesClassifier(12, random_state=0).fit(X, Y)
    trees, expected = Trees.of(forest), forest.predict_proba(ROWS)
    found = np.zeros_like(expected)

    def fill(rows):
        found[rows] = trees.mean(ROWS[rows])

    run_in_threads(fill, [slice(start, start + 37) for start in range(0, len(ROWS), 37)])
    assert (found == expected).all()


def test_rows_may_be_read_only_and_in_any_order_in_memory(way):
    forest = ExtraTreesClassifier(12, random_state=0).fit(X, Y)
    columns = np.asfortranarray(ROWS)
    columns.flags.writeable = False
    assert (Trees.of(forest).mean(columns) == forest.predict_proba(ROWS)).all()


def test_a_forest_of_very_many_features_is_not_packed():
    forest = ExtraTreesClassifier(12, random_state=0).fit(X, Y)
    assert PackedTrees.of(Trees.of(forest), 2**27) is None
    assert PackedTrees.of(Trees.of(forest), 2**16) is not None


def test_packed_trees_are_kept_as_long_as_their_forest_and_not_in_its_file(compiled, monkeypatch, tmp_path):
    monkeypatch.setattr(trees_module, "KERNEL", compiled)
    forest = ExtraTreesClassifier(12, random_state=0).fit(X, Y)
    n_before = len(PACKED)
    joblib.dump(forest, tmp_path / "before")
    Trees.of(forest).mean(X)
    Trees.of(forest).mean(X)
    assert len(PACKED) == n_before + 1
    joblib.dump(forest, tmp_path / "after")
    assert (tmp_path / "before").read_bytes() == (tmp_path / "after").read_bytes()
    del forest
    gc.collect()
    assert len(PACKED) == n_before


def test_a_short_pass_does_not_start_the_compiler(monkeypatch):
    kernel = Kernel(*ADD_LEAVES)
    monkeypatch.setattr(trees_module, "KERNEL", kernel)
    trees = Trees.of(ExtraTreesClassifier(2, random_state=0).fit(X, Y))
    trees.mean(X)
    assert kernel._compiling is None
    monkeypatch.setattr(kernel, "_compile", lambda: None)
    monkeypatch.setattr(trees_module, "MIN_STEPS", 2 * len(X))
    trees.mean(X)
    assert kernel._compiling is not None


@pytest.mark.parametrize("name", ["extra_trees", "random_forest"])
@pytest.mark.parametrize("scale", [False, True])
def test_the_estimators_use_it_and_predict_as_before(name, scale, way):
    model = fit(resolve_estimator(name, {"n_estimators": 12, "scale": scale}), X, Y, 0)
    assert (predictor_for(model, Pool.of(ROWS))(ROWS) == model.predict_proba(ROWS)).all()
    Z = model[:-1].transform(ROWS)
    members = np.stack([each.predict_proba(Z) for each in model[-1]])
    assert (committee_in(model).member_probabilities(ROWS) == members).all()


@pytest.mark.parametrize("name", ["extra_trees", "random_forest", "auto"])
def test_forests_of_several_labels_a_sample_use_it(name, way):
    indicators = np.column_stack([Y == 0, Y > 0, X[:, 0] > 1])
    spec = resolve_estimator(name, {"n_estimators": 12})
    model = fit(spec, X, indicators, 0, target="labels")
    forest = model[-1].forest if name == "auto" else model[-1]
    Z = model[:-1].transform(ROWS).astype(np.float32)
    assert forest.predict_proba(Z) == pytest.approx(forest.regressor.predict(Z), abs=0)
