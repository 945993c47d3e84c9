"""Selection among the rows near labelled ones of every class, for rare classes in large pools."""

from __future__ import annotations

import numpy as np

from service.compute.threads import use_one_thread
from service.domain.parameters import Parameter
from service.learning.scoring import INVALID_SCORE, Scores
from service.strategies.engine.greedy import (
    SAMPLE,
    STANDARDIZE,
    Points,
    Space,
    centered_space,
    draw,
    nearest_centers,
    scores_at,
    standard_space,
)
from service.strategies.engine.notes import add_invalid_note
from service.strategies.engine.question import PoolView, Positions
from service.strategies.engine.ranking import top
from service.strategies.engine.registry import Need, set_strategy
from service.strategies.uncertainty import SCORERS, scorer_parameter

HELD_CELLS = 2**20
"""Largest number of features of the labelled rows of a class: 8 MB."""

SCALED_ROWS = 10_000
"""Largest number of candidates, evenly spread, that set the scale of the features."""


@set_strategy(
    "anchor_al",
    summary="Uncertain rows among those nearest to labelled rows of each class, so that rare classes are found.",
    source="Lesci & Vlachos 2024, AnchorAL: Computationally Efficient Active Learning for Large and Imbalanced "
    "Datasets, arXiv:2404.05623",
    needs=frozenset({Need.PROBABILITIES, Need.FEATURES, Need.LABELED, Need.LABELS}),
    parameters=(
        scorer_parameter("margin"),
        Parameter(
            "anchors",
            kind="integer",
            default=10,
            minimum=1,
            maximum=1000,
            summary="Largest number of anchors of a class.",
        ),
        Parameter(
            "neighbors",
            kind="integer",
            default=50,
            minimum=1,
            maximum=10_000,
            summary="Number of rows that each anchor retrieves; never fewer than the batch.",
        ),
        Parameter(
            "subpool",
            kind="integer",
            default=1000,
            minimum=1,
            maximum=1_000_000,
            summary="Largest number of retrieved rows that are scored; never fewer than the batch.",
        ),
        STANDARDIZE,
        SAMPLE,
    ),
)
def anchor_al(
    view: PoolView,
    batch_size: int,
    rng: np.random.Generator,
    *,
    scorer: str,
    anchors: int,
    neighbors: int,
    subpool: int,
    standardize: bool,
    sample: int,
) -> tuple[Positions, Scores, str | None]:
    """Take the rows of highest score in a subpool near the anchors, which are labelled rows of each class.

    The anchors of a class are drawn by k-means++ among its labelled rows. Each retrieves its nearest candidates, and
    the subpool are the retrieved rows of least mean distance to the anchors that retrieved them. Only these are scored.
    The paper compares embeddings of texts by their cosine; here it is the Euclidean distance, which gives the same
    order for rows of length 1. Without a labelled row all candidates are scored.
    """
    use_one_thread()
    classes = rows_of_classes(view, rng)
    n_anchors = sum(min(len(of_class), anchors) for of_class in classes)
    drawn, note = draw("anchor_al", view, max(n_anchors, 1), sample, batch_size, rng)
    rows = view.candidates[drawn]
    near = np.arange(len(rows))
    if n_anchors:
        space_of = standard_space if standardize and not view.pool.is_sparse else centered_space
        some = rows[:: -(-len(rows) // SCALED_ROWS)]
        space = space_of(view.pool, np.concatenate([some, *classes]))
        chosen = np.concatenate([spread_rows(space, of_class, anchors, rng) for of_class in classes])
        n_each, at_most = max(neighbors, batch_size), max(subpool, batch_size)
        near = retrieve_rows(space, rows, space.read(chosen), n_each, at_most, rng)
    scores = scores_at(view, rows[near], SCORERS[scorer])
    positions = top(scores, batch_size, rng)
    note = add_invalid_note(note, scores == INVALID_SCORE, "come last")
    return drawn[near[positions]], scores[positions], note


def rows_of_classes(view: PoolView, rng: np.random.Generator) -> list[Positions]:
    """Return the labelled rows of each class, or a sample of them; all in one class if only the rows are known."""
    codes, labeled = view.question.codes, view.labeled
    if len(labeled) == 0:
        return []
    at_most = max(HELD_CELLS // view.pool.cells_per_row, 100)
    classes = [labeled] if codes is None else [labeled[codes == code] for code in np.unique(codes)]
    return [rows if len(rows) <= at_most else rng.choice(rows, at_most, replace=False) for rows in classes]


def spread_rows(space: Space, rows: Positions, n_wanted: int, rng: np.random.Generator) -> Positions:
    """Return `n_wanted` of some rows of the pool, or all if they are fewer, drawn by k-means++.

    The first is uniform. Each further row is drawn in proportion to its squared distance to the nearest drawn one, as
    the largest of these divided by exponential draws.
    """
    if len(rows) <= n_wanted:
        return rows
    points = space.read(rows)
    chosen = [int(rng.integers(len(rows)))]
    nearest = np.full(len(rows), np.inf)
    while len(chosen) < n_wanted:
        newest = points.part(slice(chosen[-1], chosen[-1] + 1))
        np.minimum(nearest, points.squared_distances(newest)[:, 0], out=nearest)
        keys = nearest / np.maximum(rng.standard_exponential(len(rows)), 1e-300)  # never divide by 0
        keys[chosen] = -1.0
        chosen.append(int(keys.argmax()))
    return rows[chosen]


def retrieve_rows(
    space: Space, rows: Positions, anchors: Points, n_each: int, at_most: int, rng: np.random.Generator
) -> Positions:
    """Return the positions of the rows nearest to the anchors, `n_each` for each anchor and `at_most` in all.

    If that is too many, those stay that have the least mean distance to the anchors that retrieved them.
    """
    blocks = (space.read(rows[block]) for block in space.blocks(np.arange(len(rows))))
    squares, numbers = nearest_centers(anchors, blocks, n_each)
    found, which = np.unique(numbers, return_inverse=True)
    if len(found) > at_most:
        mean = np.bincount(which.ravel(), np.sqrt(squares).ravel()) / np.bincount(which.ravel())
        found = np.sort(found[top(-mean, at_most, rng)])
    return found
