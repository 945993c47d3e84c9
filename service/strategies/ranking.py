"""The one shared ranking. Nobody sorts again."""

from __future__ import annotations

import numpy as np

from service.scoring import Scores
from service.strategies.view import Positions


def top(scores: Scores, batch_size: int, rng: np.random.Generator) -> Positions:
    """Return the positions of the `batch_size` >= 1 highest of finite scores (n,), best first; all n if fewer.

    Equal scores come in an order drawn from `rng`, and so does who of them gets in where they straddle the cut: a pool
    is often sorted, and its first rows must not win every tie. Takes O(n + b log b).
    """
    n = len(scores)
    if batch_size >= n:
        chosen = np.arange(n)
    else:
        cut = np.partition(scores, n - batch_size)[n - batch_size]
        above, level = np.flatnonzero(scores > cut), np.flatnonzero(scores == cut)
        chosen = np.concatenate([above, rng.choice(level, batch_size - len(above), replace=False, shuffle=False)])
    shuffled = rng.permutation(chosen)
    return shuffled[np.argsort(-scores[shuffled], kind="stable")]
