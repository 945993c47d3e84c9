"""What a model learns and how it is scored, by target."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from service.domain.project import Project, Score, TargetName
from service.domain.targets import set_table_of, table_of
from service.learning.advice import notes_on_counts, notes_on_fit, notes_on_scale
from service.learning.multilabel_scores import Thresholds, evaluate_labels, threshold_array
from service.learning.pool import Features, Pool
from service.learning.scoring import evaluate, evaluate_numbers
from service.learning.stacked_linear import Indicators

Codes = NDArray[np.integer[Any]]


class Task(Protocol):
    """The learning task of a target."""

    def labels(self, project: Project, codes: Codes) -> NDArray[Any]:
        """Return what the estimator learns (l,) for the codes of labels."""

    def score(self, project: Project, model: Any, thresholds: Thresholds, X_test: Pool, y_test: Codes) -> Score | None:
        """Return the scores of a model on n >= 1 rows with the codes of their labels."""

    def notes(self, project: Project, X: Features, codes: Codes) -> tuple[str, ...]:
        """Return notes on the labelled rows `X` (l, d) of a fit."""

    def labels_of_question(self, project: Project) -> dict[str, Any]:
        """Return what a strategy reads of the labels, by field of `Question`."""


class ClassTask:
    """Classification: the estimator learns the codes of classes."""

    def labels(self, project: Project, codes: Codes) -> Codes:
        """Return the class codes (l,)."""
        return codes

    def score(self, project: Project, model: Any, thresholds: Thresholds, X_test: Pool, y_test: Codes) -> Score:
        """Return the scores of a classifier."""
        return evaluate(model, X_test, y_test, len(project.classes))

    def notes(self, project: Project, X: Features, codes: Codes) -> tuple[str, ...]:
        """Return notes on features and classes."""
        return notes_on_fit(project.estimator, X, codes, project.classes)

    def labels_of_question(self, project: Project) -> dict[str, Any]:
        """Return the class codes of the labelled samples (l,)."""
        return {"codes": project.labels.codes}


class NumberTask:
    """Regression: the estimator learns numbers."""

    def labels(self, project: Project, codes: Codes) -> NDArray[np.float64]:
        """Return the numbers (l,)."""
        return table_of(project).values[codes]

    def score(self, project: Project, model: Any, thresholds: Thresholds, X_test: Pool, y_test: Codes) -> Score | None:
        """Return the scores of a regressor, None if a prediction is not finite."""
        return evaluate_numbers(model, X_test, self.labels(project, y_test))

    def notes(self, project: Project, X: Features, codes: Codes) -> tuple[str, ...]:
        """Return notes on features."""
        return notes_on_scale(project.estimator, X)

    def labels_of_question(self, project: Project) -> dict[str, Any]:
        """Return the numbers of the labelled samples (l,)."""
        return {"numbers": self.labels(project, project.labels.codes)}


class LabelsTask:
    """Multilabel classification: the estimator learns which classes each sample has."""

    def labels(self, project: Project, codes: Codes) -> Indicators:
        """Return the classes of each sample as a mask (l, c)."""
        return set_table_of(project).indicators(codes, len(project.classes))

    def score(self, project: Project, model: Any, thresholds: Thresholds, X_test: Pool, y_test: Codes) -> Score:
        """Return the scores of a model of marginals."""
        return evaluate_labels(model, threshold_array(thresholds, model), X_test, self.labels(project, y_test))

    def notes(self, project: Project, X: Features, codes: Codes) -> tuple[str, ...]:
        """Return notes on features and classes."""
        counts = self.labels(project, codes).sum(axis=0).tolist()
        return notes_on_counts(project.estimator, X, counts, len(codes), project.classes)

    def labels_of_question(self, project: Project) -> dict[str, Any]:
        """Return the number of classes of each labelled sample (l,)."""
        return {"label_sizes": set_table_of(project).sizes[project.labels.codes]}


TASKS: dict[TargetName, Task] = {"class": ClassTask(), "number": NumberTask(), "labels": LabelsTask()}


def task_of(project: Project) -> Task:
    """Return the learning task of a project."""
    return TASKS[project.target]
