"""Strategies that look at the features alone: the batch stands for the pool, whatever a model thinks of it."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning

from service.parameters import Parameter
from service.pool import Features, Pool
from service.strategies.ranking import lots, top
from service.strategies.registry import Need, set_strategy
from service.strategies.view import PoolView, Positions
from service.threads import use_one_thread

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
    summary="How many candidates, drawn by the seed, are looked at; never fewer than the batch.",
)


@set_strategy(
    "k_means",
    summary="The row nearest each of as many k-means centres as the batch has places, biggest cluster first.",
    source="Xu et al. 2003, Representative Sampling for Text Classification Using Support Vector Machines, "
    "doi:10.1007/3-540-36618-0_28",
    needs=frozenset({Need.FEATURES}),
    parameters=(SAMPLE,),
)
def k_means(
    view: PoolView, batch_size: int, rng: np.random.Generator, *, sample: int
) -> tuple[Positions, None, str | None]:
    """Cluster a drawn sample of the candidates into `batch_size` clusters and take the middle of each.

    The paper does so among the rows inside the margin of a support vector machine; here it is done among all.
    """
    n, d = len(view.candidates), width(view.pool)
    n_drawn = min(n, max(min(sample, SAMPLE_CELLS // d), batch_size))
    drawn = rng.choice(n, n_drawn, replace=False)
    notes = [] if n_drawn == n else [f"looked at a sample of {n_drawn} of the {n} candidates"]
    if d < view.pool.n_columns:
        notes.append(f"folded the {view.pool.n_columns} sparse features into {d}")
    if batch_size == n_drawn:  # every row would be its own cluster
        return drawn, None, told(notes)
    n_clusters = min(batch_size, max(STEP_WORK // (n_drawn * d), 1))
    if n_clusters < batch_size:
        notes.append(
            f"drew {batch_size - n_clusters} of the batch at random: more than {n_clusters} clusters take long"
        )
    rows = cluster_middles(comparable(dense(view.features(drawn))), n_clusters, rng)
    # Where fewer rows differ than were asked for, clusters stay empty; the rest of the sample is in drawn order.
    rest = np.delete(drawn, rows)[: batch_size - len(rows)]
    return np.concatenate([drawn[rows], rest]), None, told(notes)


def told(notes: list[str]) -> str | None:
    """Say what was not done in full, in one sentence."""
    return f"k_means {' and '.join(notes)}" if notes else None


def cluster_middles(Z: NDArray[np.float64], n_clusters: int, rng: np.random.Generator) -> Positions:
    """Return the row of each cluster nearest its centre, biggest cluster first; fewer where clusters stay empty.

    Of equal rows the first stands for all. scikit-learn works in blocks of 256 rows, never (n, n_clusters). The limit
    of steps bounds the time; by then the centres hardly move.
    """
    use_one_thread()
    found = KMeans(n_clusters, n_init=1, max_iter=50, random_state=int(rng.integers(2**32))).fit(Z)
    away = Z - found.cluster_centers_[found.labels_]
    order = np.lexsort((np.einsum("nd,nd->n", away, away), found.labels_))
    _, starts, sizes = np.unique(found.labels_[order], return_index=True, return_counts=True)
    return order[starts[top(sizes.astype(np.float64), n_clusters, rng)]]


def width(pool: Pool) -> int:
    """Return how many columns the rows of a pool have once they are dense."""
    return min(pool.n_columns, FOLDED) if pool.is_sparse else pool.n_columns


def dense(X: Features) -> NDArray[Any]:
    """Return rows (n, d) as a dense matrix; sparse ones of more than FOLDED columns are folded into so many.

    Every column is added to one of the new ones, or taken from it, as a fixed draw says: distances stay as they are on
    average, within some percent (the hashing trick; Weinberger et al. 2009, arXiv:0902.2206).
    """
    if not sparse.issparse(X):
        return np.asarray(X)
    if X.shape[1] > FOLDED:
        draws = lots(X.indices, np.uint64(0))
        values = np.where(draws >> np.uint64(63), X.data, -X.data.astype(np.float64))
        places = (draws % np.uint64(FOLDED)).astype(X.indices.dtype)
        X = sparse.csr_array((values, places, X.indptr), shape=(X.shape[0], FOLDED))
    rows: NDArray[Any] = X.toarray()
    return rows


def comparable(X: NDArray[Any]) -> NDArray[np.float64]:
    """Return the rows centred, in float64, and divided by one number that brings the largest cell to 1.

    One number for all columns keeps the geometry, and no square of a distance overflows or vanishes afterwards. The
    first division is for the mean, whose sum may overflow; the second for rows that lie close together far away.
    """
    Z = X.astype(np.float64)
    Z /= largest(Z)
    Z -= Z.mean(axis=0)
    Z /= largest(Z)
    return Z


def largest(Z: NDArray[np.float64]) -> float:
    """Return the largest absolute value, or 1 where all are 0."""
    return float(max(np.max(Z), -np.min(Z))) or 1.0
