"""The most uncertain rows of a large pool under a linear model.

A product of matrices is rounded in another order on another processor, and for another number of rows. So its scores
are estimates with a largest error: the rows that may be among the best are found by them, and ranked by exact scores,
see `exact_scores`. Nor are all rows estimated: the gap between the two largest logits bounds a score from above, so the
rows with a small gap are enough, a percent or so of the pool, if the best of them exceed the bound of the others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from service.compute.threads import run_in_threads
from service.learning.close_rows import CloseRows, norms_of, norms_of_blocks
from service.learning.linear_scorer import LinearHead, LinearPredictor, largest_two, softmax
from service.learning.models import row_blocks
from service.learning.pool import Chunk, Pool
from service.learning.scoring import INVALID_SCORE, NoScoreCache, ScoreCache, Scorer, Scores, score_rows

Bound = Callable[[float, int], float]
"""Maps a gap of logits and a number of classes to the highest score of a row whose gap is at least that."""

Rows = NDArray[np.int64]

LEAST_SHARE, MOST_SHARE = 0.005, 0.1
"""Share of the rows to estimate: with more, all are."""

ROWS_PER_PICK = 3
"""Rows to estimate for each class and row of the batch."""

MOST_FOUND = 4
"""Rows with a small gap, as a multiple of the share, beyond which all are estimated."""

SAMPLED = 2000
"""Number of rows of a pool that say how large gaps are."""

ROUNDING = 1e-9
"""Largest error of an exact score, or of a bound, of the probabilities of given logits."""


@dataclass(frozen=True, slots=True, eq=False)
class Estimates:
    """The scores (k,) of rows (k,) and their largest errors (k,); no other row has a higher score than `floor`."""

    rows: Rows
    scores: Scores
    errors: Scores
    floor: float


@dataclass(slots=True, eq=False)
class Leaders:
    """The estimates of a pool's rows with small gaps, computed once; None if there are too many."""

    lock: Lock = field(default_factory=Lock)
    is_known: bool = False
    estimates: Estimates | None = None

    def get(self, make: Callable[[], Estimates | None]) -> Estimates | None:
        """Return the estimates, made if they are not known."""
        with self.lock:
            if not self.is_known:
                self.estimates, self.is_known = make(), True
            return self.estimates


def estimate_leaders(
    predict: LinearPredictor,
    pool: Pool,
    scorer: Scorer,
    bound: Bound,
    share: float,
    score_cache: ScoreCache | None,
) -> Estimates | None:
    """Return the estimates of the rows with the smallest gaps, about this share of them; None if that does not pay."""
    # Few different shares, so that batches of other sizes find the same in the cache.
    share = LEAST_SHARE * 2 ** max(0, int(np.ceil(np.log2(share / LEAST_SHARE))))
    if share > MOST_SHARE:
        return None
    most = int(MOST_FOUND * share * len(pool))
    cache = score_cache or NoScoreCache()
    leaders: Leaders = cache.of_model((scorer, "leaders", share), lambda: (Leaders(), 24 * most))
    return leaders.get(partial(find_leaders, predict, pool, scorer, bound, share, most))


def find_leaders(
    predict: LinearPredictor, pool: Pool, scorer: Scorer, bound: Bound, share: float, most: int
) -> Estimates | None:
    """Return the estimates of the rows with the smallest gaps, None if these are more than `most`."""
    reach = gap_of_share(predict, pool, share)
    searches = {head: CloseRows.of(head, reach) for head in predict.heads}
    found: dict[int, Rows] = {}

    def look(chunk: Chunk) -> None:
        head, X = predict.prepare(pool.read(chunk))
        found[chunk.rows.start] = chunk.rows.start + searches[head].find(X)

    run_in_threads(look, list(pool.chunks(predict.n_classes)))
    rows = np.concatenate([found[start] for start in sorted(found)])
    if len(rows) > most:
        return None
    scores, errors = np.empty(len(rows)), np.empty(len(rows))

    def estimate(some: slice) -> None:
        head, X = predict.prepare(pool.take(rows[some]))
        scores[some] = score_rows(head.probabilities, scorer, X)
        errors[some] = score_errors(head, norms_of(X))

    run_in_threads(estimate, blocks_of(rows, pool, predict))
    return Estimates(rows, scores, errors, bound(reach, predict.n_classes) + ROUNDING)


def gap_of_share(predict: LinearPredictor, pool: Pool, share: float) -> float:
    """Return the gap that this share of some rows has at the most."""
    head, X = predict.prepare(pool.take(np.arange(0, len(pool), max(1, len(pool) // SAMPLED))))
    with np.errstate(all="ignore"):
        first, second = largest_two(head.logits(X))
        gaps = (first - second).astype(np.float64)
    gaps = gaps[np.isfinite(gaps)]
    return float(np.quantile(gaps, share)) if len(gaps) else 0.0


def score_errors(head: LinearHead, norms: Scores) -> Scores:
    """Return the largest errors (n,) of estimated scores of rows with these norms (n,).

    A score changes by at most twice as much as the logits; the rest is the rounding of the probabilities.
    """
    n_classes = head.weights.shape[1]
    errors: Scores = 2 * head.errors(norms) + (n_classes + 64) * float(np.finfo(head.weights.dtype).eps)
    return errors


def errors_of_pool(predict: LinearPredictor, pool: Pool) -> NDArray[np.float32]:
    """Return the largest errors (n,) of the estimated scores of a pool's rows."""
    errors = np.empty(len(pool), np.float32)

    def fill(chunk: Chunk) -> None:
        head, X = predict.prepare(pool.read(chunk))
        norms, step = norms_of_blocks(X)
        with np.errstate(over="ignore"):
            of_blocks = (score_errors(head, norms) * (1 + 1e-6)).astype(np.float32)
        errors[chunk.rows] = np.repeat(of_blocks, step)[: len(X)]

    run_in_threads(fill, list(pool.chunks(predict.n_classes)))
    return errors


def exact_scores(predict: LinearPredictor, pool: Pool, scorer: Scorer, rows: Rows) -> Scores:
    """Return the scores (k,) of rows (k,) from logits that every machine rounds alike, whatever the other rows are."""
    scores = np.empty(len(rows))

    def score(some: slice) -> None:
        z, largest_valid = predict.exact_logits(pool.take(rows[some]))
        with np.errstate(all="ignore"):
            first = z.max(axis=0)
            of_some = score_rows(lambda P: P, scorer, softmax(z, first))
        scores[some] = np.where(first <= largest_valid, of_some, INVALID_SCORE)

    run_in_threads(score, blocks_of(rows, pool, predict))
    return scores


def blocks_of(rows: Rows, pool: Pool, predict: LinearPredictor) -> list[slice]:
    """Return slices of rows that have few cells."""
    lengths = [len(block) for block in row_blocks(rows, 2 * pool.n_columns, 2 * predict.n_classes)]
    stops = np.cumsum(lengths)
    return [slice(int(stop) - length, int(stop)) for length, stop in zip(lengths, stops, strict=True)]
