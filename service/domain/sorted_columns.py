"""Sorted columns of integers: values looked up, united and counted."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def nth_of_value(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many earlier rows have the value of each row."""
    order = np.argsort(values, kind="stable")
    first = np.flatnonzero(run_starts(values[order]))
    nth = np.empty(len(values), np.int64)
    nth[order] = np.arange(len(values)) - np.repeat(first, np.diff(np.append(first, len(values))))
    return nth


# The columns are sorted: numpy's own set operations do not use that, and take a hundred times as long.


def run_starts(column: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return a mask of the rows of a sorted column that are the first with their value."""
    first = np.ones(len(column), np.bool_)
    np.not_equal(column[1:], column[:-1], out=first[1:])
    return first


def look_up(column: NDArray[np.int64], values: NDArray[np.int64]) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Return the row of each value in a sorted column, and a mask of the values found there."""
    rows = np.searchsorted(column, values)
    found = rows < len(column)
    found[found] = column[rows[found]] == values[found]
    return rows, found


def contains(column: NDArray[np.int64], values: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return a mask of the values that a sorted column contains."""
    return look_up(column, values)[1]


def united(column: NDArray[np.int64], values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the values of two sorted columns, sorted."""
    new = values[~contains(column, values)]
    return np.sort(np.concatenate([column, new]), kind="stable") if len(new) else column


def toggled(column: NDArray[np.int64], values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the values that are in one of two sorted columns, sorted."""
    return np.setxor1d(column, values, assume_unique=True) if contains(column, values).any() else united(column, values)


def rows_with(column: NDArray[np.int64], values: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return a mask of the rows of a sorted column that hold one of a few values."""
    edges = np.zeros(len(column) + 1, np.int64)
    np.add.at(edges, np.searchsorted(column, values, "left"), 1)
    np.add.at(edges, np.searchsorted(column, values, "right"), -1)
    return np.cumsum(edges[:-1]) > 0
