"""Locks between threads and between processes alike: each taking opens the file anew."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Lock

from filelock import FileLock, Timeout

from service.errors import ProjectNotFound, StoreBusy
from service.store.files import disk
from service.telemetry.metrics import time_wait

LOCK_SECONDS = 30.0
"""How long a request waits for another writer before it gives up."""

FIT_SECONDS = 25.0
"""How long a request waits for its project's turn to fit: every one that waits holds a thread of its worker, and a
worker that is told to stop gives requests 30 seconds."""

POLL_SECONDS = 0.002
"""How often a writer looks again that waits for one of another process; a commit takes a few milliseconds."""


class Gates:
    """One lock for each path in use, between the threads of this process.

    Whoever waits at it is let in as soon as it opens. The lock between processes is only looked at now and then.
    """

    def __init__(self) -> None:
        self._gates: dict[Path, tuple[Lock, int]] = {}
        self._lock = Lock()

    def enter(self, path: Path, seconds: float) -> bool:
        """Pass the gate, or tell that it did not open in time."""
        with self._lock:
            gate, n_callers = self._gates.get(path, (Lock(), 0))
            self._gates[path] = gate, n_callers + 1
        if gate.acquire(timeout=seconds):
            return True
        self._leave(path)
        return False

    def open(self, path: Path) -> None:
        """Let the next one in."""
        self._leave(path).release()

    def _leave(self, path: Path) -> Lock:
        with self._lock:
            gate, n_callers = self._gates.pop(path)
            if n_callers > 1:
                self._gates[path] = gate, n_callers - 1
            return gate


GATES = Gates()


class Held:
    """A lock that was taken, until it is released."""

    def __init__(self, path: Path, lock: FileLock) -> None:
        self._path = path
        self._lock = lock

    def release(self) -> None:
        """Give the lock back."""
        try:
            self._lock.release()
        finally:
            GATES.open(self._path)


def acquired(path: Path, what: str, seconds: float | None = None, *, kind: str = "other") -> Held:
    """Take a lock, or raise StoreBusy when it is not to be had, ProjectNotFound when its directory is gone.

    A directory that goes just now may be made again: filelock does so. Whoever holds the lock looks what is in it.
    """
    if not path.parent.is_dir():
        raise ProjectNotFound(path.parent.name)
    seconds = LOCK_SECONDS if seconds is None else seconds
    began = time.monotonic()
    with time_wait("gate"):
        is_open = GATES.enter(path, seconds)
    if not is_open:
        raise StoreBusy(what)
    with ExitStack() as undo:
        undo.callback(GATES.open, path)
        lock = FileLock(path, timeout=max(began + seconds - time.monotonic(), 0), poll_interval=POLL_SECONDS)
        try:
            with disk(), time_wait(kind):
                lock.acquire()
        except Timeout:
            raise StoreBusy(what) from None
        except (FileNotFoundError, FileExistsError):
            # The second is how a directory shows that goes away just when filelock makes sure that it is there.
            raise ProjectNotFound(path.parent.name) from None
        undo.pop_all()
    return Held(path, lock)


@contextmanager
def locked(path: Path, what: str, seconds: float | None = None, *, kind: str = "other") -> Iterator[None]:
    """Hold a lock."""
    held = acquired(path, what, seconds, kind=kind)
    try:
        yield
    finally:
        held.release()


@contextmanager
def free(path: Path) -> Iterator[bool]:
    """Tell whether nobody holds a lock, and hold it meanwhile if so."""
    lock = FileLock(path, timeout=0)
    try:
        with disk():
            lock.acquire()
    except (Timeout, FileNotFoundError, FileExistsError):
        yield False
        return
    try:
        yield True
    finally:
        lock.release()
