"""Features as dense matrices of bounded width, drawn samples of them, and their k-means clusters."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning

from service.compute.threads import use_one_thread
from service.domain.parameters import Parameter
from service.learning.pool import CHUNK_CELLS, Features, Pool
from service.strategies.engine.question import PoolView, Positions
from service.strategies.engine.ranking import hash_positions, top

# Fewer distinct rows than centres is an everyday pool here, not a fault. The filter stands for the whole process:
# warnings.catch_warnings around the call would tamper with those of the requests in other threads.
warnings.filterwarnings("ignore", message="Number of distinct clusters", category=ConvergenceWarning)

SAMPLE_CELLS = 2**23
"""A sample of so many cells takes 64 MB in float64, and a few times that while it is clustered."""

STEP_WORK = 2 * 10**9
"""So many multiplications make a step of k-means, of which there are up to 50: some seconds in all."""

FOLDED = 1024
"""So many columns are kept of a wide sparse pool."""

SAMPLE = Parameter(
    "sample",
    kind="integer",
    default=10_000,
    minimum=100,
    maximum=100_000,
    summary="Number of candidates considered, drawn at random; never fewer than the batch.",
)


def draw_sample(view: PoolView, sample: int, batch_size: int, rng: np.random.Generator) -> tuple[Positions, list[str]]:
    """Return the positions of the candidates to look at, in drawn order, and what to tell of it."""
    n = len(view.candidates)
    n_drawn = min(n, max(min(sample, SAMPLE_CELLS // dense_width(view.pool)), batch_size))
    drawn = rng.choice(n, n_drawn, replace=False)
    return drawn, [] if n_drawn == n else [f"considered a sample of {n_drawn} of the {n} candidates"]


def pick_cluster_middles(
    view: PoolView,
    positions: Positions,
    batch_size: int,
    rng: np.random.Generator,
    *,
    weights: NDArray[np.float64] | None = None,
    otherwise: str = "drew {} of the batch at random",
) -> tuple[Positions, list[str]]:
    """Cluster some candidates and return the middle of each cluster, and what to tell of it.

    Where there are fewer clusters than places, the others go to the first of the rest; `otherwise` says what it means.
    """
    n, d = len(positions), dense_width(view.pool)
    notes = notes_of_folding(view.pool)
    if batch_size == n:  # every row would be its own cluster
        return positions, notes
    n_clusters = limit_clusters(batch_size, n, d)
    if n_clusters < batch_size:
        notes.append(f"{otherwise.format(batch_size - n_clusters)}: more than {n_clusters} clusters would be slow")
    rows = cluster_middles(
        center_and_scale(read_dense(view.pool, view.candidates[positions])), n_clusters, rng, weights
    )
    # Where fewer rows differ than were asked for, clusters stay empty as well.
    rest = np.delete(positions, rows)[: batch_size - len(rows)]
    return np.concatenate([positions[rows], rest]), notes


def notes_of_folding(pool: Pool) -> list[str]:
    """Say whether the features were folded."""
    d = dense_width(pool)
    return [f"folded the {pool.n_columns} sparse features into {d} columns"] if d < pool.n_columns else []


def limit_clusters(n_clusters: int, n: int, d: int) -> int:
    """Return how many clusters of n rows can be found in the time there is: so many, or fewer."""
    return min(n_clusters, max(STEP_WORK // (n * d), 1))


def cluster_middles(
    Z: NDArray[np.float64], n_clusters: int, rng: np.random.Generator, weights: NDArray[np.float64] | None = None
) -> Positions:
    """Return the row of each cluster nearest its centre, heaviest cluster first; fewer where clusters stay empty.

    Without weights (n,) above 0 each row weighs the same. Of equal rows the first stands for all.
    """
    found = fit_k_means(Z, n_clusters, rng, weights)
    away = Z - found.cluster_centers_[found.labels_]
    order = np.lexsort((np.einsum("nd,nd->n", away, away), found.labels_))
    labels, starts = np.unique(found.labels_[order], return_index=True)
    sizes = np.bincount(found.labels_, weights)[labels]
    return order[starts[top(sizes.astype(np.float64), n_clusters, rng)]]


def fit_k_means(
    Z: NDArray[np.float64], n_clusters: int, rng: np.random.Generator, weights: NDArray[np.float64] | None = None
) -> KMeans:
    """Find clusters by k-means, from one start.

    scikit-learn works in blocks of 256 rows, never (n, n_clusters). The limit of steps bounds the time; by then the
    centres hardly move.
    """
    use_one_thread()
    seed = int(rng.integers(2**32))
    return KMeans(n_clusters, n_init=1, max_iter=50, random_state=seed).fit(Z, sample_weight=weights)


def rank_within_clusters(labels: NDArray[np.integer[Any]], order: Positions) -> Positions:
    """Return for each row (n,) how many of its own cluster come before it in an order of all rows (n,)."""
    by_cluster = order[np.argsort(labels[order], kind="stable")]
    _, starts, sizes = np.unique(labels[by_cluster], return_index=True, return_counts=True)
    ranks = np.empty(len(labels), np.int64)
    ranks[by_cluster] = np.arange(len(labels)) - np.repeat(starts, sizes)
    return ranks


def dense_width(pool: Pool) -> int:
    """Return how many columns the rows of a pool have once they are dense."""
    return min(pool.n_columns, FOLDED) if pool.is_sparse else pool.n_columns


def to_dense(X: Features) -> NDArray[Any]:
    """Return rows (n, d) as a dense matrix; sparse ones of more than FOLDED columns are folded into so many.

    Every column is added to one of the new ones, or taken from it, as a fixed draw says: distances stay as they are on
    average, within some percent (the hashing trick; Weinberger et al. 2009, arXiv:0902.2206).
    """
    if not sparse.issparse(X):
        return np.asarray(X)
    if X.shape[1] > FOLDED:
        draws = hash_positions(X.indices, np.uint64(0))
        values = np.where(draws >> np.uint64(63), X.data, -X.data.astype(np.float64))
        places = (draws % np.uint64(FOLDED)).astype(X.indices.dtype)
        X = sparse.csr_array((values, places, X.indptr), shape=(X.shape[0], FOLDED))
    rows: NDArray[Any] = X.toarray()
    return rows


def read_dense(pool: Pool, rows: Positions) -> NDArray[Any]:
    """Return some rows of a pool as `to_dense` does; sparse ones are read some at a time, for they may be long."""
    if not pool.is_sparse:
        return to_dense(pool.take(rows))
    step = max(1, CHUNK_CELLS // pool.cells_per_row)
    blocks = [to_dense(pool.take(rows[start : start + step])) for start in range(0, len(rows), step)]
    return np.concatenate(blocks or [np.empty((0, dense_width(pool)))])


def center_and_scale(X: NDArray[Any]) -> NDArray[np.float64]:
    """Return the rows centred, in float64, and divided by one number that brings the largest cell to 1.

    One number for all columns keeps the geometry, and no square of a distance overflows or vanishes afterwards. The
    first division is for the mean, whose sum may overflow; the second for rows that lie close together far away.
    """
    Z = X.astype(np.float64)
    Z /= largest_magnitude(Z)
    Z -= Z.mean(axis=0)
    Z /= largest_magnitude(Z)
    return Z


def largest_magnitude(Z: NDArray[np.float64]) -> float:
    """Return the largest absolute value, or 1 where all are 0."""
    return float(max(np.max(Z), -np.min(Z))) or 1.0
