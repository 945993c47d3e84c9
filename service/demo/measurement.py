"""Simulations of a comparison by the service, and their learning curves."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import click
import numpy as np
from scipy.special import stdtrit

from service.client import Client, ServiceError
from service.demo.comparisons import Comparison, Labels, Matrix

MAX_OPEN = 10
"""Largest number of simulations that are queued or running."""

POLL_SECONDS = 0.2

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Curves:
    """The mean accuracy (p,) of runs at numbers of labels (p,), and its standard deviation (p,) over the runs."""

    labels: Labels
    mean: Matrix
    deviation: Matrix
    n_runs: int

    @classmethod
    def of(cls, simulations: Sequence[Json], strategy: str, n_queries: int) -> Curves:
        """Collect the runs of a strategy in simulations of one run, or in a single one of several."""
        entries = [
            entry["curve"][: n_queries + 1]
            for simulation in simulations
            for entry in simulation["result"]["strategies"]
            if entry["strategy"] == strategy
        ]
        labels = np.array([[point["n_labeled"] for point in curve] for curve in entries], np.int64)
        if (labels != labels[0]).any():
            raise ValueError("runs can only be averaged if all have the same numbers of labels")
        mean, high = (
            np.array([[point[name] for point in curve] for curve in entries], np.float64) for name in ("mean", "high")
        )
        n_runs = simulations[0]["repeats"]
        if len(entries) > 1 or n_runs == 1:
            return cls(labels[0], mean.mean(axis=0), mean.std(axis=0), len(entries))
        half_width = stdtrit(n_runs - 1, 0.975) / np.sqrt(n_runs)  # of the interval, in standard deviations
        return cls(labels[0], mean[0], (high[0] - mean[0]) / half_width, n_runs)

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


def measure_comparison(client: Client, comparison: Comparison, n_seeds: int) -> Outcome:
    """Simulate a comparison, with a progress bar."""
    found = simulate(client, comparison.title, comparison.simulations(n_seeds))
    n_queries = len(found[0]["result"]["strategies"][0]["curve"])
    of_random = found if comparison.active_seed is None else found[1:]
    of_active = found if comparison.active_seed is None else found[:1]
    return Outcome(
        comparison,
        Curves.of(of_active, comparison.strategy, comparison.n_queries),
        Curves.of(of_random, "random", n_queries),
    )


def simulate(client: Client, title: str, bodies: Sequence[Json]) -> list[Json]:
    """Run simulations, a few at a time, and return them once they are done. Raises ServiceError if one fails.

    They are deleted at the end, also after an error.
    """
    ids: list[str] = []
    waiting, found = deque(bodies), list[Json]()
    with click.progressbar(length=100 * len(waiting), label=title) as bar:
        try:
            while waiting or len(found) < len(ids):
                while waiting and len(ids) < len(found) + MAX_OPEN:
                    ids.append(client.send("POST", "/simulate", waiting.popleft())["simulation_id"])
                oldest = client.send("GET", f"/simulations/{ids[len(found)]}")
                if oldest["status"] == "done":
                    found.append(oldest)
                elif oldest["status"] in ("failed", "cancelled"):
                    raise ServiceError(f"the simulation {oldest['status']}: {oldest['error']}")
                else:
                    time.sleep(POLL_SECONDS)
                done = 0 if oldest["status"] == "done" else oldest["progress"]["done"] / oldest["progress"]["total"]
                bar.update(int(100 * (len(found) + done)) - bar.pos)
        finally:
            for simulation_id in ids:
                delete(client, simulation_id)
    return found


def delete(client: Client, simulation_id: str) -> None:
    """Cancel a simulation unless it has ended, and delete it."""
    with suppress(ServiceError):
        client.send("DELETE", f"/simulations/{simulation_id}")
        client.send("DELETE", f"/simulations/{simulation_id}")
