"""Simulations on disk: a directory for each, below AQ_DATA_DIR/simulations.

```
<id>/plan.joblib         what to simulate; written once
<id>/data.joblib         the labelled samples; written once, mapped
<id>/runs/000003.joblib  the result of a run
<id>/end.joblib          how the simulation ended; written once
<id>/lock, running       held and marked by the process that runs it
```

A directory appears with its first two files complete, and each other file at once: whatever dies in between, the next
process takes the simulation up at the first run without a file.
"""

from __future__ import annotations

import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from service.errors import SimulationNotFound
from service.store.files import convert_disk_errors, fsync_directory, load, load_small, write_joblib, write_small
from service.store.fit_marker import mark_running, running_since
from service.store.locks import try_lock
from service.store.staging import Staging

PLAN, DATA, END, RUNS = "plan.joblib", "data.joblib", "end.joblib", "runs"
LOCK, MARK = "lock", "running"

SIMULATION_ID = re.compile("[0-9a-f]{32}")

Record = Mapping[str, Any]
"""Plain values: numbers, texts, lists and mappings."""


class Simulations:
    """All simulations. Any number of processes and threads may use the same directory."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def of(cls, data_dir: Path) -> Simulations:
        """Return the simulations of a data directory."""
        return cls(data_dir / "simulations")

    def add(self, staging: Staging, plan: Record, data: Record) -> str:
        """Store a new simulation, durably, and return its id."""
        simulation_id = uuid.uuid4().hex
        directory = staging.path / simulation_id
        with convert_disk_errors():
            (directory / RUNS).mkdir(mode=0o700, parents=True)
            write_small(directory / PLAN, dict(plan))
            write_joblib(directory / DATA, dict(data))
            fsync_directory(directory)
            directory.rename(self.root / simulation_id)
            fsync_directory(self.root)
        return simulation_id

    def ids(self) -> list[str]:
        """Return the ids of all simulations."""
        return [path.name for path in self.root.iterdir() if SIMULATION_ID.fullmatch(path.name)]

    def plan(self, simulation_id: str) -> Record:
        """Return the plan of a simulation. Raises SimulationNotFound."""
        with self._missing_as_unknown(simulation_id):
            plan: Record = load_small(self._path(simulation_id) / PLAN)[0]
        return plan

    def data(self, simulation_id: str) -> Record:
        """Return the samples of a simulation, mapped. Raises SimulationNotFound."""
        with self._missing_as_unknown(simulation_id):
            data: Record = load(self._path(simulation_id) / DATA, mapped=True)
        return data

    def runs(self, simulation_id: str) -> list[int]:
        """Return the numbers of the runs that are done. Raises SimulationNotFound."""
        with self._missing_as_unknown(simulation_id):
            return sorted(
                int(path.stem) for path in (self._path(simulation_id) / RUNS).iterdir() if path.stem.isdecimal()
            )

    def run(self, simulation_id: str, number: int) -> Record:
        """Return the result of a run that is done. Raises SimulationNotFound."""
        with self._missing_as_unknown(simulation_id):
            result: Record = load_small(self._run_path(simulation_id, number))[0]
        return result

    def keep_run(self, simulation_id: str, number: int, result: Record) -> None:
        """Store the result of a run, durably. Raises SimulationNotFound if it was deleted meanwhile."""
        with self._missing_as_unknown(simulation_id):
            write_once(self._run_path(simulation_id, number), result)

    def end(self, simulation_id: str) -> Record | None:
        """Return how a simulation ended, None if it has not. Raises SimulationNotFound."""
        self._check(simulation_id)
        try:
            end: Record = load_small(self._path(simulation_id) / END)[0]
        except FileNotFoundError:
            return None
        return end

    def keep_end(self, simulation_id: str, end: Record) -> bool:
        """Store how a simulation ended, durably, and return whether it had not ended before."""
        with self._missing_as_unknown(simulation_id):
            return write_once(self._path(simulation_id) / END, end)

    def is_running(self, simulation_id: str) -> bool:
        """Return whether a process runs this simulation."""
        return running_since(self._path(simulation_id) / MARK) is not None

    @contextmanager
    def turn(self, simulation_id: str) -> Iterator[bool]:
        """Yield whether this process is the one that runs the simulation, and keep others from it meanwhile."""
        path = self._path(simulation_id)
        with try_lock(path / LOCK) as is_mine:
            if not is_mine:
                yield False
                return
            with mark_running(path / MARK):
                yield True

    def remove(self, simulation_id: str) -> None:
        """Remove a simulation. Raises SimulationNotFound."""
        grave = self.root / f"removed-{uuid.uuid4().hex}"
        with self._missing_as_unknown(simulation_id), convert_disk_errors():
            self._path(simulation_id).rename(grave)
            fsync_directory(self.root)
        shutil.rmtree(grave, ignore_errors=True)

    def sweep(self) -> None:
        """Remove what is left of removed simulations."""
        for path in self.root.glob("removed-*"):
            shutil.rmtree(path, ignore_errors=True)

    def _path(self, simulation_id: str) -> Path:
        if not SIMULATION_ID.fullmatch(simulation_id):
            raise SimulationNotFound(simulation_id)
        return self.root / simulation_id

    def _run_path(self, simulation_id: str, number: int) -> Path:
        return self._path(simulation_id) / RUNS / f"{number:06d}.joblib"

    def _check(self, simulation_id: str) -> None:
        if not self._path(simulation_id).is_dir():
            raise SimulationNotFound(simulation_id)

    @contextmanager
    def _missing_as_unknown(self, simulation_id: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise SimulationNotFound(simulation_id) from None


def write_once(path: Path, value: Record) -> bool:
    """Write a file that appears complete or not at all, and return whether there was none before."""
    new = path.with_name(f"new-{uuid.uuid4().hex}")
    try:
        write_small(new, dict(value))
        with convert_disk_errors():
            try:
                os.link(new, path)
            except FileExistsError:
                return False
            fsync_directory(path.parent)
    finally:
        with suppress(OSError):
            new.unlink()
    return True
