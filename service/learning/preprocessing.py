"""Feature preprocessing inside a model, robust to extreme magnitudes; the pool is never changed."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import cast

import numpy as np
from scipy import sparse
from sklearn.preprocessing import StandardScaler

from service.learning.pool import Features, Matrix

LARGE = 1e30
"""Magnitude up to which features are standardised in float32."""


class Standardizer(StandardScaler):
    """StandardScaler in float64, also for magnitudes from 1e-300 to 1e300.

    Each column is first multiplied by the power of two that scales its largest training value to about 1. That is
    exact: within StandardScaler's own range, a column that varies is the same, bit for bit. Values beyond 2**60 times
    the largest one are clipped, so that outliers of a pool do not overflow.
    """

    def fit(self, X: Features, y: object = None, sample_weight: object = None) -> Standardizer:
        """Learn the columns' magnitudes, means and standard deviations from `X` (l, d)."""
        X = as_float64(X)
        # Centring would make a sparse matrix dense.
        self.with_mean = not sparse.issparse(X)
        _, exponents = np.frexp(largest_magnitudes(X))
        # Powers beyond 2**±1022 have no inverse in full precision; the limits are close enough.
        self.unit_ = np.ldexp(1.0, -np.clip(exponents, -1022, 1022))
        super().fit(scale_columns(X, self.unit_), y, sample_weight)
        return self

    def transform(self, X: Features, copy: object = None) -> Features:
        """Return `X` (n, d) standardised, as a new array in float64.

        A sparse matrix is divided by the standard deviations, but not centred.
        """
        with np.errstate(over="ignore"):  # infinity is clipped below
            units = scale_columns(as_float64(X), self.unit_)
        values = units.data if sparse.issparse(units) else units
        np.clip(values, -(2.0**60), 2.0**60, out=values)
        return super().transform(units, copy=False)


def fast_standardizer(scaler: Standardizer) -> Callable[[Matrix], Matrix] | None:
    """Return a function that standardises dense rows of at most float32 in float32; None if its range is too small.

    A mean is subtracted in two parts: the difference of close numbers is exact, and what rounding took from the mean
    may be as large as the standard deviation.
    """
    mean, scale = scaler.mean_ / scaler.unit_, scaler.scale_ / scaler.unit_
    if not (np.all(np.abs(mean) < LARGE) and np.all((scale > 1 / LARGE) & (scale < LARGE))):
        return None
    most, factor = mean.astype(np.float32), (1 / scale).astype(np.float32)
    rest = (mean - most).astype(np.float32)

    def standardize(X: Matrix) -> Matrix:
        Z: Matrix = np.subtract(X, most, dtype=np.float32)
        Z -= rest
        Z *= factor
        return Z

    return standardize


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
    """Return a sparse matrix with the same structure and other values."""
    return sparse.csr_array((values, X.indices, X.indptr), shape=X.shape)


def apply_to_values(change: Callable[[Matrix], Matrix]) -> Callable[[Features], Features]:
    """Extend an elementwise function that maps 0 to 0 to dense and sparse features."""

    @wraps(change)
    def changed(X: Features) -> Features:
        return replace_values(X, change(X.data)) if sparse.issparse(X) else change(X)

    return changed


@apply_to_values
def as_float64(X: Matrix) -> Matrix:
    """Return `X` in float64, without a copy if it already is."""
    return np.asarray(X, dtype=np.float64)


OUTLIER = 3.0
"""Distance from the mean, in standard deviations, at which `clip_outliers` clips."""


@apply_to_values
def clip_outliers(X: Matrix) -> Matrix:
    """Return standardised features `X`, clipped to ±OUTLIER.

    The standard deviation of a few labelled rows says little about a feature that is almost always the same, such as a
    pixel at the edge of a picture: unclipped, its other values are far away, and the linear model learns from nothing
    else.
    """
    return np.clip(X, -OUTLIER, OUTLIER)


@apply_to_values
def squarable(X: Matrix) -> Matrix:
    """Return `X` in float64, clipped to ±1e100, for estimators that square it in its own dtype and could overflow."""
    return np.clip(np.asarray(X, dtype=np.float64), -1e100, 1e100)


@apply_to_values
def as_float32(X: Matrix) -> Matrix:
    """Return `X` in float32, the dtype of forests, clipped to its range."""
    largest = np.finfo(np.float32).max
    if X.dtype.kind == "f" and X.dtype.itemsize > 4:
        X = np.clip(X, -largest, largest)
    return np.asarray(X, dtype=np.float32)
