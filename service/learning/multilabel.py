"""Models of samples that may have several classes: one-vs-rest, so each class has a probability of its own.

They are trained on indicators (l, c), and return marginals (n, c), whose rows need not sum to 1. A class that all
labelled rows have, or none, gets a constant probability.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import Pipeline, make_pipeline

from service.learning.blend import Blend
from service.learning.fast_forest import FastExtraTreesClassifier, FastExtraTreesRegressor
from service.learning.pool import Features, Matrix
from service.learning.preprocessing import as_float32
from service.learning.stacked_linear import Indicators, StackedLinear, is_constant, smoothed_shares
from service.learning.trees import Trees

REGRESSORS = {
    FastExtraTreesClassifier: FastExtraTreesRegressor,
    RandomForestClassifier: RandomForestRegressor,
    KNeighborsClassifier: KNeighborsRegressor,
}
"""Regressors of indicators that equal a classifier of each class.

The squared error of 0 and 1 is half the Gini impurity: trees split in the same way, and a leaf has one number a class.
"""


def one_vs_rest(build: Callable[[Indicators], Any], Y: Indicators) -> Any:
    """Return an unfitted model of indicators (l, c), in which `build` returns a classifier of a class (l,).

    `build` may return a pipeline. Of estimators that can share work between the classes there is one model, of others
    one for each class.
    """
    model = build(Y)
    shared = shared_model(last_step(model))
    if shared is None:
        columns = zip(Y.T, is_constant(Y), strict=True)
        shared = OneVsRest([None if constant else last_step(build(y)) for y, constant in columns])
    return make_pipeline(*(step for _, step in model.steps[:-1]), shared) if isinstance(model, Pipeline) else shared


def last_step(model: Any) -> Any:
    """Return the last step of a pipeline, or the model itself."""
    return model[-1] if isinstance(model, Pipeline) else model


def shared_model(model: Any) -> Any:
    """Return one model of all classes in place of a classifier, None if there is none.

    Class weights differ between the classes, and the trees of a forest are the same for all.
    """
    if isinstance(model, LogisticRegression):
        return StackedLinear(model)
    if isinstance(model, Blend):
        forest = None if model.forest is None else shared_model(model.forest)
        is_shared = (forest is None) == (model.forest is None)
        return Blend(StackedLinear(model.linear), forest, clip=model.clip) if is_shared else None
    params = model.get_params()
    if type(model) not in REGRESSORS or params.pop("class_weight", None) is not None:
        return None
    params.pop("criterion", None)
    return IndicatorRegressor(REGRESSORS[type(model)](**params))


class IndicatorRegressor(ClassifierMixin, BaseEstimator):
    """A regressor of 0 and 1 for all classes at once."""

    def __init__(self, regressor: Any) -> None:
        self.regressor = regressor

    @property
    def estimators_(self) -> Sequence[Any]:
        """The trees of a forest."""
        trees: Sequence[Any] = self.regressor.estimators_
        return trees

    def fit(self, X: Features, Y: Indicators) -> IndicatorRegressor:
        """Train on rows `X` (l, d) and their classes `Y` (l, c); a constant class gets its smoothed share."""
        self.classes_ = np.arange(Y.shape[1])
        shares = np.where(is_constant(Y), smoothed_shares(Y), Y)
        self.regressor.fit(X, shares[:, 0] if shares.shape[1] == 1 else shares)
        return self

    def predict_proba(self, X: Features) -> Matrix:
        """Return the marginals (n, c) of rows (n, d)."""
        if hasattr(self.regressor, "estimators_"):
            return np.clip(Trees.of(self).mean(as_float32(X)), 0.0, 1.0)
        marginals: Matrix = self.regressor.predict(X).reshape(X.shape[0], len(self.classes_))
        return np.clip(marginals, 0.0, 1.0)


class OneVsRest(ClassifierMixin, BaseEstimator):
    """A classifier for each class, None for a constant one."""

    def __init__(self, models: Sequence[Any]) -> None:
        self.models = models

    def fit(self, X: Features, Y: Indicators) -> OneVsRest:
        """Train on rows `X` (l, d) and their classes `Y` (l, c)."""
        self.classes_ = np.arange(Y.shape[1])
        self.shares_ = smoothed_shares(Y)
        for model, y in zip(self.models, Y.T, strict=True):
            if model is not None:
                model.fit(X, y)
        return self

    def predict_proba(self, X: Features) -> Matrix:
        """Return the marginals (n, c) of rows (n, d)."""
        P = np.tile(self.shares_, (X.shape[0], 1))
        for column, model in zip(P.T, self.models, strict=True):
            if model is not None:
                column[:] = model.predict_proba(X)[:, 1]
        return P
