"""Runs in parallel, and their learning curves."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import click
import numpy as np

from service.client import Client
from service.demo.comparisons import Comparison, Labels, Matrix, Progress, Run, run_comparison

CLIENT_THREADS = 4
RANDOM_QUERY_FACTOR = 2
"""Factor of queries in random runs, to find how many they need for the same accuracy."""


@dataclass(frozen=True, slots=True, eq=False)
class Curves:
    """Accuracies of runs, shape (runs, p), at numbers of labels, shape (p,)."""

    labels: Labels
    accuracy: Matrix

    @classmethod
    def of(cls, runs: Sequence[Sequence[Progress]]) -> Curves:
        """Collect runs with the same numbers of labels."""
        labels = np.array([[step.n_labeled for step in run] for run in runs], np.int64)
        if (labels != labels[0]).any():
            raise ValueError("runs can only be averaged if all have the same numbers of labels")
        return cls(labels[0], np.array([[step.accuracy for step in run] for run in runs], np.float64))

    @property
    def mean(self) -> Matrix:
        """The mean accuracy over the runs, shape (p,)."""
        return np.asarray(self.accuracy.mean(axis=0))

    @property
    def deviation(self) -> Matrix:
        """The standard deviation over the runs, shape (p,)."""
        return np.asarray(self.accuracy.std(axis=0))

    def labels_needed(self, accuracy: float) -> int | None:
        """Return the number of labels at which the mean first reached an accuracy, None if it never did."""
        reached = np.flatnonzero(self.mean >= accuracy - 1e-9)
        return int(self.labels[reached[0]]) if len(reached) else None


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """The curves of a comparison. Both begin at the same number of labels; the random one is longer."""

    comparison: Comparison
    active: Curves
    random: Curves


class Cancelled(Exception):
    """Another run has failed, or Ctrl-C was pressed."""


def measure_comparison(client: Client, comparison: Comparison, n_seeds: int) -> Outcome:
    """Run a comparison in a few threads, with a progress bar."""
    seeds = tuple(range(n_seeds))
    active_seeds = seeds if comparison.active_seeds is None else comparison.active_seeds
    runs = [Run(comparison.strategy, comparison.n_queries, seed) for seed in active_seeds]
    runs += [Run("random", comparison.n_queries * RANDOM_QUERY_FACTOR, seed) for seed in seeds]
    prefix = f"demo-{uuid.uuid4().hex[:12]}-{comparison.name}"
    bar = click.progressbar(length=sum(run.n_queries for run in runs), label=comparison.title)
    lock = threading.Lock()
    stop = threading.Event()

    def after_query() -> None:
        if stop.is_set():
            raise Cancelled
        with lock:
            bar.update(1)

    with bar, ThreadPoolExecutor(CLIENT_THREADS) as threads:
        try:
            futures = [
                threads.submit(
                    run_comparison, client, f"{prefix}-{run.strategy}-{run.seed}", comparison, run, after_query
                )
                for run in runs
            ]
            results = [future.result() for future in futures]
        finally:
            stop.set()
            threads.shutdown(cancel_futures=True)
    return Outcome(comparison, Curves.of(results[: len(active_seeds)]), Curves.of(results[len(active_seeds) :]))
