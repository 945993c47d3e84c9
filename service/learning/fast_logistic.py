"""Logistic regression as scikit-learn fits it, in half the time where there are many labelled rows.

The optimiser, its start and its stopping rule are scikit-learn's: the fit starts from zero, so the model does not
depend on the models before it. Features are centred, which takes fewer steps to the same optimum, and then lose nothing
by being float32. Arrays have a row per class, so that every operation runs along the samples, and parts of the samples
are computed in threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression
from sklearn.utils.class_weight import compute_class_weight

from service.compute.threads import run_in_threads
from service.learning.models import reduce_to
from service.learning.pool import Matrix

MANY_ROWS = 1_000
"""Number of labelled rows from which this fit is faster; it may differ from scikit-learn's in the last bits."""

PART_CELLS = 2**19
"""Largest number of cells in a part of the rows."""

TINY, HUGE = 1e-15, 1e15
"""Magnitudes of features between which their products stay within float32."""


class FastLogisticRegression(LogisticRegression):
    """A LogisticRegression for dense rows that sets no parameters but `C`, `class_weight` and `max_iter`.

    It is copied and stored as a plain LogisticRegression.
    """

    def fit(self, X: Matrix, y: NDArray[Any], sample_weight: None = None) -> LogisticRegression:
        """Train on rows `X` (l, d) and class codes `y` (l,)."""
        X = X.astype(np.result_type(X, np.float32), copy=False)
        offset = X.mean(axis=0)
        centred = (X - offset).astype(np.float32, copy=False)
        if not fits_float32(centred):
            return super().fit(X, y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        class_weights = compute_class_weight(self.class_weight, classes=self.classes_, y=y)
        loss = LogisticLoss.of(centred, codes, class_weights, self.C)
        found = minimize(
            loss,
            np.zeros(loss.shape).ravel(),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": self.max_iter, "maxls": 50, "gtol": self.tol, "ftol": 64 * np.finfo(float).eps},
        )
        functions = found.x.reshape(loss.shape)
        self.coef_ = functions[:, :-1].copy()
        self.intercept_ = functions[:, -1] - self.coef_ @ offset
        self.n_iter_, self.n_features_in_ = np.array([found.nit], np.int32), X.shape[1]
        return self

    def __reduce__(self) -> Any:
        """Return how to rebuild it without the code of this service."""
        return reduce_to(LogisticRegression, self)


def fits_float32(X: Matrix) -> bool:
    """Return whether all columns of `X` (l, d) are zero or within the magnitudes that float32 can compute with."""
    largest = np.maximum(-X.min(axis=0), X.max(axis=0))
    return bool(((largest == 0) | ((largest > TINY) & (largest < HUGE))).all())


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Some of the rows: features (m, d), the position of each row's class in an array (c, m), and weights or None."""

    X: Matrix
    own_class: NDArray[np.intp]
    weights: Matrix | None


@dataclass(frozen=True, slots=True, eq=False)
class LogisticLoss:
    """The log loss of the softmax over linear functions, with the L2 penalty, as scikit-learn scales it.

    `shape` is (functions, d + 1): a function's weights and its intercept. The first of two classes has the function 0.
    """

    parts: Sequence[Part]
    n_classes: int
    shape: tuple[int, int]
    total_weight: float
    penalty: float

    @classmethod
    def of(cls, X: Matrix, codes: NDArray[np.intp], class_weights: Matrix, C: float) -> LogisticLoss:
        """Return the loss on rows `X` (l, d) whose classes (l,) have these weights (c,)."""
        n_classes = len(class_weights)
        weights = class_weights[codes]
        is_weighed = bool(np.any(class_weights != 1))
        parts = []
        for rows in np.array_split(np.arange(len(X)), ceil(X.size / PART_CELLS)):
            some = slice(rows[0], rows[-1] + 1)
            own_class = codes[some] * len(rows) + np.arange(len(rows))
            parts.append(Part(X[some], own_class, weights[some].astype(X.dtype) if is_weighed else None))
        total = float(weights.sum())
        shape = (n_classes if n_classes > 2 else 1, X.shape[1] + 1)
        return cls(parts, n_classes, shape, total, 1 / (C * total))

    def __call__(self, flat: Matrix) -> tuple[float, Matrix]:
        """Return the loss and its gradient."""
        functions = flat.reshape(self.shape)
        losses = np.zeros(len(self.parts))
        gradients = np.zeros((len(self.parts), *self.shape))

        def add(number: int) -> None:
            with np.errstate(all="ignore"):
                losses[number] = self.of_part(self.parts[number], functions, gradients[number])

        run_in_threads(add, range(len(self.parts)))
        weights = functions[:, :-1]
        # Sums in the order of the parts, whichever thread was first.
        gradient = gradients.sum(axis=0) / self.total_weight
        gradient[:, :-1] += self.penalty * weights
        return float(losses.sum() / self.total_weight + self.penalty * np.vdot(weights, weights) / 2), gradient.ravel()

    def of_part(self, part: Part, functions: Matrix, gradient: Matrix) -> float:
        """Return the loss of a part, and write its gradient."""
        X = part.X
        z = np.zeros((self.n_classes, len(X)), X.dtype)
        z_free = z[-len(functions) :]
        np.matmul(functions[:, :-1].astype(X.dtype), X.T, out=z_free)
        z_free += functions[:, -1:].astype(X.dtype)
        z -= z.max(axis=0)
        z_own = z.ravel()[part.own_class]
        np.exp(z, out=z)
        sums = z.sum(axis=0)
        z /= sums
        z.ravel()[part.own_class] -= 1  # what is left are the residuals
        loss = np.log(sums) - z_own
        if part.weights is not None:
            loss *= part.weights
            z_free *= part.weights
        gradient[:, :-1], gradient[:, -1] = z_free @ X, z_free.sum(axis=1, dtype=np.float64)
        return float(loss.sum(dtype=np.float64))
