"""The labelled rows that are a uniform sample of the pool, and their predictions by models not fitted to them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from service.domain.labels import look_up
from service.domain.project import Project
from service.domain.targets import set_table_of, table_of
from service.learning.evaluation import out_of_fold_marginals, out_of_fold_numbers, out_of_fold_probabilities
from service.learning.missing_values import Medians
from service.learning.pool import Features
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


def predict_numbers_out_of_fold(
    project: Project, X: Features, rows: NDArray[np.int64], medians: Medians | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the numbers (n,) of uniform rows, and their predictions (n,) by models fitted without them.

    X (l, d) and `medians` are as for `predict_out_of_fold`.
    """
    positions = look_up(project.labels.labeled, rows)[0]
    y = table_of(project).values[project.labels.codes]
    wanted = np.zeros(len(y), bool)
    wanted[positions] = True
    predicted = out_of_fold_numbers(project.estimator, X, y, project.random_state, wanted, project.n_samples, medians)
    return y[positions], predicted[positions]


def predict_marginals_out_of_fold(
    project: Project, X: Features, codes: NDArray[np.int32], rows: NDArray[np.int64], medians: Medians | None = None
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the marginals (n, c) of uniform rows by models fitted without them, and the classes that they have (n, c).

    The arguments are as for `predict_out_of_fold`.
    """
    positions = look_up(project.labels.labeled, rows)[0]
    Y = set_table_of(project).indicators(codes, len(project.classes))
    wanted = np.zeros(len(codes), bool)
    wanted[positions] = True
    P = out_of_fold_marginals(project.estimator, X, Y, codes, project.random_state, wanted, project.n_samples, medians)
    return P[positions], Y[positions]


def predict_out_of_fold(
    project: Project, X: Features, codes: NDArray[np.int32], rows: NDArray[np.int64], medians: Medians | None = None
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Return the class codes (n,) of uniform rows, and their probabilities (n, c) by models fitted without them.

    X (l, d) and `codes` (l,) are those of the labelled samples, `medians` (d,) those of the pool if features may be
    missing.
    """
    positions = look_up(project.labels.labeled, rows)[0]
    wanted = np.zeros(len(codes), bool)
    wanted[positions] = True
    P = out_of_fold_probabilities(
        project.estimator, X, codes, len(project.classes), project.random_state, wanted, project.n_samples, medians
    )
    return codes[positions], P[positions]
