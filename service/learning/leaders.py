"""The most uncertain rows of a pool under a linear model, without the probabilities of all others.

The gap between the two largest logits of a row bounds its score from above. So only the rows with a small gap are
scored, a percent or so of the pool, from the same logits as all would be. If the best of them exceed the bound of the
others, they are the best of all, with the same scores.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from service.compute.threads import run_in_threads
from service.learning.linear_scorer import LinearPredictor, largest_two, softmax
from service.learning.models import Classifier
from service.learning.pool import Chunk, Matrix, Pool
from service.learning.scoring import (
    INVALID_SCORE,
    Predictor,
    ScoreCache,
    Scorer,
    Scores,
    SegmentScores,
    compute_missing,
    known_scores,
    outputs_of,
    predictor_for,
    score_rows,
)

Bound = Callable[[float, int], float]
"""Maps a gap of logits and a number of classes to the highest score of a row whose gap is at least that."""

NOT_SCORED = -2.0
"""Score of the other rows, below all others."""

LEAST_SHARE, MOST_SHARE = 0.01, 0.1
"""Share of the rows to score: with more, all are scored at once."""

ROWS_PER_PICK = 4
"""Rows to score for each class and row of the batch."""

SAMPLED = 2000
"""Number of rows of a segment that say how large gaps are."""

ROUNDING = 1e-5
"""Largest error of a bound in float32."""


def score_leaders(
    model: Predictor,
    pool: Pool,
    scorer: Scorer,
    bound: Bound,
    wanted: NDArray[np.bool_],
    n_best: int,
    score_cache: ScoreCache | None = None,
) -> list[Scores] | None:
    """Return scores of each segment's rows as `score_pool` does, with NOT_SCORED for rows not among the `n_best`.

    Return None if that is not known, or does not pay: for another model, a sparse pool or a large batch.
    """
    predict = None if pool.is_sparse or n_best == 0 else predictor_for(model, pool)
    if not isinstance(predict, LinearPredictor) or not predict.has_logits:
        return None
    n_classes = len(cast(Classifier, model).classes_)
    share = max(LEAST_SHARE, ROWS_PER_PICK * n_classes * n_best / max(int(np.count_nonzero(wanted)), 1))
    if share > MOST_SHARE:
        return None
    known = known_scores(pool, (scorer, "leaders"), outputs_of(model), score_cache)
    compute_missing(
        known,
        pool,
        wanted,
        outputs_of(model),
        lambda chunks, _: score_small_gaps(predict, pool, scorer, share, known, chunks),
    )
    reach = max((float(segment.reach[0]) for segment in known if not np.isnan(segment.reach[0])), default=0.0)
    floor = bound(reach, n_classes) + ROUNDING
    n_above = sum(
        int(np.count_nonzero(wanted[start + np.flatnonzero(segment.scores > floor)]))
        for start, segment in zip(pool.starts, known, strict=False)
    )
    return [segment.scores for segment in known] if n_above >= n_best else None


def score_small_gaps(
    predict: LinearPredictor,
    pool: Pool,
    scorer: Scorer,
    share: float,
    known: Sequence[SegmentScores],
    chunks: Sequence[Chunk],
) -> None:
    """Fill in the scores of some chunks: of those rows whose gap is within the reach of their segment.

    These rows are few in each chunk, so those of a segment are scored together.
    """
    of_segments: dict[int, list[SmallGaps]] = {chunk.segment: [] for chunk in chunks}
    for number in of_segments:
        if np.isnan(known[number].reach[0]):
            known[number].reach[0] = gap_of_share(predict, pool, number, share)

    def look(chunk: Chunk) -> None:
        segment = known[chunk.segment]
        with np.errstate(all="ignore"):
            z = predict.logits(cast(Matrix, pool.read(chunk)))
            first, second = largest_two(z)
            second -= first
        segment.scores[chunk.within] = np.where(np.isfinite(first), NOT_SCORED, INVALID_SCORE)
        rows = np.flatnonzero(second >= -segment.reach[0])
        of_segments[chunk.segment].append(SmallGaps(chunk.within.start + rows, np.take(z, rows, axis=1), first[rows]))

    run_in_threads(look, chunks)
    for number, found in of_segments.items():
        rows = np.concatenate([each.rows for each in found])
        z = np.concatenate([each.logits for each in found], axis=1)
        first = np.concatenate([each.largest for each in found])
        known[number].scores[rows] = score_rows(lambda P: P, scorer, softmax(z, first))


@dataclass(frozen=True, slots=True, eq=False)
class SmallGaps:
    """The rows (k,) of a segment with small gaps in a chunk, with their logits (c, k) and the largest of these (k,)."""

    rows: NDArray[np.int64]
    logits: NDArray[np.floating[Any]]
    largest: NDArray[np.floating[Any]]


def gap_of_share(predict: LinearPredictor, pool: Pool, segment: int, share: float) -> float:
    """Return the gap that this share of some of a segment's rows has at the most."""
    n_rows = len(pool.segments[segment])
    rows = pool.starts[segment] + np.arange(0, n_rows, max(1, n_rows // SAMPLED))
    with np.errstate(all="ignore"):
        first, second = largest_two(predict.logits(cast(Matrix, pool.take(rows))))
        gaps = (first - second).astype(np.float64)
    gaps = gaps[np.isfinite(gaps)]
    return float(np.quantile(gaps, share)) if len(gaps) else 0.0
