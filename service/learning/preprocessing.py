"""Features, prepared inside a model so that no magnitude defeats it; the pool is never changed."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import cast

import numpy as np
from scipy import sparse
from sklearn.preprocessing import StandardScaler

from service.learning.pool import Features, Matrix


class Standardizer(StandardScaler):
    """StandardScaler in float64 that no magnitude defeats, be it 1e300 or 1e-300.

    Each column is first multiplied by the power of two that brings its largest training value next to 1. That is
    exact: where StandardScaler can do it, a column that varies comes out the same, bit for bit. A value more than 2**60
    times that largest one counts as that much, so that no stray row of a pool overflows.
    """

    def fit(self, X: Features, y: object = None, sample_weight: object = None) -> Standardizer:
        """Learn the columns' magnitudes, means and standard deviations from `X` (l, d)."""
        X = as_float64(X)
        # Moved to its mean, a sparse matrix would be a dense one.
        self.with_mean = not sparse.issparse(X)
        _, exponents = np.frexp(largest_magnitudes(X))
        # Powers beyond 2**±1022 have no inverse in full precision; what is beyond comes near enough to 1 with these.
        self.unit_ = np.ldexp(1.0, -np.clip(exponents, -1022, 1022))
        super().fit(scale_columns(X, self.unit_), y, sample_weight)
        return self

    def transform(self, X: Features, copy: object = None) -> Features:
        """Return `X` (n, d) as numbers of standard deviations from the training mean, a new array in float64.

        A sparse matrix keeps its zeros: it is divided by the deviations, and not moved.
        """
        with np.errstate(over="ignore"):  # infinity is clipped at once
            units = scale_columns(as_float64(X), self.unit_)
        values = units.data if sparse.issparse(units) else units
        np.clip(values, -(2.0**60), 2.0**60, out=values)
        return super().transform(units, copy=False)


def largest_magnitudes(X: Features) -> Matrix:
    """Return the largest absolute value of each column (d,)."""
    if not sparse.issparse(X):
        return cast(Matrix, np.abs(X).max(axis=0))
    largest = np.zeros(X.shape[1])
    np.maximum.at(largest, X.indices, np.abs(X.data))
    return largest


def scale_columns(X: Features, unit: Matrix) -> Features:
    """Return `X` (n, d) with each column multiplied by its entry of `unit` (d,), a new matrix of the same kind."""
    return replace_values(X, X.data * unit[X.indices]) if sparse.issparse(X) else X * unit


def replace_values(X: Features, values: Matrix) -> Features:
    """Return a sparse matrix with other values in the same places."""
    return sparse.csr_array((values, X.indices, X.indptr), shape=X.shape)


def apply_to_values(change: Callable[[Matrix], Matrix]) -> Callable[[Features], Features]:
    """Make a function of numbers that leaves 0 as it is work on dense and on sparse features."""

    @wraps(change)
    def changed(X: Features) -> Features:
        return replace_values(X, change(X.data)) if sparse.issparse(X) else change(X)

    return changed


@apply_to_values
def as_float64(X: Matrix) -> Matrix:
    """Return `X` in float64; no copy when it is."""
    return np.asarray(X, dtype=np.float64)


@apply_to_values
def squarable(X: Matrix) -> Matrix:
    """Return `X` in float64 within ±1e100, for estimators that would square in the dtype given, and overflow."""
    return np.clip(np.asarray(X, dtype=np.float64), -1e100, 1e100)


@apply_to_values
def as_float32(X: Matrix) -> Matrix:
    """Return `X` in float32, in which forests compare, with what lies beyond it at its ends instead of an error."""
    largest = np.finfo(np.float32).max
    if X.dtype.kind == "f" and X.dtype.itemsize > 4:
        X = np.clip(X, -largest, largest)
    return np.asarray(X, dtype=np.float32)
