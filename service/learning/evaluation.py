"""Estimates of a model's quality from a uniform sample of its pool, with 95 % intervals."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from service.compute.deadline import check_deadline
from service.domain.project import EstimatorSpec, TargetName
from service.learning.estimators import fit
from service.learning.folds import fit_folds
from service.learning.missing_values import Medians
from service.learning.models import Regressor, predict_numbers, predict_probabilities
from service.learning.pool import Features

Numbers = NDArray[np.float64]
Codes = NDArray[np.integer[Any]]

Z95 = 1.959963984540054
"""The 97.5 % quantile of the standard normal distribution."""

NUMBER: TargetName = "number"
LABELS: TargetName = "labels"

DESIGN_EFFECT = 4 / 3
"""How much larger the variance of a share of right predictions is out of fold than from a held-out set.

The models of different folds share most of their rows, and a strategy chose some of these by models of the others
(see Bates, Hastie & Tibshirani 2023, doi:10.1080/01621459.2023.2197686). Measured by `tests/benchmarks/evaluation.py`.
"""

RESAMPLES = 1_000

RESAMPLED_CELLS = 2**22
"""Largest number of cells of a block of resamples."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value and its 95 % confidence interval."""

    value: float
    low: float
    high: float


def out_of_fold_probabilities(
    spec: EstimatorSpec,
    X: Features,
    codes: Codes,
    n_classes: int,
    random_state: int,
    wanted: NDArray[np.bool_],
    pool_rows: int = 0,
    medians: Medians | None = None,
) -> Numbers:
    """Return the out-of-fold probabilities (n, c) of the wanted rows of (n, d); other rows are NaN.

    Each model is fitted to four fifths of all rows, as for a pool of `pool_rows`. A class that it has not seen has
    probability 0; if no model can be fitted, or it overflows, all classes are equally likely.
    """
    probabilities = np.full((len(codes), n_classes), np.nan)
    probabilities[wanted] = 1.0 / n_classes
    fit_model = partial(fit, spec, random_state=random_state, pool_rows=pool_rows, medians=medians)
    for held_out, model in fit_folds(fit_model, X, codes, random_state, np.arange(len(codes)), codes, wanted):
        of_fold = predict_probabilities(model, X[held_out])
        finite = np.isfinite(of_fold).all(axis=1)
        probabilities[held_out[finite]] = 0.0
        probabilities[np.ix_(held_out[finite], model.classes_)] = of_fold[finite]
    return probabilities


def out_of_fold_numbers(
    spec: EstimatorSpec,
    X: Features,
    y: Numbers,
    random_state: int,
    wanted: NDArray[np.bool_],
    pool_rows: int = 0,
    medians: Medians | None = None,
) -> Numbers:
    """Return the out-of-fold predictions (n,) of numbers `y` for the wanted rows of (n, d); others are NaN.

    Where no model can be fitted, or it overflows, the mean of all numbers is the prediction.
    """
    predictions = np.full(len(y), np.nan)
    predictions[wanted] = y.mean()
    fit_model = partial(fit, spec, random_state=random_state, pool_rows=pool_rows, medians=medians, target=NUMBER)
    folds = np.zeros(len(y), np.int64)
    for held_out, model in fit_folds(fit_model, X, folds, random_state, np.arange(len(y)), y, wanted):
        of_fold = predict_numbers(cast(Regressor, model), X[held_out])
        finite = np.isfinite(of_fold)
        predictions[held_out[finite]] = of_fold[finite]
    return predictions


