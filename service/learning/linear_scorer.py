"""Fast probabilities of linear models.

scikit-learn computes in (rows, classes), widens to float64 and takes several passes over that array. Here a chunk keeps
the pool's dtype and is stored class by class, so every step runs along the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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

    def logits(self, X: Matrix) -> NDArray[np.floating[Any]]:
        """Return the linear functions (c, n) of rows (n, d)."""
        # The product is fastest with the rows first; transposing it pays off in the steps that follow.
        z = np.ascontiguousarray((X.astype(self.weights.dtype, copy=False) @ self.weights).T)
        z += self.intercepts[:, np.newaxis]
        return z

    def probabilities(self, X: Matrix) -> NDArray[np.floating[Any]]:
        """Return the probabilities (n, c) of rows (n, d), as a view of an array (c, n)."""
        z = self.logits(X)
        if self.each_alone:
            expit(z, out=z)
            return z.T
        return softmax(z, z.max(axis=0))


def softmax(z: NDArray[np.floating[Any]], largest: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Turn logits (c, n), whose largest ones are (n,), into probabilities in place, and return them as a view (n, c).

    Those of a row do not depend on the other rows: the classes are added up one after another.
    """
    z -= largest
    np.exp(z, out=z)
    total = z[0].copy()
    for row in z[1:]:
        total += row
    z /= total
    return z.T


def largest_two(z: NDArray[np.floating[Any]]) -> tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]]]:
    """Return the two largest numbers of each column (c, n), both NaN if one of the column is; c >= 2."""
    first, second, lesser = np.maximum(z[0], z[1]), np.minimum(z[0], z[1]), np.empty_like(z[0])
    for row in z[2:]:
        np.minimum(first, row, out=lesser)
        np.maximum(second, lesser, out=second)
        np.maximum(first, row, out=first)
    return first, second


class LinearPredictor:
    """Maps dense rows (n, d) to the probabilities (n, c) of a linear model or a scaling pipeline.

    float16 and float32 rows are computed in float32, all others in float64, so a score never depends on other rows. A
    pipeline scales its features in float64: folded into float32 weights, a large mean would cancel the differences.
    """

    def __init__(self, model: Any) -> None:
        self._scale = model[:-1] if isinstance(model, Pipeline) else None
        linear = model if self._scale is None else model[-1]
        self._narrow, self._wide = (LinearHead.of(linear, np.dtype(dtype)) for dtype in (np.float32, np.float64))

    @property
    def has_logits(self) -> bool:
        """Whether the probabilities are the softmax of logits."""
        return not self._wide.each_alone

    def __call__(self, X: Matrix) -> NDArray[np.floating[Any]]:
        """Return the probabilities (n, c)."""
        head, X = self._head_for(X)
        return head.probabilities(X)

    def logits(self, X: Matrix) -> NDArray[np.floating[Any]]:
        """Return the logits (c, n)."""
        head, X = self._head_for(X)
        return head.logits(X)

    def _head_for(self, X: Matrix) -> tuple[LinearHead, Matrix]:
        if self._scale is not None:
            return self._wide, self._scale.transform(X)
        return (self._narrow if is_narrow(X.dtype) else self._wide), X


class LinearMembers:
    """Maps dense rows (n, d) to the probabilities (m, n, c) of m logistic regressions, by one product for all.

    A class that a member does not know has probability 0. The dtypes are those of `LinearPredictor`.
    """

    def __init__(self, members: Sequence[LogisticRegression], classes: NDArray[np.int64]) -> None:
        self._shape = len(members), len(classes)
        self._narrow, self._wide = (stack(members, classes, np.dtype(dtype)) for dtype in (np.float32, np.float64))

    def __call__(self, X: Matrix) -> NDArray[np.floating[Any]]:
        """Return the probabilities (m, n, c), as a view of an array (m, c, n)."""
        z = (self._narrow if is_narrow(X.dtype) else self._wide).logits(X).reshape(*self._shape, len(X))
        for of_member in z:
            softmax(of_member, of_member.max(axis=0))
        return z.transpose(0, 2, 1)


def stack(members: Sequence[LogisticRegression], classes: NDArray[np.int64], dtype: np.dtype[Any]) -> LinearHead:
    """Return the linear functions of all members, one for each class of each."""
    shape = len(members), len(classes)
    weights = np.zeros((members[0].n_features_in_, *shape), dtype)
    intercepts = np.full(shape, -np.inf, dtype)
    for number, member in enumerate(members):
        head, columns = LinearHead.of(member, dtype), np.searchsorted(classes, member.classes_)
        weights[:, number, columns], intercepts[number, columns] = head.weights, head.intercepts
    return LinearHead(weights.reshape(len(weights), -1), intercepts.ravel())


def is_narrow(dtype: np.dtype[Any]) -> bool:
    """Return whether rows of a dtype are computed in float32."""
    return dtype.kind == "f" and dtype.itemsize <= 4
