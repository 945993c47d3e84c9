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
"""Scores ranked at a time: 512 kB."""


def top(scores: Scores, batch_size: int, rng: np.random.Generator) -> Positions:
    """Return the positions of the `batch_size` >= 1 highest of finite scores (n,), best first; all n if fewer.

    Ties are broken at random, both in the order and at the cut: a pool is often sorted, and its first rows must not
    win every tie. Takes O(n + b log b) time, and O(b) memory besides the scores.
    """
    positions, _ = best_of([(0, scores, None)], batch_size, rng)
    return positions


def top_rows(
    pool: Pool, scores: list[Scores], wanted: NDArray[np.bool_], batch_size: int, rng: np.random.Generator
) -> tuple[Positions, Scores]:
    """Return the indices and scores of the `wanted` (n,) rows of a pool with the highest scores, as `top` does.

    `scores` holds those of each segment of the pool.
    """
    runs = [(start, run, wanted[start : start + len(run)]) for start, run in zip(pool.starts, scores, strict=False)]
    return best_of(runs, batch_size, rng)


Run = tuple[int, Scores, NDArray[np.bool_] | None]
"""The start of a run of scores, the scores, and a mask of those that count, None for all."""


def best_of(runs: Iterable[Run], batch_size: int, rng: np.random.Generator) -> tuple[Positions, Scores]:
    """Return the positions and scores of the `batch_size` >= 1 best over all runs, best first.

    Ties are broken by a hash of seed and position, so the order and the other rows of the runs do not matter, and a
    larger batch begins with a smaller one.
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
    return ranked(positions, scores, batch_size, seed)


def best_rows(
    positions: Positions, scores: Scores, batch_size: int, rng: np.random.Generator
) -> tuple[Positions, Scores]:
    """Return the positions (k,) and scores of the `batch_size` >= 1 best rows, best first, as `best_of` does."""
    return ranked(positions, scores, batch_size, rng.integers(2**64, dtype=np.uint64))


def ranked(positions: Positions, scores: Scores, batch_size: int, seed: np.uint64) -> tuple[Positions, Scores]:
    """Return the positions and scores of the best rows, best first."""
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
    """Return the numbers of the `batch_size` best scores, unordered."""
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
    """Return a 64-bit hash of the seed and each position."""
    return mix(seed + (positions.astype(np.uint64) + np.uint64(1)) * GOLDEN)