def out_of_fold_marginals(
    spec: EstimatorSpec,
    X: Features,
    Y: NDArray[np.bool_],
    codes: Codes,
    random_state: int,
    wanted: NDArray[np.bool_],
    pool_rows: int = 0,
    medians: Medians | None = None,
) -> Numbers:
    """Return the out-of-fold marginals (n, c) of the wanted rows of (n, d); other rows are NaN.

    `Y` (n, c) are the classes of the rows, and `codes` (n,) those of their labels. Where no model can be fitted, or it
    overflows, the shares of the classes are the marginals.
    """
    marginals = np.full(Y.shape, np.nan)
    marginals[wanted] = Y.mean(axis=0)
    fit_model = partial(fit, spec, random_state=random_state, pool_rows=pool_rows, medians=medians, target=LABELS)
    for held_out, model in fit_folds(fit_model, X, codes, random_state, np.arange(len(Y)), Y, wanted):
        of_fold = predict_probabilities(model, X[held_out])
        finite = np.isfinite(of_fold).all(axis=1)
        marginals[held_out[finite]] = of_fold[finite]
    return marginals


def root_mean_square(errors: Numbers) -> Callable[[NDArray[np.intp]], Numbers]:
    """Return the root of the mean squared error in a resample, as a statistic for `bootstrap_interval`."""
    squares = np.square(errors)
    return lambda rows: np.sqrt(squares[rows].mean(axis=1))


def r_squared(true: Numbers, predicted: Numbers) -> Callable[[NDArray[np.intp]], Numbers]:
    """Return the share of the variance that is predicted in a resample, as a statistic for `bootstrap_interval`.

    It is 0 where all numbers are the same.
    """
    squares = np.square(true - predicted)

    def statistic(rows: NDArray[np.intp]) -> Numbers:
        error, spread = squares[rows].mean(axis=1), true[rows].var(axis=1)
        shares = np.divide(error, spread, out=np.ones_like(error), where=spread > 0)
        return np.asarray(1.0 - shares)

    return statistic


def wilson_interval(n_right: float, n: float) -> Estimate:
    """Return a share and its interval by Wilson's score (Wilson 1927, doi:10.1080/01621459.1927.10502953); n >= 1."""
    share, z2 = n_right / n, Z95**2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    # At 0 and n right the bound equals the share up to rounding.
    return Estimate(share, max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half)))


def out_of_fold_interval(n_right: int, n: int) -> Estimate:
    """Return a share of right predictions out of fold, and Wilson's interval for fewer rows, by DESIGN_EFFECT."""
    return wilson_interval(n_right / DESIGN_EFFECT, n / DESIGN_EFFECT)


def cohens_kappa(one: Codes, other: Codes) -> float:
    """Return the agreement of two codings (n,) beyond chance (Cohen 1960, doi:10.1177/001316446002000104).

    1 if they are the same, also where both name a single class.
    """
    if np.array_equal(one, other):
        return 1.0
    values, codes = np.unique(np.concatenate([one, other]), return_inverse=True)
    first, second = (np.bincount(half, minlength=len(values)) / len(one) for half in np.split(codes, 2))
    by_chance = float(first @ second)
    return float((np.mean(one == other) - by_chance) / (1.0 - by_chance))


