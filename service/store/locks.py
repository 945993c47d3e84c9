"""File locks that exclude threads as well as processes: a file that is locked is not used by another thread."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from service.errors import ProjectNotFound, StoreBusy
from service.store.files import convert_disk_errors
from service.store.gates import Gates
from service.telemetry.metrics import time_wait

LOCK_SECONDS = 30.0
"""How long a request waits for another writer."""

FIT_SECONDS = 25.0
"""How long a request waits for another fit of its project, occupying a thread: a worker that stops gives its requests
30 seconds."""

POLL_SECONDS, LONGEST_POLL_SECONDS = 0.0003, 0.05
"""How often a lock that another process holds is polled: at first, as a commit takes a millisecond or a few, and after
a second, as a selection or a fit takes longer."""


MAX_KEPT = 64
"""Number of lock files that stay open when they are released: opening one takes longer than locking it."""

GATES: Gates[Path] = Gates()

KEPT: dict[Path, int] = {}
"""Open lock files that this process does not hold."""


def close_kept() -> None:
    """Close the kept files."""
    while KEPT:
        os.close(KEPT.popitem()[1])


os.register_at_fork(after_in_child=close_kept)  # parent and child would hold the same lock


class FileLock:
    """A lock that is held until it is released or its process ends."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    def release(self, *, keep: bool = False) -> None:
        """Release the lock; its file stays open to `keep` it for the next time."""
        try:
            # Closing the file is not enough: a process forked meanwhile may have it open.
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            # A removed file that is open keeps its file system from being mounted read-only.
            if not keep or not has_path(self._descriptor, self._path):
                os.close(self._descriptor)
                return
            if len(KEPT) >= MAX_KEPT:
                close_kept()
            KEPT[self._path] = self._descriptor
        finally:
            GATES.open(self._path)


def close_kept_in(directory: Path) -> None:
    """Close the kept files of a directory."""
    for path in [path for path in list(KEPT) if path.parent == directory]:
        kept = KEPT.pop(path, None)
        if kept is not None:
            os.close(kept)


def lock_file(path: Path) -> int | None:
    """Lock a file and return its descriptor, or None if another holds it or its directory was moved away meanwhile.

    The file is created if it is missing, its directory is not: raises FileNotFoundError or NotADirectoryError then.
    """
    kept = KEPT.pop(path, None)
    descriptor = None if kept is None else lock_open_file(kept, path)
    return lock_new_descriptor(path) if descriptor is None else descriptor


def lock_new_descriptor(path: Path) -> int | None:
    """Open and lock a file as `lock_file` does.

    It is opened for reading, as a file open for writing keeps its file system from being mounted read-only. NFS locks
    only files that are open for writing.
    """
    try:
        return lock_open_file(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600), path)
    except OSError as error:
        if error.errno != errno.EBADF:
            raise
        return lock_open_file(os.open(path, os.O_RDWR | os.O_CLOEXEC), path)


def lock_open_file(descriptor: int, path: Path) -> int | None:
    """Lock an open file if it is free and still the one at `path`; close it otherwise, and return None."""
    with ExitStack() as undo:
        undo.callback(os.close, descriptor)
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if has_path(descriptor, path):
                undo.pop_all()
                return descriptor
    return None


def has_path(descriptor: int, path: Path) -> bool:
    """Return whether an open file or directory is the one at `path`."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except (FileNotFoundError, NotADirectoryError):
        return False


def acquire_lock(path: Path, what: str, seconds: float | None = None, *, kind: str = "other") -> FileLock:
    """Take a lock. Raises StoreBusy if that takes too long, ProjectNotFound if its directory does not exist."""
    seconds = LOCK_SECONDS if seconds is None else seconds
    deadline = time.monotonic() + seconds
    with time_wait("gate"):
        is_open = GATES.enter(path, seconds)
    if not is_open:
        raise StoreBusy(what)
    with ExitStack() as undo:
        undo.callback(GATES.open, path)
        with convert_disk_errors(), time_wait(kind):
            descriptor = wait_for_file(path, deadline)
        if descriptor is None:
            raise StoreBusy(what)
        undo.pop_all()
    return FileLock(path, descriptor)


def wait_for_file(path: Path, deadline: float) -> int | None:
    """Lock a file as `lock_file` does, but wait until a deadline. Raises ProjectNotFound without its directory."""
    pause = POLL_SECONDS
    try:
        while (descriptor := lock_file(path)) is None and time.monotonic() < deadline:
            time.sleep(pause)
            pause = min(1.1 * pause, LONGEST_POLL_SECONDS)
    except (FileNotFoundError, NotADirectoryError):
        raise ProjectNotFound(path.parent.name) from None
    return descriptor


@contextmanager
def locked(path: Path, what: str, seconds: float | None = None, *, kind: str = "other") -> Iterator[None]:
    """Hold a lock. Raises as `acquire_lock` does."""
    lock = acquire_lock(path, what, seconds, kind=kind)
    try:
        yield
    finally:
        lock.release(keep=True)


@contextmanager
def try_lock(path: Path) -> Iterator[bool]:
    """Hold a lock if it is free, and yield whether it was."""
    try:
        with convert_disk_errors():
            descriptor = lock_file(path)
    except (FileNotFoundError, NotADirectoryError):
        descriptor = None
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            os.close(descriptor)
