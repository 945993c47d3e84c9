"""The directory in which the workers of a service count: a few files for each of them, and two for all that are gone.

prometheus-client gives every process files of its own, and what a process counted must outlive it: a sum that falls
looks like a restart to Prometheus. So the counts of workers that ended are added up in one file of each kind, however
many they were. Nobody reads meanwhile, who would find them twice, or not at all.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections import defaultdict
from collections.abc import Iterator, Set
from contextlib import contextmanager
from pathlib import Path

from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import mark_process_dead

KINDS = ("counter", "histogram")
"""What outlives its process; a gauge ends with it."""

DEAD = "gone"
"""Stands in a file's name for all processes that ended, where others have a process id."""

LOCK = "lock"

READER_WAIT_SECONDS = 1.0
"""How long the master waits for readers: one that was stopped must not keep it from looking after its workers."""


@contextmanager
def locked_files(directory: Path) -> Iterator[list[Path]]:
    """Give the files of counts as they belong together, until the end.

    A worker that starts just now may have one that is empty, which cannot be read yet.
    """
    with (directory / LOCK).open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield [path for path in directory.glob("*.db") if path.stat().st_size]


def absorb_dead_worker(directory: Path, pid: int, alive: Set[int]) -> None:
    """Keep what a worker counted that ended, and what others did that could not be kept then; `alive` are at work."""
    mark_process_dead(pid, str(directory))
    with (directory / LOCK).open("ab") as lock:
        if not try_lock_exclusively(lock.fileno()):
            return
        for kind in KINDS:
            dead = [path for path in directory.glob(f"{kind}_*.db") if is_of_dead_worker(path, alive)]
            merge_files(directory / f"{kind}_{DEAD}.db", dead)


def is_of_dead_worker(path: Path, alive: Set[int]) -> bool:
    """Tell whether a file belongs to a process that is not at work."""
    name = path.stem.rpartition("_")[2]
    return name.isdigit() and int(name) not in alive


def merge_files(total: Path, parts: list[Path]) -> None:
    """Add the counts of some files to those of another, which may not be there yet, and remove them."""
    sums: dict[str, float] = defaultdict(float)
    for path in (total, *parts):
        if path.exists() and path.stat().st_size:
            for key, value, _, _ in MmapedDict.read_all_values_from_file(path):
                sums[key] += value
    new = total.with_suffix(".new")
    new.unlink(missing_ok=True)
    written = MmapedDict(str(new))
    for key, value in sums.items():
        written.write_value(key, value, 0.0)
    written.close()
    new.rename(total)
    for path in parts:
        path.unlink()


def try_lock_exclusively(descriptor: int) -> bool:
    """Lock a file against everybody else, or tell that others did not let go of it in time."""
    deadline = time.monotonic() + READER_WAIT_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.005)
        else:
            return True


def worker_ids(directory: Path) -> list[int]:
    """Return the process ids of the workers that count here."""
    return sorted(int(path.stem.rpartition("_")[2]) for path in directory.glob("gauge_livesum_*.db"))


def shared_directory() -> Path | None:
    """Return the directory that this process and others count in, None where it counts for itself."""
    named = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    return Path(named) if named else None
