"""How much accuracy more labels are expected to add, by a power law fitted to an honest learning curve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.domain.labels import SKIP, look_up
from service.domain.project import Project
from service.learning.estimators import fit
from service.learning.honest_curve import honest_curve
from service.learning.missing_values import Medians
from service.learning.pool import Features
from service.learning.power_law import expected_gains
from service.usecases.uniform_sample import MIN_ROWS, uniform_rows

RESAMPLES = 200
MIN_POINTS = 4
"""Minimum number of points of a curve that a power law is fitted to."""

DEFAULT_BATCH = 10
"""The size of the next batch where no earlier one says it."""

RECENT_BATCHES = 5

ON_HELD_OUT = "A power law fitted to the scores of the project's models on the held-out set."
ON_UNIFORM = (
    "A power law fitted to the accuracy of models of ever more of the labels, each measured on the uniform sample of "
    "GET /projects/{project_id}/evaluation, out of fold."
)
OF_OTHER_TARGETS = "The gain is estimated only where a label is one class."
TOO_LITTLE = (
    f'It takes {MIN_ROWS} uniform samples, which POST /query asks for with "purpose": "evaluation", and '
    "about 30 labels; or four models that were scored on a held-out set."
)


@dataclass(frozen=True, slots=True)
class Gain:
    """An expected gain of accuracy: the mean over resamples of the curve, and the interval that holds 80 % of them."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class ExpectedGain:
    """The accuracy that the next batch, of `n_labels`, is expected to add, and what that is derived from.

    `by_doubling` is the gain of twice as many labels as there are. `curve` has the points of the honest curve: a number
    of labels, and the accuracy with its 95 % interval.
    """

    next_batch: float | None = None
    low: float | None = None
    high: float | None = None
    n_labels: int | None = None
    measured_on: str = TOO_LITTLE
    by_doubling: Gain | None = None
    curve: Sequence[tuple[float, float, float, float]] = ()


def expect_gain(
    project: Project, X: Features, is_right: NDArray[np.bool_], medians: Medians | None = None
) -> ExpectedGain:
    """Return the gain that is expected of a project.

    X (l, d) are its labelled rows; `is_right` (l,) says which ones models fitted without them predict rightly.
    """
    rng = np.random.default_rng([project.random_state, project.labels_revision])
    found = scores_on_held_out(project, rng)
    measured_on = ON_HELD_OUT
    if found is None:
        found, measured_on = scores_on_uniform_rows(project, X, is_right, medians, rng), ON_UNIFORM
    n_next = min(usual_batch(project), project.n_unlabeled)
    if found is None:
        return ExpectedGain(n_labels=n_next)
    sizes, curves = found
    n = float(project.n_labeled)
    ends = np.array([n + n_next, min(2 * n, n + project.n_unlabeled)])
    gains = expected_gains(sizes, curves, n, ends)
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
    """Return numbers of labels (k,) and the accuracies (r, k) of models fitted to them, None with too few points.

    The deviations of the scores from their moving mean are shuffled in each curve.
    """
    points = project.learning_curve.points
    points = points[~np.isnan(points["test_score"][:, 0])]
    if project.test_score is None or len(np.unique(points["n_labeled"])) < MIN_POINTS:
        return None
    order = np.argsort(points["n_labeled"], kind="stable")
    sizes, accuracy = points["n_labeled"][order].astype(np.float64), points["test_score"][order, 0]
    padded = np.pad(accuracy, 1, mode="edge")
    smooth = (padded[:-2] + padded[1:-1] + padded[2:]) / 3
    noise = rng.choice(accuracy - smooth, (RESAMPLES, len(sizes)))
    return sizes, smooth + noise


def scores_on_uniform_rows(
    project: Project,
    X: Features,
    is_right: NDArray[np.bool_],
    medians: Medians | None,
    rng: np.random.Generator,
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Return numbers of labels (k,) and the accuracies (r, k) of models fitted to them, None with too few rows.

    Each curve is that of a resample of the uniform rows.
    """
    rows = uniform_rows(project)
    if len(rows) < MIN_ROWS:
        return None
    labels = project.labels
    sizes, right = honest_curve(
        lambda some, codes: fit(project.estimator, some, codes, project.random_state, project.n_samples, medians),
        X,
        labels.codes,
        labelling_order(project),
        np.isin(labels.labeled, rows, assume_unique=True),
        is_right,
        project.random_state,
    )
    if len(sizes) < MIN_POINTS:
        return None
    resampled = (right[:, rng.integers(len(rows), size=len(rows))].mean(axis=1) for _ in range(RESAMPLES))
    return sizes, np.vstack(list(resampled))


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
