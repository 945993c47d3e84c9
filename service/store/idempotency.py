"""Replies that are kept for whoever asks again: one file for each key, below AQ_DATA_DIR/replies.

The file is made when the first request with its key begins, and holds its lock until that one is answered; the lock
goes with its process, however that ends. It is empty until the reply is written into it, sealed by a checksum. So a
file that is neither locked nor sealed, like one that was given up, tells nothing of what became of its request: what
that changed, if anything, stands in the events of a project (`usecases.run_once`).
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import BinaryIO

import orjson

from service.errors import IdempotencyKeyInUse
from service.store.files import SEAL_BYTES, convert_disk_errors, fsync_directory, fsync_file, seal_of

RETENTION_SECONDS = 24 * 3600

FILE_BYTES = 4096
"""What the smallest file takes."""

SWEEP_SECONDS = 600.0
"""How often a process looks for what need not be kept any longer."""

SWEEP_SHARE = 16
"""After so much of the room there is was taken, as a fraction, it looks at once."""


@dataclass(frozen=True, slots=True)
class StoredReply:
    """A reply, and what it was given to: `request` is told from all others by this."""

    request: str
    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


class Claim:
    """A key in use: `reply` is the stored reply that there is, else this is the only request with it.

    `store` is called at most once, and not where there is a reply.
    """

    def __init__(self, file: BinaryIO, reply: StoredReply | None) -> None:
        self.reply = reply
        self._file = file

    def store(self, reply: StoredReply) -> None:
        """Keep a reply, durably. Raises OSError or StoreFull."""
        head = {"request": reply.request, "status": reply.status, "headers": reply.headers}
        data = orjson.dumps(head) + b"\n" + reply.body
        with convert_disk_errors():
            self._file.seek(0)
            self._file.truncate()
            self._file.write(data + seal_of(data))
            fsync_file(self._file)


class Replies:
    """All replies that are kept. Any number of processes and threads may use the same directory."""

    def __init__(self, root: Path, max_bytes: int) -> None:
        self.root = root
        self.max_bytes = max_bytes
        self._sweeping = Lock()
        self._swept_at = time.monotonic()
        self._n_bytes = 0

    @contextmanager
    def claim(self, key: str) -> Iterator[Claim]:
        """Find the reply to a key, or hold the key until the end. Raises IdempotencyKeyInUse, StoreFull and OSError."""
        self._sweep_now_and_then()
        with ExitStack() as files:
            is_gone = True
            while is_gone:
                with convert_disk_errors():
                    file = open_file(self.root / key)
                files.callback(close_quietly, file)
                # What is sealed does not change, so that nobody has to hold it for reading.
                kept = read_reply(file) or (lock(file) and read_reply(file)) or None
                if kept is not None:
                    yield Claim(file, kept)
                    return
                is_gone = os.fstat(file.fileno()).st_nlink == 0  # swept away before it was held
            with convert_disk_errors():
                if is_old(file):
                    file.truncate(0)  # which makes it young again, without the reply that was given up
                fsync_directory(self.root)
            try:
                yield Claim(file, None)
            finally:  # what is refused takes room, too
                self._n_bytes += n_bytes_of(os.fstat(file.fileno()))

    def _sweep_now_and_then(self) -> None:
        is_due = time.monotonic() > self._swept_at + SWEEP_SECONDS
        if is_due or self._n_bytes > self.max_bytes // SWEEP_SHARE:
            self.sweep()

    def sweep(self) -> None:
        """Remove what has been kept for long enough, and the oldest of what is more than there is room for."""
        if not self._sweeping.acquire(blocking=False):
            return
        try:
            self._swept_at, self._n_bytes = time.monotonic(), 0
            with suppress(OSError):  # it is tried again
                self._remove_oldest()
        finally:
            self._sweeping.release()

    def _remove_oldest(self) -> None:
        with os.scandir(self.root) as entries:
            found = [(entry.stat(), entry.path) for entry in entries]
        total = sum(n_bytes_of(status) for status, _ in found)
        for status, path in sorted(found, key=lambda each: each[0].st_mtime_ns):
            if total <= self.max_bytes and status.st_mtime > time.time() - RETENTION_SECONDS:
                break
            total -= n_bytes_of(status)
            remove_unlocked(Path(path))


def open_file(path: Path) -> BinaryIO:
    """Open the file of a key, which is made where there is none."""
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_CREAT, 0o600), "r+b")


def close_quietly(file: BinaryIO) -> None:
    """Close a file; what could not be written to it is not written now, either."""
    with suppress(OSError):
        file.close()


def lock(file: BinaryIO) -> bool:
    """Lock a file until it is closed, or raise IdempotencyKeyInUse."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise IdempotencyKeyInUse from None
    return True


def read_reply(file: BinaryIO) -> StoredReply | None:
    """Read the reply in a file, None where there is none, or one that has been kept for long enough."""
    if is_old(file):  # in this order: it may be young again, and empty, by now
        return None
    file.seek(0)
    content = file.read()
    data, seal = content[:-SEAL_BYTES], content[-SEAL_BYTES:]
    if seal != seal_of(data):
        return None
    line, _, body = data.partition(b"\n")
    head = orjson.loads(line)
    return StoredReply(head["request"], head["status"], tuple((name, value) for name, value in head["headers"]), body)


def is_old(file: BinaryIO) -> bool:
    """Tell whether what a file holds has been kept for long enough."""
    return os.fstat(file.fileno()).st_mtime < time.time() - RETENTION_SECONDS


def n_bytes_of(status: os.stat_result) -> int:
    """Return how much room a file takes, nearly."""
    return max(status.st_size, FILE_BYTES)


def remove_unlocked(path: Path) -> None:
    """Remove the file of a key, unless a request with it is at work."""
    with suppress(OSError, IdempotencyKeyInUse), path.open("rb") as file:
        lock(file)
        path.unlink()
