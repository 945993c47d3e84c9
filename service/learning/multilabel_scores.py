"""Which classes marginals stand for, and how well they agree with the true classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import issparse

from service.domain.project import LabelsScore, Project
from service.learning.models import Classifier, predict_probabilities, row_blocks
from service.learning.pool import Features, Pool
from service.learning.stacked_linear import Indicators

Marginals = NDArray[np.floating[Any]]

Thresholds = Sequence[float] | None
"""The marginal from which a sample has each class (c,); None where all are DEFAULT_THRESHOLD, or without classes."""

DEFAULT_THRESHOLD = 0.5

MIN_ROWS_WITH = 10
"""Minimum number of rows with a class, and without it, for a threshold of its own."""


def threshold_array(thresholds: Thresholds, model: Classifier) -> NDArray[np.float64]:
    """Return the thresholds (k,) of a model's classes."""
    return np.full(len(model.classes_), DEFAULT_THRESHOLD) if thresholds is None else np.array(thresholds)


def thresholds_of_classes(project: Project) -> NDArray[np.float64]:
    """Return the marginal from which a sample has each of the project's classes (c,)."""
    return padded_thresholds(project, None if project.model is None else project.model.thresholds)


def padded_thresholds(project: Project, chosen: Thresholds) -> NDArray[np.float64]:
    """Return the thresholds of all classes of a project (c,), of which a model may know the first only."""
    thresholds = np.full(len(project.classes), DEFAULT_THRESHOLD)
    thresholds[: len(chosen or ())] = chosen or ()
    return thresholds


def predict_sets(model: Classifier, thresholds: Thresholds, X: Features, n_classes: int) -> Indicators:
    """Return the predicted classes (n, c) of rows (n, d); a row without finite marginals has none."""
    sets = np.zeros((X.shape[0], n_classes), np.bool_)
    least = threshold_array(thresholds, model)
    for rows in row_blocks(np.arange(len(sets)), 1 if issparse(X) else X.shape[1], n_classes):
        sets[np.ix_(rows, model.classes_)] = least <= predict_probabilities(model, X[rows])
    return sets


def choose_thresholds(P: Marginals, Y: Indicators) -> NDArray[np.float64]:
    """Return the threshold (c,) of greatest F1 for each class, given out-of-fold marginals (n, c) of uniform rows.

    It is 0.5 for a class that fewer than MIN_ROWS_WITH rows have, or lack; the nearest to 0.5 of several with the same
    F1.
    """
    thresholds = np.full(Y.shape[1], DEFAULT_THRESHOLD)
    n_with = Y.sum(axis=0)
    for column in np.flatnonzero(np.minimum(n_with, len(Y) - n_with) >= MIN_ROWS_WITH):
        thresholds[column] = best_threshold(P[:, column], Y[:, column])
    return thresholds


def best_threshold(p: Marginals, y: NDArray[np.bool_]) -> float:
    """Return the threshold of greatest F1 of one class (n,), in the middle between two marginals."""
    order = np.argsort(-p, kind="stable")
    p, n_right = p[order].astype(np.float64), np.cumsum(y[order])
    following = np.append(p[1:], 0.0)
    is_cut = p > following
    f1 = 2 * n_right / (np.arange(1, len(p) + 1) + n_right[-1])
    middles = (p + following) / 2
    best = is_cut & (f1 >= f1[is_cut].max() - 1e-12) if is_cut.any() else is_cut
    if not best.any():
        return DEFAULT_THRESHOLD
    nearest = np.abs(middles[best] - DEFAULT_THRESHOLD).argmin()
    return float(middles[best][nearest])


def evaluate_labels(
    model: Classifier, thresholds: NDArray[np.float64], X_test: Pool, Y_test: Indicators
) -> LabelsScore:
    """Return the test score of a model, whose `classes_` (k,) are columns of `Y_test` (n, c), on n >= 1 rows.

    `thresholds` (k,) are those of its classes; one that it has not seen has probability 0. The macro average is over
    the classes that are true or predicted; F1 is 1 if there are none.
    """
    n_classes = Y_test.shape[1]
    true, predicted, right = (np.zeros(n_classes, np.int64) for _ in range(3))
    precision = 0.0
    for chunk in X_test.chunks(len(model.classes_)):
        truth = Y_test[chunk.rows]
        P, guess = np.zeros(truth.shape), np.zeros(truth.shape, bool)
        marginals = np.nan_to_num(predict_probabilities(model, X_test.read(chunk)), nan=0.0, posinf=0.0, neginf=0.0)
        P[:, model.classes_], guess[:, model.classes_] = marginals, marginals >= thresholds
        true += truth.sum(axis=0)
        predicted += guess.sum(axis=0)
        right += (truth & guess).sum(axis=0)
        precision += float(ranking_precision(P, truth).sum())
    return LabelsScore(
        f1_micro=f1_of(right.sum(), true.sum() + predicted.sum()),
        f1_macro=f1_macro(right, true + predicted),
        lrap=precision / len(X_test),
        hamming_loss=float((true + predicted - 2 * right).sum() / (len(X_test) * n_classes)),
    )


def f1_of(n_right: Any, n_both: Any) -> float:
    """Return F1 given the numbers of right positives, and of true and predicted ones; 1 without any."""
    return float(2 * n_right / n_both) if n_both else 1.0


def f1_macro(right: NDArray[np.int64], both: NDArray[np.int64]) -> float:
    """Return the mean F1 over the classes (c,) that are true or predicted, 1 without any."""
    seen = both > 0
    return float(np.mean(2 * right[seen] / both[seen])) if seen.any() else 1.0


def ranking_precision(P: Marginals, Y: Indicators) -> NDArray[np.float64]:
    """Return the label ranking average precision of each row (n,) of marginals (n, c).

    For each true class, it is the share of true ones among those with at least its probability; the mean over the true
    classes, and 1 for a row without any (Schapire & Singer 2000, doi:10.1023/A:1007649029923).
    """
    n, n_classes = P.shape
    order = np.argsort(-P, axis=1, kind="stable")
    p, y = np.take_along_axis(P, order, axis=1), np.take_along_axis(Y, order, axis=1)
    # The rank of tied classes is that of the last of them.
    ends_run = np.ones((n, n_classes), bool)
    ends_run[:, :-1] = p[:, :-1] != p[:, 1:]
    positions = np.where(ends_run, np.arange(n_classes), n_classes)
    last = np.minimum.accumulate(positions[:, ::-1], axis=1)[:, ::-1]
    n_true = np.take_along_axis(np.cumsum(y, axis=1), last, axis=1)
    total = np.where(y, n_true / (last + 1), 0.0).sum(axis=1)
    n_of_row = Y.sum(axis=1)
    return np.asarray(np.divide(total, n_of_row, out=np.ones(n), where=n_of_row > 0))
