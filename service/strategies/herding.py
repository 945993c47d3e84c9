"""Herding: greedy choice of the rows that are similar to most others."""

from __future__ import annotations

import math

import numpy as np

from service.compute.deadline import check_deadline
from service.domain.parameters import Parameter
from service.learning.scoring import INVALID_SCORE
from service.strategies.engine.features import SAMPLE, SAMPLE_CELLS, dense_width
from service.strategies.engine.greedy import Points, cut, find_highest, scores_at
from service.strategies.engine.notes import add_invalid_note, format_notes
from service.strategies.engine.pairs import (
    REFERENCES,
    TILE_ROWS,
    SampledPoints,
    Squares,
    max_pairs,
    read_points,
    reduce_over_pairs,
    sample_points,
    take_points,
)
from service.strategies.engine.question import PoolView, Positions
from service.strategies.engine.ranking import hash_positions
from service.strategies.engine.registry import Need, set_strategy
from service.strategies.uncertainty import margin

N_PAIRS = 2**14
"""Number of drawn pairs for the median distance."""

N_REFRESHED = 100
"""Number of rows updated per turn, as measured."""

NOTHING = 1e-9
"""Smaller gains in similarity are rounding errors."""

MAX_PAIRED = 2000
"""Largest number of labelled rows whose distances set the radius."""

LEAST_WIDTH = 0.05
"""Smallest kernel width, as a share of the median distance between two rows."""

PAIRS_A_TURN = 2 * 10**9
"""Largest number of multiplications for the distances of all candidates to all references: some seconds."""

STANDARDIZE = Parameter(
    "standardize",
    kind="boolean",
    default=True,
    summary="Scale every feature to unit variance before rows are compared; sparse features are never scaled.",
)


