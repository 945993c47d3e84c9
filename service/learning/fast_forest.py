"""Extra trees as scikit-learn grows them, without what it does in Python for each tree.

To a hundred labels that is five sixths of the time: scikit-learn clones the tree, checks its parameters and the labels
again, and hands it to joblib. Here its own compiled code grows all trees but the first, from the same seeds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import sklearn
from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor
from sklearn.tree._criterion import MSE, Gini
from sklearn.tree._splitter import RandomSplitter
from sklearn.tree._tree import DepthFirstTreeBuilder, Tree
from sklearn.utils.class_weight import compute_sample_weight

from service.compute.threads import run_in_threads
from service.learning.models import reduce_to
from service.learning.pool import Features, Matrix

TRIED = "1.9."
"""The releases of scikit-learn whose compiled code was tried; with others, scikit-learn does the whole fit."""

LARGEST = np.iinfo(np.int32).max
"""The limit of seeds, and the depth of a tree without a limit."""


class FastExtraTreesClassifier(ExtraTreesClassifier):
    """An ExtraTreesClassifier that sets no parameters but those of `forest_arguments` and `random_state`.

    It is copied and stored as a plain ExtraTreesClassifier.
    """

    def fit(self, X: Features, y: npt.NDArray[Any], sample_weight: None = None) -> ExtraTreesClassifier:
        """Train on rows `X` (l, d) in float32 and class codes `y` (l,)."""
        if not is_for_compiled_code(X):
            return super().fit(X, y)
        fit_first_tree(self, super().fit, X, y)
        codes = np.searchsorted(self.classes_, y)
        # Without a bootstrap sample, the balance is that of all rows.
        weights = None if self.class_weight is None else compute_sample_weight("balanced", y)
        return grow_other_trees(self, X, codes[:, np.newaxis], weights)

    def __reduce__(self) -> Any:
        """Return how to rebuild it without the code of this service."""
        return reduce_to(ExtraTreesClassifier, self)


class FastExtraTreesRegressor(ExtraTreesRegressor):
    """An ExtraTreesRegressor with the same rules."""

    def fit(self, X: Features, y: npt.NDArray[Any], sample_weight: None = None) -> ExtraTreesRegressor:
        """Train on rows `X` (l, d) in float32 and numbers `y`, (l,) or (l, c)."""
        if not is_for_compiled_code(X):
            return super().fit(X, y)
        fit_first_tree(self, super().fit, X, y)
        return grow_other_trees(self, X, y.reshape(len(y), -1), None)

    def __reduce__(self) -> Any:
        """Return how to rebuild it without the code of this service."""
        return reduce_to(ExtraTreesRegressor, self)


def is_for_compiled_code(X: Features) -> bool:
    """Return whether trees for rows `X` (l, d) can be grown here."""
    is_dense = isinstance(X, np.ndarray) and X.dtype == np.float32
    return sklearn.__version__.startswith(TRIED) and is_dense and bool(np.isfinite(X).all())


def fit_first_tree(forest: Any, fit: Callable[..., Any], X: Matrix, y: npt.NDArray[Any]) -> None:
    """Let scikit-learn check everything, and grow the first tree."""
    n_trees = forest.n_estimators
    forest.n_estimators = 1
    fit(X, y)
    forest.n_estimators = n_trees


def grow_other_trees(forest: Any, X: Matrix, y: npt.NDArray[Any], weights: Matrix | None) -> Any:
    """Grow all trees but the first for rows `X` (l, d), labels `y` (l, c), and weights (l,) or None."""
    y = np.ascontiguousarray(y, np.float64)
    seeds = np.random.RandomState(forest.random_state).randint(LARGEST, size=forest.n_estimators)
    [first] = forest.estimators_
    others = [copy_of_tree(first, seed) for seed in seeds[1:].tolist()]
    run_in_threads(lambda tree: grow(tree, X, y, weights), others)
    forest.estimators_ += others
    return forest


def copy_of_tree(tree: Any, seed: int) -> Any:
    """Return a tree with the parameters and classes of another one, and a seed of its own."""
    copy = object.__new__(type(tree))
    vars(copy).update(vars(tree), random_state=seed)
    return copy


def grow(tree: Any, X: Matrix, y: Matrix, weights: Matrix | None) -> None:
    """Grow a tree for rows `X` (l, d) and labels `y` (l, c)."""
    is_classifier = hasattr(tree, "classes_")
    n_classes = np.array([tree.n_classes_] if is_classifier else [1] * y.shape[1], np.intp)
    criterion = Gini(1, n_classes) if is_classifier else MSE(y.shape[1], len(y))
    in_leaf, depth = tree.min_samples_leaf, LARGEST if tree.max_depth is None else tree.max_depth
    random = np.random.RandomState(tree.random_state)
    splitter = RandomSplitter(criterion, tree.max_features_, in_leaf, 0.0, random, None)
    builder = DepthFirstTreeBuilder(splitter, max(2, 2 * in_leaf), in_leaf, 0.0, depth, 0.0)
    tree.tree_ = Tree(X.shape[1], n_classes, y.shape[1])
    builder.build(tree.tree_, X, y, weights, None)
