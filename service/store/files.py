"""Reading and durably writing files. Errors name the file."""

from __future__ import annotations

import errno
import math
import os
import pickle
import struct
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import joblib
import numpy as np
from joblib.numpy_pickle import NumpyArrayWrapper
from numpy.typing import NDArray
from zlib_ng.zlib_ng import crc32

from service.domain.project import Checksum
from service.errors import StoreDamaged, StoreFull, StoreReadOnly
from service.store.old_paths import register_old_paths

register_old_paths()

Matrix = NDArray[Any]

ALIGNMENT = 64
"""Rows of a mapped matrix start at a multiple of a cache line."""

# Exceptions of joblib for damaged files: a wrong length, for example, makes it allocate too much memory.
UNREADABLE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    RuntimeError,
    SystemError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
    struct.error,
)


SEAL = b"AQ-CRC32"
"""Marks the end of a file of `write_small` or `write_pickle`, before the CRC-32 of the rest; unpickling ignores it."""

SEAL_BYTES = len(SEAL) + 4

COPY_BYTES = 2**20

TRANSIENT_ERRNOS = (errno.ENOENT, errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""Errors of files that may not be damaged."""


@dataclass(frozen=True, slots=True)
class StagedFile:
    """A new file that is complete and durable, except for its name."""

    path: Path
    checksum: Checksum


class SummedFile:
    """A new file whose checksum is computed while it is written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("xb")
        self._n_bytes = 0
        self._crc = 0

    def write(self, data: bytes | memoryview) -> int:
        """Append bytes."""
        self._crc = crc32(data, self._crc)
        n_bytes = memoryview(data).nbytes
        self._n_bytes += n_bytes
        self._file.write(data)
        return n_bytes

    def tell(self) -> int:
        """Return the number of bytes written, which joblib needs to align an array."""
        return self._n_bytes

    def seal(self) -> bytes:
        """Return the last bytes of a file of `write_pickle`."""
        return seal_of(self._crc)

    def finish(self, *, durable: bool = True) -> StagedFile:
        """Close the file and make it durable."""
        # Closing writes the rest of the buffer, so the disk may turn out to be full only here.
        with self._file:
            if durable:
                fsync_file(self._file)
        return StagedFile(self.path, Checksum(self._n_bytes, self._crc))

    def close(self) -> None:
        """Close an unfinished file."""
        self._file.close()


class MatrixWriter:
    """Writes an array of any shape to a joblib file as its bytes arrive, without buffering them.

    `finish` checks the number of bytes and syncs the file to disk if it is `durable`; `abandon` only closes it.
    As a context manager it calls `finish`, or `abandon` on an exception; `staged` is the finished file.
    """

    staged: StagedFile

    def __init__(self, path: Path, dtype: np.dtype[Any], shape: tuple[int, ...], *, durable: bool = True) -> None:
        self.path = path
        self.durable = durable
        self.missing = dtype.itemsize * math.prod(shape)
        self._file = SummedFile(path)
        # joblib.dump writes this before an array's bytes: the pickled wrapper without its last opcode, then padding.
        wrapper = NumpyArrayWrapper(
            np.ndarray, shape, "C", dtype, allow_mmap=True, numpy_array_alignment_bytes=ALIGNMENT
        )
        head = pickle.dumps(wrapper, protocol=2).removesuffix(pickle.STOP)
        padding = ALIGNMENT - (len(head) + 1) % ALIGNMENT
        self._file.write(head + bytes([padding]) + b"\xff" * padding)

    def write(self, data: bytes | memoryview) -> None:
        """Append the next bytes, rows first."""
        self.missing -= len(data)
        with convert_disk_errors():
            self._file.write(data)

    def finish(self) -> StagedFile:
        """Finish the file. Raises ValueError if bytes are missing."""
        with convert_disk_errors():
            if self.missing:
                self._file.close()
                raise ValueError(f"{self.missing} bytes are missing from the matrix")
            self._file.write(pickle.STOP)
            self.staged = self._file.finish(durable=self.durable)
        return self.staged

    def abandon(self) -> None:
        """Close the unfinished file, ignoring errors."""
        with suppress(OSError):
            self._file.close()

    def __enter__(self) -> MatrixWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.finish()
        else:
            self.abandon()


def check_size(path: Path, checksum: Checksum | None) -> None:
    """Raise StoreDamaged if the size of a file is wrong; without a checksum nothing is checked."""
    n_bytes = path.stat().st_size
    if checksum is not None and n_bytes != checksum.n_bytes:
        raise StoreDamaged(f"{path_in_project(path)} has {n_bytes} bytes instead of {checksum.n_bytes}")


def check_sum(path: Path, checksum: Checksum | None) -> None:
    """Raise StoreDamaged if the checksum of a file is wrong; without one nothing is checked."""
    check_size(path, checksum)
    if checksum is not None and crc_of(path) != checksum.crc:
        raise StoreDamaged(f"{path_in_project(path)} has a wrong checksum")


def crc_of(path: Path) -> int:
    """Return the CRC-32 of a file, reading it in pieces."""
    crc, buffer = 0, memoryview(bytearray(COPY_BYTES))
    with path.open("rb", buffering=0) as file:
        while n_read := file.readinto(buffer):
            crc = crc32(buffer[:n_read], crc)
    return crc


@lru_cache(maxsize=4096)
def child(directory: Path, name: str) -> Path:
    """Return the path of a file in a directory; making one takes as long as looking at the file."""
    return directory / name


def path_in_project(path: Path) -> str:
    """Return the path of a file relative to its project."""
    return f"{path.parent.name}/{path.name}"


def load(path: Path, *, mapped: bool = False) -> Any:
    """Read one of our own files; arrays are mapped read-only on request. Raises StoreDamaged, or FileNotFoundError."""
    try:
        with path.open("rb") as file:
            # joblib would take any other file for a compressed one, and expand it in memory.
            if file.read(1) != pickle.PROTO:
                raise pickle.UnpicklingError("not a pickle")
            if not mapped and is_plain_pickle(file):
                return pickle.load(file)  # noqa: S301 - the data directory is ours alone
        return joblib.load(path, mmap_mode="r" if mapped else None)
    except UNREADABLE as error:
        raise StoreDamaged(f"{path_in_project(path)} cannot be read") from error


def is_plain_pickle(file: BinaryIO) -> bool:
    """Return whether a file is one of `write_pickle`, and go to its start."""
    file.seek(0, os.SEEK_END)
    file.seek(max(0, file.tell() - SEAL_BYTES))
    is_sealed = file.read().startswith(SEAL)
    file.seek(0)
    return is_sealed


@contextmanager
def damage_if_unreadable(name: str) -> Iterator[None]:
    """Raise StoreDamaged if the file system cannot read a file: a bad block, or a directory instead of a file."""
    try:
        yield
    except OSError as error:
        if error.errno in TRANSIENT_ERRNOS:
            raise
        raise StoreDamaged(f"{name} cannot be read: {error.strerror}") from error


def load_small(path: Path) -> tuple[Any, bool]:
    """Return the value in a file of `write_small`, and whether it has a checksum, which is verified.

    Files of early versions of the service have none. Raises StoreDamaged, or FileNotFoundError.
    """
    with damage_if_unreadable(path.name):
        data = path.read_bytes()
    is_sealed = sealed_crc(path.name, data) is not None
    return load_pickle(path.name, data), is_sealed


def sealed_crc(name: str, data: bytes) -> int | None:
    """Return the checksum with which data end, None without one. Raises StoreDamaged if it is wrong."""
    seal = data[-SEAL_BYTES:]
    if not seal.startswith(SEAL):
        return None
    crc = crc32(data[:-SEAL_BYTES])
    if seal != seal_of(crc):
        raise StoreDamaged(f"{name} has a wrong checksum")
    return crc


def load_pickle(name: str, data: bytes | memoryview) -> Any:
    """Return a pickled value, or raise StoreDamaged."""
    try:
        return pickle.loads(data)  # noqa: S301 - the data directory is ours alone
    except UNREADABLE as error:
        raise StoreDamaged(f"{name} cannot be read") from error


def seal_of(crc: int) -> bytes:
    """Return the last bytes of a file whose other bytes have a checksum."""
    return SEAL + crc.to_bytes(4, "little")


def write_joblib(path: Path, value: Any) -> StagedFile:
    """Write a new file and make it durable; its name becomes durable with its directory."""
    with convert_disk_errors(), closing(SummedFile(path)) as file:
        joblib.dump(value, file)
        return file.finish()


def write_pickle(path: Path, value: Any) -> StagedFile:
    """Write a new file of many objects, such as a model, and make it durable, as `write_joblib` does.

    joblib can read it, but not map its arrays; its own pickler is written in Python and takes ten times as long.
    """
    with convert_disk_errors(), closing(SummedFile(path)) as file:
        pickle.dump(value, file, protocol=5)
        file.write(file.seal())
        return file.finish()


def write_small(path: Path, value: Any, *, durable: bool = True) -> None:
    """Write a new file of a few kilobytes; wait until it is on disk if it is `durable`."""
    with convert_disk_errors(), path.open("xb") as file:
        body = pickle.dumps(value, protocol=5)
        file.write(body)
        file.write(seal_of(crc32(body)))
        if durable:
            fsync_file(file)


def replace_small(directory: Path, name: str, value: Any, changed_at: int) -> None:
    """Replace a file of `write_small` in a directory, atomically and durably.

    `changed_at`, in microseconds since 1970 UTC, becomes its modification time. It must be unique: it distinguishes
    files, and the clock of a file system ticks too slowly.
    """
    new = directory / f"{name}.new"
    with convert_disk_errors():
        new.unlink(missing_ok=True)
        try:
            write_small(new, value)
            os.utime(new, ns=(changed_at * 1000,) * 2)
            new.rename(directory / name)
        except BaseException:
            new.unlink(missing_ok=True)
            raise
        fsync_directory(directory)


def fsync_file(file: BinaryIO) -> None:
    """Wait until a file's bytes are on disk."""
    file.flush()
    os.fsync(file.fileno())


def fsync_directory(path: Path) -> None:
    """Wait until the entries of a directory are on disk."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


@contextmanager
def convert_disk_errors() -> Iterator[None]:
    """Raise StoreFull or StoreReadOnly for errors of the file system that mean one of these."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreFull("no space is left in the data directory; nothing was changed") from error
        if error.errno == errno.EROFS:
            problem = "the data directory is on a file system that is mounted read-only; nothing was changed"
            raise StoreReadOnly(problem) from error
        raise
