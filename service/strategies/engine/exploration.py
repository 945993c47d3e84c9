"""Exploration: a random share of each batch, so that the labels include a uniform sample of the pool."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from service.strategies.engine.question import Positions
from service.strategies.engine.ranking import BLOCK_ROWS, best_of, hash_positions

AUTO_SHARE, AUTO_FROM = 0.1, 10
"""The default exploration share of `auto`, and the smallest batch size to which it applies."""


def random_order(n_samples: int, random_state: int, start: int = 0) -> NDArray[np.float64]:
    """Return the sort keys (n,) of samples from `start` on in the random order of a pool, smallest first.

    The order is never stored, and a sample keeps its key when the pool grows.
    """
    seed = np.random.SeedSequence(random_state).generate_state(1, np.uint64)[0]
    # A float holds 53 of the 64 bits.
    return (hash_positions(np.arange(start, start + n_samples), seed) >> np.uint64(11)).astype(np.float64)


def next_in_random_order(is_open: NDArray[np.bool_], n_rows: int, random_state: int) -> Positions:
    """Return the first `n_rows` open rows in the random order of the pool given by a project's seed.

    The longest labelled prefix of the order is a uniform sample of the pool, whatever requests its labels came from.
    """
    if n_rows == 0:
        return np.empty(0, np.int64)
    runs = (
        (start, -random_order(len(some), random_state, start), some)
        for start in range(0, len(is_open), BLOCK_ROWS)
        for some in [is_open[start : start + BLOCK_ROWS]]
    )
    positions, _ = best_of(runs, n_rows, np.random.default_rng(random_state))
    return positions
