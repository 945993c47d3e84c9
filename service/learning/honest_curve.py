"""A learning curve after the fact: models fitted to fewer labels, all scored on the same uniform sample."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.compute.deadline import check_deadline
from service.learning.folds import draw_rows, split_folds

Rows = NDArray[np.intp]

Judge = Callable[[Rows, Rows], NDArray[np.float64]]
"""Fits a model to some rows, and returns what it achieves on each of others (n, m)."""

SMALLEST, STEP, MOST_SIZES = 10, 0.7, 7
"""The smallest number of labels, the share of the next larger one, and the largest number of points."""


def curve_sizes(n_labeled: int) -> list[int]:
    """Return the numbers of labels to fit to, ascending."""
    sizes = {round(n_labeled * STEP**nth) for nth in range(MOST_SIZES)}
    return sorted(size for size in sizes if size >= SMALLEST)


def honest_curve(
    judge: Judge,
    strata: NDArray[np.integer[Any]],
    position: NDArray[np.intp],
    is_uniform: NDArray[np.bool_],
    of_all: NDArray[np.float64],
    random_state: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return numbers of labels (k,), and what a model of each achieves on each uniform row (k, u, m).

    The folds of the labelled rows are stratified by `strata` (n,), and `position` (n,) are their places in the order of
    labelling. Each row is predicted by a model fitted to the first rows of four fifths of all, without it. `of_all`
    (n, m) is what models of all rows of these achieve.
    """
    sizes = curve_sizes(len(strata))
    rng = np.random.default_rng(random_state)
    achieved = np.zeros((len(sizes), *of_all.shape))
    for scored, is_other in split_folds(strata, rng, is_uniform):
        for which, size in enumerate(sizes[:-1]):
            check_deadline()
            known = draw_rows(np.flatnonzero(is_other & (position < size)), rng)
            achieved[which, scored] = judge(known, scored)
    if sizes:
        achieved[-1] = of_all
    return np.array(sizes, np.float64), achieved[:, is_uniform]
