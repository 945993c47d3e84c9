"""What every other strategy has to beat."""

from __future__ import annotations

import numpy as np

from service.scoring import Scores
from service.strategies.ranking import top
from service.strategies.registry import set_strategy
from service.strategies.view import PoolView, Positions


@set_strategy("random", summary="Rows drawn uniformly.", source="the baseline of every comparison", needs=frozenset())
def random(view: PoolView, batch_size: int, rng: np.random.Generator) -> tuple[Positions, Scores, None]:
    """Give every candidate a uniform score from [0, 1)."""
    scores = rng.random(len(view.candidates))
    positions = top(scores, batch_size, rng)
    return positions, scores[positions], None
