"""How the models of a target are judged on labelled rows that they were not fitted to."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from service.domain.project import Project, TargetName
from service.learning.calibration import temper
from service.learning.evaluation import (
    DESIGN_EFFECT,
    Estimate,
    balanced_accuracy,
    bootstrap_interval,
    f1_macro,
    f1_of_sets,
    out_of_fold_interval,
    out_of_fold_marginals,
    out_of_fold_numbers,
    out_of_fold_probabilities,
    r_squared,
    root_mean_square,
)
from service.learning.missing_values import Medians
from service.learning.models import predict_codes, predict_numbers
from service.learning.multilabel_scores import Thresholds, padded_thresholds, predict_sets, ranking_precision
from service.learning.pool import Features
from service.learning.tasks import task_of

Codes = NDArray[np.integer[Any]]
Values = NDArray[Any]
"""What a model predicts of rows, by target: class codes (n,), numbers (n,), or which classes each row has (n, c)."""

Numbers = NDArray[np.float64]
Estimates = Mapping[str, Estimate]


class Quality(Protocol):
    """The rules of one target.

    A score is a function of means over rows. `outcomes` (n, m) are what it is the mean of.
    """

    @property
    def is_error(self) -> bool:
        """Whether the headline falls as a model gets better."""

    def out_of_fold(
        self, project: Project, X: Features, codes: Codes, wanted: NDArray[np.bool_], medians: Medians | None
    ) -> Numbers:
        """Return what models fitted without them say about wanted rows of the labelled ones (l, d); others are NaN.

        Of classes it is probabilities (l, c), of lists marginals (l, c), of numbers predictions (l,).
        """

    def decide(self, project: Project, predicted: Numbers, thresholds: Thresholds) -> Values:
        """Return the values that follow from `out_of_fold`."""

    def predict(self, project: Project, model: Any, thresholds: Thresholds, X: Features) -> Values:
        """Return the values that a model predicts for rows (n, d)."""

    def guess(self, true: Values, n: int) -> Values:
        """Return values for n rows without a model, given those of some labelled rows, perhaps none."""

    def strata(self, codes: Codes) -> Codes:
        """Return the codes (l,) by which folds are stratified, given those of labels."""

    def outcomes(self, true: Values, found: Values) -> Numbers:
        """Return what the headline sums up of each row (n, m)."""

    def headline(self, means: Numbers) -> Numbers:
        """Return the headline (...) given the means of outcomes (..., m)."""

    def headline_estimate(self, true: Values, found: Values, rng: np.random.Generator) -> Estimate:
        """Return the headline of uniform rows (n,)."""

    def estimates(
        self, project: Project, true: Values, predicted: Numbers, found: Values, rng: np.random.Generator
    ) -> Estimates:
        """Return all scores of uniform rows, given `out_of_fold` of them and what follows from it."""


class ClassQuality:
    """A prediction is right or wrong."""

    is_error = False

    def out_of_fold(
        self, project: Project, X: Features, codes: Codes, wanted: NDArray[np.bool_], medians: Medians | None
    ) -> Numbers:
        """Return probabilities (l, c)."""
        n_classes, seed = len(project.classes), project.random_state
        return out_of_fold_probabilities(
            project.estimator, X, codes, n_classes, seed, wanted, project.n_samples, medians
        )

    def decide(self, project: Project, predicted: Numbers, thresholds: Thresholds) -> Codes:
        """Return the most probable class (n,) of each row."""
        codes: Codes = predicted.argmax(axis=1).astype(np.int32)
        return codes

    def predict(self, project: Project, model: Any, thresholds: Thresholds, X: Features) -> Codes:
        """Return the class codes (n,) of rows."""
        return predict_codes(model, X)

    def guess(self, true: Codes, n: int) -> Codes:
        """Return the most frequent class."""
        return np.full(n, np.bincount(true).argmax() if len(true) else -1)

    def strata(self, codes: Codes) -> Codes:
        """Return the class codes."""
        return codes

    def outcomes(self, true: Codes, found: Codes) -> Numbers:
        """Return 1 for each right prediction (n, 1)."""
        return np.asarray(true == found, np.float64)[:, np.newaxis]

    def headline(self, means: Numbers) -> Numbers:
        """Return the accuracy."""
        return means[..., 0]

    def headline_estimate(self, true: Codes, found: Codes, rng: np.random.Generator) -> Estimate:
        """Return the accuracy."""
        return out_of_fold_interval(int(np.count_nonzero(true == found)), len(true))

    def estimates(
        self, project: Project, true: Codes, predicted: Numbers, found: Codes, rng: np.random.Generator
    ) -> Estimates:
        """Return accuracy, balanced accuracy, F1 and log loss."""
        n, n_classes = len(true), len(project.classes)
        calibration = None if project.model is None else project.model.calibration
        P = predicted if calibration is None else temper(predicted, calibration.temperature)
        loss = -np.log(np.clip(P[np.arange(n), true], np.finfo(np.float64).eps, 1.0))
        bootstrap = partial(bootstrap_interval, n=n, rng=rng, n_drawn=round(n / DESIGN_EFFECT))
        return {
            "accuracy": self.headline_estimate(true, found, rng),
            "balanced_accuracy": bootstrap(balanced_accuracy(true, found, n_classes)),
            "f1_macro": bootstrap(f1_macro(true, found, n_classes)),
            "log_loss": bootstrap(lambda resample: loss[resample].mean(axis=1)),
        }


class NumberQuality:
    """A prediction is off by some number."""

    is_error = True

    def out_of_fold(
        self, project: Project, X: Features, codes: Codes, wanted: NDArray[np.bool_], medians: Medians | None
    ) -> Numbers:
        """Return predictions (l,)."""
        y = task_of(project).labels(project, codes)
        return out_of_fold_numbers(project.estimator, X, y, project.random_state, wanted, project.n_samples, medians)

    def decide(self, project: Project, predicted: Numbers, thresholds: Thresholds) -> Numbers:
        """Return the predictions themselves."""
        return predicted

    def predict(self, project: Project, model: Any, thresholds: Thresholds, X: Features) -> Numbers:
        """Return the numbers (n,) predicted for rows."""
        return predict_numbers(model, X)

    def guess(self, true: Numbers, n: int) -> Numbers:
        """Return the mean number."""
        return np.full(n, true.mean() if len(true) else 0.0)

    def strata(self, codes: Codes) -> Codes:
        """Return a single stratum."""
        return np.zeros(len(codes), np.int64)

    def outcomes(self, true: Numbers, found: Numbers) -> Numbers:
        """Return the squared error of each row (n, 1)."""
        return np.square(true - found)[:, np.newaxis]

    def headline(self, means: Numbers) -> Numbers:
        """Return the RMSE."""
        return np.sqrt(means[..., 0])

    def headline_estimate(self, true: Numbers, found: Numbers, rng: np.random.Generator) -> Estimate:
        """Return the RMSE."""
        return bootstrap_interval(root_mean_square(true - found), len(true), rng)

    def estimates(
        self, project: Project, true: Numbers, predicted: Numbers, found: Numbers, rng: np.random.Generator
    ) -> Estimates:
        """Return RMSE, mean absolute error and R2."""
        n = len(true)
        return {
            "rmse": self.headline_estimate(true, found, rng),
            "mae": bootstrap_interval(lambda resample: np.abs(true - found)[resample].mean(axis=1), n, rng),
            "r2": bootstrap_interval(r_squared(true, found), n, rng),
        }


class LabelsQuality:
    """A prediction is a list of classes; each class of each row is a decision."""

    is_error = False

    def out_of_fold(
        self, project: Project, X: Features, codes: Codes, wanted: NDArray[np.bool_], medians: Medians | None
    ) -> Numbers:
        """Return marginals (l, c)."""
        Y, seed = task_of(project).labels(project, codes), project.random_state
        return out_of_fold_marginals(project.estimator, X, Y, codes, seed, wanted, project.n_samples, medians)

    def decide(self, project: Project, predicted: Numbers, thresholds: Thresholds) -> NDArray[np.bool_]:
        """Return the classes (n, c) whose marginals reach their thresholds."""
        return np.asarray(padded_thresholds(project, thresholds) <= predicted)

    def predict(self, project: Project, model: Any, thresholds: Thresholds, X: Features) -> NDArray[np.bool_]:
        """Return the classes (n, c) of rows."""
        return predict_sets(model, thresholds, X, len(project.classes))

    def guess(self, true: NDArray[np.bool_], n: int) -> NDArray[np.bool_]:
        """Return the classes that most rows have."""
        return np.tile(true.sum(axis=0) > len(true) / 2, (n, 1))

    def strata(self, codes: Codes) -> Codes:
        """Return the codes of the lists."""
        return codes

    def outcomes(self, true: NDArray[np.bool_], found: NDArray[np.bool_]) -> Numbers:
        """Return twice the number of right classes of each row, and the number of true and of predicted ones (n, 2)."""
        return np.stack([2 * (true & found).sum(axis=1), true.sum(axis=1) + found.sum(axis=1)], axis=1).astype(float)

    def headline(self, means: Numbers) -> Numbers:
        """Return F1 over all decisions."""
        return np.divide(means[..., 0], means[..., 1], out=np.ones(means.shape[:-1]), where=means[..., 1] > 0)

    def headline_estimate(
        self, true: NDArray[np.bool_], found: NDArray[np.bool_], rng: np.random.Generator
    ) -> Estimate:
        """Return F1 over all decisions."""
        n_drawn = round(len(true) / DESIGN_EFFECT)
        return bootstrap_interval(f1_of_sets(true, found, is_micro=True), len(true), rng, n_drawn)

    def estimates(
        self,
        project: Project,
        true: NDArray[np.bool_],
        predicted: Numbers,
        found: NDArray[np.bool_],
        rng: np.random.Generator,
    ) -> Estimates:
        """Return F1, ranking precision, Hamming loss, and the share of lists that are right."""
        n, precision, wrong = len(true), ranking_precision(predicted, true), (found != true).mean(axis=1)
        bootstrap = partial(bootstrap_interval, n=n, rng=rng, n_drawn=round(n / DESIGN_EFFECT))
        return {
            "f1_micro": self.headline_estimate(true, found, rng),
            "f1_macro": bootstrap(f1_of_sets(true, found, is_micro=False)),
            "lrap": bootstrap(lambda resample: precision[resample].mean(axis=1)),
            "hamming_loss": bootstrap(lambda resample: wrong[resample].mean(axis=1)),
            "accuracy": out_of_fold_interval(int(np.count_nonzero(wrong == 0)), n),
        }


QUALITIES: dict[TargetName, Quality] = {
    "class": ClassQuality(),
    "number": NumberQuality(),
    "labels": LabelsQuality(),
}


def quality_of(project: Project) -> Quality:
    """Return how the models of a project are judged."""
    return QUALITIES[project.target]
