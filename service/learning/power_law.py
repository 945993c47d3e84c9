"""A learning curve as a power law, score = a - b n^-c, and what it expects of more labels.

Such a law describes most learning curves well (Viering & Loog 2023, arXiv:2103.10948).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

EXPONENTS = np.linspace(0.1, 1.5, 15)
"""The exponents c that are tried. A larger one means a curve that is flat soon."""


def expected_gains(n_labels: Numbers, scores: Numbers, start: float, ends: Numbers, most: float = 1.0) -> Numbers:
    """Return how much the labels from `start` to each of `ends` (e,) are expected to add to the score (r, e).

    The law is fitted by least squares to each of the curves (r, k), measured with `n_labels` (k,) labels; k >= 3. More
    labels are never expected to do harm, nor to make the score exceed `most`. An error counts as its negative.
    """
    best = np.full(len(scores), np.inf)
    gains = np.zeros((len(scores), len(ends)))
    for exponent in EXPONENTS:
        x = n_labels**-exponent
        x_mean, y_mean = x.mean(), scores.mean(axis=1)
        slope = (scores - y_mean[:, np.newaxis]) @ (x - x_mean) / np.sum((x - x_mean) ** 2)
        # The limit a is at most `most`, and the curve never falls.
        steepest = np.minimum(0.0, np.maximum(slope, (y_mean - most) / x_mean))
        limit = y_mean - steepest * x_mean
        error = np.sum((scores - limit[:, np.newaxis] - steepest[:, np.newaxis] * x) ** 2, axis=1)
        is_better = error < best
        best[is_better] = error[is_better]
        gains[is_better] = np.outer(steepest[is_better], ends**-exponent - start**-exponent)
    return gains