@set_strategy(
    "max_herding",
    summary="Greedy: each row raises most the similarity of all rows to their most similar labelled or chosen row.",
    source="Bae, Noh & Sutherland 2024, Generalized Coverage for More Robust Low-Budget Active Learning, "
    "arXiv:2407.12212",
    needs=frozenset({Need.FEATURES, Need.LABELED}),
    parameters=(
        Parameter(
            "bandwidth",
            kind="number",
            default=0.5,
            minimum=0.001,
            maximum=1000.0,
            summary="Kernel width, as a share of the median distance between two rows.",
        ),
        STANDARDIZE,
        REFERENCES,
        SAMPLE,
    ),
)
def max_herding(
    view: PoolView,
    batch_size: int,
    rng: np.random.Generator,
    *,
    bandwidth: float,
    standardize: bool,
    references: int,
    sample: int,
) -> tuple[Positions, None, str | None]:
    """Maximise greedily the sum over references of exp(-distance^2 / (2 width^2)) to the most similar row.

    Candidates are a drawn sample, whose first rows are the references. The paper uses a width of 1 for embeddings of
    length 1, and all rows as references; here the width is derived from the distances.
    """
    sampled = sample_points(view, sample, batch_size, rng, standardize=standardize)
    n, d = sampled.points.features.shape
    n_references = min(n, references, max(max_pairs(d) // (n + N_REFRESHED * batch_size), 1))
    notes = list(sampled.notes)
    if n_references < min(n, references):
        notes.append(f"used {n_references} references: more would be slow")
    herd = Herd(sampled, n_references, bandwidth * median_pair_distance(sampled.points, rng))
    return sampled.positions[herd.select_rows(batch_size, rng)], None, format_notes("max_herding", notes)


def median_pair_distance(points: Points, rng: np.random.Generator) -> float:
    """Return the median distance of pairs drawn at random, or 1 if that is 0."""
    first, second = rng.integers(len(points.features), size=(2, N_PAIRS))
    squares = [
        np.square(points.features[a] - points.features[b]).sum(axis=1)
        for a, b in zip(cut(first, TILE_ROWS), cut(second, TILE_ROWS), strict=True)
    ]
    return math.sqrt(np.median(np.concatenate(squares))) or 1.0


class Herd:
    """The gain of each of n rows in the similarity of the references; stale gains are upper bounds.

    A gain only shrinks as the herd grows (Minoux 1978, see `greedy`). Chosen rows have -1. References are the first
    sampled rows, weighted by `weights` (n_references,), or all equally.
    """

    def __init__(self, sampled: SampledPoints, n_references: int, width: float, weights: Squares | None = None) -> None:
        self.points = sampled.points
        self.weights = np.ones(n_references) if weights is None else weights
        self.references = sampled.points.part(slice(n_references))
        self.width = width
        self.similarity = self.similar(sampled.from_labeled(self.references))
        self.gains = np.full(len(sampled), np.inf)
        self.is_stale = np.ones(len(sampled), np.bool_)

    def similar(self, squares: Squares) -> Squares:
        """Return the kernel of squared distances."""
        with np.errstate(over="ignore"):  # infinitely far apart
            # Divided twice: the square of a small width may be 0.
            similarity: Squares = np.exp(-0.5 * (squares / self.width) / self.width)
        return similarity

    def refresh(self, positions: Positions) -> None:
        """Update the gains of some rows, except those that are 0 already."""
        due = positions[self.is_stale[positions] & (self.gains[positions] > 0)]

        def gain(squares: Squares, run: slice) -> Squares:
            gains: Squares = np.maximum(self.similar(squares) - (self.similarity[run] + NOTHING), 0.0)
            return self.weights[run] * gains

        self.gains[due] = reduce_over_pairs(take_points(self.points, due), self.references, gain, np.add, 0.0)
        self.is_stale[due] = False

    def add(self, choice: int) -> None:
        """Add a row to the herd."""
        squares = self.references.squared_distances(self.points.part(slice(choice, choice + 1)))[:, 0]
        np.maximum(self.similarity, self.similar(squares), out=self.similarity)
        self.is_stale[:] = True
        self.gains[choice] = -1.0

    def select_rows(self, batch_size: int, rng: np.random.Generator) -> Positions:
        """Add one row after another, and return them; ties are broken at random."""
        seed = rng.integers(2**64, dtype=np.uint64)
        chosen = np.empty(batch_size, np.int64)
        for turn in range(batch_size):
            check_deadline()
            level = find_highest(self.gains, self.refresh)
            chosen[turn] = level[hash_positions(level, seed).argmin()]
            self.add(chosen[turn])
        return chosen


@set_strategy(
    "uherding",
    summary="Greedy: as max_herding, but each row counts by the model's uncertainty about it.",
    source="Bae et al. 2025, Uncertainty Herding: One Active Learning Method for All Label Budgets, arXiv:2412.20644",
    needs=frozenset({Need.PROBABILITIES, Need.FEATURES, Need.LABELED}),
    parameters=(
        Parameter(
            "bandwidth",
            kind="number",
            default=0.5,
            minimum=0.001,
            maximum=1000.0,
            summary="Kernel width, as a share of the median distance between two rows, until two different rows are "
            "labelled.",
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
    """Choose as `max_herding`, with each reference weighted by the model's uncertainty (1 - margin).

    The kernel width is the smallest distance between two different labelled rows, as in the paper: it shrinks as
    labels are added, and uncertainty counts more. It never falls below a share of the median distance, as two nearly
    equal labelled rows would leave only the margin. The paper also calibrates the probabilities by a temperature;
    here they are used unchanged. If the model is certain of all references, all have the same weight.
    """
    sampled = sample_points(view, sample, batch_size, rng, standardize=standardize)
    n, d = sampled.points.features.shape
    n_references = min(n, references, max(PAIRS_A_TURN // (d * n), 1))
    notes = list(sampled.notes)
    if n_references < min(n, references):
        notes.append(f"used {n_references} references: more would be slow")
    rows = view.candidates[sampled.positions[:n_references]]
    weights = scores_at(view, rows, margin)
    is_broken = weights == INVALID_SCORE
    weights = np.maximum(weights, 0.0)
    usual = median_pair_distance(sampled.points, rng.spawn(1)[0])
    radius = smallest_label_distance(sampled, rng)
    width = max(radius, LEAST_WIDTH * usual) if radius else bandwidth * usual
    herd = Herd(sampled, n_references, width, weights if weights.any() else None)
    note = add_invalid_note(format_notes("uherding", notes), is_broken, "count as certain")
    return sampled.positions[herd.select_rows(batch_size, rng)], None, note


def smallest_label_distance(sampled: SampledPoints, rng: np.random.Generator) -> float:
    """Return the smallest distance above 0 between two labelled rows, or 0 without such a pair."""
    labeled = sampled.labeled
    if len(labeled) < 2:
        return 0.0
    at_most = max(min(MAX_PAIRED, SAMPLE_CELLS // dense_width(sampled.space.pool)), 2)
    if len(labeled) > at_most:
        labeled = rng.choice(labeled, at_most, replace=False)
    points = read_points(sampled.space, labeled)
    nearest = reduce_over_pairs(points, points, ignore_equal_rows, np.minimum, np.inf).min(initial=np.inf)
    return math.sqrt(nearest) if nearest < np.inf else 0.0


def ignore_equal_rows(squares: Squares, _: slice) -> Squares:
    """Return the squared distances, infinite between equal rows."""
    squares[squares == 0] = np.inf
    return squares
