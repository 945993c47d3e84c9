"""How much more labels are expected to improve the model, by a power law fitted to an honest learning curve.

The score is the headline of the target: accuracy, RMSE or F1 (micro). The gain of an RMSE is by how much it falls.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from service.domain.project import Project
from service.domain.sorted_columns import look_up
from service.domain.votes import SKIP
from service.errors import FitFailed
from service.learning.estimators import fit
from service.learning.honest_curve import honest_curve
from service.learning.missing_values import Medians
from service.learning.multilabel_scores import Thresholds
from service.learning.pool import Features
from service.learning.power_law import expected_gains
from service.learning.quality import Values, quality_of
from service.learning.tasks import task_of
from service.usecases.uniform_sample import MIN_ROWS, uniform_rows

RESAMPLES = 200
MIN_POINTS = 4
"""Minimum number of points of a curve that a power law is fitted to."""

DEFAULT_BATCH = 10
"""The size of the next batch where no earlier one says it."""

RECENT_BATCHES = 5

ON_HELD_OUT = "A power law fitted to the scores of the project's models on the held-out set."
ON_UNIFORM = (
    "A power law fitted to the scores of models of ever more of the labels, each measured on the uniform sample of "
    "GET /projects/{project_id}/evaluation, out of fold."
)
TOO_LITTLE = (
    f'It takes {MIN_ROWS} uniform samples, which POST /query asks for with "purpose": "evaluation", and '
    "about 30 labels; or four models that were scored on a held-out set."
)


@dataclass(frozen=True, slots=True)
class Gain:
    """An expected gain: the mean over resamples of the curve, and the interval that holds 80 % of them."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class ExpectedGain:
    """The gain that the next batch, of `n_labels`, is expected to bring, and what that is derived from.

    `by_doubling` is the gain of twice as many labels as there are. `curve` has the points of the honest curve: a number
    of labels, and the score with its 95 % interval.
    """

    next_batch: float | None = None
    low: float | None = None
    high: float | None = None
    n_labels: int | None = None
    measured_on: str = TOO_LITTLE
    by_doubling: Gain | None = None
    curve: Sequence[tuple[float, float, float, float]] = ()


def expect_gain(
    project: Project, X: Features, predicted: NDArray[np.float64], medians: Medians | None = None
) -> ExpectedGain:
    """Return the gain that is expected of a project.

    X (l, d) are its labelled rows, and `predicted` (l, ...) is `Quality.out_of_fold` of these.
    """
    rng = np.random.default_rng([project.random_state, project.labels_revision])
    found = scores_on_held_out(project, rng)
    measured_on = ON_HELD_OUT
    if found is None:
        found, measured_on = scores_on_uniform_rows(project, X, predicted, medians, rng), ON_UNIFORM
    n_next = min(usual_batch(project), project.n_unlabeled)
    if found is None:
        return ExpectedGain(n_labels=n_next)
    sizes, curves = found
    n = float(project.n_labeled)
    ends = np.array([n + n_next, min(2 * n, n + project.n_unlabeled)])
    signed, most = (-curves, 0.0) if is_error(project) else (curves, 1.0)
    gains = expected_gains(sizes, signed, n, ends, most)
    low, high = np.quantile(gains, [0.1, 0.9], axis=0)
    batch, double = (
        Gain(*map(float, of_end)) for of_end in zip(np.clip(gains.mean(axis=0), low, high), low, high, strict=True)
    )
    band = np.quantile(curves, [0.025, 0.975], axis=0)
    points = np.stack([sizes, curves.mean(axis=0), *band]).T.tolist()
    curve = [(n_labels, mean, lower, upper) for n_labels, mean, lower, upper in points]
    return ExpectedGain(batch.value, batch.low, batch.high, n_next, measured_on, double, curve)


def usual_batch(project: Project) -> int:
    """Return the median number of labels between the last fits."""
    steps = np.diff(project.learning_curve.points["n_labeled"])
    steps = steps[steps > 0][-RECENT_BATCHES:]
    return int(np.median(steps)) if len(steps) else DEFAULT_BATCH


def scores_on_held_out(
    project: Project, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Return numbers of labels (k,) and the scores (r, k) of models fitted to them, None with too few points.

    The deviations of the scores from their moving mean are shuffled in each curve.
    """
    points = project.learning_curve.points
    points = points[~np.isnan(points["test_score"][:, 0])]
    if project.test_score is None or len(np.unique(points["n_labeled"])) < MIN_POINTS:
        return None
    order = np.argsort(points["n_labeled"], kind="stable")
    # The headline is the first score of each target.
    sizes, score = points["n_labeled"][order].astype(np.float64), points["test_score"][order, 0]
    padded = np.pad(score, 1, mode="edge")
    smooth = (padded[:-2] + padded[1:-1] + padded[2:]) / 3
    noise = rng.choice(score - smooth, (RESAMPLES, len(sizes)))
    return sizes, smooth + noise


def scores_on_uniform_rows(
    project: Project,
    X: Features,
    predicted: NDArray[np.float64],
    medians: Medians | None,
    rng: np.random.Generator,
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Return numbers of labels (k,) and the scores (r, k) of models fitted to them, None with too few rows.

    Each curve is that of a resample of the uniform rows.
    """
    rows = uniform_rows(project)
    if len(rows) < MIN_ROWS:
        return None
    labels, quality = project.labels, quality_of(project)
    true, thresholds = task_of(project).labels(project, labels.codes), thresholds_of_model(project)
    sizes, achieved = honest_curve(
        partial(judge, project, X, true, medians),
        quality.strata(labels.codes),
        labelling_order(project),
        np.isin(labels.labeled, rows, assume_unique=True),
        quality.outcomes(true, quality.decide(project, predicted, thresholds)),
        project.random_state,
    )
    if len(sizes) < MIN_POINTS:
        return None
    resampled = (achieved[:, rng.integers(len(rows), size=len(rows))].mean(axis=1) for _ in range(RESAMPLES))
    return sizes, quality.headline(np.stack(list(resampled)))


def judge(
    project: Project,
    X: Features,
    true: Values,
    medians: Medians | None,
    known: NDArray[np.intp],
    scored: NDArray[np.intp],
) -> NDArray[np.float64]:
    """Return the outcomes (n, m) of scored rows by a model of the known ones, of labelled rows X (l, d)."""
    quality, seed = quality_of(project), project.random_state
    try:
        model = fit(project.estimator, X[known], true[known], seed, project.n_samples, medians, project.target)
    except FitFailed:
        found = quality.guess(true[known], len(scored))
    else:
        found = quality.predict(project, model, thresholds_of_model(project), X[scored])
    return quality.outcomes(true[scored], found)


def thresholds_of_model(project: Project) -> Thresholds:
    """Return the thresholds of a project's model."""
    return None if project.model is None else project.model.thresholds


def is_error(project: Project) -> bool:
    """Return whether the score of a project falls as its model gets better."""
    return quality_of(project).is_error


def labelling_order(project: Project) -> NDArray[np.intp]:
    """Return the place (l,) of each labelled sample in the order of labelling, at random for those of one time."""
    labeled = project.labels.labeled
    votes = project.votes.take(project.votes.code != SKIP)
    first = np.full(len(labeled), np.iinfo(np.int64).max)
    np.minimum.at(first, look_up(labeled, votes.index)[0], votes.at)
    order = np.lexsort((np.random.default_rng(project.random_state).random(len(labeled)), first))
    position = np.empty(len(labeled), np.intp)
    position[order] = np.arange(len(labeled))
    return position
