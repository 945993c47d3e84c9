"""Strategies that look for what is unlike anything labelled, whatever a model thinks of it."""

from __future__ import annotations

import numpy as np

from service.strategies.engine.greedy import SAMPLE, draw, nearest_labeled, pick
from service.strategies.engine.question import PoolView, Positions
from service.strategies.engine.registry import Need, set_strategy


@set_strategy(
    "k_center",
    summary="One row after another, each the farthest from all that are labelled or in the batch: outliers come first.",
    source="Sener & Savarese 2018, Active Learning for Convolutional Neural Networks: A Core-Set Approach, "
    "arXiv:1708.00489",
    needs=frozenset({Need.FEATURES, Need.LABELED}),
    parameters=(SAMPLE,),
)
def k_center(
    view: PoolView, batch_size: int, rng: np.random.Generator, *, sample: int
) -> tuple[Positions, None, str | None]:
    """Choose greedily the row at the largest Euclidean distance from its nearest neighbour so far (core-set).

    It covers the pool, so it picks outliers: with few labels, or features nobody cleaned, it does worse than `random`.
    While nothing is labelled the seed draws the first row. Distances are compared rounded to float32.
    """
    drawn, note = draw("k_center", view, len(view.covered) + batch_size, sample, batch_size, rng)
    nearest = nearest_labeled(view, view.candidates[drawn], batch_size, rng)
    positions = pick(nearest, [], batch_size, rng, lambda _: lambda distances, _: distances.copy())
    return drawn[positions], None, note
