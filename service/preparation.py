"""Features, prepared inside a model so that no magnitude defeats it; the pool is never changed."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import numpy.typing as npt
from sklearn.preprocessing import StandardScaler

Matrix = npt.NDArray[Any]


class Standardizer(StandardScaler):
    """StandardScaler in float64 that no magnitude defeats, be it 1e300 or 1e-300.

    Each column is first multiplied by the power of two that brings its largest training value next to 1. That is
    exact: where StandardScaler can do it, a column that varies comes out the same, bit for bit. A value more than 2**60
    times that largest one counts as that much, so that no stray row of a pool overflows.
    """

    def fit(self, X: Matrix, y: object = None, sample_weight: object = None) -> Standardizer:
        """Learn the columns' magnitudes, means and standard deviations from `X` (l, d)."""
        X = as_float64(X)
        _, exponents = np.frexp(np.abs(X).max(axis=0))
        # Powers beyond 2**±1022 have no inverse in full precision; what is beyond comes near enough to 1 with these.
        self.unit_ = np.ldexp(1.0, -np.clip(exponents, -1022, 1022))
        super().fit(X * self.unit_, y, sample_weight)
        return self

    def transform(self, X: Matrix, copy: object = None) -> Matrix:
        """Return `X` (n, d) as numbers of standard deviations from the training mean, a new array in float64."""
        with np.errstate(over="ignore"):  # infinity is clipped at once
            units = as_float64(X) * self.unit_
        np.clip(units, -(2.0**60), 2.0**60, out=units)
        return cast(Matrix, super().transform(units, copy=False))


def as_float64(X: Matrix) -> Matrix:
    """Return `X` in float64; no copy when it is."""
    return np.asarray(X, dtype=np.float64)


def squarable(X: Matrix) -> Matrix:
    """Return `X` in float64 within ±1e100, for estimators that would square in the dtype given, and overflow."""
    return np.clip(as_float64(X), -1e100, 1e100)


def as_float32(X: Matrix) -> Matrix:
    """Return `X` in float32, in which forests compare, with what lies beyond it at its ends instead of an error."""
    largest = np.finfo(np.float32).max
    if X.dtype.kind == "f" and X.dtype.itemsize > 4:
        X = np.clip(X, -largest, largest)
    return np.asarray(X, dtype=np.float32)
