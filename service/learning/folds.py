"""Cross-validation: a model for each fold that has not seen its rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.compute.deadline import check_deadline
from service.errors import FitFailed
from service.learning.models import Classifier
from service.learning.pool import Features

Codes = NDArray[np.integer[Any]]

FOLDS = 5
"""Number of folds."""

FOLD_ROWS = 10_000
"""Largest number of training rows of a fold's model, drawn at random."""


def fit_folds(
    fit_model: Callable[[Features, Codes], Classifier],
    X: Features,
    codes: Codes,
    random_state: int,
    rows: NDArray[np.intp],
    labels: NDArray[Any],
    wanted: NDArray[np.bool_] | None = None,
) -> Iterator[tuple[NDArray[np.intp], Classifier]]:
    """Yield the wanted rows of each fold of (n, d), by default all, and a model fitted to the training rows of others.

    The folds are stratified by `codes` (n,). The training set is `rows` (t,) of (n, d) with `labels` (t,). Folds
    without a wanted row, and those whose model cannot be fitted (FitFailed), are left out.
    """
    rng = np.random.default_rng(random_state)
    fold = assign_folds(codes, rng)
    for nth in np.unique(fold):
        check_deadline()
        held_out = np.flatnonzero(fold == nth if wanted is None else (fold == nth) & wanted)
        if len(held_out) == 0:
            continue
        training = np.flatnonzero(fold[rows] != nth)
        if len(training) > FOLD_ROWS:
            training = np.sort(rng.choice(training, FOLD_ROWS, replace=False))
        try:
            model = fit_model(X[rows[training]], labels[training])
        except FitFailed:
            continue
        yield held_out, model


def assign_folds(codes: Codes, rng: np.random.Generator) -> NDArray[np.intp]:
    """Return a fold (n,) for each row, stratified by class.

    scikit-learn's StratifiedKFold refuses to split if all classes have fewer rows than folds.
    """
    order = np.lexsort((rng.random(len(codes)), codes))
    fold = np.empty(len(codes), np.intp)
    fold[order] = np.arange(len(codes)) % FOLDS
    return fold
