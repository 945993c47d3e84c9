"""Marks that a fit is running: a file with the time of its start, locked by the process that fits.

The lock ends with its process, and without the lock the file has no meaning. No process waits for it.
"""

from __future__ import annotations

import fcntl
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from service.domain.project import now
from service.store.files import convert_disk_errors


@contextmanager
def mark_running(path: Path) -> Iterator[None]:
    """Create a mark, and remove it at the end. Raises FileNotFoundError if its directory does not exist."""
    new = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    with convert_disk_errors():
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        # Locked and written before it gets its name, so that readers never see an unfinished mark.
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with convert_disk_errors():
            os.write(descriptor, b"%d" % now())
            new.rename(path)
        yield
    finally:
        with suppress(OSError):  # a mark that is left has no meaning without its lock
            path.unlink()
        os.close(descriptor)


def running_since(path: Path) -> int | None:
    """Return the start of the running fit, in microseconds since 1970 UTC; None if none is running."""
    with suppress(FileNotFoundError), path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return int(file.read())
    return None


def remove_stale_marks(path: Path) -> None:
    """Remove the marks of processes that have died."""
    for mark in path.parent.glob(f"{path.name}*"):
        if running_since(mark) is None:
            mark.unlink(missing_ok=True)
