"""A learning curve after the fact: models fitted to fewer labels, all scored on the same uniform sample."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from service.compute.deadline import check_deadline
from service.errors import FitFailed
from service.learning.folds import draw_rows, split_folds
from service.learning.models import Classifier, predict_codes
from service.learning.pool import Features

FitModel = Callable[[Features, NDArray[np.int32]], Classifier]
"""Fits a model to rows (n, d) and their class codes (n,), or raises FitFailed."""

SMALLEST, STEP, MOST_SIZES = 10, 0.7, 7
"""The smallest number of labels, the share of the next larger one, and the largest number of points."""


def curve_sizes(n_labeled: int) -> list[int]:
    """Return the numbers of labels to fit to, ascending."""
    sizes = {round(n_labeled * STEP**nth) for nth in range(MOST_SIZES)}
    return sorted(size for size in sizes if size >= SMALLEST)


def honest_curve(
    fit_model: FitModel,
    X: Features,
    codes: NDArray[np.int32],
    position: NDArray[np.intp],
    is_uniform: NDArray[np.bool_],
    is_right: NDArray[np.bool_],
    random_state: int,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return numbers of labels (k,), and a mask (k, u): whether a model of each is right about each uniform row.

    X (n, d) and `codes` (n,) are the labelled rows, and `position` (n,) their places in the order of labelling. Each
    row is predicted by a model fitted to the first rows of four fifths of all, without it. `is_right` (n,) are the
    predictions of models of all rows of these.
    """
    sizes = curve_sizes(len(codes))
    rng = np.random.default_rng(random_state)
    right = np.zeros((len(sizes), len(codes)), np.bool_)
    for scored, is_other in split_folds(codes, rng, is_uniform):
        for which, size in enumerate(sizes[:-1]):
            check_deadline()
            known = draw_rows(np.flatnonzero(is_other & (position < size)), rng)
            try:
                predicted = predict_codes(fit_model(X[known], codes[known]), X[scored])
            except FitFailed:
                predicted = np.full(len(scored), np.bincount(codes[known]).argmax() if len(known) else -1)
            right[which, scored] = predicted == codes[scored]
    if sizes:
        right[-1] = is_right
    return np.array(sizes, np.float64), right[:, is_uniform]
