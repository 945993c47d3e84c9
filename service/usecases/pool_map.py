"""A map of a pool: some of its samples in two dimensions, by principal components."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import issparse
from sklearn.decomposition import TruncatedSVD

from service.compute.threads import use_one_thread
from service.learning.pool import Features
from service.store import Snapshot

MAX_ROWS = 5_000
MAX_LABELED = 1_000
"""Maximum number of labelled samples among these."""

MAX_CELLS = 2**23


@dataclass(frozen=True, slots=True, eq=False)
class PoolMap:
    """The coordinates (m, 2) of some samples, and masks (m,) of the labelled ones and of the next ones to label."""

    coordinates: NDArray[np.float64]
    is_labeled: NDArray[np.bool_]
    is_next: NDArray[np.bool_]


def map_pool(snapshot: Snapshot, next_indices: Sequence[int]) -> PoolMap:
    """Return the map of a project's pool: up to 5,000 random samples, with the labelled ones and the next batch."""
    project, pool = snapshot.project, snapshot.mapped_pool
    rng = np.random.default_rng(project.random_state)
    n_rows = max(100, min(MAX_ROWS, MAX_CELLS // max(1, 1 if project.is_sparse else project.n_features)))
    labeled, chosen = project.labels.labeled, np.array(next_indices[: n_rows // 2], np.int64)
    if len(labeled) > min(MAX_LABELED, n_rows // 2):
        labeled = rng.choice(labeled, min(MAX_LABELED, n_rows // 2), replace=False)
    others = rng.choice(project.n_samples, min(project.n_samples, n_rows), replace=False)
    wanted = np.concatenate([chosen, labeled, others])
    _, first = np.unique(wanted, return_index=True)
    rows = np.sort(wanted[np.sort(first)[:n_rows]])
    return PoolMap(
        principal_components(pool.take(rows)), np.isin(rows, project.labels.labeled), np.isin(rows, next_indices)
    )


def principal_components(X: Features) -> NDArray[np.float64]:
    """Return the first two principal components (n, 2) of rows (n, d).

    Sparse rows are not centred. A missing or infinite feature counts as the mean.
    """
    use_one_thread()
    if issparse(X):
        X = X.astype(np.float64)
    else:
        dense = np.array(X, np.float64)
        with np.errstate(all="ignore"):
            middle = np.nan_to_num(np.nanmean(np.where(np.isfinite(dense), dense, np.nan), axis=0))
            dense = np.where(np.isfinite(dense), dense, middle) - middle
            X = dense / max(float(np.abs(dense).max(initial=0.0)), 1e-300)  # so that no square overflows
    n, d = X.shape
    found = np.zeros((n, 2))
    if min(n, d) > 2:
        found[:] = TruncatedSVD(2, random_state=0).fit_transform(X)
    else:
        found[:, : min(d, 2)] = X.toarray()[:, :2] if issparse(X) else X[:, :2]
    return found
