"""Replies stored for repeated requests: one file for each key, below AQ_DATA_DIR/replies.

The first request with a key creates the file and holds its lock until it is finished; the lock ends with its process.
The file is empty until the reply is written, followed by a checksum. A file without lock and checksum, or one that was
removed, does not show whether its request changed anything: the events of the project do (`usecases.run_once`).
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
from zlib_ng.zlib_ng import crc32

from service.errors import IdempotencyKeyInUse
from service.store.files import SEAL_BYTES, convert_disk_errors, fsync_directory, fsync_file, seal_of

RETENTION_SECONDS = 24 * 3600

FILE_BYTES = 4096
"""Disk space of the smallest file."""

SWEEP_SECONDS = 600.0
"""Time between two sweeps by a process."""

SWEEP_SHARE = 16
"""A process also sweeps after it has written 1/16 of the limit."""


@dataclass(frozen=True, slots=True)
class StoredReply:
    """A reply, and the fingerprint of its request."""

    request: str
    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


class Claim:
    """A key in use: `reply` is the stored reply; if it is None, this is the only running request with the key.

    `store` is called at most once, and only without a reply.
    """

    def __init__(self, file: BinaryIO, reply: StoredReply | None) -> None:
        self.reply = reply
        self._file = file

    def store(self, reply: StoredReply) -> None:
        """Store a reply, durably. Raises OSError or StoreFull."""
        head = {"request": reply.request, "status": reply.status, "headers": reply.headers}
        data = orjson.dumps(head) + b"\n" + reply.body
        with convert_disk_errors():
            self._file.seek(0)
            self._file.truncate()
            self._file.write(data + seal_of(crc32(data)))
            fsync_file(self._file)


class Replies:
    """All stored replies. Any number of processes and threads may use the same directory."""

    def __init__(self, root: Path, max_bytes: int) -> None:
        self.root = root
        self.max_bytes = max_bytes
        self._sweeping = Lock()
        self._swept_at = time.monotonic()
        self._n_bytes = 0

    @contextmanager
    def claim(self, key: str) -> Iterator[Claim]:
        """Find the reply to a key, or hold the key meanwhile. Raises IdempotencyKeyInUse, StoreFull or OSError."""
        self._sweep_now_and_then()
        with ExitStack() as files:
            is_gone = True
            while is_gone:
                with convert_disk_errors():
                    file = open_file(self.root / key)
                files.callback(close_quietly, file)
                # A file with a checksum never changes, so it can be read without the lock.
                kept = read_reply(file) or (lock(file) and read_reply(file)) or None
                if kept is not None:
                    yield Claim(file, kept)
                    return
                is_gone = os.fstat(file.fileno()).st_nlink == 0  # swept before it was locked
            with convert_disk_errors():
                if is_old(file):
                    file.truncate(0)  # which renews its time and drops the expired reply
                fsync_directory(self.root)
            try:
                yield Claim(file, None)
            finally:  # refused requests take space, too
                self._n_bytes += n_bytes_of(os.fstat(file.fileno()))

    def _sweep_now_and_then(self) -> None:
        is_due = time.monotonic() > self._swept_at + SWEEP_SECONDS
        if is_due or self._n_bytes > self.max_bytes // SWEEP_SHARE:
            self.sweep()

    def sweep(self) -> None:
        """Remove expired replies, and the oldest ones beyond the limit."""
        if not self._sweeping.acquire(blocking=False):
            return
        try:
            self._swept_at, self._n_bytes = time.monotonic(), 0
            with suppress(OSError):  # the next sweep tries again
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
    """Open the file of a key, creating it if it is missing."""
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_CREAT, 0o600), "r+b")


def close_quietly(file: BinaryIO) -> None:
    """Close a file, ignoring errors: buffered bytes that could not be written cannot be written now, either."""
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
    """Return the reply in a file, None if there is none or it has expired."""
    if is_old(file):  # checked first: another request may renew and empty the file meanwhile
        return None
    file.seek(0)
    content = file.read()
    data, seal = content[:-SEAL_BYTES], content[-SEAL_BYTES:]
    if seal != seal_of(crc32(data)):
        return None
    line, _, body = data.partition(b"\n")
    head = orjson.loads(line)
    return StoredReply(head["request"], head["status"], tuple((name, value) for name, value in head["headers"]), body)


def is_old(file: BinaryIO) -> bool:
    """Return whether the reply in a file has expired."""
    return os.fstat(file.fileno()).st_mtime < time.time() - RETENTION_SECONDS


def n_bytes_of(status: os.stat_result) -> int:
    """Return roughly the disk space of a file."""
    return max(status.st_size, FILE_BYTES)


def remove_unlocked(path: Path) -> None:
    """Remove the file of a key unless it is in use."""
    with suppress(OSError, IdempotencyKeyInUse), path.open("rb") as file:
        lock(file)
        path.unlink()
