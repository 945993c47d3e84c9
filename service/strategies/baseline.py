"""The baseline that every other strategy should beat."""

from __future__ import annotations

import numpy as np

from service.learning.scoring import Scores
from service.strategies.engine.question import PoolView, Positions
from service.strategies.engine.registry import set_strategy

SPARE = 20
"""Rows more than twice the batch that are ranked: with fewer than wanted, which is rare, all are."""


@set_strategy(
    "random", summary="Rows drawn uniformly at random.", source="the baseline of every comparison", needs=frozenset()
)
def random(view: PoolView, batch_size: int, rng: np.random.Generator) -> tuple[Positions, Scores, None]:
    """Give every candidate a uniform score from [0, 1)."""
    n = len(view.candidates)
    scores = rng.random(n)
    # About twice as many as wanted are above this: to rank them alone takes less time.
    high = np.flatnonzero(scores >= 1.0 - (2 * batch_size + SPARE) / n)
    ranked = high if len(high) >= batch_size else np.arange(n)
    positions = ranked[np.argsort(-scores[ranked])[:batch_size]]
    return positions, scores[positions], None
