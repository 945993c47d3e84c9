"""Fast probabilities of linear models.

scikit-learn computes in (rows, classes), widens to float64 and takes several passes over that array. Here a chunk keeps
the pool's dtype and is stored class by class, so every step runs along the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
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


MANY_CLASSES = 12
"""Number of classes from which a product is faster with the classes first."""


@dataclass(frozen=True, slots=True, eq=False)
class LogitErrors:
    """The largest difference of a head's logits from exact ones, in whatever order products are added up.

    It is a linear function of the norm of a row. From `limit` on, logits may overflow.
    """

    at_zero: float
    slope: float
    limit: float

    @classmethod
    def of(cls, weights: Matrix, intercepts: Matrix) -> LogitErrors:
        """Return the errors of a head with `weights` (d, c) and `intercepts` (c,)."""
        limits, width = np.finfo(weights.dtype), len(weights)
        tiny, most = float(limits.tiny), float(limits.max) / 4
        with np.errstate(all="ignore"):
            largest = float(np.sqrt(np.square(weights, dtype=np.float64).sum(axis=0).max()))
        constant = float(np.abs(intercepts).max())
        # Each product and each sum is rounded by half an eps. Exact logits are only better than those in float32.
        rounding = 1.1 * (width + 8) * float(limits.eps) * (0.5 if weights.dtype == np.float32 else 1.0)
        # Numbers below `tiny` may be lost.
        at_zero, slope = rounding * constant + width * tiny, rounding * largest + width * tiny
        limit = (most - constant) / max(largest, 1.0)
        return cls(at_zero, slope, limit) if np.isfinite([at_zero, slope]).all() else cls(0.0, 0.0, -1.0)

    def __call__(self, norms: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the largest errors (n,) for rows with these norms (n,), inf where logits may overflow."""
        return np.where(norms < self.limit, self.at_zero + self.slope * norms, np.inf)


@dataclass(frozen=True, eq=False)
class LinearHead:
    """The softmax over linear functions of the features, `weights` (d, c) and `intercepts` (c,); c >= 2.

    If `each_alone`, it is the sigmoid of each function.
    """

    weights: Matrix
    intercepts: Matrix
    each_alone: bool = False

    @cached_property
    def errors(self) -> LogitErrors:
        """The largest errors of the logits."""
        return LogitErrors.of(self.weights, self.intercepts)

    @classmethod
    def of(cls, model: LogisticRegression | StackedLinear, dtype: np.dtype[Any]) -> LinearHead:
        """Return the head of a fitted model, computing in `dtype`."""
        coefficients, intercepts = model.coef_, model.intercept_
        each_alone = isinstance(model, StackedLinear)
        if len(coefficients) == 1 and not each_alone:
            # The sigmoid of z is the softmax of -z/2 and z/2, and halving is exact.
            coefficients = np.concatenate([coefficients / -2, coefficients / 2])
            intercepts = np.concatenate([intercepts / -2, intercepts / 2])
        with np.errstate(over="ignore"):
            return cls(np.ascontiguousarray(coefficients.T, dtype), intercepts.astype(dtype), each_alone)

    def logits(self, X: Matrix) -> NDArray[np.floating[Any]]:
        """Return the linear functions (c, n) of rows (n, d)."""
        X = X.astype(self.weights.dtype, copy=False)
        # Few classes are faster with the rows first; transposing the product pays off in the steps that follow.
        few = len(self.intercepts) < MANY_CLASSES
        z = np.ascontiguousarray((X @ self.weights).T) if few else self.weights.T @ X.T
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

    @property
    def n_classes(self) -> int:
        """The number of classes."""
        return len(self._wide.intercepts)

    @property
    def heads(self) -> tuple[LinearHead, LinearHead]:
        """The heads that compute in float32 and in float64."""
        return self._narrow, self._wide

    def __call__(self, X: Matrix) -> NDArray[np.floating[Any]]:
        """Return the probabilities (n, c)."""
        head, X = self.prepare(X)
        return head.probabilities(X)

    def prepare(self, X: Matrix) -> tuple[LinearHead, Matrix]:
        """Return the head for rows (n, d), and the rows as it takes them."""
        if self._scale is not None:
            head, X = self._wide, self._scale.transform(X)
        else:
            head = self._narrow if is_narrow(X.dtype) else self._wide
        return head, X.astype(head.weights.dtype, copy=False)

    def exact_logits(self, X: Matrix) -> tuple[NDArray[np.float64], float]:
        """Return the logits (c, n) of rows (n, d) in float64, and the largest valid one: that of the rows' head.

        They are added up feature by feature, so every machine rounds them alike, whatever the other rows are.
        """
        head, X = self.prepare(X)
        # With two columns or more, numpy adds row after row.
        columns = np.zeros((X.shape[1], max(2, len(X))))
        columns[:, : len(X)] = X.T
        products, z = np.empty_like(columns), np.empty((self.n_classes, columns.shape[1]))
        with np.errstate(all="ignore"):
            for weights, total in zip(self._wide.weights.T, z, strict=True):
                np.multiply(columns, weights[:, np.newaxis], out=products)
                np.add.reduce(products, axis=0, out=total)
            z += self._wide.intercepts[:, np.newaxis]
        return z[:, : len(X)], float(np.finfo(head.weights.dtype).max)


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
