"""The comparisons, and one run of them: query, label, fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits, make_classification
from sklearn.model_selection import train_test_split

from service.client import Client

Labels = NDArray[np.int64]
Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Progress:
    """Number of labels of a project, and its model's accuracy on the held-out rows (NaN without a model)."""

    n_labeled: int
    accuracy: float

    @classmethod
    def of(cls, reply: Mapping[str, Any]) -> Progress:
        """Return the progress in a reply to /fit or /label."""
        score = reply["test_score"]
        return cls(reply["n_labeled"], score["accuracy"] if score else float("nan"))


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

    `active_seeds` None = the strategy runs with the same seeds as the random queries.
    """

    name: str
    title: str
    start: Callable[[int], Dataset]
    strategy: str
    batch_size: int
    n_queries: int
    estimator: Mapping[str, Any]
    active_seeds: tuple[int, ...] | None
    default_seeds: int


@dataclass(frozen=True, slots=True)
class Run:
    """A strategy, its number of queries, and a seed."""

    strategy: str
    n_queries: int
    seed: int


def run_comparison(
    client: Client, project_id: str, comparison: Comparison, run: Run, after_query: Callable[[], None]
) -> list[Progress]:
    """Query and label in turns. Return the progress at the start and after each turn.

    The project is deleted at the end, also after an error.
    """
    start = comparison.start(run.seed)
    truth: list[int] = start.y.tolist()
    known = [*truth[: start.n_labeled], *[None] * (len(truth) - start.n_labeled)]
    # Each query is determined by the project's seed and labels, so a run can be repeated.
    held_out = {"X_test": start.X_test, "y_test": start.y_test}
    project = client.fit(project_id, start.X, known, **held_out, estimator=comparison.estimator, random_state=run.seed)
    steps = [Progress.of(project)]
    try:
        for batch in islice(client.batches(project_id, comparison.batch_size, strategy=run.strategy), run.n_queries):
            labeled = client.label(project_id, {index: truth[index] for index in batch.indices})
            steps.append(Progress.of(labeled))
            after_query()
    finally:
        client.delete(project_id)
    return steps


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
        active_seeds=(42,),
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
        active_seeds=None,
        default_seeds=5,
    ),
)
