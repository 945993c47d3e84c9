"""Strategies that weight the model's uncertainty by a property of the features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from service.compute.threads import run_in_threads, use_one_thread
from service.domain.parameters import Parameter
from service.learning.pool import Features, Pool
from service.learning.scoring import INVALID_SCORE, Probabilities, Scores
from service.strategies.engine.greedy import (
    SAMPLE,
    WIDTH_ROWS,
    Points,
    cells_of,
    centered_space,
    cut,
    draw,
    median_distance,
    rows_per_block,
    squared_norms,
)
from service.strategies.engine.notes import add_invalid_note
from service.strategies.engine.pairs import REFERENCES, TILE_ROWS
from service.strategies.engine.question import PoolView, Positions
from service.strategies.engine.ranking import top
from service.strategies.engine.registry import Need, set_strategy
from service.strategies.uncertainty import SCORERS, as_float64, scorer_parameter

Matrix = NDArray[np.float64]

HELD_CELLS = 2**20
"""Limit on the features of the references held in memory: 8 MB."""

LARGEST = float(np.finfo(np.float64).max)


@set_strategy(
    "expected_gradient_length",
    summary="Rows that are likely to change a linear model most: uncertain, with large features. Scale the features "
    "first.",
    source="Settles, Craven & Ray 2007, Multiple-Instance Active Learning, NIPS",
    needs=frozenset({Need.PROBABILITIES, Need.FEATURES}),
)
def expected_gradient_length(
    view: PoolView, batch_size: int, rng: np.random.Generator
) -> tuple[Positions, Scores, str | None]:
    """Score by ||x|| sum p_k ||p - e_k||, the expected length of the log loss's gradient in a softmax layer's weights.

    The gradient of the intercept is left out; it would replace ||x|| by ||(x, 1)||. Features are not scaled, so a
    column of large numbers dominates, and outliers come first. Lengths beyond float64 are clipped to its largest
    number.
    """
    scores = view.scores(expected_error)
    is_broken = scores == INVALID_SCORE

    def lengthen(positions: Positions) -> None:
        scores[positions] *= norms_of(view.features(positions))

    run_in_threads(lengthen, list(cut(np.flatnonzero(~is_broken), rows_per_block(view.pool, 1))))
    positions = top(scores, batch_size, rng)
    return positions, scores[positions], add_invalid_note(None, is_broken, "come last")


def expected_error(probabilities: Probabilities) -> Scores:
    """Return sum p_k ||p - e_k|| of each row, from 0 (certain) to 1."""
    # If the highest p_k is close to 1, ||p||^2 - 2 p_k + 1 cancels: add the squares of the others and (1 - p_k)^2.
    first, others = probabilities[:, 0].copy(), np.zeros_like(probabilities[:, 0])
    for column in probabilities.T[1:]:
        lesser = np.minimum(first, column)
        np.maximum(first, column, out=first)
        others += lesser * lesser
    squares = first * first + others
    total = np.zeros_like(first)
    for column in probabilities.T:
        rest = 1.0 - column
        total += column * np.sqrt(np.where(column == first, others + rest * rest, squares + 1.0 - 2.0 * column))
    return as_float64(total)


def norms_of(X: Features) -> NDArray[np.float64]:
    """Return the Euclidean norm of each row, clipped to the largest float64."""
    return unit_rows(X)[1]


def unit_rows(X: Features) -> tuple[Features, NDArray[np.float64]]:
    """Return the rows in float64, each divided by its norm, and the norms; a row of zeros stays zero.

    Each row is first divided by its largest cell, so that no square overflows or underflows.
    """
    Z = X.astype(np.float64)
    largest = abs(Z).max(axis=1)
    largest = largest.toarray().ravel() if sparse.issparse(largest) else largest
    divide_rows(Z, largest)
    lengths = np.sqrt(squared_norms(Z))
    divide_rows(Z, lengths)
    with np.errstate(over="ignore"):
        return Z, np.minimum(largest * lengths, LARGEST)


def divide_rows(Z: Features, divisors: NDArray[np.float64]) -> None:
    """Divide each row in place by its divisor (n,), unless that is 0."""
    divisors = np.where(divisors == 0, 1.0, divisors)
    cells = cells_of(Z)
    cells /= np.repeat(divisors, np.diff(Z.indptr)) if sparse.issparse(Z) else divisors[:, np.newaxis]


@dataclass(frozen=True, slots=True, eq=False)
class Similarity:
    """A function that reads rows of a pool, and the similarity (k, m) of rows to others, from 0 to 1."""

    read: Callable[[Positions], Points]
    between: Callable[[Points, Points], Matrix]


def distance_similarity(pool: Pool, rows: Positions, references: Positions) -> Similarity:
    """Return 1 / (1 + Euclidean distance), in units of the median distance between two references."""
    space = centered_space(pool, rows)
    unit = median_distance(space.read(references[: 2 * WIDTH_ROWS]))

    def between(points: Points, others: Points) -> Matrix:
        away = np.sqrt(points.squared_distances(others))
        with np.errstate(over="ignore"):  # infinitely far apart
            away /= unit
        away += 1.0
        return np.asarray(np.reciprocal(away, out=away))

    return Similarity(space.read, between)


def cosine_similarity(pool: Pool, rows: Positions, references: Positions) -> Similarity:
    """Return the cosine similarity, with negative values set to 0; 0 for a row of zeros."""

    def between(points: Points, others: Points) -> Matrix:
        cosines = points.features @ others.features.T
        return np.asarray(np.maximum(cosines.toarray() if sparse.issparse(cosines) else cosines, 0.0))

    return Similarity(lambda rows: Points(unit_rows(pool.take(rows))[0]), between)


SIMILARITIES = {"distance": distance_similarity, "cosine": cosine_similarity}


@set_strategy(
    "information_density",
    summary="Uncertain rows that are similar to many others.",
    source="Settles & Craven 2008, An Analysis of Active Learning Strategies for Sequence Labeling Tasks, ACL D08-1112",
    needs=frozenset({Need.PROBABILITIES, Need.FEATURES}),
    parameters=(
        scorer_parameter("margin"),
        Parameter(
            "beta",
            kind="number",
            default=1.0,
            minimum=0.0,
            maximum=100.0,
            summary="Power of the mean similarity: with 0 the scorer alone decides.",
        ),
        Parameter(
            "similarity",
            kind="choice",
            default="distance",
            choices=tuple(SIMILARITIES),
            summary="'distance': close rows are similar. 'cosine': rows in the same direction from the origin are, "
            "which suits word counts.",
        ),
        REFERENCES,
        SAMPLE,
    ),
)
def information_density(
    view: PoolView,
    batch_size: int,
    rng: np.random.Generator,
    *,
    scorer: str,
    beta: float,
    similarity: str,
    references: int,
    sample: int,
) -> tuple[Positions, Scores, str | None]:
    """Score by s(x) times (the mean similarity of x to candidates drawn as references)^beta.

    The paper uses the entropy for s and the cosine similarity, which is never negative for its word counts. The cosine
    cannot detect outliers in the direction of other rows, and its mean is close to 0 for all rows if features have
    either sign; so it is not the default, and negative values count as 0.
    """
    use_one_thread()
    n_references = min(references, max(HELD_CELLS // view.pool.cells_per_row, 100))
    # All similarities are computed, unlike in the greedy strategies: hence the factor.
    drawn, note = draw("information_density", view, 4 * n_references, sample, batch_size, rng)
    scores = view.scores(SCORERS[scorer])[drawn]
    is_broken = scores == INVALID_SCORE
    rows = view.candidates[drawn]
    chosen = rng.choice(rows, min(len(rows), n_references), replace=False)
    measure_of = SIMILARITIES[similarity](view.pool, rows, chosen)
    scores[~is_broken] *= mean_similarities(view.pool, measure_of, rows[~is_broken], chosen) ** beta
    positions = top(scores, batch_size, rng)
    return drawn[positions], scores[positions], add_invalid_note(note, is_broken, "come last")


def mean_similarities(pool: Pool, measure_of: Similarity, rows: Positions, references: Positions) -> Scores:
    """Return the mean similarity of each row to the references, rounded to float32 so that equal rows tie."""
    found = np.empty(len(rows), np.float32)
    centers = [measure_of.read(block) for block in cut(references, TILE_ROWS)]

    def measure(positions: Positions) -> None:
        points = measure_of.read(rows[positions])
        total = sum(measure_of.between(points, block).sum(axis=1) for block in centers)
        found[positions] = total / len(references)

    run_in_threads(measure, list(cut(np.arange(len(rows)), min(rows_per_block(pool, 1), TILE_ROWS))))
    return found.astype(np.float64)
