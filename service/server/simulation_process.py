"""The process of a simulation: `python -m service.server.simulation_process ID`, with the settings of its worker.

It has the lowest priority, counts nothing in the metrics, and ends soon after its worker or its simulation has.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from threading import Thread

from service.backends import make_link
from service.errors import SimulationNotFound
from service.server.simulation_task import RunOnCluster
from service.settings import PREFIX, Settings
from service.store.simulations import Simulations
from service.telemetry.logging import default_fields, log_to_stderr
from service.usecases.simulations import run_here, run_simulation

LOWEST_PRIORITY = 19
WATCH_SECONDS = 0.5


def run_in_process(settings: Settings, simulation_id: str) -> int:
    """Run a simulation in a process of its own, and return its status, negative for a signal."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(PREFIX)},
        "AQ_DATA_DIR": str(settings.data_dir.absolute()),
        "AQ_BACKEND": settings.backend,
        "AQ_BACKEND_ADDRESS": settings.backend_address,
        "AQ_LOG_LEVEL": settings.log_level,
        "AQ_LOG_FORMAT": settings.log_format,
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
    }
    environment.pop("PROMETHEUS_MULTIPROC_DIR", None)
    process = subprocess.Popen(  # noqa: S603 - nothing here comes from a request but the id
        [sys.executable, "-m", "service.server.simulation_process", simulation_id, str(os.getpid())],
        cwd=Path(__file__).parents[2],
        env=environment,
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for the service
    )
    os.setpriority(os.PRIO_PROCESS, process.pid, LOWEST_PRIORITY)
    return process.wait()


def main(simulation_id: str, worker: int) -> None:
    """Run a simulation until it ends."""
    settings = Settings.from_process()
    log_to_stderr(settings.log_level, settings.log_format, default_fields)
    simulations = Simulations.of(settings.data_dir)
    Thread(target=exit_with, args=(simulations, simulation_id, worker), daemon=True).start()
    link = make_link(settings)
    run_many = run_here if link is None else RunOnCluster(link, settings.data_dir.absolute(), simulation_id)
    run_simulation(simulations, simulation_id, run_many)


def exit_with(simulations: Simulations, simulation_id: str, worker: int) -> None:
    """Exit as soon as the worker has died, or the simulation was cancelled or removed."""
    while os.getppid() == worker and not has_ended(simulations, simulation_id):
        time.sleep(WATCH_SECONDS)
    os._exit(0)


def has_ended(simulations: Simulations, simulation_id: str) -> bool:
    """Return whether a simulation has ended or is gone."""
    try:
        return simulations.end(simulation_id) is not None
    except SimulationNotFound:
        return True


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
