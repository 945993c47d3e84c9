"""The baseline that every other strategy should beat."""

from __future__ import annotations

import numpy as np

from service.learning.scoring import Scores
from service.strategies.engine.question import PoolView, Positions
from service.strategies.engine.ranking import top
from service.strategies.engine.registry import set_strategy


@set_strategy(
    "random", summary="Rows drawn uniformly at random.", source="the baseline of every comparison", needs=frozenset()
)
def random(view: PoolView, batch_size: int, rng: np.random.Generator) -> tuple[Positions, Scores, None]:
    """Give every candidate a uniform score from [0, 1)."""
    scores = rng.random(len(view.candidates))
    positions = top(scores, batch_size, rng)
    return positions, scores[positions], None
