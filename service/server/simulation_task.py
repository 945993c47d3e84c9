"""The runs of a simulation on a cluster, whose workers see the same data directory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from service.backends.cluster import ClusterLink
from service.backends.task import check_worker, describe_platform
from service.store.simulations import Record, Simulations
from service.usecases.simulation_run import SimulationData, SimulationPlan, run_simulation_step
from service.usecases.simulations import open_simulation, run_here

STALL_SECONDS = 3600.0
"""A cluster without a result for this time has failed: a run may take long."""


@dataclass(frozen=True, slots=True)
class RunTask:
    """A run of a stored simulation."""

    root: Path
    simulation_id: str
    number: int
    platform: str


def do_run_task(task: RunTask) -> Record:
    """Do a run in a worker of the cluster. Raises WorkerMismatch, or the store's errors."""
    check_worker(task.root, task.platform)
    plan, data = open_simulation(Simulations.of(task.root), task.simulation_id)
    return run_simulation_step(data, plan, task.number)


@dataclass(frozen=True, slots=True)
class RunOnCluster:
    """Does the runs of a simulation on a cluster, and those that it does not finish here."""

    link: ClusterLink
    root: Path
    simulation_id: str

    def __call__(self, data: SimulationData, plan: SimulationPlan, numbers: list[int]) -> Iterable[tuple[int, Record]]:
        """Yield the number and the result of each run when it is done."""
        platform = describe_platform()
        tasks = [RunTask(self.root, self.simulation_id, number, platform) for number in numbers]
        missing = dict.fromkeys(numbers)
        for task, result in self.link.results(do_run_task, lambda _n_cores: tasks, STALL_SECONDS):
            del missing[task.number]
            yield task.number, result
        yield from run_here(data, plan, list(missing))
