"""Query a large pool over HTTP, repeat the query, and label in it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import count
from operator import matmul
from pathlib import Path
from statistics import median

import joblib
import numpy as np
from threadpoolctl import threadpool_limits

from tests.benchmarks.measure import PeakMemory, in_turns, milliseconds
from tests.benchmarks.pools import create, form, label, query, relabel, served
from tests.benchmarks.rows import Row, at_most, times
from tests.benchmarks.sizes import BATCH, N_CLASSES, WIDTH, Sizes
from tests.support.serving import Service

WARM_UP_QUERIES = 10
QUERIES_AGAIN = 30
N_RELABELED = 100


@dataclass(frozen=True)
class QueryTimes:
    """Milliseconds of queries, and of bare passes by number of threads; peak memory of a worker."""

    fresh: list[float]
    again: list[float]
    bare: dict[int, list[float]]
    own_mb: float


def measure_query(sizes: Sizes, directory: Path) -> list[Row]:
    """Rows 1 and 2: a query after each fit, next to a bare matrix product over the same file; then repeated queries."""
    return query_rows((1, 1, 2), sizes.pool, time_queries(sizes.pool, sizes.labels, sizes.rounds, directory))


def measure_huge(sizes: Sizes, directory: Path) -> list[Row]:
    """Row 8: the same with a pool of 5 million rows."""
    timings = time_queries(sizes.huge, sizes.labels, sizes.rounds // 2, directory, AQ_MAX_BODY_BYTES=str(2**40))
    return query_rows((8, 8, 8), sizes.huge, timings)


def measure_default_model(sizes: Sizes, directory: Path) -> list[Row]:
    """Row 10: the same with the default estimator, and with it and its trees, which take most of the time."""
    estimators = {"auto": "auto", "auto with trees": {"name": "auto", "params": {"pass_seconds": 60}}}
    rows = []
    for name, estimator in estimators.items():
        folder = directory / name
        folder.mkdir()
        timings = time_queries(sizes.pool, sizes.labels, sizes.rounds // 2, folder, estimator)
        rows += query_rows((10, 10, 10), sizes.pool, timings, limit=None, name=f"/query margin, estimator {name}")
    return rows


def query_rows(
    numbers: tuple[int, int, int],
    n_rows: int,
    timings: QueryTimes,
    limit: float | None = 1.0,
    name: str = "/query margin",
) -> list[Row]:
    """Compare a fresh query with the faster bare pass, and show the other one."""
    work = f"{name}, {n_rows:,} x {WIDTH} float32, {N_CLASSES} classes, batch {BATCH}"
    fresh, memory, again = numbers
    faster, *slower = sorted(timings.bare, key=lambda threads: median(timings.bare[threads]))
    return [
        times(
            fresh,
            f"{work}, fresh model",
            timings.fresh,
            "ms",
            bare_name(faster),
            timings.bare[faster],
            at_most=limit,
        ),
        *(times(fresh, f"{work}, fresh model", timings.fresh, "ms", bare_name(t), timings.bare[t]) for t in slower),
        at_most(memory, f"{work}, own memory", timings.own_mb, "MB", 200),
        at_most(again, f"{work}, model unchanged", median(timings.again), "ms", 30),
    ]


def bare_name(threads: int) -> str:
    return f"X @ W over the same file, BLAS threads: {threads}"


def time_queries(
    n_rows: int,
    n_labels: int,
    rounds: int,
    directory: Path,
    estimator: str | dict[str, object] = "logistic_regression",
    **settings: str,
) -> QueryTimes:
    """Query a pool of `n_rows`."""
    with served(directory, **settings) as service:
        with PeakMemory(service.workers()) as memory:
            create(service, "pool", form("pool", n_rows, estimator=estimator))
            label(service, "pool", n_labels)
            turns = count()
            for _ in range(rounds):
                fresh_query(service, next(turns))
        bare = bare_passes(directory / "data")
        fresh, *passes = in_turns(rounds, lambda: fresh_query(service, next(turns)), *bare.values())
        return QueryTimes(fresh, repeated_queries(service), dict(zip(bare, passes, strict=True)), memory.growth_mb)


def fresh_query(service: Service, turn: int) -> float:
    """Fit a new model, then time the first query that uses it."""
    relabel(service, "pool", turn)
    return milliseconds(partial(query, service, "pool"))


def repeated_queries(service: Service) -> list[float]:
    """Time a repeated query, after each worker has filled its cache."""
    for _ in range(WARM_UP_QUERIES):
        query(service, "pool")
    return [milliseconds(partial(query, service, "pool")) for _ in range(QUERIES_AGAIN)]


def bare_passes(data_dir: Path) -> dict[int, Callable[[], float]]:
    """Baseline for a linear model: X @ W over the file that the service maps, with one BLAS thread and with all."""
    (file,) = (data_dir / "projects/pool/pool").iterdir()
    X = joblib.load(file, mmap_mode="r")
    W = np.random.default_rng(0).standard_normal((X.shape[1], N_CLASSES), np.float32)

    def bare(threads: int) -> float:
        with threadpool_limits(limits=threads):
            return milliseconds(partial(matmul, X, W))

    passes = {threads: partial(bare, threads) for threads in sorted({1, len(os.sched_getaffinity(0))})}
    for bare_pass in passes.values():
        bare_pass()  # maps the pages into this process
    return passes


def measure_label(sizes: Sizes, directory: Path) -> list[Row]:
    """Row 3: change labels in a large pool, and in a small one with the same number of labels."""
    with served(directory) as service:
        for project_id, n_rows in (("small", sizes.small_pool), ("large", sizes.pool)):
            create(service, project_id, form(project_id, n_rows))
            label(service, project_id, sizes.labels_of_both)
        turns = count()

        def change_labels(project_id: str) -> float:
            return milliseconds(partial(relabel, service, project_id, next(turns), N_RELABELED, "never"))

        large, small = in_turns(5 * sizes.rounds, partial(change_labels, "large"), partial(change_labels, "small"))
    work = f"/label {N_RELABELED} records, refit never, {sizes.pool:,} x {WIDTH} pool, {sizes.labels_of_both:,} labels"
    against = f"the same, {sizes.small_pool:,} x {WIDTH} pool"
    return [times(3, work, large, "ms", against, small, at_most=1.3)]
