"""Locks between threads and between processes alike: each taking opens the file anew."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from service.errors import ProjectNotFound, StoreBusy
from service.store.files import disk

LOCK_SECONDS = 30.0
"""How long a request waits for another writer before it gives up."""

FIT_SECONDS = 25.0
"""How long a request waits for its project's turn to fit: every one that waits holds a thread of its worker, and a
worker that is told to stop gives requests 30 seconds."""

POLL_SECONDS = 0.005
"""How often a waiting writer looks again; a commit takes a few milliseconds."""


def acquired(path: Path, what: str, seconds: float | None = None) -> FileLock:
    """Take a lock, or raise StoreBusy when it is not to be had, ProjectNotFound when its directory is gone.

    A directory that goes just now may be made again: filelock does so. Whoever holds the lock looks what is in it.
    """
    if not path.parent.is_dir():
        raise ProjectNotFound(path.parent.name)
    lock = FileLock(path, timeout=LOCK_SECONDS if seconds is None else seconds, poll_interval=POLL_SECONDS)
    try:
        with disk():
            lock.acquire()
    except Timeout:
        raise StoreBusy(what) from None
    except (FileNotFoundError, FileExistsError):
        # The second is how a directory shows that goes away just when filelock makes sure that it is there.
        raise ProjectNotFound(path.parent.name) from None
    return lock


@contextmanager
def locked(path: Path, what: str, seconds: float | None = None) -> Iterator[None]:
    """Hold a lock."""
    lock = acquired(path, what, seconds)
    try:
        yield
    finally:
        lock.release()


@contextmanager
def free(path: Path) -> Iterator[bool]:
    """Tell whether nobody holds a lock, and hold it meanwhile if so."""
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except (Timeout, FileNotFoundError, FileExistsError):
        yield False
        return
    try:
        yield True
    finally:
        lock.release()
