"""GET /projects/{id}/evaluation: how good the model is, estimated without a held-out set.

The rows before the first unlabelled one in the project's random order are a uniform sample of the pool, however they
came to be labelled. Each is predicted by a model that was not fitted to it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from service.domain.labels import look_up
from service.domain.project import ModelRef, Project
from service.learning.calibration import temper
from service.learning.evaluation import (
    DESIGN_EFFECT,
    Estimate,
    balanced_accuracy,
    bootstrap_interval,
    f1_macro,
    f1_of_sets,
    out_of_fold_interval,
    out_of_fold_probabilities,
    prediction_powered_accuracy,
    r_squared,
    root_mean_square,
)
from service.learning.multilabel_scores import ranking_precision, thresholds_of_classes
from service.learning.scoring import score_pool
from service.store import Part, Snapshot, Store
from service.store.score_cache import ProjectScoreCache
from service.strategies.uncertainty import least_confidence
from service.telemetry.metrics import time_evidence
from service.usecases.lure import NO_MODEL, Lure, count_draws, estimate_lure, too_few
from service.usecases.training import read_with_model
from service.usecases.uniform_sample import (
    MIN_ROWS,
    predict_marginals_out_of_fold,
    predict_numbers_out_of_fold,
    uniform_rows,
)

METHOD = "uniform sample, out of fold, intervals for three quarters of its size"
MEASURED_ON = (
    "The labelled samples that come first in the project's random order of the pool: a uniform sample of it. "
    "Each is predicted by a model fitted to four fifths of all labelled samples, without it."
)
BIAS = (
    "Slightly too low: the model that serves learns from all labelled samples. "
    "A score on the actively chosen samples would be far too low."
)

OF_CLASSES = "LURE estimates the accuracy of classes, and a label of this project is no class."

BIAS_OF_LABELS = (
    f"{BIAS} F1 and Hamming loss are slightly too good where the thresholds of classes were chosen on these samples."
)

BIAS_OF_ERRORS = (
    "The errors are slightly too high: the model that serves learns from all labelled samples. Those on the actively "
    "chosen samples would be far too high."
)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Estimates of the model's quality from `n` uniformly drawn samples; None if these are too few."""

    n: int
    method: str
    measured_on: str
    bias: str
    reason: str | None
    model_version: int | None
    accuracy: Estimate | None = None
    accuracy_prediction_powered: Estimate | None = None
    balanced_accuracy: Estimate | None = None
    f1_macro: Estimate | None = None
    log_loss: Estimate | None = None
    f1_micro: Estimate | None = None
    lrap: Estimate | None = None
    hamming_loss: Estimate | None = None
    rmse: Estimate | None = None
    mae: Estimate | None = None
    r2: Estimate | None = None
    lure: Lure | None = None


def evaluate_project(store: Store, project_id: str) -> tuple[Project, Evaluation]:
    """Return a project and the evaluation of its model; the same state gives the same evaluation.

    Raises ProjectNotFound, OutOfTime and the store's errors.
    """
    snapshot = read_with_model(store, project_id, Part.POOL)
    return snapshot.project, evaluate_snapshot(store, snapshot)


def evaluate_snapshot(store: Store, snapshot: Snapshot) -> Evaluation:
    """Return the evaluation of a project with its pool and model."""
    project = snapshot.project
    key = (*project.commit, "evaluation")

    def make() -> tuple[Evaluation, int]:
        with time_evidence("evaluation"):
            return evaluate(store, snapshot), 1_000

    evaluation: Evaluation = store.cache.get_or_make(key, make, "evaluation")
    return evaluation


def evaluate(store: Store, snapshot: Snapshot) -> Evaluation:
    """Return the evaluation of a project's model, or the reason why there is none."""
    project = snapshot.project
    rows, model, labels = uniform_rows(project), project.model, project.labels
    if model is None:
        return no_evaluation(rows, None, NO_MODEL, Lure(0, project.n_samples, reason=NO_MODEL))
    if project.target == "number":
        return evaluate_numbers(snapshot, rows, model.version)
    if project.target == "labels":
        return evaluate_labels(snapshot, rows, model.version)
    draws = store.draws(project.project_id)
    n_drawn, is_uniform = count_draws(project, draws), np.zeros(len(labels.labeled), np.bool_)
    is_uniform[look_up(labels.labeled, rows)[0]] = True
    lure = Lure(n_drawn, project.n_samples, reason=too_few(n_drawn))
    if n_drawn >= MIN_ROWS:
        is_wrong = predict_labeled(store, snapshot).argmax(axis=1) != labels.codes
        lure = estimate_lure(project, draws, is_wrong)
    if len(rows) < MIN_ROWS:
        return no_evaluation(rows, model.version, why_few(rows), lure)
    P = predict_labeled(store, snapshot)[is_uniform]
    return replace(estimate_quality(store, snapshot, model, labels.codes[is_uniform], P), lure=lure)


def predict_labeled(store: Store, snapshot: Snapshot) -> NDArray[np.float64]:
    """Return the probabilities (l, c) of the labelled samples by models fitted without them, which are cached."""
    project, pool = snapshot.project, snapshot.mapped_pool
    labels, n_classes, seed = project.labels, len(project.classes), project.random_state

    def make() -> tuple[NDArray[np.float64], int]:
        X, wanted = pool.take(labels.labeled), np.ones(len(labels.codes), np.bool_)
        P = out_of_fold_probabilities(
            project.estimator, X, labels.codes, n_classes, seed, wanted, project.n_samples, pool.medians
        )
        return P, P.nbytes

    probabilities: NDArray[np.float64] = store.cache.get_or_make((*project.commit, "out_of_fold"), make)
    return probabilities


