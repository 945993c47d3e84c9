"""Strategies whose batches are both uncertain and diverse."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from service.compute.deadline import check_deadline
from service.compute.threads import run_in_threads
from service.learning.pool import Features
from service.learning.scoring import INVALID_SCORE, Scores
from service.strategies.engine.greedy import (
    SAMPLE,
    Distances,
    Nearest,
    Space,
    Turn,
    draw,
    nearest_labeled,
    scale_of,
    scores_at,
    select_greedily,
)
from service.strategies.engine.notes import add_invalid_note
from service.strategies.engine.question import PoolView, Positions
from service.strategies.engine.ranking import top
from service.strategies.engine.registry import Need, set_strategy
from service.strategies.uncertainty import SCORERS, scorer_parameter

MEAN_WORK = 2 * 10**10
"""Largest number of multiplications for mean distances: a second or two."""


@set_strategy(
    "badge",
    summary="Rows drawn by k-means++ on gradient embeddings: uncertain and different from each other.",
    source="Ash et al. 2020, Deep Batch Active Learning by Diverse, Uncertain Gradient Lower Bounds, arXiv:1906.03671",
    needs=frozenset({Need.PROBABILITIES, Need.FEATURES}),
    parameters=(SAMPLE,),
)
def badge(
    view: PoolView, batch_size: int, rng: np.random.Generator, *, sample: int
) -> tuple[Positions, None, str | None]:
    """Seed k-means++ on the gradient embeddings: (p - e_y) times x for each class, where y is the likeliest.

    The first row has the longest embedding, as in the authors' code (the paper's k-means++ draws it uniformly). Each
    further row is drawn in proportion to its squared distance to the nearest chosen row, as the largest of these
    divided by exponential draws; if all distances are 0, uniformly.
    """
    drawn, note = draw("badge", view, batch_size, sample, batch_size, rng)
    rows = view.candidates[drawn]
    space = embedding_space(view, rows)
    norms = embedding_norms(space, rows)
    is_broken = np.isnan(norms)
    norms[is_broken] = INVALID_SCORE
    first = top(norms, 1, rng)
    nearest = Nearest(space, rows, batch_size)
    nearest.add(rows[first])
    nearest.distances[:] = np.where(is_broken, 0, norms + norms[first])  # upper bound, by the triangle inequality

    def turn_of(_: int) -> Turn:
        draws = np.maximum(rng.standard_exponential(len(rows)), 1e-300)  # never divide by 0

        def turn(distances: Distances, at: Positions | slice) -> Scores:
            return np.square(distances, dtype=np.float64) / draws[at]

        return turn

    positions = select_greedily(nearest, first.tolist(), batch_size, rng, turn_of)
    return drawn[positions], None, add_invalid_note(note, is_broken, "come last")


def embedding_space(view: PoolView, rows: Positions) -> Space:
    """Return the space of the gradient embeddings, up to a power of two; NaN without finite probabilities."""

    def gradients(rows: Positions, X: Features) -> NDArray[np.float64]:
        g = np.array(view.probabilities(rows, X), np.float64)
        g[np.arange(len(g)), g.argmax(axis=1)] -= 1.0
        g[~np.isfinite(g).all(axis=1)] = np.nan
        return g

    return Space(view.pool, scale_of(view.pool, rows), None, gradients, len(view.model.classes_))


def embedding_norms(space: Space, rows: Positions) -> Scores:
    """Return the length of each row's embedding."""
    norms = np.empty(len(rows))

    def measure(positions: Positions) -> None:
        norms[positions] = np.sqrt(space.read(rows[positions]).squares)

    run_in_threads(measure, space.blocks(np.arange(len(rows))))
    return norms


@set_strategy(
    "ranked_batch",
    summary="Greedy: rows far from all labelled and chosen ones; uncertainty counts more as labels come in.",
    source="Cardoso et al. 2017, Ranked Batch-Mode Active Learning, doi:10.1016/j.ins.2016.10.037",
    needs=frozenset({Need.PROBABILITIES, Need.FEATURES, Need.LABELED}),
    parameters=(
        scorer_parameter("least_confidence", choices=("least_confidence", "margin", "entropy")),
        SAMPLE,
    ),
    starts_alone=True,
)
def ranked_batch(
    view: PoolView, batch_size: int, rng: np.random.Generator, *, scorer: str, sample: int
) -> tuple[Positions, None, str | None]:
    """Choose greedily by a (1 - similarity) + (1 - a) uncertainty, where a is the share of rows not labelled.

    The similarity is 1 / (1 + Euclidean distance) to the nearest labelled or chosen row, or 0 without one. Chosen rows
    count as labelled, so a shrinks with each, as in the paper and in modAL. Later scores may therefore be higher, and
    none are returned. Without a labelled row the first row is the one of least mean distance to the candidates.
    """
    n, n_labeled = len(view.candidates), len(view.covered)
    drawn, note = draw("ranked_batch", view, n_labeled + batch_size, sample, batch_size, rng)
    rows = view.candidates[drawn]
    nearest = nearest_labeled(view, rows, batch_size, rng)
    uncertainty = scores_at(view, rows, SCORERS[scorer])
    is_broken = uncertainty == INVALID_SCORE
    uncertainty[is_broken] = 0.0

    def turn_of(n_chosen: int) -> Turn:
        share = (n - n_chosen) / (n + n_labeled)

        def turn(distances: Distances, at: Positions | slice) -> Scores:
            with np.errstate(over="ignore"):  # infinitely far apart
                away = distances * np.float64(nearest.space.scale)
            return share * (1.0 - 1.0 / (1.0 + away)) + (1.0 - share) * uncertainty[at]

        return turn

    first: list[int] = []
    if n_labeled == 0:
        first, how = central_row(nearest, rng)
        nearest.add(rows[first])
        note = "; ".join(
            filter(None, (note, f"ranked_batch starts, without probabilities, at the row of least mean distance {how}"))
        )
    positions = select_greedily(nearest, first, batch_size, rng, turn_of)
    return drawn[positions], None, add_invalid_note(note, is_broken, "count as certain")


def central_row(nearest: Nearest, rng: np.random.Generator) -> tuple[list[int], str]:
    """Return the position of the row of least mean distance, and a description of the rows it was compared to.

    All rows are compared, or as many drawn at random as MEAN_WORK allows.
    """
    space, rows = nearest.space, nearest.rows
    n_compared = max(1, min(len(rows), MEAN_WORK // (len(rows) * space.pool.cells_per_row)))
    compared = rows if n_compared == len(rows) else rows[np.sort(rng.choice(len(rows), n_compared, replace=False))]
    blocks = space.blocks(compared)
    total = np.empty(len(rows))

    def measure(positions: Positions) -> None:
        check_deadline()
        points = space.read(rows[positions])
        total[positions] = sum(np.sqrt(points.squared_distances(space.read(block))).sum(axis=1) for block in blocks)

    run_in_threads(measure, space.blocks(np.arange(len(rows))))
    how = "to the candidates considered" if n_compared == len(rows) else f"to {n_compared} candidates drawn at random"
    return top(-total, 1, rng).tolist(), how
