"""The labelled rows that are a uniform sample of the pool, and their predictions by models not fitted to them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.domain.project import Project
from service.domain.sorted_columns import look_up
from service.learning.missing_values import Medians
from service.learning.pool import Features
from service.learning.quality import quality_of
from service.learning.tasks import task_of
from service.strategies.engine.exploration import random_order

MIN_ROWS = 20
"""Minimum number of rows for an estimate."""


def uniform_rows(project: Project) -> NDArray[np.int64]:
    """Return the labelled samples before the first unlabelled one in the random order, sorted.

    A skipped sample cannot be labelled, and is no part of the population.
    """
    labels = project.labels
    order = random_order(project.n_samples, project.random_state)
    first_open = order[project.is_unlabeled].min(initial=np.inf)
    uniform: NDArray[np.int64] = labels.labeled[order[labels.labeled] < first_open]
    return uniform


def predict_out_of_fold(
    project: Project, X: Features, codes: NDArray[np.int32], rows: NDArray[np.int64], medians: Medians | None = None
) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Return the labels (n,) or (n, c) of uniform rows, and what models fitted without them say about them.

    X (l, d) and `codes` (l,) are those of the labelled samples, `medians` (d,) those of the pool if features may be
    missing. Labels and predictions are those of `Task` and `Quality`.
    """
    positions = look_up(project.labels.labeled, rows)[0]
    wanted = np.zeros(len(codes), bool)
    wanted[positions] = True
    predicted = quality_of(project).out_of_fold(project, X, codes, wanted, medians)
    return task_of(project).labels(project, codes)[positions], predicted[positions]
