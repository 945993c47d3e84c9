"""The key file: reloaded whenever it changes, and replaced atomically."""

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
    """Read a key file. Raises KeysError, which names the file."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise KeysError("is not a file")
        if status.st_mode & stat.S_IWOTH:
            raise KeysError("is writable by all users: chmod 600")
        return parse_keys(path.read_bytes())
    except OSError as error:
        raise KeysError(f"{str(path)!r} cannot be read: {error.strerror}") from error
    except KeysError as error:
        raise KeysError(f"{str(path)!r} {error}") from None


def change_keys(path: Path, change: Callable[[Keys], Keys]) -> Keys:
    """Replace the keys of a file, or create it, and return the new keys.

    The replacement is atomic and durable; the file keeps its owner and has mode 0600. Raises KeysError and OSError.
    """
    path = path.resolve()  # replace the target of a link, not the link
    with locked_directory(path.parent):
        owner = path.stat() if path.exists() else None
        keys = change(read_keys(path) if owner else Keys())
        new = path.with_name(f".{path.name}.new")
        new.unlink(missing_ok=True)  # left by a killed command
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
    """Lock out other commands that change the file; the directory itself serves as the lock file."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)


class KeyRing:
    """The current keys of a file. Thread-safe."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = Lock()
        self._keys: Keys | None = None
        self._signature: Signature | None = ()
        self.current()

    def current(self) -> Keys | None:
        """Return the keys of the file, the last valid ones if it has become invalid, None if it never was valid.

        While the file does not change this costs one `stat`.
        """
        signature = read_signature(self._path)
        if signature != self._signature:
            self._read(signature)
        return self._keys

    def _read(self, signature: Signature | None) -> None:
        with self._lock:
            if signature == self._signature:
                return  # another thread has read it
            try:
                self._keys = read_keys(self._path)
            except KeysError as error:
                consequence = "no key is valid" if self._keys is None else "the previous keys stay valid"
                log.error("AQ_API_KEYS_FILE: %s; %s until the file is repaired", error, consequence)
            # Set after the keys, so that a thread that finds it finds its keys, too. It was taken before reading
            # them, so a later change has another.
            self._signature = signature


def read_signature(path: Path) -> Signature | None:
    """Return what distinguishes versions of a file, None if it does not exist."""
    try:
        status = os.stat(path)  # noqa: PTH116 - runs at every request, twice as fast
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
