"""The model of the estimator `auto`: a linear model and a forest, whose probabilities are averaged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline

from service.learning.linear_scorer import LinearHead, Predict
from service.learning.pool import Features, Matrix
from service.learning.preprocessing import OUTLIER, Standardizer, as_float32, clip_outliers, fast_standardizer
from service.learning.trees import Trees, split_pipeline

FOREST_WEIGHT = 2 / 3
"""Weight of the forest; the linear model has the rest. It beats 1/2 by a point of macro-F1 on six sets of eight."""


class Blend(ClassifierMixin, BaseEstimator):
    """The weighted mean of the probabilities of a linear model and a forest, or a linear model alone.

    With `clip`, the linear model reads the features as `clip_outliers` leaves them.
    """

    def __init__(self, linear: LogisticRegression, forest: ExtraTreesClassifier | None, *, clip: bool) -> None:
        self.linear = linear
        self.forest = forest
        self.clip = clip

    def fit(self, X: Features, y: npt.NDArray[np.integer]) -> Blend:
        """Train both on rows `X` (l, d) and class codes `y`."""
        self.linear.fit(clip_outliers(X) if self.clip else X, y)
        if self.forest is not None:
            self.forest.fit(as_float32(X), y)
        self.classes_ = self.linear.classes_
        return self

    def predict_proba(self, X: Features) -> Matrix:
        """Return the probabilities (n, c) of rows (n, d)."""
        linear: Matrix = self.linear.predict_proba(clip_outliers(X) if self.clip else X)
        return linear if self.forest is None else mix(linear, Trees.of(self.forest).mean(as_float32(X)))


def mix(linear: Matrix, forest: Matrix) -> Matrix:
    """Return the weighted mean of the probabilities (..., c) of a linear model and a forest."""
    mean: Matrix = linear * (1 - FOREST_WEIGHT) + forest * FOREST_WEIGHT
    return mean


def fast_blend_predictor(model: Any) -> Predict:
    """Return a function from dense rows (n, d) to the probabilities (n, c) of a blend or a scaling pipeline.

    float16 and float32 rows are standardised in float32, all others in float64.
    """
    prepare, blend = split_pipeline(model)
    wide = blend_predictor(prepare, blend, np.dtype(np.float64))
    steps = [step for _, step in model.steps[:-1]] if isinstance(model, Pipeline) else []
    standardize = fast_standardizer(steps[0]) if len(steps) == 1 and isinstance(steps[0], Standardizer) else None
    if standardize is None:
        return wide
    narrow = blend_predictor(standardize, blend, np.dtype(np.float32))
    return lambda X: (narrow if X.dtype.kind == "f" and X.dtype.itemsize <= 4 else wide)(X)


def blend_predictor(prepare: Callable[[Features], Features], blend: Blend, dtype: np.dtype[Any]) -> Predict:
    """Return a function from dense rows (n, d) to the probabilities (n, c) of a blend, its linear model in `dtype`."""
    head = LinearHead.of(blend.linear, dtype)
    trees = None if blend.forest is None else Trees.of(blend.forest)

    def predict(X: Matrix) -> Matrix:
        X = prepare(X)
        if trees is None:
            # Standardised rows are a copy, and nothing else reads them.
            return head.probabilities(np.clip(X, -OUTLIER, OUTLIER, out=X) if blend.clip else X)
        linear = head.probabilities(clip_outliers(X) if blend.clip else X)
        return mix(linear, trees.mean(as_float32(X)))

    return predict


@dataclass(frozen=True, slots=True, eq=False)
class BlendCommittee:
    """A blend as a committee: each member is the blend of the linear model and one tree."""

    prepare: Callable[[Features], Features]
    blend: Blend
    trees: Trees

    @classmethod
    def of(cls, model: Any) -> BlendCommittee | None:
        """Return the committee of a blend or a scaling pipeline, None if it has no forest."""
        prepare, blend = split_pipeline(model)
        return None if blend.forest is None else cls(prepare, blend, Trees.of(blend.forest))

    @property
    def classes_(self) -> npt.NDArray[np.int64]:
        """The codes of the classes (c,)."""
        classes: npt.NDArray[np.int64] = self.blend.classes_
        return classes

    @property
    def n_members(self) -> int:
        """The number of trees."""
        return len(self.trees)

    @property
    def identity(self) -> tuple[str, int, int]:
        """A key that distinguishes the committees of one model."""
        return "blend", self.n_members, 0

    def member_probabilities(self, X: Features) -> Matrix:
        """Return the probabilities (m, n, c) of rows (n, d)."""
        X = self.prepare(X)
        linear = self.blend.linear.predict_proba(clip_outliers(X) if self.blend.clip else X)
        return mix(linear, self.trees.of_each_tree(as_float32(X)))
