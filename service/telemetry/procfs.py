"""What the processes of a service take of the machine, as Linux tells in /proc (proc(5))."""

from __future__ import annotations

import os
import re
import resource
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")

TRIES = 5
"""How often all is read again because a worker ended meanwhile."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What is taken: memory in bytes, without files that are mapped; time of processors in seconds, of workers that
    ended, too; open files of the worker that has the most; and the start in seconds since 1970 UTC.
    """

    workers: int
    memory_bytes: int
    cpu_seconds: float
    open_files: int
    open_files_limit: int
    start_time_seconds: float


@dataclass(frozen=True, slots=True)
class Times:
    """The times of a process in seconds: its own, those of its children that ended, and its start after the boot."""

    own: float
    ended: float
    start: float


def read_usage(master: int, workers: Sequence[int]) -> Usage:
    """Return what a service takes, whose master may be its only worker."""
    times = read_times(master)
    for _ in range(TRIES):
        of_workers = sum(own_time(pid) for pid in workers if pid != master)
        before, times = times, read_times(master)
        # A worker that ends just now is counted once, and neither twice nor not at all: the sum never falls.
        if before.ended == times.ended:
            break
    return Usage(
        workers=len(workers),
        memory_bytes=sum(map(memory_of, workers)),
        cpu_seconds=times.own + times.ended + of_workers,
        open_files=max(map(n_open_files, workers), default=0),
        open_files_limit=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        start_time_seconds=boot_time() + times.start,
    )


def read_times(pid: int) -> Times:
    """Read the times of a process, or raise OSError where there is none."""
    # Its name comes in parentheses before them, and may hold anything.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    user, system, user_ended, system_ended = (int(field) / TICKS for field in fields[11:15])
    return Times(user + system, user_ended + system_ended, int(fields[19]) / TICKS)


def own_time(pid: int) -> float:
    """Read how long a process computed, 0 where there is none any more."""
    with suppress(OSError):
        return read_times(pid).own
    return 0.0


def memory_of(pid: int) -> int:
    """Read how much memory a process has for itself, in bytes."""
    with suppress(OSError):
        found = re.search(r"^RssAnon:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
        return int(found[1]) * 1024 if found else 0
    return 0


def n_open_files(pid: int) -> int:
    """Count the files that a process has open."""
    with suppress(OSError):
        return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    return 0


@cache
def boot_time() -> float:
    """Read when the machine was started, in seconds since 1970 UTC."""
    found = re.search(r"^btime (\d+)$", Path("/proc/stat").read_text(), re.MULTILINE)
    return float(found[1]) if found else 0.0
