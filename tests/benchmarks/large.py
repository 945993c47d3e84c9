"""What it costs to ask a large pool over HTTP, to ask the same again, and to label in it."""

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

FREE_QUERIES = 10
QUERIES_AGAIN = 30
N_RELABELED = 100


@dataclass(frozen=True)
class Asked:
    """Milliseconds of queries and of bare passes by number of threads, and the most memory that a worker needed."""

    fresh: list[float]
    again: list[float]
    bare: dict[int, list[float]]
    own_mb: float


def measure_query(sizes: Sizes, directory: Path) -> list[Row]:
    """Rows 1 and 2: a query after every fit, a bare product over the same file in between, and a query that repeats."""
    return query_rows((1, 1, 2), sizes.pool, ask(sizes.pool, sizes.labels, sizes.rounds, directory))


def measure_huge(sizes: Sizes, directory: Path) -> list[Row]:
    """Row 8: the same with a pool that is larger than what is usual to hold in memory."""
    asked = ask(sizes.huge, sizes.labels, sizes.rounds // 2, directory, AQ_MAX_BODY_BYTES=str(2**40))
    return query_rows((8, 8, 8), sizes.huge, asked)


def query_rows(numbers: tuple[int, int, int], n_rows: int, asked: Asked) -> list[Row]:
    """Hold a fresh query against the faster of the bare passes, and show the other."""
    work = f"/query margin, {n_rows:,} x {WIDTH} float32, {N_CLASSES} classes, batch {BATCH}"
    fresh, memory, again = numbers
    faster, *slower = sorted(asked.bare, key=lambda threads: median(asked.bare[threads]))
    return [
        times(fresh, f"{work}, fresh model", asked.fresh, "ms", bare_name(faster), asked.bare[faster], at_most=1.5),
        *(times(fresh, f"{work}, fresh model", asked.fresh, "ms", bare_name(t), asked.bare[t]) for t in slower),
        at_most(memory, f"{work}, own memory", asked.own_mb, "MB", 200),
        at_most(again, f"{work}, model unchanged", median(asked.again), "ms", 30),
    ]


def bare_name(threads: int) -> str:
    return f"X @ W over the same file, BLAS threads: {threads}"


def ask(n_rows: int, n_labels: int, rounds: int, directory: Path, **settings: str) -> Asked:
    """Ask a pool of so many rows."""
    with served(directory, **settings) as service:
        with PeakMemory(service.workers()) as memory:
            create(service, "pool", form("pool", n_rows))
            label(service, "pool", n_labels)
            turns = count()
            for _ in range(rounds):
                fresh_query(service, next(turns))
        bare = bare_passes(directory / "data")
        fresh, *passes = in_turns(rounds, lambda: fresh_query(service, next(turns)), *bare.values())
        return Asked(fresh, repeated_queries(service), dict(zip(bare, passes, strict=True)), memory.growth_mb)


def fresh_query(service: Service, turn: int) -> float:
    """Time a query of a model that no worker has been asked for before."""
    relabel(service, "pool", turn)
    return milliseconds(partial(query, service, "pool"))


def repeated_queries(service: Service) -> list[float]:
    """Time a query that has been asked before of the same model; each worker has a cache of its own to warm."""
    for _ in range(FREE_QUERIES):
        query(service, "pool")
    return [milliseconds(partial(query, service, "pool")) for _ in range(QUERIES_AGAIN)]


def bare_passes(data_dir: Path) -> dict[int, Callable[[], float]]:
    """The least that a linear model needs, over the very file that the service maps: with one BLAS thread, with all."""
    (file,) = (data_dir / "projects/pool/pool").iterdir()
    X = joblib.load(file, mmap_mode="r")
    W = np.random.default_rng(0).standard_normal((X.shape[1], N_CLASSES), np.float32)

    def bare(threads: int) -> float:
        with threadpool_limits(limits=threads):
            return milliseconds(partial(matmul, X, W))

    passes = {threads: partial(bare, threads) for threads in sorted({1, len(os.sched_getaffinity(0))})}
    for bare_pass in passes.values():
        bare_pass()  # the pages come into the cache, and into this process
    return passes


def measure_label(sizes: Sizes, directory: Path) -> list[Row]:
    """Row 3: labels that change, in a large pool and in a small one with as many labels."""
    with served(directory) as service:
        for project_id, n_rows in (("small", sizes.small_pool), ("large", sizes.pool)):
            create(service, project_id, form(project_id, n_rows))
            label(service, project_id, sizes.labels_of_both)
        turns = count()

        def change(project_id: str) -> float:
            return milliseconds(partial(relabel, service, project_id, next(turns), N_RELABELED, "never"))

        large, small = in_turns(5 * sizes.rounds, partial(change, "large"), partial(change, "small"))
    work = f"/label {N_RELABELED} records, refit never, {sizes.pool:,} x {WIDTH} pool, {sizes.labels_of_both:,} labels"
    against = f"the same, {sizes.small_pool:,} x {WIDTH} pool"
    return [times(3, work, large, "ms", against, small, at_most=1.3)]
