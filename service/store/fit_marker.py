"""A mark that something is at work: a file that tells since when, and that whoever is at work holds locked.

The lock goes with its process, however that ends, and the mark means nothing from then on. Nobody waits for it.
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
    """Show that work has begun, and take the mark away when it is done. Raises FileNotFoundError without a place."""
    new = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    with convert_disk_errors():
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        # Locked and written before it has its name, so that nobody meets it half made.
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with convert_disk_errors():
            os.write(descriptor, b"%d" % now())
            new.rename(path)
        yield
    finally:
        with suppress(OSError):  # what stays means nothing without its lock
            path.unlink()
        os.close(descriptor)


def running_since(path: Path) -> int | None:
    """Return when the work began that is going on, in microseconds since 1970 UTC; None where none is."""
    with suppress(FileNotFoundError), path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return int(file.read())
    return None


def remove_stale_marks(path: Path) -> None:
    """Remove what is left of work that its process did not live to finish."""
    for mark in path.parent.glob(f"{path.name}*"):
        if running_since(mark) is None:
            mark.unlink(missing_ok=True)
