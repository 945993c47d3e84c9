"""Missing values of features, which are NaN: medians of the columns, and rows filled with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Medians = NDArray[np.float64]
"""The median of each column (d,)."""

Ranks = NDArray[np.int64]


def fill_missing(X: Any, medians: Medians) -> Any:
    """Return rows (n, d), dense or CSR, with NaN replaced by the medians; `X` itself if nothing is missing."""
    values = X.data if sparse.issparse(X) else X
    if values.dtype.kind != "f":
        return X
    is_missing = np.isnan(values)
    if not is_missing.any():
        return X
    limits = np.finfo(values.dtype)
    fill = np.clip(medians, limits.min, limits.max).astype(values.dtype)
    if not sparse.issparse(X):
        return np.where(is_missing, fill, X)
    filled = np.where(is_missing, fill[X.indices], values)
    return sparse.csr_array((filled, X.indices, X.indptr), shape=X.shape)


def column_medians(X: Any) -> Medians:
    """Return the median (d,) of the values of each column of rows (n, d), dense or CSR; 0 for a column of NaN."""
    if sparse.issparse(X):
        return sparse_medians(X)
    in_order = np.sort(np.asarray(X, np.float64), axis=0)  # NaN comes last
    n_present = len(in_order) - np.isnan(in_order).sum(axis=0)
    return middle(n_present, lambda rank: in_order[rank, np.arange(X.shape[1])])


def sparse_medians(X: Any) -> Medians:
    """Return the medians (d,) of sparse columns, where a value that is not stored is 0."""
    n_rows, n_columns = X.shape
    is_present = ~np.isnan(X.data.astype(np.float64))
    columns, values = X.indices[is_present], X.data[is_present].astype(np.float64)
    in_order = np.append(values[np.lexsort((values, columns))], 0.0)
    n_stored, n_negative, n_missing = (
        np.bincount(some, minlength=n_columns) for some in (columns, columns[values < 0], X.indices[~is_present])
    )
    first, n_zeros = np.cumsum(n_stored) - n_stored, n_rows - n_missing - n_stored

    def value_at(rank: Ranks) -> Medians:
        is_zero = (rank >= n_negative) & (rank < n_negative + n_zeros)
        positions = first + np.where(rank < n_negative, rank, rank - n_zeros)
        return in_order[np.where(is_zero, -1, positions)]

    return middle(n_rows - n_missing, value_at)


def middle(n_present: Ranks, value_at: Callable[[Ranks], Medians]) -> Medians:
    """Return the medians of columns with `n_present` (d,) values each, 0 without any; `value_at` reads them by rank."""
    lower, upper = value_at(np.maximum(n_present - 1, 0) // 2), value_at(n_present // 2)
    return np.where(n_present > 0, lower / 2 + upper / 2, 0.0)
