"""What is measured at a fit for the learning curve, from the model before and the new one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.domain.learning_curve import FitMeasures
from service.domain.project import Project
from service.domain.sorted_columns import contains
from service.domain.targets import set_table_of
from service.domain.votes import SampleLabels
from service.learning.evaluation import cohens_kappa
from service.learning.missing_values import Medians
from service.learning.models import Classifier, Regressor, predict_codes, predict_numbers, row_blocks
from service.learning.multilabel_scores import Thresholds, predict_sets
from service.learning.pool import Features, Pool
from service.learning.quality import quality_of
from service.store import Snapshot
from service.usecases.query_id import count_strategies
from service.usecases.uniform_sample import MIN_ROWS, predict_out_of_fold, uniform_rows

PredictCodes = Callable[[Features], NDArray[np.int64]]

log = logging.getLogger(__name__)

STOP_SET_ROWS = 2_000
"""Maximum number of rows on which successive models are compared (Bloodgood & Vijay-Shanker 2009)."""

ESTIMATED_MODELS = ("auto", "logistic_regression", "gaussian_nb", "ridge")
ESTIMATED_CELLS = 2**20
"""The estimators, and the largest number of labelled cells x classes, whose accuracy is estimated at a fit."""

ESTIMATED_GROWTH = 0.3
"""By how much the number of labelled samples must change before the next estimate, which takes five fits."""


def measure_fit(
    snapshot: Snapshot, classifier: Any, thresholds: Thresholds, X: Features, labels: SampleLabels
) -> FitMeasures:
    """Return the measures of a model, with its thresholds, that was fitted to the labelled rows X (l, d) of a snapshot.

    The snapshot's own model is the one before.
    """
    project = snapshot.project
    try:
        n_new, n_right, kappa = compare_with_before(snapshot, classifier, thresholds, X, labels)
    except Exception:
        # A model that another scikit-learn wrote may fail in any way, and must not prevent the fit that replaces it.
        log.exception("the model before cannot be compared with the new one")
        n_new, n_right, kappa = 0, 0, None
    is_later = project.votes.at > project.learning_curve.seen_until
    medians = None if snapshot.pool is None else snapshot.pool.medians
    return FitMeasures(
        seen_until=project.updated_at,
        n_labeled=len(labels.labeled),
        estimate=cheap_estimate(project, thresholds, X, labels, medians),
        n_new=n_new,
        n_right=n_right,
        kappa=kappa,
        questions=count_strategies(project.votes.query[is_later]),
    )


def compare_with_before(
    snapshot: Snapshot, classifier: Any, thresholds: Thresholds, X: Features, labels: SampleLabels
) -> tuple[int, int, float | None]:
    """Return the number of new labels, about how many of them the model before was right, and the models' kappa."""
    before, pool = snapshot.model, snapshot.pool
    if before is None or pool is None:
        return 0, 0, None
    project = snapshot.project
    if project.target == "number":
        is_changed = project.n_labels_since_fit > 0
        return 0, 0, stop_set_steadiness(project, pool, before, classifier) if is_changed else None
    if project.target == "labels":
        return compare_sets(snapshot, pool, before, classifier, thresholds, X, labels)
    is_new = contains(project.new_since_fit, labels.labeled)
    predicted = predict_codes(before, X[np.flatnonzero(is_new)])
    n_right = int(np.count_nonzero(predicted == labels.codes[is_new]))
    kappa = stop_set_kappa(project, pool, partial(predict_codes, before), partial(predict_codes, classifier))
    return len(predicted), n_right, kappa


def compare_sets(
    snapshot: Snapshot,
    pool: Pool,
    before: Classifier,
    after: Classifier,
    thresholds: Thresholds,
    X: Features,
    labels: SampleLabels,
) -> tuple[int, int, float | None]:
    """Return what `compare_with_before` does where a sample may have several labels.

    A prediction is right if its list of classes is. The kappa is that of the decisions about each class of each row.
    """
    project = snapshot.project
    n_classes = len(project.classes)
    chosen = None if project.model is None else project.model.thresholds
    is_new = contains(project.new_since_fit, labels.labeled)
    predicted = predict_sets(before, chosen, X[np.flatnonzero(is_new)], n_classes)
    true = set_table_of(project).indicators(labels.codes[is_new], n_classes)
    n_right = int(np.count_nonzero((predicted == true).all(axis=1)))
    kappa = stop_set_kappa(
        project,
        pool,
        lambda X: predict_sets(before, chosen, X, n_classes).ravel().astype(np.int64),
        lambda X: predict_sets(after, thresholds, X, n_classes).ravel().astype(np.int64),
    )
    return len(predicted), n_right, kappa


def stop_set_kappa(project: Project, pool: Pool, before: PredictCodes, after: PredictCodes) -> float | None:
    """Return the agreement of two models on the stop set: random rows of the pool, the same at each fit.

    None after a fit to the same labels, which says nothing about what labels change.
    """
    if project.n_labels_since_fit == 0:
        return None
    codes = [(before(X), after(X)) for X in stop_set(project, pool)]
    return cohens_kappa(*(np.concatenate(of_model) for of_model in zip(*codes, strict=True)))


def stop_set_steadiness(project: Project, pool: Pool, before: Regressor, after: Regressor) -> float:
    """Return 1 less the change of predicted numbers on the stop set, as a share of their standard deviation."""
    both = [(predict_numbers(before, X), predict_numbers(after, X)) for X in stop_set(project, pool)]
    old, new = (np.concatenate(of_model) for of_model in zip(*both, strict=True))
    change, spread = float(np.sqrt(np.mean(np.square(new - old)))), float(np.std(new))
    share = change / spread if spread > 0 else float(change > 0)
    return float(np.clip(1.0 - share, -1.0, 1.0)) if np.isfinite(share) else -1.0


def stop_set(project: Project, pool: Pool) -> Iterator[Features]:
    """Yield the rows of the stop set: random rows of the pool, the same at each fit."""
    n = project.n_samples
    rows = np.sort(np.random.default_rng([project.random_state, n]).choice(n, min(n, STOP_SET_ROWS), replace=False))
    return map(pool.take, row_blocks(rows, 1 if project.is_sparse else project.n_features))


def cheap_estimate(
    project: Project, thresholds: Thresholds, X: Features, labels: SampleLabels, medians: Medians | None = None
) -> tuple[float, float, float] | None:
    """Return the headline of GET /evaluation with its interval.

    None if it would delay the fit or not change much.
    """
    n_outputs = max(len(project.classes), 1)
    if project.estimator.name not in ESTIMATED_MODELS or X.size * n_outputs > ESTIMATED_CELLS:
        return None
    points = project.learning_curve.points
    known = points["n_labeled"][~np.isnan(points["estimate"][:, 0])]
    if len(known) and abs(len(labels.labeled) - known[-1]) < ESTIMATED_GROWTH * known[-1]:
        return None
    rows = uniform_rows(project)
    if len(rows) < MIN_ROWS:
        return None
    quality, rng = quality_of(project), np.random.default_rng([project.random_state, project.labels_revision])
    true, predicted = predict_out_of_fold(project, X, labels.codes, rows, medians)
    found = quality.headline_estimate(true, quality.decide(project, predicted, thresholds), rng)
    return found.value, found.low, found.high