def bootstrap_interval(
    statistic: Callable[[NDArray[np.intp]], Numbers], n: int, rng: np.random.Generator, n_drawn: int | None = None
) -> Estimate:
    """Return a statistic of n rows and its percentile interval (Efron 1979, doi:10.1214/aos/1176344552).

    `statistic` maps resamples (r, n) of the rows to their values (r,). Resamples of `n_drawn` < n rows make the
    interval wider.
    """
    n_left, values = RESAMPLES, []
    size = n if n_drawn is None else n_drawn
    while n_left:
        check_deadline()
        some = min(n_left, max(1, RESAMPLED_CELLS // size))
        values.append(statistic(rng.integers(n, size=(some, size))))
        n_left -= some
    low, high = np.quantile(np.concatenate(values), [0.025, 0.975])
    value = float(statistic(np.arange(n)[np.newaxis])[0])
    return Estimate(value, float(min(low, value)), float(max(high, value)))


def class_counts(
    codes: Codes, rows: NDArray[np.intp], n_classes: int, weight: NDArray[np.bool_] | None = None
) -> Numbers:
    """Return the class counts (r, c) of each resample (r, n) of the codes (n,), or of those with weight True."""
    cells = codes[rows] + n_classes * np.arange(len(rows))[:, np.newaxis]
    weights = None if weight is None else weight[rows].ravel()
    counts = np.bincount(cells.ravel(), weights, minlength=n_classes * len(rows))
    return counts.reshape(len(rows), n_classes).astype(np.float64)


def balanced_accuracy(true: Codes, predicted: Codes, n_classes: int) -> Callable[[NDArray[np.intp]], Numbers]:
    """Return the mean recall over the classes in a resample, as a statistic for `bootstrap_interval`."""

    def statistic(rows: NDArray[np.intp]) -> Numbers:
        of_class = class_counts(true, rows, n_classes)
        right = class_counts(true, rows, n_classes, true == predicted)
        recalls = np.divide(right, of_class, out=np.zeros_like(right), where=of_class > 0)
        return np.asarray(recalls.sum(axis=1) / (of_class > 0).sum(axis=1))

    return statistic


def f1_macro(true: Codes, predicted: Codes, n_classes: int) -> Callable[[NDArray[np.intp]], Numbers]:
    """Return the mean F1 over the true or predicted classes of a resample, as a statistic for `bootstrap_interval`."""

    def statistic(rows: NDArray[np.intp]) -> Numbers:
        both = class_counts(true, rows, n_classes) + class_counts(predicted, rows, n_classes)
        right = class_counts(true, rows, n_classes, true == predicted)
        f1 = np.divide(2 * right, both, out=np.zeros_like(right), where=both > 0)
        return np.asarray(f1.sum(axis=1) / (both > 0).sum(axis=1))

    return statistic


def f1_of_sets(
    true: NDArray[np.bool_], predicted: NDArray[np.bool_], *, is_micro: bool
) -> Callable[[NDArray[np.intp]], Numbers]:
    """Return F1 of several labels a row (n, c) in a resample, as a statistic for `bootstrap_interval`.

    The micro average is over all decisions, and the other one over the classes that are true or predicted; F1 is 1
    without any.
    """
    right = (true & predicted).astype(np.float64)
    both = true.astype(np.float64) + predicted

    def statistic(rows: NDArray[np.intp]) -> Numbers:
        weight = np.stack([np.bincount(resample, minlength=len(true)) for resample in rows]).astype(np.float64)
        n_right, n_both = weight @ right, weight @ both
        if is_micro:
            n_right, n_both = n_right.sum(axis=1, keepdims=True), n_both.sum(axis=1, keepdims=True)
        f1 = np.divide(2 * n_right, n_both, out=np.zeros_like(n_right), where=n_both > 0)
        n_seen = (n_both > 0).sum(axis=1)
        return np.asarray(np.divide(f1.sum(axis=1), n_seen, out=np.ones(len(rows)), where=n_seen > 0))

    return statistic


def prediction_powered_accuracy(
    right: NDArray[np.bool_],
    confidence: Numbers,
    pool_mean: float,
    pool_variance: float,
    n_pool: int,
    design_effect: float = 1.0,
) -> Estimate:
    """Return the accuracy by prediction-powered inference (PPI++, Angelopoulos et al. 2023, arXiv:2311.01453).

    `right` and `confidence` (n,) are those of the uniform rows; mean and variance of the model's confidence are over
    the whole pool. The confidence is weighted by the regression coefficient of `right` on it, clipped to 0..1.
    The variance over the uniform rows is multiplied by `design_effect`.
    """
    variance, n = float(np.var(confidence)), len(right)
    covariance = float(np.mean((right - right.mean()) * (confidence - confidence.mean())))
    share = float(np.clip(covariance / variance, 0.0, 1.0)) if variance > 0 else 0.0
    value = share * pool_mean + float(np.mean(right - share * confidence))
    of_rows = design_effect * float(np.var(right - share * confidence, ddof=1)) / n
    error = math.sqrt(share**2 * pool_variance / n_pool + of_rows)
    low, high = (min(1.0, max(0.0, bound)) for bound in (value - Z95 * error, value + Z95 * error))
    return Estimate(min(1.0, max(0.0, value)), low, high)
