"""Selection in this process against the libraries: the same features, the same labels, the same model, the same batch.

All start from a fitted model: making and fitting it is not counted. The libraries get all cores.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from service.learning.pool import Pool
from service.strategies import Question, Selection, resolve_strategy, select
from tests.benchmarks.measure import in_turns, milliseconds
from tests.benchmarks.rows import Row, faster
from tests.benchmarks.sizes import N_CLASSES, Sizes
from tests.benchmarks.task import N_LABELS, Indices, Task

try:
    from tests.benchmarks.libraries import RIVALS
except ModuleNotFoundError as error:
    if error.name not in ("modAL", "skactiveml"):
        raise
    RIVALS = {}

ROUNDS = 3
LONG_SECONDS = 5


def measure_selection(sizes: Sizes, _directory: Path) -> list[Row]:
    """Row 6: each strategy against the same in a library."""
    margin = Task(100_000 // sizes.shrink, 64, 1_000 // sizes.shrink)
    contests = [
        ("margin", margin, "scikit-activeml", 20),
        ("margin", margin, "modAL", None),
        ("k_center", margin, "scikit-activeml", 4),
        ("badge", Task(50_000 // sizes.shrink, 128, 50), "scikit-activeml", 10),
        ("ranked_batch", Task(10_000 // sizes.shrink, 64, 100 // sizes.shrink), "modAL", 15),
    ]
    return [measure_one(*contest) for contest in contests]


def measure_one(strategy: str, task: Task, library: str, at_least: float | None) -> Row:
    """Let both choose in turns, after each has chosen once and it is known whether they chose the same.

    A library that took long the first time is measured only once.
    """
    selection = choose(strategy, task)
    work = f"{strategy} n={task.n_rows:,} d={task.n_columns} b={task.batch_size:,}"
    row = partial(faster, 6, work, at_least=at_least)
    ours = partial(milliseconds, partial(choose, strategy, task))
    if (library, strategy) not in RIVALS:
        (samples,) = in_turns(ROUNDS, ours)
        return row(samples, f"{library}: not installed", [])
    rival = RIVALS[library, strategy](task)
    start = time.perf_counter()
    shared = np.isin(with_all_cores(rival), selection.indices).mean()
    rounds = ROUNDS if time.perf_counter() - start < LONG_SECONDS else 1
    samples, theirs = in_turns(rounds, ours, lambda: milliseconds(partial(with_all_cores, rival)))
    note = f"{shared:.0%} of its choice is ours, too; {selection.fallback_reason or 'all rows were considered'}"
    return replace(row(samples, library, theirs), note=note)


def choose(strategy: str, task: Task) -> Selection:
    """Ask as a query does: the first rows are labelled, and all others open."""
    question = Question(
        pool=Pool.of(task.rows),
        is_open=np.arange(task.n_rows) >= N_LABELS,
        labeled=np.arange(N_LABELS),
        model=task.model,
        n_classes_labeled=N_CLASSES,
    )
    return select(*resolve_strategy(strategy, {}), question, task.batch_size, np.random.default_rng(0))


def with_all_cores(rival: Callable[[], Indices]) -> Indices:
    """Let a library choose with as many threads as there are cores: the service leaves this process with one."""
    with threadpool_limits(limits=len(os.sched_getaffinity(0))):
        return rival()
