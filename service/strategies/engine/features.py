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

# Fewer distinct rows than centres is common here. The filter is global because warnings.catch_warnings around the call
# would affect other threads.
warnings.filterwarnings("ignore", message="Number of distinct clusters", category=ConvergenceWarning)

SAMPLE_CELLS = 2**23
"""Largest number of cells in a sample: 64 MB in float64, and a few times that during clustering."""

STEP_WORK = 2 * 10**9
"""Largest number of multiplications in a step of k-means: some seconds for all 50 steps."""

FOLDED = 1024
"""Number of columns that a wide sparse pool is folded into."""

SAMPLE = Parameter(
    "sample",
    kind="integer",
    default=10_000,
    minimum=100,
    maximum=100_000,
    summary="Number of candidates considered, drawn at random; never fewer than the batch.",
)


def draw_sample(view: PoolView, sample: int, batch_size: int, rng: np.random.Generator) -> tuple[Positions, list[str]]:
    """Return the positions of the candidates to consider, in random order, and notes."""
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
    """Cluster some candidates and return the row nearest each centre, and notes.

    If there are fewer clusters than `batch_size`, the first of the other rows fill up the batch; `otherwise` is the
    note for that.
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
    # Clusters also stay empty if there are fewer distinct rows than clusters.
    rest = np.delete(positions, rows)[: batch_size - len(rows)]
    return np.concatenate([positions[rows], rest]), notes


def notes_of_folding(pool: Pool) -> list[str]:
    """Return a note if the features are folded."""
    d = dense_width(pool)
    return [f"folded the {pool.n_columns} sparse features into {d} columns"] if d < pool.n_columns else []


def limit_clusters(n_clusters: int, n: int, d: int) -> int:
    """Return `n_clusters`, or the largest number within STEP_WORK for n rows of d features."""
    return min(n_clusters, max(STEP_WORK // (n * d), 1))


def cluster_middles(
    Z: NDArray[np.float64], n_clusters: int, rng: np.random.Generator, weights: NDArray[np.float64] | None = None
) -> Positions:
    """Return the row nearest each cluster's centre, heaviest cluster first; fewer rows if clusters stay empty.

    `weights` (n,) are above 0; without them all rows weigh the same. Of equal rows the first is returned.
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
    """Return k-means fitted from one initialisation.

    scikit-learn works in blocks of 256 rows, so no (n, n_clusters) array is allocated. `max_iter` bounds the time; by
    then the centres hardly move.
    """
    use_one_thread()
    seed = int(rng.integers(2**32))
    return KMeans(n_clusters, n_init=1, max_iter=50, random_state=seed).fit(Z, sample_weight=weights)


def rank_within_clusters(labels: NDArray[np.integer[Any]], order: Positions) -> Positions:
    """Return for each row (n,) the number of rows of its cluster that precede it in `order` (n,)."""
    by_cluster = order[np.argsort(labels[order], kind="stable")]
    _, starts, sizes = np.unique(labels[by_cluster], return_index=True, return_counts=True)
    ranks = np.empty(len(labels), np.int64)
    ranks[by_cluster] = np.arange(len(labels)) - np.repeat(starts, sizes)
    return ranks


def dense_width(pool: Pool) -> int:
    """Return the number of columns of a pool's rows after `to_dense`."""
    return min(pool.n_columns, FOLDED) if pool.is_sparse else pool.n_columns


def to_dense(X: Features) -> NDArray[Any]:
    """Return rows (n, d) as a dense matrix; sparse ones of more than FOLDED columns are folded into that many.

    A hash adds every column to one of the new ones, with a random sign, which preserves distances within some percent
    on average (the hashing trick; Weinberger et al. 2009, arXiv:0902.2206).
    """
    if not sparse.issparse(X):
        return np.asarray(X)
    if X.shape[1] > FOLDED:
        draws = hash_positions(X.indices, np.uint64(0))
        values = np.where(draws >> np.uint64(63), X.data, -X.data.astype(np.float64))
        columns = (draws % np.uint64(FOLDED)).astype(X.indices.dtype)
        X = sparse.csr_array((values, columns, X.indptr), shape=(X.shape[0], FOLDED))
    rows: NDArray[Any] = X.toarray()
    return rows


def read_dense(pool: Pool, rows: Positions) -> NDArray[Any]:
    """Return some rows of a pool as `to_dense` does; sparse rows are read in blocks to bound the memory."""
    if not pool.is_sparse:
        return to_dense(pool.take(rows))
    step = max(1, CHUNK_CELLS // pool.cells_per_row)
    blocks = [to_dense(pool.take(rows[start : start + step])) for start in range(0, len(rows), step)]
    return np.concatenate(blocks or [np.empty((0, dense_width(pool)))])


def center_and_scale(X: NDArray[Any]) -> NDArray[np.float64]:
    """Return the rows in float64, centred and divided by one number so that the largest cell is 1.

    One number for all columns preserves the geometry, and no squared distance overflows or underflows afterwards. The
    first division keeps the sum of the mean from overflowing; the second is for close rows far from the origin.
    """
    Z = X.astype(np.float64)
    Z /= largest_magnitude(Z)
    Z -= Z.mean(axis=0)
    Z /= largest_magnitude(Z)
    return Z


def largest_magnitude(Z: NDArray[np.float64]) -> float:
    """Return the largest absolute value, or 1 if all are 0."""
    return float(max(np.max(Z), -np.min(Z))) or 1.0
