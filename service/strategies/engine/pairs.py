"""A drawn sample of the candidates as points, and reductions over their pairwise distances, a tile at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.compute.threads import run_in_threads, use_one_thread
from service.domain.parameters import Parameter
from service.strategies.engine.features import SAMPLE_CELLS, dense_width, draw_sample, notes_of_folding, to_dense
from service.strategies.engine.greedy import Points, Space, centered_space, cut, squared_norms, standard_space
from service.strategies.engine.question import PoolView, Positions

Squares = NDArray[np.float64]

TILE_ROWS = 256
"""Rows on each side of a tile of distances: 512 kB, which fits the cache."""

NARROW_TILE_ROWS = 512
"""Rows on the longer side of a tile in float32: 512 kB."""

NARROW_SCALE = 2.0**-8
"""Factor of points in float32, whose squares are then finite: standardised features reach 2**60."""

PAIR_COST = 16
"""Cost of a distance besides its product of features, in multiplications."""

WORK = 10**11
"""Largest number of multiplications: up to half a minute on two cores."""

REFERENCES = Parameter(
    "references",
    kind="integer",
    default=2000,
    minimum=100,
    maximum=100_000,
    summary="Number of candidates that similarities are summed over; fewer where it would take long.",
)


@dataclass(frozen=True, slots=True, eq=False)
class SampledPoints:
    """Some candidates in random order, as points in a space; the labelled rows; and notes."""

    positions: Positions
    points: Points
    space: Space
    labeled: NDArray[np.int64]
    notes: list[str]

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def scale(self) -> float:
        """The unit of the points."""
        return self.space.scale

    def from_labeled(self, points: Points) -> Squares:
        """Return the squared distance of each point to the nearest labelled row, infinite without one."""
        return squares_to_nearest(self.space, points, self.labeled)


def sample_points(
    view: PoolView, sample: int, batch_size: int, rng: np.random.Generator, *, standardize: bool = False
) -> SampledPoints:
    """Return a drawn sample of the candidates, small enough for all distances within it and to all labelled rows."""
    use_one_thread()
    n_pairs = max_pairs(dense_width(view.pool))
    at_most = min(sample, math.isqrt(n_pairs), n_pairs // max(len(view.covered), 1))
    positions, notes = draw_sample(view, at_most, batch_size, rng)
    rows = view.candidates[positions]
    space = space_for(view, rows, standardize=standardize)
    return SampledPoints(positions, read_points(space, rows), space, view.covered, notes + notes_of_folding(view.pool))


def space_for(view: PoolView, rows: Positions, *, standardize: bool) -> Space:
    """Return the space of some rows of the pool and the labelled ones, in which features may be standardised."""
    # Standardised sparse features, such as words, would count more the rarer they are.
    space_of = standard_space if standardize and not view.pool.is_sparse else centered_space
    return space_of(view.pool, np.concatenate([rows, view.covered]))


def squares_to_nearest(space: Space, points: Points, labeled: Positions) -> Squares:
    """Return the squared distance of each point to the nearest labelled row of the pool, infinite without one."""
    least = np.full(len(points.features), np.inf)
    for some in cut(labeled, SAMPLE_CELLS // dense_width(space.pool)):
        np.minimum(least, squares_to_nearest_of(points, read_points(space, some)), out=least)
    return least


def squares_to_nearest_of(points: Points, others: Points) -> Squares:
    """Return the squared distance of each point to the nearest of the others, at least one.

    The nearest is found in float32; among those whose distances differ by no more than rounding errors, it is any.
    """
    n, n_others = len(points.features), len(others.features)
    rows, columns = ((NARROW_SCALE * each.features).astype(np.float32) for each in (points, others))
    halves = squared_norms(columns) / 2
    squares = np.empty(n)

    def measure(block: slice) -> None:
        in_block = np.arange(len(rows[block]))
        nearest, highest = np.zeros(len(in_block), np.int64), np.full(len(in_block), -np.inf, np.float32)
        for run in runs(n_others, NARROW_TILE_ROWS):
            # The nearest row has the highest inner product less half of its square.
            products = rows[block] @ columns[run].T
            products -= halves[run]
            best = products.argmax(axis=1)
            values = products[in_block, best]
            is_nearer = values > highest
            nearest[is_nearer], highest[is_nearer] = best[is_nearer] + run.start, values[is_nearer]
        squares[block] = squared_norms(points.features[block] - others.features[nearest])

    run_in_threads(measure, runs(n, TILE_ROWS))
    return squares


def max_pairs(n_columns: int) -> int:
    """Return the number of distances between rows of `n_columns` within WORK."""
    return WORK // (n_columns + PAIR_COST)


def take_points(points: Points, rows: Positions | NDArray[np.bool_]) -> Points:
    """Return some of dense points, by position or mask."""
    return Points(points.features[rows])


def read_points(space: Space, rows: Positions) -> Points:
    """Return rows of the pool as dense points."""
    return Points(to_dense(space.read(rows).features))


OfPairs = Callable[[Squares, slice], NDArray[Any]]
"""Maps the squared distances of some rows to a run of others, and that run, to a number for each pair."""


def identity(squares: Squares, _: slice) -> Squares:
    """Return the squared distances."""
    return squares


def reduce_over_pairs(
    rows: Points, others: Points, of: OfPairs, combine: np.ufunc, initial: float
) -> NDArray[np.float64]:
    """Combine for each row the values of `of` over its distances to all others, holding only a few tiles in memory."""
    n, n_others = len(rows.features), len(others.features)
    combined = np.full(n, initial)

    def reduce_block(block: slice) -> None:
        part = rows.part(block)
        for run in runs(n_others, TILE_ROWS):
            values = of(part.squared_distances(others.part(run)), run)
            combined[block] = combine(combined[block], combine.reduce(values, axis=1))

    run_in_threads(reduce_block, runs(n, TILE_ROWS**2 // min(max(n_others, 1), TILE_ROWS)))
    return combined


def runs(n: int, step: int) -> list[slice]:
    """Cut n rows into runs."""
    return [slice(start, min(start + step, n)) for start in range(0, n, step)]
