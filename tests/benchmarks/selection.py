"""Selection in this process compared with other libraries on the same features, labels, model and batch size.

Fitting the model is not timed. The libraries may use all cores.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from service.learning.pool import Pool
from service.strategies import Question, Selection, resolve_strategy, select
from tests.benchmarks.measure import in_turns, milliseconds
from tests.benchmarks.rows import Row, faster
from tests.benchmarks.sizes import N_CLASSES, Sizes
from tests.benchmarks.task import N_LABELS, Indices, LabelsTask, NumberTask, Task, fit

try:
    from tests.benchmarks.libraries import LIBRARY_STRATEGIES
except ModuleNotFoundError as error:
    if error.name not in ("modAL", "skactiveml", "small_text"):
        raise
    LIBRARY_STRATEGIES = {}

ROUNDS = 3
LONG_SECONDS = 5


def measure_selection(sizes: Sizes, _directory: Path) -> list[Row]:
    """Row 6: each strategy compared with the same strategy of a library."""
    margin = Task(100_000 // sizes.shrink, 64, 1_000 // sizes.shrink)
    comparisons = [
        ("margin", margin, "scikit-activeml", 20),
        ("margin", margin, "modAL", None),
        ("k_center", margin, "scikit-activeml", 4),
        ("badge", Task(50_000 // sizes.shrink, 128, 50), "scikit-activeml", 10),
        ("ranked_batch", Task(10_000 // sizes.shrink, 64, 100 // sizes.shrink), "modAL", 15),
    ]
    return [measure_one(*comparison) for comparison in comparisons]


def measure_one(strategy: str, task: Task, library: str, at_least: float | None) -> Row:
    """Time both in turns, after one untimed selection of each to compare their choices.

    A library that takes long in that selection is timed only once.
    """
    selection = select_batch(strategy, task)
    work = f"{strategy} n={task.n_rows:,} d={task.n_columns} b={task.batch_size:,}"
    row = partial(faster, 6, work, at_least=at_least)
    ours = partial(milliseconds, partial(select_batch, strategy, task))
    if (library, strategy) not in LIBRARY_STRATEGIES:
        (samples,) = in_turns(ROUNDS, ours)
        return row(samples, f"{library}: not installed", [])
    library_select = LIBRARY_STRATEGIES[library, strategy](task)
    start = time.perf_counter()
    shared = np.isin(with_all_cores(library_select), selection.indices).mean()
    rounds = ROUNDS if time.perf_counter() - start < LONG_SECONDS else 1
    samples, theirs = in_turns(rounds, ours, lambda: milliseconds(partial(with_all_cores, library_select)))
    note = f"{shared:.0%} of its selection is also in ours; {selection.fallback_reason or 'all rows were considered'}"
    return replace(row(samples, library, theirs), note=note)


def select_batch(strategy: str, task: Task) -> Selection:
    """Select as a query does; the first rows are labelled."""
    question = Question(
        pool=Pool.of(task.rows),
        is_open=np.arange(task.n_rows) >= N_LABELS,
        labeled=np.arange(N_LABELS),
        **labels_and_model(task),
    )
    return select(*resolve_strategy(strategy, {}), question, task.batch_size, np.random.default_rng(0))


def labels_and_model(task: Task) -> dict[str, Any]:
    """Return what a question has of a task's labels and models."""
    if isinstance(task, NumberTask):
        return {
            "target": "number",
            "model": task.regressor,
            "n_classes_labeled": 0,
            "numbers": task.numbers,
            "committee": lambda n_members: task.bag,
        }
    if isinstance(task, LabelsTask):
        sizes = task.indicators.sum(axis=1)
        return {"target": "labels", "model": task.one_for_each, "n_classes_labeled": N_CLASSES, "label_sizes": sizes}
    return {
        "model": task.model,
        "n_classes_labeled": N_CLASSES,
        "committee": lambda n_members: task.committee,
        "codes": task.codes,
        "fit_model": fit,
    }


def with_all_cores(library_select: Callable[[], Indices]) -> Indices:
    """Run a library's selection with one BLAS thread per core: importing the service limits this process to one."""
    with threadpool_limits(limits=len(os.sched_getaffinity(0))):
        return library_select()
