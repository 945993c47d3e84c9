"""Strategies that look for the rows which stand for most of what no label stands for yet, whatever a model thinks."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.compute.deadline import check_deadline
from service.compute.threads import run_in_threads, use_one_thread
from service.domain.parameters import Parameter
from service.strategies.engine.features import (
    SAMPLE,
    SAMPLE_CELLS,
    affordable,
    clustered,
    comparable,
    dense,
    dense_rows,
    format_notes,
    notes_of_folding,
    ranks_within,
    sampled,
    width,
)
from service.strategies.engine.greedy import Points, Space, centered_space, cut, highest, standard_space
from service.strategies.engine.question import PoolView, Positions
from service.strategies.engine.ranking import hash_positions
from service.strategies.engine.registry import Need, set_strategy

Squares = NDArray[np.float64]

TILE_ROWS = 256
"""Distances are worked out between so many rows and as many others: half a megabyte, which stays in the cache."""

MAX_CLUSTERS = 500
MIN_CLUSTER_ROWS = 5
N_NEIGHBORS = 20
"""These three are the paper's for `typiclust`."""

CLUSTER_CELLS = 2**18
"""2 MB of float64: so many distances within a cluster are held at a time."""

N_PAIRS = 2**14
"""A median over so many drawn pairs is as good as that over all."""

N_REFRESHED = 100
"""About how many rows are brought up to date in a turn in the end, as measured."""

PAIR_COST = 16
"""What a distance costs beside its product of features, in multiplications."""

WORK = 10**11
"""So many multiplications take up to half a minute on two cores."""

NOTHING = 1e-9
"""A gain of less than this in a similarity is rounding."""


REFERENCES = Parameter(
    "references",
    kind="integer",
    default=2000,
    minimum=100,
    maximum=100_000,
    summary="How many of the candidates looked at stand for all where similarities are summed up; fewer where "
    "it would take long.",
)


