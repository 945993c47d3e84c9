"""What is compared, and one run of it: ask, label, learn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits, make_classification
from sklearn.model_selection import train_test_split

from service.demo.client import Client, Matrix, Progress

Labels = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """A pool with the answers to all its rows, of which the first `n_labeled` are known, and the held-out rows."""

    X: Matrix
    y: Labels
    n_labeled: int
    X_test: Matrix
    y_test: Labels


@dataclass(frozen=True, slots=True)
class Comparison:
    """A strategy against random questions: what `start(seed)` offers, and how it is asked.

    `active_seeds` None = the strategy starts from as many different splits as the random questions do.
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
    """Who asks, how often, and from which seed."""

    strategy: str
    n_queries: int
    seed: int


def run_comparison(
    client: Client, project_id: str, comparison: Comparison, run: Run, after_answer: Callable[[], None]
) -> list[Progress]:
    """Ask, label what was asked, and return what was known at the start and after each answer.

    Once it is made, the project is deleted again, however this ends.
    """
    start = comparison.start(run.seed)
    answers: list[int] = start.y.tolist()
    known = [*answers[: start.n_labeled], *[None] * (len(answers) - start.n_labeled)]
    # Every question follows from the project's seed and its labels: random ones differ, and a run can be repeated.
    steps = [
        client.fit(
            project_id, start.X, known, start.X_test, start.y_test.tolist(), comparison.estimator, random_state=run.seed
        )
    ]
    try:
        for _ in range(run.n_queries):
            indices = client.query(project_id, run.strategy, comparison.batch_size)
            steps.append(client.label(project_id, {index: answers[index] for index in indices}))
            after_answer()
    finally:
        client.delete(project_id)
    return steps


def yardstick(seed: int) -> Dataset:
    """Return two classes with a tenth of the labels drawn by lot: 90 rows labelled, 810 not, 100 held out. One split.

    The seed changes nothing here but which random questions are asked.
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
    """Return scikit-learn's 1,797 handwritten digits: a quarter held out, and of the rest, 20 labels drawn by lot.

    Every seed gives another split and another 20, which need not show all ten classes.
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
