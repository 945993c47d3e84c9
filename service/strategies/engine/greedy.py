"""Lazy greedy selection by the distance to the rows chosen before: the core of strategies that spread a batch.

A distance to the nearest chosen row only shrinks as the batch grows, so an earlier one is an upper bound. Only the
distances of the few rows that may come next are updated, with the same result as updating all (Minoux 1978,
Accelerated Greedy Algorithms for Maximizing Submodular Set Functions, doi:10.1007/BFb0006528). Rows are read from the
pool when needed; only a few numbers per row are kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from service.compute.deadline import check_deadline
from service.compute.threads import run_in_threads, use_one_thread
from service.domain.parameters import Parameter
from service.learning.pool import Features, Pool
from service.learning.preprocessing import Standardizer
from service.learning.scoring import Scorer, Scores, score_rows
from service.strategies.engine.question import PoolView, Positions
from service.strategies.engine.ranking import hash_positions

Distances = NDArray[np.float32]
Keys = NDArray[np.floating[Any]]
Turn = Callable[[Distances, Positions | slice], Keys]
"""Maps the distances of some rows, and their positions, to a new array of keys; the highest is chosen.

Keys must not decrease with the distance."""

BLOCK_CELLS = 2**16
"""Cells of a block of rows or distances: 512 kB of float64 fit a core's cache."""

MIN_BLOCK_ROWS = 16

WORK = 2 * 10**11
"""Largest number of multiplications if all distances are computed, which is rare: half a minute on two cores."""

TURN_CELLS = 16
"""Cost of a row in each turn without an update of its distance, in multiplications."""

N_CONTENDERS = 64
"""Approximate number of rows updated first in each turn."""

N_FIRST_CENTERS = 32
"""Number of labelled rows that set the first bound of every candidate."""

ROUNDING = 1e-13
"""Squared distances below this share of the squared norms are rounding errors and count as 0."""

WIDTH_ROWS = 256
"""Number of rows on each side of the distances whose median sets a kernel's width."""

STANDARD_CELLS = 2**20
"""Largest number of cells of the rows that the standardizer is fitted to: 8 MB."""

SAMPLE = Parameter(
    "sample",
    kind="integer",
    default=1_000_000,
    minimum=100,
    maximum=100_000_000,
    summary="Largest number of candidates considered, drawn at random; never fewer than the batch.",
)

STANDARDIZE = Parameter(
    "standardize",
    kind="boolean",
    default=True,
    summary="Scale every feature to unit variance before rows are compared; sparse features are never scaled.",
)


@dataclass(frozen=True, eq=False)
class Points:
    """Rows of features (k, d), dense or sparse; or with `factors` (k, c) the outer products of the two, (k, c * d).

    The outer products are not computed: the inner product of two of them is the product of two inner products.
    """

    features: Features
    factors: NDArray[np.float64] | None = None

    @cached_property
    def squares(self) -> NDArray[np.float64]:
        """The squared norms (k,)."""
        squares = squared_norms(self.features)
        return squares if self.factors is None else squares * squared_norms(self.factors)

    def part(self, rows: slice) -> Points:
        """Return some of the rows."""
        return Points(self.features[rows], None if self.factors is None else self.factors[rows])

    def products(self, other: Points) -> NDArray[np.float64]:
        """Return the inner products (k, m) with other points."""
        products = self.features @ other.features.T
        if sparse.issparse(products):
            products = products.toarray()
        if self.factors is not None and other.factors is not None:
            products *= self.factors @ other.factors.T
        return cast(NDArray[np.float64], products)

    def squared_distances(self, other: Points) -> NDArray[np.float64]:
        """Return the squared distances (k, m) to other points."""
        products = self.products(other)
        squares: NDArray[np.float64] = self.squares[:, np.newaxis] + other.squares
        products *= -2
        products += squares
        squares *= ROUNDING
        products[products < squares] = 0.0
        return products


def squared_norms(X: Features) -> NDArray[np.float64]:
    """Return the squared norm of each row."""
    if sparse.issparse(X):
        return np.asarray((X * X).sum(axis=1), np.float64)
    return np.asarray(np.einsum("nd,nd->n", X, X))


