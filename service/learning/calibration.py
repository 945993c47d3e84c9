"""Calibration of probabilities by a temperature (Guo et al. 2017, arXiv:1706.04599)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from service.domain.calibration import Calibration
from service.learning.models import Classifier, predict_probabilities
from service.learning.pool import Features

MIN_ROWS = 20
"""Minimum number of labelled rows for a temperature."""

LARGEST = 20.0
"""The temperature is from 1 / LARGEST to LARGEST."""

LEAST = 1e-6
"""Probabilities below this count as this much: those of forests may be 0."""

BINS = 15

Probabilities = NDArray[np.floating[Any]]
Codes = NDArray[np.integer[Any]]


class TemperedModel:
    """A model whose probabilities are calibrated by a temperature."""

    def __init__(self, model: Classifier, temperature: float) -> None:
        self.model = model
        self.temperature = temperature

    @property
    def classes_(self) -> NDArray[Any]:
        """The codes of the classes (c,)."""
        return self.model.classes_

    def predict_proba(self, X: Features, /) -> NDArray[np.float64]:
        """Return the calibrated probabilities (n, c) of rows (n, d)."""
        P: NDArray[np.float64] = temper(predict_probabilities(self.model, X), self.temperature)
        return P


def temper(P: Probabilities, temperature: float) -> Any:
    """Return the probabilities (n, c) to the power of 1 / temperature, rescaled to sum to 1.

    The larger the temperature, the less confident. The order of the classes of a row stays.
    """
    powers = P ** P.dtype.type(1 / temperature)
    return powers / powers.sum(axis=1, keepdims=True)


def fit_temperature(P: Probabilities, codes: Codes) -> Calibration | None:
    """Return the temperature of least log loss, given the out-of-fold probabilities (n, c) and class codes (n,).

    Rows whose class has a single row are left out: no model out of fold knows it. Return None below MIN_ROWS rows.
    """
    is_known = np.bincount(codes)[codes] > 1
    P, codes = P[is_known], codes[is_known]
    if len(codes) < MIN_ROWS:
        return None
    P = np.clip(P, LEAST, 1.0)

    def loss(log_temperature: float) -> float:
        tempered = temper(P, float(np.exp(log_temperature)))
        return -float(np.mean(np.log(np.clip(tempered[np.arange(len(codes)), codes], np.finfo(np.float64).tiny, 1.0))))

    limit = float(np.log(LARGEST))
    best = minimize_scalar(loss, bounds=(-limit, limit), method="bounded")
    temperature = float(np.exp(best.x))
    before, after = calibration_error(P, codes), calibration_error(temper(P, temperature), codes)
    return Calibration(temperature, len(codes), before, after)


def calibration_error(P: Probabilities, codes: Codes) -> float:
    """Return the expected calibration error of probabilities (n, c) with class codes (n,), from 0 to 1.

    It is the mean distance of confidence and accuracy over BINS bins of equal width, weighted by their rows.
    """
    confidence, right = P.max(axis=1), P.argmax(axis=1) == codes
    bins = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    gaps = np.bincount(bins, confidence - right, minlength=BINS)
    return float(np.abs(gaps).sum() / len(codes))
