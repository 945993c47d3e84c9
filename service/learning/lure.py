"""The accuracy on a pool from samples that were drawn with known probabilities.

LURE (Farquhar et al. 2021, arXiv:2101.11665) weights each drawn sample so that the estimate has no bias although
samples that the model is unsure of are drawn more often. Each draw estimates the risk of the whole pool: the losses of
the samples that were not open, plus the loss of the drawn one divided by its probability. LURE is a weighted mean of
these, which is also right where other samples were labelled between two draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from service.learning.evaluation import Estimate, wilson_interval

Numbers = NDArray[np.float64]

LARGEST_WEIGHT = 1e15
"""Limits 1 / probability, which can overflow."""


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """Samples (m,) in the order in which they were drawn, and the predictions about them.

    `n_open` (m,) is the number of samples that each was drawn from, and `log_q` (m,) the logarithm of its probability.
    `is_wrong` (m,) marks those predicted wrongly, and `is_dropped` (m,) those that cannot be labelled.
    `n_wrong_before` and `n_dropped_before` (m,) are the numbers of these among the samples that were not open.
    """

    n_open: NDArray[np.int64]
    log_q: Numbers
    is_wrong: NDArray[np.bool_]
    is_dropped: NDArray[np.bool_]
    n_wrong_before: NDArray[np.int64]
    n_dropped_before: NDArray[np.int64]

    @classmethod
    def join(cls, parts: Sequence[Drawn]) -> Drawn:
        """Return the samples of several draws."""
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))


def lure_accuracy(drawn: Drawn, n_pool: int, bounds: tuple[float, float]) -> Estimate:
    """Return the accuracy on the samples of a pool that can be labelled, with an approximate 95 % interval.

    The interval is Wilson's for an effective number of draws: that of their weights (Kish 1965, Survey Sampling), or of
    the variance between them if that is smaller. `bounds` are what the accuracy can be, given the known labels.
    """
    n_open = drawn.n_open.astype(np.float64)
    # LURE's weights of the single estimates. The last sample of a pool is drawn with certainty.
    weights = 1.0 / (n_open * np.maximum(n_open - 1.0, 1e-9))
    weights /= weights.sum()
    inverse = np.minimum(np.exp(np.minimum(-drawn.log_q, 700.0)), LARGEST_WEIGHT)
    wrong = (drawn.n_wrong_before + np.where(drawn.is_wrong, inverse, 0.0)) / n_pool
    dropped = (drawn.n_dropped_before + np.where(drawn.is_dropped, inverse, 0.0)) / n_pool
    share = max(1.0 - float(weights @ dropped), 1.0 / n_pool)
    risk = float(weights @ wrong) / share
    variance = float(weights**2 @ ((wrong - risk * (1.0 - dropped)) / share) ** 2)
    risk, of_draws = min(1.0, risk), weights * inverse
    n_effective = float(of_draws.sum() ** 2 / (of_draws @ of_draws))
    if variance > 0:
        n_effective = min(n_effective, max(risk * (1.0 - risk) / variance, 1.0))
    found = wilson_interval((1.0 - risk) * n_effective, n_effective)
    return Estimate(*(float(np.clip(value, *bounds)) for value in (found.value, found.low, found.high)))
