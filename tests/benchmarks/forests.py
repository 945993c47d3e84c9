"""Passes of forests over a pool, compared with scikit-learn on the same rows in the same thread."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier

from service.learning.pool import Pool
from service.learning.trees import KERNEL, Trees
from tests.benchmarks.measure import in_turns
from tests.benchmarks.rows import Row, faster
from tests.benchmarks.sizes import N_CLASSES, WIDTH, Sizes

N_TREES, N_LABELS = 100, 1000
FORESTS = {"extra trees": ExtraTreesClassifier, "random forest": RandomForestClassifier}


def measure_forests(sizes: Sizes, _directory: Path) -> list[Row]:
    """Row 15: 100 trees of 1,000 labels, a tenth of the pool in each turn. Compares CPU times."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(N_CLASSES, WIDTH)) / 2
    y = rng.integers(N_CLASSES, size=N_LABELS + sizes.pool // 10)
    X = (centres[y] + rng.normal(size=(len(y), WIDTH))).astype(np.float32)
    KERNEL.start().join()
    rows = []
    for name, kind in FORESTS.items():
        forest = kind(N_TREES, random_state=0).fit(X[:N_LABELS], y[:N_LABELS])
        trees, pool = Trees.of(forest), Pool.of(X[N_LABELS:])
        trees.mean(X[:N_LABELS])  # packs them
        ours, theirs = in_turns(3, *(partial(pass_over, pool, way) for way in (trees.mean, forest.predict_proba)))
        work = f"{N_TREES} trees of {name}, {len(pool):,} x {WIDTH} float32, {N_CLASSES} classes, CPU"
        rows.append(faster(15, work, ours, "scikit-learn, predict_proba", theirs, 4))
    return rows


def pass_over(pool: Pool, predict: Callable[[np.ndarray], np.ndarray]) -> float:
    """Return the CPU milliseconds to predict every row of a pool, chunk after chunk."""
    start = time.process_time()
    for chunk in pool.chunks(N_CLASSES):
        predict(pool.read(chunk))
    return 1000 * (time.process_time() - start)
