"""CPU time, memory and open files of the service's processes, read from /proc (proc(5)).

psutil would save a few of these lines for one more compiled dependency.
"""

from __future__ import annotations

import os
import re
import resource
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

TRIES = 5
"""How often the CPU times are read again because a worker exited in between."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Resources in use: memory without mapped files, CPU time including workers that have exited, open files of the
    worker with the most, and the start in seconds since 1970 UTC.
    """

    workers: int
    memory_bytes: int
    cpu_seconds: float
    open_files: int
    open_files_limit: int
    start_time_seconds: float


def read_usage(master: int, workers: Sequence[int]) -> Usage:
    """Return the usage of a service by its process ids; the master may be its only worker."""
    own, exited, start = read_times(master)
    for _ in range(TRIES):
        of_workers = sum(read_or_zero(lambda pid: read_times(pid)[0], pid) for pid in workers if pid != master)
        before, (own, exited, start) = exited, read_times(master)
        # A worker that exits meanwhile must be counted once: the sum never falls.
        if before == exited:
            break
    return Usage(
        workers=len(workers),
        memory_bytes=int(sum(read_or_zero(read_memory, pid) for pid in workers)),
        cpu_seconds=own + exited + of_workers,
        open_files=int(max((read_or_zero(count_open_files, pid) for pid in workers), default=0)),
        open_files_limit=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        start_time_seconds=boot_time() + start,
    )


def read_or_zero(read: Callable[[int], float], pid: int) -> float:
    """Return `read(pid)`, 0 for a process that has exited."""
    try:
        return read(pid)
    except OSError:
        return 0


def read_times(pid: int) -> tuple[float, float, float]:
    """Return CPU time, CPU time of children that have exited, and the start after boot, in seconds."""
    # The process's name comes first, in parentheses, and may hold spaces.
    ticks = [int(field) / TICKS for field in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1:20]]
    user, system, exited_user, exited_system = ticks[10:14]
    return user + system, exited_user + exited_system, ticks[18]


def read_memory(pid: int) -> int:
    """Return the resident memory of a process without mapped files, in bytes."""
    _, resident, shared = Path(f"/proc/{pid}/statm").read_text().split()[:3]
    return (int(resident) - int(shared)) * PAGE_BYTES


def count_open_files(pid: int) -> int:
    """Return the number of files that a process has open."""
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


@cache
def boot_time() -> float:
    """Return the time at which the machine was started, in seconds since 1970 UTC."""
    found = re.search(r"^btime (\d+)$", Path("/proc/stat").read_text(), re.MULTILINE)
    return float(found[1]) if found else 0.0
