"""What takes a project's model too long for one request, foreseen from the state and not from the machine."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from service.compute.deadline import DEADLINE
from service.domain.project import Project
from service.errors import InvalidRequest
from service.learning.estimators import seconds_per_row
from service.learning.fit_time import QUICK, about, fit_seconds, size_of_fit
from service.learning.folds import FOLDS
from service.learning.pool import Pool
from service.strategies.engine.slow_models import sample_size


def row_seconds_of(project: Project, pool: Pool) -> float:
    """Estimate the time of one core for a project's model to score a row, 0 if it is short."""
    if project.model is None:
        return 0.0
    # An svc has a machine for each of several labels a sample.
    n_models = len(project.classes) if project.target == "labels" and project.model.estimator.name == "svc" else 1
    return n_models * seconds_per_row(project.model.estimator, project.n_labeled, pool.cells_per_row)


def rows_in_time(project: Project, pool: Pool, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return sorted rows of a pool, or a uniform sample of as many as the model can score in time.

    The same state gives the same sample.
    """
    most = sample_size(row_seconds_of(project, pool), len(rows))
    if most == len(rows):
        return rows
    rng = np.random.default_rng([project.random_state, project.labels_revision])
    return np.sort(rng.choice(rows, most, replace=False, shuffle=False))


def why_no_folds(project: Project) -> str | None:
    """Return why the predictions of the labelled samples by models fitted without them take too long, or None."""
    seconds, limit = FOLDS * fit_seconds(*size_of_fit(project)), DEADLINE.get().seconds
    if seconds <= limit:
        return None
    return (
        f"{FOLDS} fits of {project.estimator.name} to {project.n_labeled:,} labels would take about {about(seconds)} s "
        f"of one core, but AQ_QUERY_SECONDS={limit:g}: {QUICK[project.target]} is quick; or raise the limit"
    )


def refuse_long_pass(project: Project, pool: Pool, n_rows: int) -> None:
    """Raise InvalidRequest if the model's predictions of a page of n rows take longer than the request may."""
    seconds, limit = n_rows * row_seconds_of(project, pool), DEADLINE.get().seconds
    if seconds > limit:
        raise InvalidRequest.at(
            "/query/limit",
            f"{project.estimator.name} would take about {about(seconds)} s of one core to predict {n_rows:,} samples, "
            f"but AQ_QUERY_SECONDS={limit:g}: ask for fewer at once, page by page, or use a faster estimator: "
            f"{QUICK[project.target]} is quick",
        )