@set_strategy(
    "typiclust",
    summary="The most typical row of each of the biggest clusters that hold no label yet.",
    source="Hacohen, Dekel & Weinshall 2022, Active Learning on a Budget: Opposite Strategies Suit High and Low "
    "Budgets, arXiv:2202.02794",
    needs=frozenset({Need.FEATURES, Need.LABELED}),
    parameters=(SAMPLE,),
)
def typiclust(
    view: PoolView, batch_size: int, rng: np.random.Generator, *, sample: int
) -> tuple[Positions, None, str | None]:
    """Find as many clusters as there will be labels, up to 500, and take the most typical row of each in turn.

    First comes the cluster with the fewest rows labelled or chosen, of these the biggest. Clusters of fewer than five
    rows, which the paper leaves out, come last, but only where they are less than half of the average as well. Most
    typical is the row with the least mean distance to its 20 nearest neighbours in the cluster, or to all where there
    are fewer. The paper clusters the whole pool; here it is a drawn sample of the candidates with all labelled rows, or
    with a draw of as many.
    """
    at_most = min(sample, math.isqrt(WORK // (width(view.pool) + PAIR_COST)))  # all may be in one cluster
    drawn, notes = sampled(view, at_most, batch_size, rng)
    labeled, more = sampled_labels(view, at_most, rng)
    rows = np.concatenate([view.candidates[drawn], view.covered[labeled]])
    Z = comparable(dense_rows(view.pool, rows))
    n_wanted = min(len(view.covered) + batch_size, MAX_CLUSTERS, len(Z))
    n_clusters = affordable(n_wanted, *Z.shape)
    if n_clusters < n_wanted:
        more.append(f"found {n_clusters} clusters: more take long")
    labels = clustered(Z, n_clusters, rng).labels_
    of_drawn, of_labeled = labels[: len(drawn)], labels[len(drawn) :]
    typical = np.lexsort((rng.permutation(len(drawn)), isolation(Z, labels)[: len(drawn)]))
    turn = np.bincount(of_labeled, minlength=n_clusters)[of_drawn] + ranks_within(of_drawn, typical)
    sizes = np.bincount(labels)[of_drawn]
    is_small = sizes < min(MIN_CLUSTER_ROWS, len(Z) / (2 * n_clusters))
    order = np.lexsort((rng.permutation(n_clusters)[of_drawn], -sizes, turn, is_small))
    return drawn[order[:batch_size]], None, format_notes("typiclust", notes + more + notes_of_folding(view.pool))


def sampled_labels(view: PoolView, sample: int, rng: np.random.Generator) -> tuple[Positions, list[str]]:
    """Return which of the labelled rows to look at, and what to tell of it."""
    n = len(view.covered)
    n_drawn = min(n, sample, SAMPLE_CELLS // width(view.pool))
    if n_drawn == n:
        return np.arange(n), []
    return rng.choice(n, n_drawn, replace=False), [f"looked at a sample of {n_drawn} of the {n} labelled rows"]


def isolation(Z: NDArray[np.float64], labels: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
    """Return the mean distance of each row (n,) from its nearest neighbours in its cluster, 0 where there is none."""
    means = np.empty(len(Z))

    def measure(part: tuple[Positions, Positions]) -> None:
        rows, cluster = part
        n_near = min(N_NEIGHBORS + 1, len(cluster))  # the row itself, at 0, and its neighbours
        squares = Points(Z[rows]).squared_distances(Points(Z[cluster]))
        nearest = np.sqrt(np.partition(squares, n_near - 1, axis=1)[:, :n_near])
        means[rows] = nearest.sum(axis=1) / max(n_near - 1, 1)

    clusters = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    run_in_threads(
        measure, [(rows, cluster) for cluster in clusters for rows in cut(cluster, CLUSTER_CELLS // len(cluster))]
    )
    return means


@set_strategy(
    "prob_cover",
    summary="One row after another, each the one with the most rows near it that are near no labelled or chosen one.",
    source="Yehuda et al. 2022, Active Learning Through a Covering Lens, arXiv:2205.11320",
    needs=frozenset({Need.FEATURES, Need.LABELED}),
    parameters=(
        Parameter(
            "delta",
            kind="number",
            default=None,
            minimum=0.0,
            nullable=True,
            summary="Rows within this Euclidean distance are near; null for the rule by `coverage`.",
        ),
        Parameter(
            "coverage",
            kind="number",
            default=0.5,
            minimum=0.01,
            maximum=0.99,
            summary="The share of the rows that would be near a labelled one, had as many been drawn at random as will "
            "be labelled after the batch.",
        ),
        SAMPLE,
    ),
)
def prob_cover(
    view: PoolView, batch_size: int, rng: np.random.Generator, *, delta: float | None, coverage: float, sample: int
) -> tuple[Positions, None, str | None]:
    """Cover a drawn sample of the candidates greedily by balls of radius `delta`.

    The paper takes the largest radius at which 95 % of the balls hold one cluster of a k-means alone, which needs the
    number of classes and, unless classes are far apart, ends at balls of a row or two. Here the radius shrinks as
    labels come in: so that balls around rows drawn at random, as many as there will be labels, would cover half.
    Where nothing is left to cover, the rest of the batch is drawn at random.
    """
    ground = ground_of(view, sample, batch_size, rng)
    if delta is None:
        limit = limit_for(ground.points, coverage, len(view.covered) + batch_size)
    else:
        limit = (delta / ground.scale) * (delta / ground.scale)
    seed = rng.integers(2**64, dtype=np.uint64)
    chosen = covered_by(ground.points, ground.from_labeled(ground.points) <= limit, limit, batch_size, seed)
    notes = list(ground.notes)
    if len(chosen) < batch_size:
        notes.append(f"had all covered after {len(chosen)} rows and drew the other {batch_size - len(chosen)}")
    rest = np.delete(np.arange(len(ground)), chosen)
    positions = np.concatenate([chosen, rest[np.argsort(hash_positions(rest, seed))][: batch_size - len(chosen)]])
    return ground.positions[positions], None, format_notes("prob_cover", notes)


def limit_for(points: Points, coverage: float, n_centers: int) -> float:
    """Return the squared radius at which the first `n_centers` rows cover that share of the others.

    Rows must come in an order drawn at random; at most half of them are centres.
    """
    n = len(points.features)
    n_centers = min(n_centers, n // 2)
    if n_centers == 0:
        return 0.0
    centers, others = points.part(slice(n_centers)), points.part(slice(n_centers, None))
    nearest = over_pairs(others, centers, as_they_are, np.minimum, np.inf)
    return float(np.quantile(nearest, coverage, method="higher"))


def covered_by(
    points: Points, is_covered: NDArray[np.bool_], limit: float, batch_size: int, seed: np.uint64
) -> Positions:
    """Choose greedily the rows within whose reach most is not covered, until the batch is full or all is covered.

    The counts are kept up to date by what each turn covers: in all turns together as much work as the first count.
    """

    def is_near(squares: Squares, _: slice) -> NDArray[np.bool_]:
        return squares <= limit

    counts = over_pairs(points, some_of(points, ~is_covered), is_near, np.add, 0.0)
    chosen: list[int] = []
    while len(chosen) < batch_size and (most := counts.max()) > 0:
        check_deadline()
        level = np.flatnonzero(counts == most)
        choice = int(level[hash_positions(level, seed).argmin()])
        chosen.append(choice)
        away = points.squared_distances(points.part(slice(choice, choice + 1)))[:, 0]
        newly = (away <= limit) & ~is_covered
        is_covered = is_covered | newly
        counts -= over_pairs(points, some_of(points, newly), is_near, np.add, 0.0)
        counts[choice] = -1.0
    return np.array(chosen, np.int64)


STANDARDIZE = Parameter(
    "standardize",
    kind="boolean",
    default=True,
    summary="Compare rows after every feature is brought to the same deviation; sparse ones always as they came.",
)


@set_strategy(
    "max_herding",
    summary="One row after another, each the one that raises most the similarity of all rows to their most similar "
    "labelled or chosen one.",
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
            summary="The width of the kernel, as a share of the median distance between two rows.",
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
    """Choose greedily for the sum over references of exp(-distance^2 / (2 width^2)) to the most similar row.

    Candidates are a drawn sample, and references the first of it. The paper takes a width of 1 for embeddings of length
    1, and all rows as references; here the width follows from the distances.
    """
    ground = ground_of(view, sample, batch_size, rng, standardize=standardize)
    n, d = ground.points.features.shape
    n_references = min(n, references, max(WORK // ((d + PAIR_COST) * (n + N_REFRESHED * batch_size)), 1))
    notes = list(ground.notes)
    if n_references < min(n, references):
        notes.append(f"summed up over {n_references} references: more take long")
    herd = Herd(ground, n_references, bandwidth * median_distance(ground.points, rng))
    return ground.positions[herd.grown(batch_size, rng)], None, format_notes("max_herding", notes)


def median_distance(points: Points, rng: np.random.Generator) -> float:
    """Return the median distance of pairs drawn at random, or 1 where more than half are equal."""
    first, second = rng.integers(len(points.features), size=(2, N_PAIRS))
    squares = [
        np.square(points.features[a] - points.features[b]).sum(axis=1)
        for a, b in zip(cut(first, TILE_ROWS), cut(second, TILE_ROWS), strict=True)
    ]
    return math.sqrt(np.median(np.concatenate(squares))) or 1.0


class Herd:
    """How much each of n rows would add to the similarity of references: a bound, exact where it is not due.

    What a row adds only shrinks as the herd grows (Minoux 1978, see `greedy`). Chosen rows have -1. References are the
    first rows of the ground, and count by their `weights` (n_references,), or all the same.
    """

    def __init__(self, ground: Ground, n_references: int, width: float, weights: Squares | None = None) -> None:
        self.points = ground.points
        self.weights = np.ones(n_references) if weights is None else weights
        self.references = ground.points.part(slice(n_references))
        self.width = width
        self.similarity = self.similar(ground.from_labeled(self.references))
        self.gains = np.full(len(ground), np.inf)
        self.is_due = np.ones(len(ground), np.bool_)

    def similar(self, squares: Squares) -> Squares:
        """Return the kernel of squared distances."""
        with np.errstate(over="ignore"):  # as unlike as can be
            # Divided twice: the square of a small width may be 0.
            similarity: Squares = np.exp(-0.5 * (squares / self.width) / self.width)
        return similarity

    def refresh(self, positions: Positions) -> None:
        """Bring the gains of some rows up to date. One that is 0 cannot shrink."""
        due = positions[self.is_due[positions] & (self.gains[positions] > 0)]

        def gain(squares: Squares, run: slice) -> Squares:
            gains: Squares = np.maximum(self.similar(squares) - (self.similarity[run] + NOTHING), 0.0)
            return self.weights[run] * gains

        self.gains[due] = over_pairs(some_of(self.points, due), self.references, gain, np.add, 0.0)
        self.is_due[due] = False

    def add(self, choice: int) -> None:
        """Take a row into the herd."""
        squares = self.references.squared_distances(self.points.part(slice(choice, choice + 1)))[:, 0]
        np.maximum(self.similarity, self.similar(squares), out=self.similarity)
        self.is_due[:] = True
        self.gains[choice] = -1.0

    def grown(self, batch_size: int, rng: np.random.Generator) -> Positions:
        """Take in one row after another, and return them; equal gains are decided by lots."""
        seed = rng.integers(2**64, dtype=np.uint64)
        chosen = np.empty(batch_size, np.int64)
        for turn in range(batch_size):
            check_deadline()
            level = highest(self.gains, self.refresh)
            chosen[turn] = level[hash_positions(level, seed).argmin()]
            self.add(chosen[turn])
        return chosen


@dataclass(frozen=True, slots=True, eq=False)
class Ground:
    """Some candidates in drawn order, as points in a space; the labelled rows; and what to tell of it."""

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
        """Return the squared distance of each point from the nearest labelled row, infinite where there is none."""
        least = np.full(len(points.features), np.inf)
        for some in cut(self.labeled, SAMPLE_CELLS // width(self.space.pool)):
            np.minimum(
                least, over_pairs(points, points_in(self.space, some), as_they_are, np.minimum, np.inf), out=least
            )
        return least


def ground_of(
    view: PoolView, sample: int, batch_size: int, rng: np.random.Generator, *, standardize: bool = False
) -> Ground:
    """Return a drawn sample of the candidates; fewer where all its distances, or those from all labels, take long."""
    use_one_thread()
    n_pairs = WORK // (width(view.pool) + PAIR_COST)
    at_most = min(sample, math.isqrt(n_pairs), n_pairs // max(len(view.covered), 1))
    positions, notes = sampled(view, at_most, batch_size, rng)
    rows = view.candidates[positions]
    # Features that are mostly 0, words say, would count the more the rarer they are.
    space_of = standard_space if standardize and not view.pool.is_sparse else centered_space
    space = space_of(view.pool, np.concatenate([rows, view.covered]))
    return Ground(positions, points_in(space, rows), space, view.covered, notes + notes_of_folding(view.pool))


def some_of(points: Points, rows: Positions | NDArray[np.bool_]) -> Points:
    """Return some of dense points, by position or mask."""
    return Points(points.features[rows])


def points_in(space: Space, rows: Positions) -> Points:
    """Return rows of the pool as dense points."""
    return Points(dense(space.read(rows).features))


OfPairs = Callable[[Squares, slice], NDArray[Any]]
"""From the squared distances of some rows from a run of others, and which run, to a number for each pair."""


def as_they_are(squares: Squares, _: slice) -> Squares:
    """Return the squared distances."""
    return squares


def over_pairs(rows: Points, others: Points, of: OfPairs, combine: np.ufunc, initial: float) -> NDArray[np.float64]:
    """Combine for each row what `of` makes of its distances from all others, never holding more than a few tiles."""
    n, n_others = len(rows.features), len(others.features)
    combined = np.full(n, initial)

    def go_along(block: slice) -> None:
        part = rows.part(block)
        for run in runs(n_others, TILE_ROWS):
            values = of(part.squared_distances(others.part(run)), run)
            combined[block] = combine(combined[block], combine.reduce(values, axis=1))

    run_in_threads(go_along, runs(n, TILE_ROWS**2 // min(max(n_others, 1), TILE_ROWS)))
    return combined


def runs(n: int, step: int) -> list[slice]:
    """Cut n rows into runs."""
    return [slice(start, min(start + step, n)) for start in range(0, n, step)]
