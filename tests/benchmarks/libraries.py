"""The same strategies in other libraries (extra `bench`). Each function returns a callable that selects a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from modAL.batch import uncertainty_batch_sampling
from modAL.models import ActiveLearner
from modAL.uncertainty import margin_sampling
from skactiveml.classifier import SklearnClassifier
from skactiveml.pool import Badge, CoreSet, UncertaintySampling
from sklearn.linear_model import LogisticRegression

from tests.benchmarks.sizes import N_CLASSES
from tests.benchmarks.task import N_LABELS, Indices, Task

SelectBatch = Callable[[], Indices]


def activeml_margin(task: Task) -> SelectBatch:
    return with_model(task, UncertaintySampling(method="margin_sampling", random_state=0))


def activeml_badge(task: Task) -> SelectBatch:
    return with_model(task, Badge(random_state=0))


def activeml_k_center(task: Task) -> SelectBatch:
    strategy, y = CoreSet(random_state=0), labels(task)
    return lambda: strategy.query(task.rows, y, batch_size=task.batch_size)


def modal_margin(task: Task) -> SelectBatch:
    return among_unlabeled(task, margin_sampling)


def modal_ranked_batch(task: Task) -> SelectBatch:
    return among_unlabeled(task, uncertainty_batch_sampling)


def with_model(task: Task, strategy: Any) -> SelectBatch:
    """Return a query of a scikit-activeml strategy with a fitted model."""
    model, y = SklearnClassifier(logistic_regression(), classes=range(N_CLASSES)), labels(task)
    model.fit(task.rows[:N_LABELS], task.codes)
    return lambda: np.asarray(strategy.query(task.rows, y, model, fit_clf=False, batch_size=task.batch_size))


def among_unlabeled(task: Task, strategy: Any) -> SelectBatch:
    """Return a query of a modAL strategy, which takes the unlabelled rows only and returns positions in them."""
    learner = ActiveLearner(logistic_regression(), X_training=task.rows[:N_LABELS], y_training=task.codes)
    rest = task.rows[N_LABELS:]
    return lambda: strategy(learner, rest, n_instances=task.batch_size)[0] + N_LABELS


def logistic_regression() -> LogisticRegression:
    return LogisticRegression(C=1.0, max_iter=1000, random_state=0)


def labels(task: Task) -> np.ndarray:
    """Labels as scikit-activeml expects them: NaN for unlabelled rows."""
    return np.concatenate([task.codes, np.full(task.n_rows - N_LABELS, np.nan)])


LIBRARY_STRATEGIES = {
    ("scikit-activeml", "margin"): activeml_margin,
    ("scikit-activeml", "k_center"): activeml_k_center,
    ("scikit-activeml", "badge"): activeml_badge,
    ("modAL", "margin"): modal_margin,
    ("modAL", "ranked_batch"): modal_ranked_batch,
}
