"""Logistic regressions for classes on their own, as one matrix of weights."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.linear_model import LogisticRegression

from service.learning.pool import Features, Matrix

Indicators = NDArray[np.bool_]
"""The classes of each row: a mask (n, c)."""


def is_constant(Y: Indicators) -> NDArray[np.bool_]:
    """Return a mask (c,) of the classes that all rows have, or none."""
    return np.asarray(Y.all(axis=0) | ~Y.any(axis=0))


def smoothed_shares(Y: Indicators) -> Matrix:
    """Return the share of rows with each class (c,), as if there were half a row more with it and half a row without.

    Jeffreys' prior: no class gets probability 0 or 1 from the few rows there are.
    """
    shares: Matrix = (Y.sum(axis=0) + 0.5) / (len(Y) + 1)
    return shares


class StackedLinear(ClassifierMixin, BaseEstimator):
    """A logistic regression for each class, all in `coef_` (c, d) and `intercept_` (c,)."""

    def __init__(self, linear: LogisticRegression) -> None:
        self.linear = linear

    def fit(self, X: Features, Y: Indicators) -> StackedLinear:
        """Train on rows `X` (l, d) and their classes `Y` (l, c); a constant class gets its smoothed share."""
        self.classes_ = np.arange(Y.shape[1])
        self.coef_ = np.zeros((Y.shape[1], X.shape[1]))
        self.intercept_ = logit(smoothed_shares(Y))
        for column in np.flatnonzero(~is_constant(Y)):
            fitted: Any = clone(self.linear).fit(X, Y[:, column])
            self.coef_[column], self.intercept_[column] = fitted.coef_[0], fitted.intercept_[0]
        return self

    def predict_proba(self, X: Features) -> Matrix:
        """Return the marginals (n, c) of rows (n, d)."""
        marginals: Matrix = expit(X @ self.coef_.T + self.intercept_)
        return marginals
