"""Herding where the model is unsure."""

from __future__ import annotations

import math

import numpy as np

from service.domain.parameters import Parameter
from service.learning.scoring import INVALID_SCORE
from service.strategies.coverage import (
    REFERENCES,
    STANDARDIZE,
    Ground,
    Herd,
    Squares,
    ground_of,
    median_distance,
    over_pairs,
    points_in,
)
from service.strategies.engine.features import SAMPLE, SAMPLE_CELLS, format_notes
from service.strategies.engine.features import width as columns
from service.strategies.engine.greedy import scores_at
from service.strategies.engine.question import PoolView, Positions
from service.strategies.engine.registry import Need, set_strategy
from service.strategies.hybrid import add_invalid_note
from service.strategies.uncertainty import margin

MAX_PAIRED = 2000
"""The radius comes from the distances between so many labelled rows at most."""

LEAST_WIDTH = 0.05
"""The width of the kernel is no smaller share of the median distance between two rows."""

PAIRS_A_TURN = 2 * 10**9
"""So many numbers are looked at in the distances of all candidates from all references: some seconds."""


@set_strategy(
    "uherding",
    summary="One row after another, each the one that best stands for what is both unsure and unlike all labelled or "
    "chosen rows.",
    source="Bae et al. 2025, Uncertainty Herding: One Active Learning Method for All Label Budgets, arXiv:2412.20644",
    needs=frozenset({Need.PROBABILITIES, Need.FEATURES, Need.LABELED}),
    parameters=(
        Parameter(
            "bandwidth",
            kind="number",
            default=0.5,
            minimum=0.001,
            maximum=1000.0,
            summary="The width of the kernel as a share of the median distance between two rows, until two rows that "
            "differ are labelled.",
        ),
        STANDARDIZE,
        REFERENCES,
        SAMPLE,
    ),
)
def uherding(
    view: PoolView,
    batch_size: int,
    rng: np.random.Generator,
    *,
    bandwidth: float,
    standardize: bool,
    references: int,
    sample: int,
) -> tuple[Positions, None, str | None]:
    """Choose as `max_herding`, where each reference weighs as much as the model is unsure of it (1 - margin).

    The width of the kernel is the least distance between two labelled rows that differ, as the paper adapts it: with
    the labels the herd's reach shrinks, and being unsure counts more. It ends at a share of the median distance, or two
    labelled rows that are nearly equal would leave nothing but margin. The paper also calibrates the probabilities by a
    temperature; here they are taken as they are. Where the model is sure of all, all weigh the same.
    """
    ground = ground_of(view, sample, batch_size, rng, standardize=standardize)
    n, d = ground.points.features.shape
    n_references = min(n, references, max(PAIRS_A_TURN // (d * n), 1))
    notes = list(ground.notes)
    if n_references < min(n, references):
        notes.append(f"summed up over {n_references} references: more take long")
    rows = view.candidates[ground.positions[:n_references]]
    weights = scores_at(view, rows, margin)
    is_broken = weights == INVALID_SCORE
    weights = np.maximum(weights, 0.0)
    usual = median_distance(ground.points, rng.spawn(1)[0])
    radius = radius_of_labeled(ground, rng)
    width = max(radius, LEAST_WIDTH * usual) if radius else bandwidth * usual
    herd = Herd(ground, n_references, width, weights if weights.any() else None)
    note = add_invalid_note(format_notes("uherding", notes), is_broken, "count as certain")
    return ground.positions[herd.grown(batch_size, rng)], None, note


def radius_of_labeled(ground: Ground, rng: np.random.Generator) -> float:
    """Return the least distance above 0 between two labelled rows on the ground, 0 where there is none."""
    labeled = ground.labeled
    if len(labeled) < 2:
        return 0.0
    at_most = max(min(MAX_PAIRED, SAMPLE_CELLS // columns(ground.space.pool)), 2)
    if len(labeled) > at_most:
        labeled = rng.choice(labeled, at_most, replace=False)
    points = points_in(ground.space, labeled)
    nearest = over_pairs(points, points, only_apart, np.minimum, np.inf).min(initial=np.inf)
    return math.sqrt(nearest) if nearest < np.inf else 0.0


def only_apart(squares: Squares, _: slice) -> Squares:
    """Return the squared distances, infinite for rows that are equal."""
    squares[squares == 0] = np.inf
    return squares
