"""Exploration: a share of each batch that no model chooses, so that what is labelled stays honest about the pool."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from service.strategies.engine.question import Positions
from service.strategies.engine.ranking import BLOCK_ROWS, best_of, lots

AUTO_SHARE, AUTO_FROM = 0.1, 10
"""What `auto` explores where nothing is said, and from which size of batch on."""


def next_in_random_order(is_open: NDArray[np.bool_], n_rows: int, random_state: int) -> Positions:
    """Return the first `n_rows` open rows in the random order of the pool that belongs to a project's seed.

    The order is never stored, and a row's place among others stays when the pool grows. Whoever asked for them and why,
    the longest prefix of it that is labelled throughout is a uniform sample of the pool.
    """
    if n_rows == 0:
        return np.empty(0, np.int64)
    seed = np.random.SeedSequence(random_state).generate_state(1, np.uint64)[0]
    # 53 bits of a lot are what a float holds; the smallest comes first.
    runs = (
        (start, -(lots(np.arange(start, start + len(some)), seed) >> np.uint64(11)).astype(np.float64), some)
        for start in range(0, len(is_open), BLOCK_ROWS)
        for some in [is_open[start : start + BLOCK_ROWS]]
    )
    positions, _ = best_of(runs, n_rows, np.random.default_rng(random_state))
    return positions
