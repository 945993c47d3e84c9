"""Strategies that cover the pool with representative rows, without a model."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.compute.deadline import check_deadline
from service.compute.threads import run_in_threads
from service.domain.parameters import Parameter
from service.strategies.engine.features import (
    SAMPLE,
    SAMPLE_CELLS,
    center_and_scale,
    dense_width,
    draw_sample,
    fit_k_means,
    limit_clusters,
    notes_of_folding,
    rank_within_clusters,
    read_dense,
)
from service.strategies.engine.greedy import Points, cut
from service.strategies.engine.notes import format_notes
from service.strategies.engine.pairs import (
    Squares,
    identity,
    max_pairs,
    reduce_over_pairs,
    sample_points,
    take_points,
)
from service.strategies.engine.question import PoolView, Positions
from service.strategies.engine.ranking import hash_positions
from service.strategies.engine.registry import Need, set_strategy

MAX_CLUSTERS = 500
MIN_CLUSTER_ROWS = 5
N_NEIGHBORS = 20
"""The three constants of the `typiclust` paper."""

CLUSTER_CELLS = 2**18
"""Largest number of distances within a cluster held at a time: 2 MB of float64."""


@set_strategy(
    "typiclust",
    summary="The most typical row of each of the biggest clusters without a label.",
    source="Hacohen, Dekel & Weinshall 2022, Active Learning on a Budget: Opposite Strategies Suit High and Low "
    "Budgets, arXiv:2202.02794",
    needs=frozenset({Need.FEATURES, Need.LABELED}),
    parameters=(SAMPLE,),
)
def typiclust(
    view: PoolView, batch_size: int, rng: np.random.Generator, *, sample: int
) -> tuple[Positions, None, str | None]:
    """Find as many clusters as there will be labels, up to 500, and take the most typical row of each in turn.

    The cluster with the fewest labelled or chosen rows comes first; of several, the biggest. Clusters of fewer than
    five rows, which the paper leaves out, come last if they are also below half the average size. The most typical row
    has the smallest mean distance to its (up to) 20 nearest neighbours in the cluster. The paper clusters the whole
    pool; here it is a drawn sample of the candidates and the labelled rows, or a drawn sample of these.
    """
    at_most = min(sample, math.isqrt(max_pairs(dense_width(view.pool))))  # all may be in one cluster
    drawn, notes = draw_sample(view, at_most, batch_size, rng)
    labeled, more = sampled_labels(view, at_most, rng)
    rows = np.concatenate([view.candidates[drawn], view.covered[labeled]])
    Z = center_and_scale(read_dense(view.pool, rows))
    n_wanted = min(len(view.covered) + batch_size, MAX_CLUSTERS, len(Z))
    n_clusters = limit_clusters(n_wanted, *Z.shape)
    if n_clusters < n_wanted:
        more.append(f"found {n_clusters} clusters: more would be slow")
    labels = fit_k_means(Z, n_clusters, rng).labels_
    of_drawn, of_labeled = labels[: len(drawn)], labels[len(drawn) :]
    typical = np.lexsort((rng.permutation(len(drawn)), mean_neighbor_distances(Z, labels)[: len(drawn)]))
    turn = np.bincount(of_labeled, minlength=n_clusters)[of_drawn] + rank_within_clusters(of_drawn, typical)
    sizes = np.bincount(labels)[of_drawn]
    is_small = sizes < min(MIN_CLUSTER_ROWS, len(Z) / (2 * n_clusters))
    order = np.lexsort((rng.permutation(n_clusters)[of_drawn], -sizes, turn, is_small))
    return drawn[order[:batch_size]], None, format_notes("typiclust", notes + more + notes_of_folding(view.pool))


def sampled_labels(view: PoolView, sample: int, rng: np.random.Generator) -> tuple[Positions, list[str]]:
    """Return the numbers of the labelled rows to consider, and notes."""
    n = len(view.covered)
    n_drawn = min(n, sample, SAMPLE_CELLS // dense_width(view.pool))
    if n_drawn == n:
        return np.arange(n), []
    return rng.choice(n, n_drawn, replace=False), [f"considered a sample of {n_drawn} of the {n} labelled rows"]


def mean_neighbor_distances(Z: NDArray[np.float64], labels: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
    """Return the mean distance of each row (n,) to its nearest neighbours in its cluster, 0 without neighbours."""
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
    summary="Greedy: each row has the most rows near it that are not near a labelled or chosen row.",
    source="Yehuda et al. 2022, Active Learning Through a Covering Lens, arXiv:2205.11320",
    needs=frozenset({Need.FEATURES, Need.LABELED}),
    parameters=(
        Parameter(
            "delta",
            kind="number",
            default=None,
            minimum=0.0,
            nullable=True,
            summary="Rows within this Euclidean distance are near; null derives it from `coverage`.",
        ),
        Parameter(
            "coverage",
            kind="number",
            default=0.5,
            minimum=0.01,
            maximum=0.99,
            summary="Share of the rows that random rows would cover, as many as will be labelled after the batch.",
        ),
        SAMPLE,
    ),
)
def prob_cover(
    view: PoolView, batch_size: int, rng: np.random.Generator, *, delta: float | None, coverage: float, sample: int
) -> tuple[Positions, None, str | None]:
    """Cover a drawn sample of the candidates greedily by balls of radius `delta`.

    The paper takes the largest radius at which 95 % of the balls lie within one k-means cluster. That needs the number
    of classes and, unless classes are far apart, gives balls of a row or two. Here the radius shrinks as labels are
    added: balls around as many random rows as there will be labels would cover the share `coverage`. Once all rows are
    covered, the rest of the batch is drawn at random.
    """
    sampled = sample_points(view, sample, batch_size, rng)
    if delta is None:
        limit = squared_radius_for(sampled.points, coverage, len(view.covered) + batch_size)
    else:
        limit = (delta / sampled.scale) * (delta / sampled.scale)
    seed = rng.integers(2**64, dtype=np.uint64)
    chosen = cover_greedily(sampled.points, sampled.from_labeled(sampled.points) <= limit, limit, batch_size, seed)
    notes = list(sampled.notes)
    if len(chosen) < batch_size:
        notes.append(f"covered all with {len(chosen)} rows and drew the other {batch_size - len(chosen)} at random")
    rest = np.delete(np.arange(len(sampled)), chosen)
    positions = np.concatenate([chosen, rest[np.argsort(hash_positions(rest, seed))][: batch_size - len(chosen)]])
    return sampled.positions[positions], None, format_notes("prob_cover", notes)


def squared_radius_for(points: Points, coverage: float, n_centers: int) -> float:
    """Return the squared radius at which the first `n_centers` rows cover the share `coverage` of the others.

    Rows must be in random order; at most half of them are centres.
    """
    n = len(points.features)
    n_centers = min(n_centers, n // 2)
    if n_centers == 0:
        return 0.0
    centers, others = points.part(slice(n_centers)), points.part(slice(n_centers, None))
    nearest = reduce_over_pairs(others, centers, identity, np.minimum, np.inf)
    return float(np.quantile(nearest, coverage, method="higher"))


def cover_greedily(
    points: Points, is_covered: NDArray[np.bool_], limit: float, batch_size: int, seed: np.uint64
) -> Positions:
    """Choose greedily the rows with most uncovered rows in reach, until the batch is full or all are covered.

    Each step subtracts the newly covered rows from the counts: all steps together cost as much as the first count.
    """

    def is_near(squares: Squares, _: slice) -> NDArray[np.bool_]:
        return squares <= limit

    counts = reduce_over_pairs(points, take_points(points, ~is_covered), is_near, np.add, 0.0)
    chosen: list[int] = []
    while len(chosen) < batch_size and (most := counts.max()) > 0:
        check_deadline()
        level = np.flatnonzero(counts == most)
        choice = int(level[hash_positions(level, seed).argmin()])
        chosen.append(choice)
        away = points.squared_distances(points.part(slice(choice, choice + 1)))[:, 0]
        newly = (away <= limit) & ~is_covered
        is_covered = is_covered | newly
        counts -= reduce_over_pairs(points, take_points(points, newly), is_near, np.add, 0.0)
        counts[choice] = -1.0
    return np.array(chosen, np.int64)
