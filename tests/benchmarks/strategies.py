"""Every strategy in this process, compared with the same one of each library that has it.

Each gets the same rows, labels, model, committee and batch size, and one thread. CPU time is measured, which a busy
machine changes little. Fitting model and committee is not part of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from math import inf
from pathlib import Path

from threadpoolctl import threadpool_limits

from service.strategies.engine.registry import STRATEGIES, Need
from tests.benchmarks.measure import in_turns
from tests.benchmarks.rows import Row, faster
from tests.benchmarks.selection import LIBRARY_STRATEGIES, LONG_SECONDS, ROUNDS, select_batch
from tests.benchmarks.sizes import Sizes
from tests.benchmarks.task import LabelsTask, NumberTask, Task

LIBRARIES = ("scikit-activeml", "scikit-activeml by default", "modAL", "small-text")
SLOW = {
    "batch_bald": (2_000, 10),
    "quire": (2_000, 10),
    "expected_error_reduction": (1_000, 10),
    "max_herding": (5_000, 100),
    "prob_cover": (5_000, 100),
    "information_density": (5_000, 100),
    "greedy_x": (5_000, 100),
    "greedy_y": (2_000, 10),
    "improved_greedy": (2_000, 10),
}
"""Rows and batch size for strategies that take hours, or more memory than there is, in a library or here."""

TASKS: dict[str, type[Task]] = {"class": Task, "number": NumberTask, "labels": LabelsTask}
"""The tasks of the first target that a strategy is for."""


def measure_strategies(sizes: Sizes, _directory: Path) -> list[Row]:
    """Row 14: CPU milliseconds of every strategy, the smallest speed-up first."""
    rows: list[Row] = []
    with threadpool_limits(1):
        for name, strategy in STRATEGIES.items():
            if Need.VOTES in strategy.needs:  # it asks again for labels of several annotators
                continue
            n_rows, batch_size = SLOW.get(name, (20_000, 100))
            kind = TASKS[strategy.targets[0]]
            rows += compare(name, kind(max(n_rows // sizes.shrink, 1_000), 64, max(1, batch_size // sizes.shrink)))
    return sorted(rows, key=lambda row: inf if row.ratio is None else row.ratio)


def compare(name: str, task: Task) -> list[Row]:
    """Return a row for each library that has the strategy, or one without a comparison."""
    work = f"{name} n={task.n_rows:,} d={task.n_columns} b={task.batch_size:,}, CPU"
    ours = partial(select_batch, name, task)
    ours()
    compared = []
    for library in LIBRARIES:
        if (library, name) in LIBRARY_STRATEGIES:
            theirs = LIBRARY_STRATEGIES[library, name](task)
            start = time.perf_counter()
            theirs()
            rounds = ROUNDS if time.perf_counter() - start < LONG_SECONDS else 1
            samples = in_turns(rounds, partial(cpu, ours), partial(cpu, theirs))
            compared.append(faster(14, work, samples[0], library, samples[1], at_least=1))
    return compared or [faster(14, work, in_turns(ROUNDS, partial(cpu, ours))[0], "", [], at_least=None)]


def cpu(call: Callable[[], object]) -> float:
    """Return the milliseconds of CPU time that a call takes in all threads of this process."""
    start = time.process_time()
    call()
    return 1000 * (time.process_time() - start)
