"""A selection task: a pool with some labelled rows, a model and a batch size."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from service.learning import estimators
from service.learning.committees import BaggedCommittee, bootstrap
from service.learning.models import Classifier, Regressor
from service.learning.number_models import NumberBag
from tests.benchmarks.pools import pool
from tests.benchmarks.sizes import N_CLASSES

N_LABELS = 200
N_MEMBERS = 5
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Task:
    """Rows (n, d) of float32 features; the first N_LABELS are labelled."""

    n_rows: int
    n_columns: int
    batch_size: int

    @cached_property
    def rows(self) -> NDArray[np.float32]:
        return pool(self.n_rows, self.n_columns)

    @property
    def codes(self) -> Indices:
        """The classes of the labelled rows."""
        return np.arange(N_LABELS) % N_CLASSES

    @cached_property
    def model(self) -> Classifier:
        """The service's logistic regression, fitted to the labelled rows."""
        return fit(self.rows[:N_LABELS], self.codes)

    @cached_property
    def member_rows(self) -> list[tuple[NDArray[np.float32], Indices]]:
        """The rows and classes that each member of the committee learns."""
        rng = np.random.default_rng(0)
        drawn = [bootstrap(self.codes, rng) for _ in range(N_MEMBERS)]
        return [(self.rows[rows], self.codes[rows]) for rows in drawn]

    @cached_property
    def members(self) -> list[Classifier]:
        """The members of the committee."""
        return [fit(*rows) for rows in self.member_rows]

    @property
    def committee(self) -> BaggedCommittee:
        """The service's committee of these members."""
        return BaggedCommittee.of(self.members)


@dataclass(frozen=True)
class NumberTask(Task):
    """The same rows; those that are labelled have numbers."""

    @cached_property
    def numbers(self) -> NDArray[np.float64]:
        """The numbers of the labelled rows: a sum of their first features, with noise."""
        noise = np.random.default_rng(0).normal(size=N_LABELS)
        return self.rows[:N_LABELS, :8].sum(axis=1, dtype=np.float64) + noise

    @cached_property
    def regressor(self) -> Regressor:
        """The service's ridge regression, fitted to the labelled rows."""
        return fit_ridge(self.rows[:N_LABELS], self.numbers)

    @cached_property
    def bag(self) -> NumberBag:
        """A committee of such regressions, each fitted to a bootstrap sample."""
        drawn = np.random.default_rng(0).integers(N_LABELS, size=(N_MEMBERS, N_LABELS))
        return NumberBag(tuple(fit_ridge(self.rows[rows], self.numbers[rows]) for rows in drawn))


@dataclass(frozen=True)
class LabelsTask(Task):
    """The same rows; those that are labelled may have several classes."""

    @cached_property
    def indicators(self) -> NDArray[np.bool_]:
        """The classes of the labelled rows, about two of N_CLASSES for each."""
        return np.random.default_rng(0).random((N_LABELS, N_CLASSES)) < 0.2

    @cached_property
    def one_for_each(self) -> Classifier:
        """The service's logistic regression for each class, fitted to the labelled rows."""
        spec = estimators.resolve_estimator("logistic_regression", {})
        return estimators.fit(spec, self.rows[:N_LABELS], self.indicators, 0, target="labels")


def fit_ridge(X: NDArray[np.float32], numbers: NDArray[np.float64]) -> Regressor:
    """Return the service's ridge regression, fitted to some rows."""
    model: Regressor = estimators.fit(estimators.resolve_estimator("ridge", {}), X, numbers, 0, target="number")
    return model


def fit(X: NDArray[np.float32], codes: Indices) -> Classifier:
    """Return the service's logistic regression, fitted to some rows."""
    return estimators.fit(estimators.resolve_estimator("logistic_regression", {}), X, codes, 0)
