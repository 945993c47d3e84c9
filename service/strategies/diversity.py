"""Strategies that choose rows far from all labelled ones, without a model."""

from __future__ import annotations

import numpy as np

from service.strategies.engine.greedy import SAMPLE, draw, nearest_labeled, select_greedily
from service.strategies.engine.question import PoolView, Positions
from service.strategies.engine.registry import Need, set_strategy


@set_strategy(
    "k_center",
    summary="Greedy: each row is the farthest from all labelled and chosen rows, so outliers come first.",
    source="Sener & Savarese 2018, Active Learning for Convolutional Neural Networks: A Core-Set Approach, "
    "arXiv:1708.00489",
    needs=frozenset({Need.FEATURES, Need.LABELED}),
    parameters=(SAMPLE,),
)
def k_center(
    view: PoolView, batch_size: int, rng: np.random.Generator, *, sample: int
) -> tuple[Positions, None, str | None]:
    """Choose greedily the row at the largest Euclidean distance from its nearest neighbour so far (core-set).

    It covers the pool, so it picks outliers: with few labels or noisy features it does worse than `random`. Without
    labels, the first row is drawn at random. Distances are compared in float32.
    """
    drawn, note = draw("k_center", view, len(view.covered) + batch_size, sample, batch_size, rng)
    nearest = nearest_labeled(view, view.candidates[drawn], batch_size, rng)
    positions = select_greedily(nearest, [], batch_size, rng, lambda _: lambda distances, _: distances.copy())
    return drawn[positions], None, note
