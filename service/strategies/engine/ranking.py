"""The ranking that all strategies share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from service.domain.splitmix import GOLDEN, mix
from service.learning.pool import Pool
from service.learning.scoring import Scores
from service.strategies.engine.question import Positions

BLOCK_ROWS = 2**16
"""Half a megabyte of scores is looked at at a time."""


def top(scores: Scores, batch_size: int, rng: np.random.Generator) -> Positions:
    """Return the positions of the `batch_size` >= 1 highest of finite scores (n,), best first; all n if fewer.

    Equal scores come in an order drawn from `rng`, and so does who of them gets in where they straddle the cut: a pool
    is often sorted, and its first rows must not win every tie. Takes O(n + b log b) and O(b) beside the scores.
    """
    positions, _ = best_of([(0, scores, None)], batch_size, rng)
    return positions


def top_rows(
    pool: Pool, scores: list[Scores], wanted: NDArray[np.bool_], batch_size: int, rng: np.random.Generator
) -> tuple[Positions, Scores]:
    """Return the indices and scores of the `wanted` (n,) rows of a pool with the highest scores, as `top` does.

    `scores` holds those of each segment.
    """
    runs = [(start, run, wanted[start : start + len(run)]) for start, run in zip(pool.starts, scores, strict=False)]
    return best_of(runs, batch_size, rng)


Run = tuple[int, Scores, NDArray[np.bool_] | None]
"""Where a run of scores begins, the scores, and which of them count, None for all."""


def best_of(runs: Iterable[Run], batch_size: int, rng: np.random.Generator) -> tuple[Positions, Scores]:
    """Return the positions and scores of the `batch_size` >= 1 best over all runs, best first.

    A tie is decided by a number that belongs to seed and position alone, so that neither the order of the runs nor
    what else is in them matters, and a larger batch begins with a smaller one.
    """
    seed = rng.integers(2**64, dtype=np.uint64)
    positions, scores = np.empty(0, np.int64), np.empty(0)
    for first, block, counts in blocks_of(runs):
        good = block >= (scores.min() if len(scores) == batch_size else -np.inf)
        above = np.flatnonzero(good if counts is None else np.logical_and(good, counts, out=good))
        if len(above) == 0:
            continue
        positions = np.concatenate([positions, above + first])
        scores = np.concatenate([scores, block[above]])
        if len(scores) > batch_size:
            kept = best_positions(positions, scores, batch_size, seed)
            positions, scores = positions[kept], scores[kept]
    if len(scores) > 1:
        order = np.lexsort((hash_positions(positions, seed), -scores))
        positions, scores = positions[order], scores[order]
    return positions, scores


def blocks_of(runs: Iterable[Run]) -> Iterator[Run]:
    """Cut runs of scores into blocks."""
    for first, scores, counts in runs:
        for start in range(0, len(scores), BLOCK_ROWS):
            block = slice(start, start + BLOCK_ROWS)
            yield first + start, scores[block], None if counts is None else counts[block]


def best_positions(positions: Positions, scores: Scores, batch_size: int, seed: np.uint64) -> Positions:
    """Return which `batch_size` of more scores are best, in no order."""
    cut = np.partition(scores, len(scores) - batch_size)[len(scores) - batch_size]
    best = np.flatnonzero(scores >= cut)
    if len(best) == batch_size:
        return best
    is_level = scores[best] == cut
    above, level = best[~is_level], best[is_level]
    n_drawn = batch_size - len(above)
    drawn = np.argpartition(hash_positions(positions[level], seed), n_drawn - 1)[:n_drawn]
    return np.concatenate([above, level[drawn]])


def hash_positions(positions: Positions, seed: np.uint64) -> NDArray[np.uint64]:
    """Draw a number of 64 bits for each position, the same for the same seed."""
    return mix(seed + (positions.astype(np.uint64) + np.uint64(1)) * GOLDEN)
