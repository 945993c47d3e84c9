"""Models of numbers: the blend of the estimator `auto`, fast passes over a pool, and committees."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.linear_model import Ridge, RidgeCV

from service.learning.linear_scorer import Predict
from service.learning.models import Regressor, predict_numbers
from service.learning.pool import Features, Matrix
from service.learning.preprocessing import as_float32, clip_outliers
from service.learning.trees import Trees, split_pipeline

Numbers = npt.NDArray[np.float64]

FOREST_SHARE = 0.5
"""Weight of the forest in a `NumberBlend`; the linear model has the rest."""


class NumberBlend(RegressorMixin, BaseEstimator):
    """The weighted mean of a linear model and a forest of numbers, or the linear model alone.

    With `clip`, the linear model reads the features as `clip_outliers` leaves them: far outside the labelled rows, its
    predictions would be far off.
    """

    def __init__(self, linear: Ridge | RidgeCV, forest: ExtraTreesRegressor | None, *, clip: bool) -> None:
        self.linear = linear
        self.forest = forest
        self.clip = clip

    def fit(self, X: Features, y: Numbers) -> NumberBlend:
        """Train both on rows `X` (l, d) and numbers `y` (l,)."""
        self.linear.fit(clip_outliers(X) if self.clip else X, y)
        if self.forest is not None:
            self.forest.fit(as_float32(X), y)
        self.n_features_in_ = X.shape[1]
        return self

    def predict(self, X: Features) -> Numbers:
        """Return the numbers (n,) predicted for rows (n, d)."""
        linear = self.linear_part(X)
        return linear if self.forest is None else mix(linear, Trees.of(self.forest).mean(as_float32(X))[:, 0])

    def linear_part(self, X: Features) -> Numbers:
        """Return the numbers (n,) that the linear model predicts for rows (n, d)."""
        numbers: Numbers = self.linear.predict(clip_outliers(X) if self.clip else X)
        return numbers


def mix(linear: Numbers, forest: Numbers) -> Numbers:
    """Return the weighted mean of the predictions (..., n) of a linear model and a forest."""
    mean: Numbers = linear * (1 - FOREST_SHARE) + forest * FOREST_SHARE
    return mean


def fast_number_blend_predictor(model: Any) -> Predict:
    """Return a function from dense rows (n, d) to the numbers (n, 1) of a blend or a scaling pipeline."""
    prepare, blend = split_pipeline(model)
    trees = None if blend.forest is None else Trees.of(blend.forest)

    def predict(X: Matrix) -> Matrix:
        X = prepare(X)
        linear = blend.linear_part(X)[:, np.newaxis]
        return linear if trees is None else mix(linear, trees.mean(as_float32(X)))

    return predict


@dataclass(frozen=True, slots=True, eq=False)
class NumberForestCommittee:
    """A forest of numbers as the committee of its trees; in a blend, each member is a tree and the linear model."""

    prepare: Callable[[Features], Features]
    trees: Trees
    blend: NumberBlend | None = None

    @classmethod
    def of(cls, model: Any) -> NumberForestCommittee | None:
        """Return the committee of a fitted forest, a blend, or a pipeline that ends with one; None without trees."""
        prepare, last = split_pipeline(model)
        if not isinstance(last, NumberBlend):
            return cls(prepare, Trees.of(last))
        return None if last.forest is None else cls(prepare, Trees.of(last.forest), last)

    @property
    def n_members(self) -> int:
        """The number of trees."""
        return len(self.trees)

    @property
    def identity(self) -> tuple[str, int, int]:
        """A key that distinguishes the committees of one model."""
        return "number trees", self.n_members, 0

    def member_predictions(self, X: Features) -> Numbers:
        """Return the predictions (m, n) of rows (n, d)."""
        X = self.prepare(X)
        of_trees = self.trees.of_each_tree(as_float32(X))[:, :, 0]
        return of_trees if self.blend is None else mix(self.blend.linear_part(X), of_trees)


@dataclass(frozen=True, slots=True, eq=False)
class NumberBag:
    """Models of numbers fitted to bootstrap samples of the labels of one revision."""

    members: tuple[Regressor, ...]
    revision: int = 0

    @property
    def n_members(self) -> int:
        """The number of models."""
        return len(self.members)

    @property
    def identity(self) -> tuple[str, int, int]:
        """A key that distinguishes the committees of one model."""
        return "number bag", self.n_members, self.revision

    def member_predictions(self, X: Features) -> Numbers:
        """Return the predictions (m, n) of rows (n, d)."""
        return np.stack([predict_numbers(member, X) for member in self.members])
