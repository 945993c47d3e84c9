"""What selection is tried on: a pool of which some rows are labelled, a model, and how many more rows are asked for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from service.learning import estimators
from service.learning.scoring import Classifier
from tests.benchmarks.pools import pool
from tests.benchmarks.sizes import N_CLASSES

N_LABELS = 200
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Task:
    """n rows of d float32 features; the first are labelled."""

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
        """The service's logistic regression, which is scikit-learn's."""
        return estimators.fit(
            estimators.resolve_estimator("logistic_regression", {}), self.rows[:N_LABELS], self.codes, 0
        )