def cells_of(X: Features) -> NDArray[Any]:
    """Return a matrix's stored values, for reading or in-place changes: all of them, or the nonzeros if sparse."""
    cells: NDArray[Any] = X.data if sparse.issparse(X) else X
    return cells


@dataclass(frozen=True, slots=True, eq=False)
class Space:
    """Maps rows of a pool to points in float64: divided by `scale`, a power of two, then centred on `center`.

    No squared distance overflows or underflows then, and close rows far from the origin stay distinct. `factors` maps
    k rows of the pool and their original features to (k, c) numbers. A `standardizer` replaces scale and centre.
    """

    pool: Pool
    scale: float
    center: NDArray[np.float64] | None
    factors: Callable[[Positions, Features], NDArray[np.float64]] | None = None
    n_factors: int = 1
    standardizer: Standardizer | None = None

    def read(self, rows: Positions) -> Points:
        """Return rows of the pool as points."""
        X = self.pool.take(rows)
        Z = self.moved(X) if self.standardizer is None else self.standardizer.transform(X)
        return Points(Z, None if self.factors is None else self.factors(rows, X))

    def moved(self, X: Features) -> Features:
        """Return features, scaled and centred."""
        Z = X.astype(np.float64)
        cells = cells_of(Z)
        cells /= self.scale  # scipy would multiply by the inverse, which may be infinite
        if self.center is not None:
            Z -= self.center
        return Z

    def blocks(self, positions: Positions) -> list[Positions]:
        """Cut positions into blocks of rows that fit the cache; the edges depend only on their number."""
        return list(cut(positions, rows_per_block(self.pool, self.n_factors)))


