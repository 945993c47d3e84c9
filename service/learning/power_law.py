"""A learning curve as a power law, accuracy = a - b n^-c, and what it expects of more labels.

Such a law describes most learning curves well (Viering & Loog 2023, arXiv:2103.10948).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

EXPONENTS = np.linspace(0.1, 1.5, 15)
"""The exponents c that are tried. A larger one means a curve that is flat soon."""


def expected_gains(n_labels: Numbers, accuracies: Numbers, start: float, ends: Numbers) -> Numbers:
    """Return how much accuracy (r, e) the labels from `start` to each of `ends` (e,) are expected to add.

    The law is fitted by least squares to each of the curves (r, k), measured with `n_labels` (k,) labels; k >= 3. More
    labels are never expected to do harm, nor to make the accuracy exceed 1.
    """
    best = np.full(len(accuracies), np.inf)
    gains = np.zeros((len(accuracies), len(ends)))
    for exponent in EXPONENTS:
        x = n_labels**-exponent
        x_mean, y_mean = x.mean(), accuracies.mean(axis=1)
        slope = (accuracies - y_mean[:, np.newaxis]) @ (x - x_mean) / np.sum((x - x_mean) ** 2)
        # The limit a is at most 1, and the curve never falls.
        steepest = np.minimum(0.0, np.maximum(slope, (y_mean - 1.0) / x_mean))
        limit = y_mean - steepest * x_mean
        error = np.sum((accuracies - limit[:, np.newaxis] - steepest[:, np.newaxis] * x) ** 2, axis=1)
        is_better = error < best
        best[is_better] = error[is_better]
        gains[is_better] = np.outer(steepest[is_better], ends**-exponent - start**-exponent)
    return gains
