"""A short way to the probabilities of linear models, which are most of what large pools are scored with.

scikit-learn computes in (rows, classes), widens to float64 and takes several passes over that. Here a chunk is computed
in the pool's own dtype and held class by class, so that every step runs along the rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline

from service.learning.pool import Matrix


@dataclass(frozen=True, slots=True, eq=False)
class LinearHead:
    """The softmax over linear functions of the features, `weights` (d, c) and `intercepts` (c,); c >= 2."""

    weights: Matrix
    intercepts: Matrix

    @classmethod
    def of(cls, model: LogisticRegression, dtype: np.dtype[Any]) -> LinearHead:
        """Take over a fitted model, to be computed in `dtype`."""
        coefficients, intercepts = model.coef_, model.intercept_
        if len(coefficients) == 1:
            # The sigmoid of z is the softmax of -z/2 and z/2, and halving is exact.
            coefficients = np.concatenate([coefficients / -2, coefficients / 2])
            intercepts = np.concatenate([intercepts / -2, intercepts / 2])
        return cls(np.ascontiguousarray(coefficients.T, dtype), intercepts.astype(dtype))

    def probabilities(self, X: Matrix) -> NDArray[np.floating[Any]]:
        """Return the probabilities (n, c) of rows (n, d), as a view of an array (c, n)."""
        # The product is quickest with the rows first; turning it costs less than what it saves behind.
        z = np.ascontiguousarray((X.astype(self.weights.dtype, copy=False) @ self.weights).T)
        z += self.intercepts[:, np.newaxis]
        z -= z.max(axis=0)
        np.exp(z, out=z)
        z /= z.sum(axis=0)
        return z.T


def fast_linear_predictor(model: Any) -> Callable[[Matrix], NDArray[np.floating[Any]]] | None:
    """Return a function from dense rows (n, d) to probabilities (n, c) for a linear model, None for any other.

    float16 and float32 are computed in float32, everything else in float64: by the dtype of the rows that are given, so
    that no other row decides on the last digits of a score. A model that scales its features gets them scaled in
    float64: folded into float32 weights, a large mean would cancel away what tells the rows apart.
    """
    if isinstance(model, Pipeline) and isinstance(model[-1], LogisticRegression):
        scaled, head = model[:-1], LinearHead.of(model[-1], np.dtype(np.float64))
        return lambda X: head.probabilities(scaled.transform(X))
    if isinstance(model, LogisticRegression):
        narrow, wide = (LinearHead.of(model, np.dtype(dtype)) for dtype in (np.float32, np.float64))
        return lambda X: (narrow if X.dtype.kind == "f" and X.dtype.itemsize <= 4 else wide).probabilities(X)
    return None
