"""The directory in which the workers of a service count: one file for each worker number and kind of metric.

prometheus-client names these files by process id and never removes the counts of a dead process, since a sum that falls
looks like a restart to Prometheus. Here a new worker takes the number of a dead one and continues its files, so there
are never more files than workers that ran at once.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

from prometheus_client.multiprocess import mark_process_dead

MASTER = -1
"""The number of a process that forks workers."""

NUMBERS: list[int] = []
"""The number of this process, if it is a worker. A process that a worker spawns does not inherit it."""


def shared_directory() -> Path:
    """Return the directory of counts that `active-query serve` made."""
    return Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])


def worker_number() -> int | None:
    """Return the number of this worker, None for a process that counts in its own memory."""
    return NUMBERS[0] if NUMBERS else None


def free_number(taken: Collection[int]) -> int:
    """Return the smallest number that no running worker has."""
    return next(number for number in itertools.count() if number not in taken)


def begin_master() -> None:
    """Register this process as the master of workers, which count as soon as they have a number of their own.

    Call it before `metrics` is imported.
    """
    NUMBERS[:] = [MASTER]


def drop_master(directory: Path) -> None:
    """Remove the files of the master, which counts nothing."""
    for path in directory.glob(f"*_{MASTER}.db"):
        path.unlink(missing_ok=True)


def begin_worker(directory: Path, number: int) -> None:
    """Register this process as the worker of a number; call it before it counts."""
    NUMBERS[:] = [number]
    (directory / f"pid_{os.getpid()}").touch()


def end_worker(directory: Path, number: int, pid: int) -> None:
    """Remove the gauges and the process id of a worker that has exited, and keep its counts."""
    mark_process_dead(number, str(directory))
    (directory / f"pid_{pid}").unlink(missing_ok=True)


def worker_pids(directory: Path) -> list[int]:
    """Return the process ids of all workers."""
    return sorted(int(path.name.removeprefix("pid_")) for path in directory.glob("pid_*"))


def count_files(directory: Path) -> Iterator[str]:
    """Yield the files that hold counts; a worker that is starting may have an empty one, which cannot be read yet."""
    for path in directory.glob("*.db"):
        with suppress(FileNotFoundError):  # the gauges of a worker that has just exited
            if path.stat().st_size:
                yield str(path)
