"""File locks that exclude threads as well as processes: each attempt opens the file again."""

from __future__ import annotations

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

POLL_SECONDS, LONGEST_POLL_SECONDS = 0.002, 0.05
"""How often a lock that another process holds is polled: at first, as a commit takes a few milliseconds, and after a
second, as a selection or a fit takes longer."""


GATES: Gates[Path] = Gates()


class FileLock:
    """A lock that is held until it is released or its process ends."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    def release(self) -> None:
        """Release the lock."""
        try:
            os.close(self._descriptor)
        finally:
            GATES.open(self._path)


def lock_file(path: Path) -> int | None:
    """Lock a file and return its descriptor, or None if another holds it or its directory was moved away meanwhile.

    The file is created if it is missing, its directory is not: raises FileNotFoundError or NotADirectoryError then.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
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
        lock.release()


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
