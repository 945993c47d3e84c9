"""The file of API keys: read again whenever it changes, and changed by one rename."""

from __future__ import annotations

import fcntl
import logging
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock

from service.auth.keys import Keys, KeysError, dump_keys, parse_keys
from service.store.files import fsync_directory, fsync_file

log = logging.getLogger(__name__)

Signature = tuple[int, ...]


def read_keys(path: Path) -> Keys:
    """Read a file of keys. Raises KeysError, which names the file."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise KeysError("is not a file")
        if status.st_mode & stat.S_IWOTH:
            raise KeysError("may be written by anybody, who could give themselves a key: chmod 600")
        return parse_keys(path.read_bytes())
    except OSError as error:
        raise KeysError(f"{str(path)!r} cannot be read: {error.strerror}") from error
    except KeysError as error:
        raise KeysError(f"{str(path)!r} {error}") from None


def change_keys(path: Path, change: Callable[[Keys], Keys]) -> Keys:
    """Put other keys in the place of those of a file, or make the file; return the keys that it holds now.

    The file is the old one or the new one at any instant, and on disk when this returns; it keeps its owner, and nobody
    else may read it. Raises KeysError, and OSError.
    """
    path = path.resolve()  # a link stays one
    with locked_directory(path.parent):
        owner = path.stat() if path.exists() else None
        keys = change(read_keys(path) if owner else Keys())
        new = path.with_name(f".{path.name}.new")
        new.unlink(missing_ok=True)  # of a command that was killed
        try:
            with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                created = os.fstat(file.fileno())
                if owner and (owner.st_uid, owner.st_gid) != (created.st_uid, created.st_gid):
                    os.chown(file.fileno(), owner.st_uid, owner.st_gid)
                file.write(dump_keys(keys).encode())
                fsync_file(file)
            new.rename(path)
        except OSError:
            with suppress(OSError):
                new.unlink(missing_ok=True)
            raise
        fsync_directory(path.parent)
    return keys


@contextmanager
def locked_directory(path: Path) -> Iterator[None]:
    """Keep other commands from changing the same file meanwhile, without a file for the lock."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)


class KeyRing:
    """The keys of a file as it is now, for any number of threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = Lock()
        self._keys: Keys | None = None
        self._signature: Signature | None = ()
        self.current()

    def current(self) -> Keys | None:
        """Return the keys of the file, or those of before where it can no longer be read; None where it never could.

        A look at the file's status is all that this costs while nothing changes.
        """
        status = read_signature(self._path)
        if status != self._signature:
            self._read(status)
        return self._keys

    def _read(self, status: Signature | None) -> None:
        with self._lock:
            if status == self._signature:
                return  # another thread was quicker
            try:
                self._keys = read_keys(self._path)
            except KeysError as error:
                stays = "no key is known" if self._keys is None else "the keys of before stay"
                log.error("AQ_API_KEYS_FILE: %s; %s until it is mended", error, stays)
            # After the keys: whoever finds this status finds its keys, too. It was taken before they were read, so what
            # is written meanwhile has another.
            self._signature = status


def read_signature(path: Path) -> Signature | None:
    """Return what differs between two states of a file, None where there is no file."""
    try:
        status = os.stat(path)  # noqa: PTH116 - at every request, and twice as quick
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
