"""GET /projects/{id}/evaluation: how good the model is, estimated without a held-out set.

The rows before the first unlabelled one in the project's random order are a uniform sample of the pool, however they
came to be labelled. Each is predicted by a model that was not fitted to it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.domain.project import Project, TargetName
from service.domain.sorted_columns import look_up
from service.learning.evaluation import DESIGN_EFFECT, Estimate, prediction_powered_accuracy
from service.learning.multilabel_scores import thresholds_of_classes
from service.learning.quality import Values, quality_of
from service.learning.scoring import Probabilities, Scorer, Scores, score_pool, score_some
from service.learning.tasks import task_of
from service.store import Part, Snapshot, Store
from service.store.score_cache import ProjectScoreCache
from service.strategies.uncertainty import least_confidence
from service.telemetry.metrics import time_evidence
from service.usecases.foreseen import rows_in_time, why_no_folds
from service.usecases.lure import NO_MODEL, Lure, count_draws, estimate_lure, too_few
from service.usecases.training import read_with_model
from service.usecases.uniform_sample import MIN_ROWS, uniform_rows

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

BIASES: dict[TargetName, str] = {"class": BIAS, "number": BIAS_OF_ERRORS, "labels": BIAS_OF_LABELS}


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
    is_uniform = np.zeros(len(labels.labeled), np.bool_)
    is_uniform[look_up(labels.labeled, rows)[0]] = True
    too_slow = why_no_folds(project)
    if too_slow is not None:
        return no_evaluation(rows, model.version, too_slow, Lure(0, project.n_samples, reason=too_slow))
    lure = lure_of(store, snapshot)
    if len(rows) < MIN_ROWS:
        return no_evaluation(rows, model.version, why_few(rows), lure)
    quality, predicted = quality_of(project), predict_labeled(store, snapshot)[is_uniform]
    true = task_of(project).labels(project, labels.codes[is_uniform])
    found = quality.decide(project, predicted, model.thresholds)
    rng = np.random.default_rng([project.random_state, project.labels_revision])
    return Evaluation(
        n=len(rows),
        method=METHOD,
        measured_on=MEASURED_ON,
        bias=BIASES[project.target],
        reason=None,
        model_version=model.version,
        accuracy_prediction_powered=prediction_powered(store, snapshot, true, found, predicted),
        lure=lure,
        **quality.estimates(project, true, predicted, found, rng),
    )


def lure_of(store: Store, snapshot: Snapshot) -> Lure:
    """Return the accuracy of a project's model from the samples that `power` drew, or why there is none."""
    project = snapshot.project
    if project.target != "class":
        return Lure(0, project.n_samples, reason=OF_CLASSES)
    draws = store.draws(project.project_id)
    n_drawn = count_draws(project, draws)
    if n_drawn < MIN_ROWS:
        return Lure(n_drawn, project.n_samples, reason=too_few(n_drawn))
    is_wrong = predict_labeled(store, snapshot).argmax(axis=1) != project.labels.codes
    return estimate_lure(project, draws, is_wrong)


def predict_labeled(store: Store, snapshot: Snapshot) -> NDArray[np.float64]:
    """Return `Quality.out_of_fold` of all labelled samples (l, ...), which is cached."""
    project, pool = snapshot.project, snapshot.mapped_pool
    labels = project.labels

    def make() -> tuple[NDArray[np.float64], int]:
        X, wanted = pool.take(labels.labeled), np.ones(len(labels.codes), np.bool_)
        predicted = quality_of(project).out_of_fold(project, X, labels.codes, wanted, pool.medians)
        return predicted, predicted.nbytes

    predicted: NDArray[np.float64] = store.cache.get_or_make((*project.commit, "out_of_fold"), make)
    return predicted


def why_few(rows: NDArray[np.int64]) -> str:
    """Return why uniform rows (n,) are too few for an estimate."""
    return (
        f"{len(rows)} samples of the random order are labelled, and {MIN_ROWS} are needed: "
        'POST /query with "purpose": "evaluation" asks for the next ones.'
    )


def no_evaluation(rows: NDArray[np.int64], version: int | None, reason: str, lure: Lure) -> Evaluation:
    """Return an evaluation that only says why there are no estimates from uniform rows."""
    return Evaluation(len(rows), METHOD, MEASURED_ON, BIAS, reason, version, lure=lure)


def prediction_powered(
    store: Store, snapshot: Snapshot, true: Values, found: Values, predicted: NDArray[np.float64]
) -> Estimate | None:
    """Return the accuracy of a project's model by the model's confidence, None of numbers, which have none.

    `true` and `found` are the labels of uniform rows and what is predicted, which follows from `predicted` (n, c).
    """
    if snapshot.project.target == "number":
        return None
    scorer = scorer_of(snapshot.project)
    of_pool = pool_confidence(store, snapshot, scorer)
    right = true == found if found.ndim == 1 else (true == found).all(axis=1)
    if not len(of_pool):
        return None
    of_rows, mean, variance = 1.0 - scorer(predicted), float(of_pool.mean()), float(of_pool.var())
    return prediction_powered_accuracy(right, of_rows, mean, variance, len(of_pool), DESIGN_EFFECT)


def scorer_of(project: Project) -> Scorer:
    """Return the scorer of the probability that the prediction of a row is wrong."""
    if project.target == "class":
        return least_confidence
    return UnsureList(tuple(thresholds_of_classes(project).tolist()))


@dataclass(frozen=True, slots=True)
class UnsureList:
    """The scorer of the probability that a list of classes is wrong, if they are independent."""

    thresholds: tuple[float, ...]

    def __call__(self, marginals: Probabilities) -> Scores:
        """Return the scores (n,) of marginals (n, c) of the first classes."""
        P = np.asarray(marginals, np.float64)
        is_in = np.array(self.thresholds[: P.shape[1]]) <= P
        return np.asarray(1.0 - np.where(is_in, P, 1.0 - P).prod(axis=1))


def pool_confidence(store: Store, snapshot: Snapshot, scorer: Scorer) -> NDArray[np.float64]:
    """Return 1 less the score of each sample, or of a uniform sample of them under a slow model.

    Removed samples and those whose probabilities are not finite are left out.
    """
    project, pool = snapshot.project, snapshot.mapped_pool
    kept = np.delete(np.arange(len(pool)), project.removed)
    rows = rows_in_time(project, pool, kept)
    if len(rows) < len(kept):
        segments = score_some(snapshot.model, pool, scorer, rows)
    else:
        memory = ProjectScoreCache(store.cache, project)
        segments = score_pool(snapshot.model, pool, scorer, np.ones(len(pool), bool), score_cache=memory)
    scores = np.concatenate(segments)[rows]
    return 1.0 - scores[scores >= 0]
