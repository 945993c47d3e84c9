"""GET /projects/{id}/learning-curve: how good each model was that a project had."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from service.domain.learning_curve import LearningCurve
from service.domain.project import Project, Score, format_times
from service.domain.targets import target_of
from service.learning.evaluation import Estimate
from service.store import Store

BIAS = (
    "batch_accuracy is too low where a strategy asked: it asks about the samples that the model is least sure of. "
    "estimate is slightly too low, since its models are fitted to four fifths of the labels. test_score has no bias, "
    "unless the held-out set differs from the pool."
)


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """How good a model was; `fitted_at` in RFC 3339 format, None where a value was not measured."""

    model_version: int
    fitted_at: str
    n_labeled: int
    test_score: Score | None
    estimate: Estimate | None
    batch_accuracy: float | None
    questions: Mapping[str, int]


def get_learning_curve(store: Store, project_id: str) -> tuple[Project, list[CurvePoint]]:
    """Return a project and its learning curve. Raises ProjectNotFound and the store's errors."""
    project = store.read(project_id).project
    return project, list(curve_points(project.learning_curve, target_of(project).score_type))


def curve_points(curve: LearningCurve, score_type: type[Score]) -> Iterator[CurvePoint]:
    """Yield the points of a curve, oldest first, with scores of this type."""
    columns = curve.points
    rows = zip(
        columns["model_version"].tolist(),
        format_times(columns["fitted_at"]).tolist(),
        columns["n_labeled"].tolist(),
        columns["test_score"].tolist(),
        columns["estimate"].tolist(),
        batch_accuracy(curve).tolist(),
        curve.questions.tolist(),
        strict=True,
    )
    for version, at, n_labeled, score, estimate, accuracy, questions in rows:
        yield CurvePoint(
            model_version=version,
            fitted_at=at,
            n_labeled=n_labeled,
            test_score=None if np.isnan(score[0]) else score_type(*score[: len(fields(score_type))]),
            estimate=None if np.isnan(estimate[0]) else Estimate(*estimate),
            batch_accuracy=None if np.isnan(accuracy) else accuracy,
            questions={name: n for name, n in zip(curve.strategies, questions, strict=True) if n},
        )


def batch_accuracy(curve: LearningCurve) -> NDArray[np.float64]:
    """Return how often the model before was right about the new labels of each point (p,), NaN without any."""
    n_new, n_right = curve.points["n_new"], curve.points["n_right"]
    return np.asarray(np.divide(n_right, n_new, out=np.full(len(curve), np.nan), where=n_new > 0))
