"""The comparisons, and their simulations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits, make_classification
from sklearn.model_selection import train_test_split

Labels = NDArray[np.int64]
Matrix = NDArray[np.float64]

RANDOM_QUERY_FACTOR = 2
"""Factor of queries in random runs, to find how many they need for the same accuracy."""


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """A pool with true labels, of which the first `n_labeled` are known at the start, and held-out rows."""

    X: Matrix
    y: Labels
    n_labeled: int
    X_test: Matrix
    y_test: Labels


@dataclass(frozen=True, slots=True)
class Comparison:
    """A strategy compared with random queries on the dataset `start(seed)`.

    With an `active_seed` all runs have one dataset: the strategy's has this seed, and random queries have others.
    """

    name: str
    title: str
    start: Callable[[int], Dataset]
    strategy: str
    batch_size: int
    n_queries: int
    estimator: Mapping[str, Any]
    active_seed: int | None
    default_seeds: int

    def simulations(self, n_seeds: int) -> list[dict[str, Any]]:
        """Return the bodies of POST /simulate for `n_seeds` seeds."""
        if self.active_seed is not None:
            return [self.simulation(self.strategy, self.active_seed, 1), self.simulation("random", 0, n_seeds)]
        return [self.simulation(self.strategy, seed, 1) for seed in range(n_seeds)]

    def simulation(self, strategy: str, seed: int, repeats: int) -> dict[str, Any]:
        """Return the body of POST /simulate for a strategy, beside which random queries are simulated, too."""
        start = self.start(seed)
        return {
            "X": start.X.tolist(),
            "y": start.y.tolist(),
            "X_test": start.X_test.tolist(),
            "y_test": start.y_test.tolist(),
            "initial": list(range(start.n_labeled)),
            "strategies": [strategy],
            "estimator": self.estimator,
            "batch_size": self.batch_size,
            "budget": RANDOM_QUERY_FACTOR * self.n_queries * self.batch_size,
            "random_state": seed,
            "repeats": repeats,
        }


def yardstick(seed: int) -> Dataset:
    """Return two classes with a tenth of the labels random: 90 rows labelled, 810 not, 100 held out.

    The split does not depend on the seed, which only changes the random queries.
    """
    X, y = make_classification(
        n_samples=1000,
        n_features=10,
        n_informative=5,
        n_redundant=0,
        n_classes=2,
        n_clusters_per_class=1,
        flip_y=0.1,
        random_state=42,
    )
    X_rest, X_test, y_rest, y_test = train_test_split(X, y, test_size=0.1, random_state=42, stratify=y)
    X_known, X_open, y_known, y_open = train_test_split(
        X_rest, y_rest, train_size=0.1, random_state=42, stratify=y_rest
    )
    return Dataset(np.concatenate([X_known, X_open]), np.concatenate([y_known, y_open]), len(y_known), X_test, y_test)


def digits(seed: int) -> Dataset:
    """Return scikit-learn's 1,797 handwritten digits: a quarter held out, and 20 random rows of the rest labelled.

    The split depends on the seed, and the 20 rows need not contain all ten classes.
    """
    X, y = load_digits(return_X_y=True)
    X_pool, X_test, y_pool, y_test = train_test_split(X, y, test_size=0.25, random_state=seed, stratify=y)
    return Dataset(X_pool, y_pool, 20, X_test, y_test)


LOGISTIC_REGRESSION = {"name": "logistic_regression", "params": {"max_iter": 2000}}

COMPARISONS = (
    Comparison(
        name="yardstick",
        title="Yardstick, two classes",
        start=yardstick,
        strategy="least_confidence",
        batch_size=1,
        n_queries=20,
        estimator=LOGISTIC_REGRESSION,
        active_seed=42,
        default_seeds=20,
    ),
    Comparison(
        name="digits",
        title="Handwritten digits, ten classes",
        start=digits,
        strategy="margin",
        batch_size=10,
        n_queries=28,
        estimator=LOGISTIC_REGRESSION,
        active_seed=None,
        default_seeds=5,
    ),
)
