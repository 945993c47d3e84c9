"""Fast probabilities of linear models.

scikit-learn computes in (rows, classes), widens to float64 and takes several passes over that array. Here a chunk keeps
the pool's dtype and is stored class by class, so every step runs along the rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline

from service.learning.pool import Matrix
from service.learning.stacked_linear import StackedLinear

Predict = Callable[[Matrix], NDArray[np.floating[Any]]]
"""Maps dense rows (n, d) to probabilities (n, c)."""


@dataclass(frozen=True, slots=True, eq=False)
class LinearHead:
    """The softmax over linear functions of the features, `weights` (d, c) and `intercepts` (c,); c >= 2.

    If `each_alone`, it is the sigmoid of each function.
    """

    weights: Matrix
    intercepts: Matrix
    each_alone: bool = False

    @classmethod
    def of(cls, model: LogisticRegression | StackedLinear, dtype: np.dtype[Any]) -> LinearHead:
        """Return the head of a fitted model, computing in `dtype`."""
        coefficients, intercepts = model.coef_, model.intercept_
        each_alone = isinstance(model, StackedLinear)
        if len(coefficients) == 1 and not each_alone:
            # The sigmoid of z is the softmax of -z/2 and z/2, and halving is exact.
            coefficients = np.concatenate([coefficients / -2, coefficients / 2])
            intercepts = np.concatenate([intercepts / -2, intercepts / 2])
        return cls(np.ascontiguousarray(coefficients.T, dtype), intercepts.astype(dtype), each_alone)

    def probabilities(self, X: Matrix) -> NDArray[np.floating[Any]]:
        """Return the probabilities (n, c) of rows (n, d), as a view of an array (c, n)."""
        # The product is fastest with the rows first; transposing it pays off in the steps below.
        z = np.ascontiguousarray((X.astype(self.weights.dtype, copy=False) @ self.weights).T)
        z += self.intercepts[:, np.newaxis]
        if self.each_alone:
            expit(z, out=z)
            return z.T
        z -= z.max(axis=0)
        np.exp(z, out=z)
        z /= z.sum(axis=0)
        return z.T


def fast_linear_predictor(model: Any) -> Predict:
    """Return a function from dense rows (n, d) to the probabilities (n, c) of a linear model or a scaling pipeline.

    float16 and float32 rows are computed in float32, all others in float64, so a score never depends on other rows. A
    pipeline scales its features in float64: folded into float32 weights, a large mean would cancel the differences.
    """
    if isinstance(model, Pipeline):
        scale, head = model[:-1], LinearHead.of(model[-1], np.dtype(np.float64))
        return lambda X: head.probabilities(scale.transform(X))
    narrow, wide = (LinearHead.of(model, np.dtype(dtype)) for dtype in (np.float32, np.float64))
    return lambda X: (narrow if X.dtype.kind == "f" and X.dtype.itemsize <= 4 else wide).probabilities(X)
