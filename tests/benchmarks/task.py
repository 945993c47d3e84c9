"""A selection task: a pool with some labelled rows, a model and a batch size."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from service.learning import estimators
from service.learning.models import Classifier
from tests.benchmarks.pools import pool
from tests.benchmarks.sizes import N_CLASSES

N_LABELS = 200
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
        return estimators.fit(
            estimators.resolve_estimator("logistic_regression", {}), self.rows[:N_LABELS], self.codes, 0
        )