def why_few(rows: NDArray[np.int64]) -> str:
    """Return why uniform rows (n,) are too few for an estimate."""
    return (
        f"{len(rows)} samples of the random order are labelled, and {MIN_ROWS} are needed: "
        'POST /query with "purpose": "evaluation" asks for the next ones.'
    )


def no_evaluation(rows: NDArray[np.int64], version: int | None, reason: str, lure: Lure) -> Evaluation:
    """Return an evaluation that only says why there are no estimates from uniform rows."""
    return Evaluation(len(rows), METHOD, MEASURED_ON, BIAS, reason, version, lure=lure)


def estimate_quality(
    store: Store, snapshot: Snapshot, model: ModelRef, true: NDArray[np.int32], P: NDArray[np.float64]
) -> Evaluation:
    """Estimate the quality of a project's model from the class codes (n,) of uniform rows, and their probabilities
    (n, c) out of fold.
    """
    n_classes, n = len(snapshot.project.classes), len(true)
    predicted = P.argmax(axis=1).astype(np.int32)
    if model.calibration is not None:
        P = temper(P, model.calibration.temperature)
    right = true == predicted
    loss = -np.log(np.clip(P[np.arange(n), true], np.finfo(np.float64).eps, 1.0))
    confidence = pool_confidence(store, snapshot)
    rng = np.random.default_rng([snapshot.project.random_state, snapshot.project.labels_revision])
    bootstrap = partial(bootstrap_interval, n=n, rng=rng, n_drawn=round(n / DESIGN_EFFECT))
    return Evaluation(
        n=n,
        method=METHOD,
        measured_on=MEASURED_ON,
        bias=BIAS,
        reason=None,
        model_version=model.version,
        accuracy=out_of_fold_interval(int(right.sum()), n),
        accuracy_prediction_powered=prediction_powered_accuracy(
            right, P.max(axis=1), float(confidence.mean()), float(confidence.var()), len(confidence), DESIGN_EFFECT
        )
        if len(confidence)
        else None,
        balanced_accuracy=bootstrap(balanced_accuracy(true, predicted, n_classes)),
        f1_macro=bootstrap(f1_macro(true, predicted, n_classes)),
        log_loss=bootstrap(lambda resample: loss[resample].mean(axis=1)),
    )


def evaluate_numbers(snapshot: Snapshot, rows: NDArray[np.int64], version: int) -> Evaluation:
    """Return the evaluation of a project's model of numbers from uniform rows (n,), or why there is none."""
    project, pool = snapshot.project, snapshot.mapped_pool
    lure = Lure(0, project.n_samples, reason=OF_CLASSES)
    if len(rows) < MIN_ROWS:
        return no_evaluation(rows, version, why_few(rows), lure)
    true, predicted = predict_numbers_out_of_fold(project, pool.take(project.labels.labeled), rows, pool.medians)
    rng = np.random.default_rng([project.random_state, project.labels_revision])
    return Evaluation(
        n=len(rows),
        method=METHOD,
        measured_on=MEASURED_ON,
        bias=BIAS_OF_ERRORS,
        reason=None,
        model_version=version,
        rmse=bootstrap_interval(root_mean_square(true - predicted), len(rows), rng),
        mae=bootstrap_interval(lambda resample: np.abs(true - predicted)[resample].mean(axis=1), len(rows), rng),
        r2=bootstrap_interval(r_squared(true, predicted), len(rows), rng),
        lure=lure,
    )


def evaluate_labels(snapshot: Snapshot, rows: NDArray[np.int64], version: int) -> Evaluation:
    """Return the evaluation of a model of several labels a sample from uniform rows (n,), or why there is none.

    With the thresholds of the model, which were chosen on these rows where there were enough.
    """
    project, pool = snapshot.project, snapshot.mapped_pool
    lure, labels = Lure(0, project.n_samples, reason=OF_CLASSES), project.labels
    if len(rows) < MIN_ROWS:
        return no_evaluation(rows, version, why_few(rows), lure)
    P, Y = predict_marginals_out_of_fold(project, pool.take(labels.labeled), labels.codes, rows, pool.medians)
    predicted = thresholds_of_classes(project) <= P
    precision, wrong = ranking_precision(P, Y), (predicted != Y).mean(axis=1)
    rng = np.random.default_rng([project.random_state, project.labels_revision])
    bootstrap = partial(bootstrap_interval, n=len(rows), rng=rng, n_drawn=round(len(rows) / DESIGN_EFFECT))
    return Evaluation(
        n=len(rows),
        method=METHOD,
        measured_on=MEASURED_ON,
        bias=BIAS_OF_LABELS,
        reason=None,
        model_version=version,
        lure=lure,
        f1_micro=bootstrap(f1_of_sets(Y, predicted, is_micro=True)),
        f1_macro=bootstrap(f1_of_sets(Y, predicted, is_micro=False)),
        lrap=bootstrap(lambda resample: precision[resample].mean(axis=1)),
        hamming_loss=bootstrap(lambda resample: wrong[resample].mean(axis=1)),
    )


def pool_confidence(store: Store, snapshot: Snapshot) -> NDArray[np.float64]:
    """Return the probability of the most probable class of each sample, without removed samples and those without."""
    project, pool = snapshot.project, snapshot.mapped_pool
    memory = ProjectScoreCache(store.cache, project)
    scores = np.concatenate(
        score_pool(snapshot.model, pool, least_confidence, np.ones(len(pool), bool), score_cache=memory)
    )
    scores = np.delete(scores, project.removed)
    return 1.0 - scores[scores >= 0]
