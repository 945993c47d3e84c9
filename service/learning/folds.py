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
    for held_out, is_other in split_folds(codes, rng, wanted):
        training = draw_rows(np.flatnonzero(is_other[rows]), rng)
        try:
            model = fit_model(X[rows[training]], labels[training])
        except FitFailed:
            continue
        yield held_out, model


def split_folds(
    codes: Codes, rng: np.random.Generator, wanted: NDArray[np.bool_] | None = None
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.bool_]]]:
    """Yield the wanted rows of each fold of codes (n,) that has any, by default all, and a mask (n,) of other folds."""
    fold = assign_folds(codes, rng)
    for nth in np.unique(fold if wanted is None else fold[wanted]):
        check_deadline()
        is_other = fold != nth
        yield np.flatnonzero(~is_other if wanted is None else ~is_other & wanted), is_other


def draw_rows(rows: NDArray[np.intp], rng: np.random.Generator) -> NDArray[np.intp]:
    """Return rows (k,) to train on: all of them, or FOLD_ROWS drawn at random, in order."""
    return rows if len(rows) <= FOLD_ROWS else np.sort(rng.choice(rows, FOLD_ROWS, replace=False))


def assign_folds(codes: Codes, rng: np.random.Generator) -> NDArray[np.intp]:
    """Return a fold (n,) for each row, stratified by class.

    scikit-learn's StratifiedKFold refuses to split if all classes have fewer rows than folds.
    """
    order = np.lexsort((rng.random(len(codes)), codes))
    fold = np.empty(len(codes), np.intp)
    fold[order] = np.arange(len(codes)) % FOLDS
    return fold
