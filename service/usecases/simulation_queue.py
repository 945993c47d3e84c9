"""The simulations of a worker: one at a time, each in a process of its own, the oldest first.

What is left to do stands on disk. A worker that starts, or meets a simulation that nobody runs, takes it up.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from threading import Lock, Thread

from service.errors import SimulationNotFound
from service.store.simulations import Simulations
from service.telemetry.metrics import SIMULATIONS_RUNNING, count_simulation, time_evidence
from service.usecases.simulations import end_record, view_all

MAX_CRASHES = 3
"""How often a process may die without finishing a run before its simulation has failed."""

PAUSE_SECONDS = 1.0

log = logging.getLogger(__name__)


class SimulationQueue:
    """Runs simulations in a daemon thread, which ends when none is left. `run` returns the status of the process."""

    def __init__(self, simulations: Simulations, run: Callable[[str], int]) -> None:
        self._simulations = simulations
        self._run = run
        self._crashes: dict[str, int] = {}
        self._is_alive = False
        self._lock = Lock()

    def start(self) -> None:
        """Make sure that simulations are run if there are any to run. Returns at once."""
        with self._lock:
            if self._is_alive or self._next() is None:
                return
            try:
                Thread(target=self._work_off, name="simulations", daemon=True).start()
            except RuntimeError as error:  # no more threads; the next request tries again
                log.warning("simulations wait: %s", error)
            else:
                self._is_alive = True

    def _next(self) -> str | None:
        """Return the oldest simulation that has not ended and that no process runs."""
        views = view_all(self._simulations)
        return next((view.simulation_id for view in views if view.status == "queued"), None)

    def _work_off(self) -> None:
        while True:
            with self._lock:
                simulation_id = self._next()
                if simulation_id is None:
                    self._is_alive = False
                    return
            try:
                self._attempt(simulation_id)
            except SimulationNotFound:
                continue  # deleted meanwhile
            except Exception:
                log.exception("simulation %s cannot be run and is tried again", simulation_id)
                time.sleep(PAUSE_SECONDS)

    def _attempt(self, simulation_id: str) -> None:
        simulations = self._simulations
        with simulations.turn(simulation_id) as is_mine:
            if not is_mine:
                return
            n_before = len(simulations.runs(simulation_id))
            SIMULATIONS_RUNNING.inc()
            try:
                with time_evidence("simulation"):
                    status = self._run(simulation_id)
            finally:
                SIMULATIONS_RUNNING.dec()
            if status and simulations.end(simulation_id) is None:
                has_progressed = len(simulations.runs(simulation_id)) > n_before
                self._count_crash(simulation_id, status, has_progressed=has_progressed)
            end = simulations.end(simulation_id)
            if end is not None:
                self._crashes.pop(simulation_id, None)
                count_simulation(end["status"])

    def _count_crash(self, simulation_id: str, status: int, *, has_progressed: bool) -> None:
        n_crashes = self._crashes[simulation_id] = 1 if has_progressed else self._crashes.get(simulation_id, 0) + 1
        log.error("the process of simulation %s ended with status %d", simulation_id, status)
        if n_crashes >= MAX_CRASHES:
            problem = f"its process died {n_crashes} times in the same run, the last time with status {status}"
            self._simulations.keep_end(simulation_id, end_record("failed", error=problem))
        else:
            time.sleep(PAUSE_SECONDS)