def rows_per_block(pool: Pool, n_factors: int) -> int:
    """Return the number of rows in a block, given the larger of a row's features and `n_factors`."""
    return max(MIN_BLOCK_ROWS, BLOCK_CELLS // max(pool.cells_per_row, n_factors))


def cut(positions: Positions, step: int) -> Iterator[Positions]:
    """Cut positions into runs of `step`, at least 1."""
    step = max(step, 1)
    return (positions[start : start + step] for start in range(0, len(positions), step))


def run_blocks(work: Callable[[Positions], None], blocks: Sequence[Positions], n_serial: int) -> None:
    """Call `work` for each block, in this thread up to `n_serial` of them: to wake others would take longer."""
    if len(blocks) > n_serial:
        run_in_threads(work, blocks)
        return
    for rows in blocks:
        work(rows)


def blocks_of(view: PoolView, rows: Positions) -> list[Positions]:
    """Cut the numbers of some rows into blocks whose features and probabilities fit the cache."""
    return list(cut(np.arange(len(rows)), rows_per_block(view.pool, len(view.model.classes_))))


def scores_at(view: PoolView, rows: Positions, scorer: Scorer) -> Scores:
    """Return the scores of rows of the pool, INVALID_SCORE without finite probabilities."""
    scores = np.empty(len(rows))

    def score(numbers: Positions) -> None:
        scores[numbers] = score_rows(view.probabilities, scorer, rows[numbers])

    run_in_threads(score, blocks_of(view, rows))
    return scores


def scale_of(pool: Pool, rows: Positions) -> float:
    """Return the power of two that scales the largest cell of some rows to between 1 and 2; 1 if all are 0."""
    blocks = list(cut(rows, rows_per_block(pool, 1)))
    largest = np.zeros(len(blocks))

    def measure(number: int) -> None:
        cells = cells_of(pool.take(blocks[number]))
        if cells.size:
            largest[number] = max(float(cells.max()), -float(cells.min()))

    run_in_threads(measure, range(len(blocks)))
    _, exponent = math.frexp(largest.max(initial=0.0))
    return math.ldexp(1.0, exponent - 1) if largest.any() else 1.0


def centered_space(pool: Pool, rows: Positions) -> Space:
    """Return the space centred on the median of some of the rows, which is robust to outliers.

    A sparse pool is not centred: that would make it dense.
    """
    space = Space(pool, scale_of(pool, rows), None)
    if pool.is_sparse:
        return space
    n_used = max(1, min(len(rows), 500, BLOCK_CELLS // pool.n_columns))
    some = space.read(rows[:: -(-len(rows) // n_used)])
    return Space(pool, space.scale, np.median(some.features, axis=0))


def median_distance(points: Points) -> float:
    """Return the median distance between the two halves of some rows, or 1 if it is 0."""
    half = (len(points.squares) + 1) // 2
    squares = points.part(slice(half)).squared_distances(points.part(slice(half, None)))
    return float(np.sqrt(np.median(squares))) if squares.size and np.median(squares) > 0 else 1.0


def standard_space(pool: Pool, rows: Positions) -> Space:
    """Return the space in which each feature of a dense pool is standardised over some of the rows."""
    n_used = max(1, min(len(rows), STANDARD_CELLS // pool.cells_per_row))
    standardizer = Standardizer().fit(pool.take(rows[:: -(-len(rows) // n_used)]))
    return Space(pool, 1.0, None, standardizer=standardizer)


class Nearest:
    """The distance of each of n rows to the nearest of a growing number of centres: an upper bound until refreshed.

    Rows and centres are rows of the pool; a row is identified by its position among the n.
    """

    def __init__(self, space: Space, rows: Positions, max_centers: int) -> None:
        self.space = space
        self.rows = rows
        self.distances: Distances = np.full(len(rows), np.inf, np.float32)
        self.n_seen = np.zeros(len(rows), np.int32)
        self.centers = np.empty(max_centers, np.int64)
        self.n_centers = 0

    def add(self, centers: Positions) -> None:
        """Add centres, as rows of the pool, without computing distances."""
        self.centers[self.n_centers : self.n_centers + len(centers)] = centers
        self.n_centers += len(centers)

    def refresh(self, positions: Positions) -> None:
        """Update the distances of some rows, except those that are 0 already."""
        due = positions[(self.n_seen[positions] < self.n_centers) & (self.distances[positions] > 0)]
        lacks_one = self.n_seen[due] == self.n_centers - 1
        # If most rows lack only the newest centre, they are updated apart from those that lack many.
        groups = [due[lacks_one], due[~lacks_one]] if 2 * np.count_nonzero(lacks_one) > len(due) else [due]
        blocks = [block for group in groups for block in self.space.blocks(group)]
        run_blocks(self.refresh_block, blocks, n_serial=len(blocks) if len(due) <= 2 * N_CONTENDERS else 0)

    def refresh_block(self, positions: Positions) -> None:
        """Update the distances of a block of rows."""
        unseen = self.centers[self.n_seen[positions].min() : self.n_centers]
        n_rows = len(positions)
        first, *others = (
            centers for block in self.space.blocks(unseen) for centers in cut(block, BLOCK_CELLS // n_rows)
        )
        # Read together: some models take as long for one row as for a hundred.
        points = self.space.read(np.concatenate([self.rows[positions], first]))
        rows, centers = points.part(slice(n_rows)), points.part(slice(n_rows, None))
        least = rows.squared_distances(centers).min(axis=1)
        for more in others:
            np.minimum(least, rows.squared_distances(self.space.read(more)).min(axis=1), out=least)
        self.distances[positions] = np.minimum(self.distances[positions], np.sqrt(least))
        self.n_seen[positions] = self.n_centers


def nearest_labeled(view: PoolView, rows: Positions, batch_size: int, rng: np.random.Generator) -> Nearest:
    """Return the distances of rows of the pool to the labelled ones, with room for the centres of a batch."""
    use_one_thread()
    space = centered_space(view.pool, np.concatenate([rows, view.covered]))
    nearest = Nearest(space, rows, len(view.covered) + batch_size)
    labeled = view.covered[rng.permutation(len(view.covered))]
    nearest.add(labeled[:N_FIRST_CENTERS])
    nearest.refresh(np.arange(len(rows)))
    nearest.add(labeled[N_FIRST_CENTERS:])
    return nearest


def select_greedily(
    nearest: Nearest, chosen: list[int], batch_size: int, rng: np.random.Generator, turn_of: Callable[[int], Turn]
) -> Positions:
    """Return `batch_size` positions: those chosen already, then in each turn the one with the highest key.

    `turn_of` takes the number of chosen rows. Ties are broken at random.
    """
    seed = rng.integers(2**64, dtype=np.uint64)
    while len(chosen) < batch_size:
        check_deadline()
        turn = turn_of(len(chosen))
        keys = turn(nearest.distances, slice(None))
        keys[chosen] = -np.inf
        level = find_highest(keys, partial(update_keys, nearest, keys, turn))
        chosen.append(int(level[hash_positions(level, seed).argmin()]))
        nearest.add(nearest.rows[chosen[-1:]])
    return np.array(chosen, np.int64)


def update_keys(nearest: Nearest, keys: Keys, turn: Turn, positions: Positions) -> None:
    """Update the distances and keys of some rows."""
    nearest.refresh(positions)
    keys[positions] = turn(nearest.distances[positions], positions)


def find_highest(
    keys: Keys, refresh: Callable[[Positions], None], n_contenders: int = N_CONTENDERS, growth: int = 8
) -> Positions:
    """Return the positions that share the highest key, given upper bounds `keys` (n,).

    `refresh` updates in place the keys above a floor, at first about `n_contenders`. If the highest of them stays above
    it, no other key can be higher; if not, there are `growth` times as many contenders.
    """
    while True:
        floor = floor_for(keys, n_contenders)
        contenders = np.flatnonzero(keys >= floor)
        refresh(contenders)
        best = keys[contenders].max()
        if best >= floor:
            level: Positions = contenders[keys[contenders] == best]
            return level
        n_contenders *= growth


def floor_for(keys: Keys, n_above: int) -> Any:
    """Return a number that about `n_above` keys reach, estimated from 4096 of them; the lowest one if keys are few."""
    lowest = np.finfo(keys.dtype).min
    some = keys[:: max(1, len(keys) // 4096)]
    n_of_some = max(1, n_above * len(some) // len(keys))
    return lowest if n_of_some >= len(some) else max(lowest, np.partition(some, -n_of_some)[-n_of_some])


def draw(
    name: str, view: PoolView, n_centers: int, sample: int, batch_size: int, rng: np.random.Generator
) -> tuple[Positions, str | None]:
    """Return the sorted positions of the candidates to consider, and a note if these are not all.

    Their number is bounded by `sample` and by WORK, given the largest number of centres that each is compared to.
    """
    n = len(view.candidates)
    at_most = min(sample, WORK // ((view.pool.cells_per_row + TURN_CELLS) * n_centers))
    if n <= max(at_most, batch_size):
        return np.arange(n), None
    n_drawn = max(at_most, batch_size)
    drawn = np.sort(rng.choice(n, n_drawn, replace=False, shuffle=False))
    return drawn, f"{name} considered a sample of {n_drawn} of the {n} candidates"


def nearest_centers(points: Points, centers: Iterable[Points], k: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the squared distances (m, k) of each point to its k nearest centres, unordered, and their numbers.

    `centers` are given in blocks. If there are fewer than k, all are returned.
    """
    n_points, start = len(points.squares), 0
    best, numbers = np.empty((n_points, 0)), np.empty((n_points, 0), np.int64)
    for block in centers:
        # Without the point's own norm, which does not change the order.
        distances = points.products(Points(-2.0 * block.features, block.factors))
        distances += block.squares
        kept = columns_of_least(distances, k)
        best = np.concatenate([best, np.take_along_axis(distances, kept, axis=1)], axis=1)
        numbers = np.concatenate([numbers, kept + start], axis=1)
        if best.shape[1] > k:
            kept = columns_of_least(best, k)
            best, numbers = np.take_along_axis(best, kept, axis=1), np.take_along_axis(numbers, kept, axis=1)
        start += distances.shape[1]
    own = points.squares[:, np.newaxis]
    best += own
    best[best < 2 * ROUNDING * own] = 0.0
    return best, numbers


def columns_of_least(distances: NDArray[np.float64], k: int) -> NDArray[np.int64]:
    """Return the columns (m, k) of the k smallest of each row's distances (m, n), unordered; all if there are fewer."""
    m, n = distances.shape
    if n <= k:
        return np.broadcast_to(np.arange(n), (m, n))
    limit = np.partition(distances, k - 1, axis=1)[:, k - 1 : k]  # three times as fast as argpartition
    columns: NDArray[np.int64] = np.flatnonzero(distances <= limit)
    if len(columns) > m * k:  # equal distances
        columns = np.argpartition(distances, k - 1, axis=1)[:, :k]
    return np.remainder(columns.reshape(m, k), n)
