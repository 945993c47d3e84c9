"""Pools that are edge cases for strategies: read-only matrices by name."""

import numpy as np

N_ROWS, N_COLUMNS = 40, 3

RNG = np.random.default_rng(7)
GOOD = RNG.normal(size=(N_ROWS, N_COLUMNS)) + 4 * RNG.integers(0, 3, (N_ROWS, 1))


def constant_column(X):
    X = X.copy()
    X[:, 1] = 3.0
    return X


def one_row_far_away(X):
    X = X.copy()
    X[5] = 1e12
    return X


POOLS = {
    "good": GOOD,
    "float32": GOOD.astype(np.float32),
    "float16": GOOD.astype(np.float16),
    "integers": np.round(GOOD * 100).astype(np.int64),
    "bytes": np.abs(np.round(GOOD * 10)).astype(np.uint8),
    "one column": GOOD[:, :1].copy(),
    "all rows equal": np.full((N_ROWS, N_COLUMNS), 2.5),
    "all zero": np.zeros((N_ROWS, N_COLUMNS)),
    "four distinct rows": GOOD[RNG.integers(0, 4, N_ROWS)],
    "constant column": constant_column(GOOD),
    "huge": GOOD * 1e300,
    "at both ends of float64": np.where(GOOD > 0, 1, -1) * np.finfo(np.float64).max,
    "huge float32": (GOOD * 1e37).astype(np.float32),
    "tiny": GOOD * 1e-300,
    "subnormal": GOOD * 1e-315,
    "close together, far away": 1e9 + GOOD * 1e-3,
    "one row far away": one_row_far_away(GOOD),
    "sorted": np.sort(GOOD, axis=0),
    "two rows": GOOD[:2].copy(),
    "one row": GOOD[:1].copy(),
}
for pool in POOLS.values():
    pool.flags.writeable = False
