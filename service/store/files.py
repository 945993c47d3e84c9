"""Files that survive: written, made durable, mapped, and read with an error that says which file it was."""

from __future__ import annotations

import errno
import math
import os
import pickle
import struct
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
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

# What joblib raises on bytes that it did not write: a broken length, for one, asks for too much memory.
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
"""Ends a file of `write_small`, with the CRC-32 of all before it. What unpickles reads no farther than its pickle."""

SEAL_BYTES = len(SEAL) + 4

COPY_BYTES = 2**20

TRANSIENT_ERRNOS = (errno.ENOENT, errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""Why a file cannot be read with which nothing is wrong."""


@dataclass(frozen=True, slots=True)
class StagedFile:
    """A new file, whole and durable but for its name."""

    path: Path
    checksum: Checksum


class SummedFile:
    """A new file, whose checksum is taken on the way: no byte is read again for it."""

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
        """Return how many bytes there are, which joblib asks to place an array."""
        return self._n_bytes

    def finish(self, *, durable: bool = True) -> StagedFile:
        """End the file, and make it durable."""
        # Closing writes what is still buffered, so a full disk may show only here.
        with self._file:
            if durable:
                fsync_file(self._file)
        return StagedFile(self.path, Checksum(self._n_bytes, self._crc))

    def close(self) -> None:
        """Close the file as it is."""
        self._file.close()


class MatrixWriter:
    """Writes a matrix, or an array of any shape, to a joblib file as its bytes come, holding none of them.

    `finish` checks the number of bytes and syncs the file to disk if it is `durable`; `abandon` only closes it.
    As a context manager it does the one or the other, and `staged` is the file then.
    """

    staged: StagedFile

    def __init__(self, path: Path, dtype: np.dtype[Any], shape: tuple[int, ...], *, durable: bool = True) -> None:
        self.path = path
        self.durable = durable
        self.missing = dtype.itemsize * math.prod(shape)
        self._file = SummedFile(path)
        # What joblib.dump writes ahead of an array's bytes: the pickled wrapper without its last opcode, then padding.
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
        """End the matrix; ValueError when bytes are missing."""
        with convert_disk_errors():
            if self.missing:
                self._file.close()
                raise ValueError(f"{self.missing} bytes are missing from the matrix")
            self._file.write(pickle.STOP)
            self.staged = self._file.finish(durable=self.durable)
        return self.staged

    def abandon(self) -> None:
        """Leave the matrix as it is; nobody misses what it lacks."""
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
    """Raise StoreDamaged for a file that has another size than it was written with, as far as that is known."""
    n_bytes = path.stat().st_size
    if checksum is not None and n_bytes != checksum.n_bytes:
        raise StoreDamaged(f"{path_in_project(path)} has {n_bytes} bytes, and {checksum.n_bytes} were written")


def check_sum(path: Path, checksum: Checksum | None) -> None:
    """Raise StoreDamaged for a file that is not what was written, as far as that is known."""
    check_size(path, checksum)
    if checksum is not None and crc_of(path) != checksum.crc:
        raise StoreDamaged(f"{path_in_project(path)} is not what was written: its checksum is another")


def crc_of(path: Path) -> int:
    """Return the CRC-32 of a file, which is read in pieces."""
    crc, buffer = 0, memoryview(bytearray(COPY_BYTES))
    with path.open("rb", buffering=0) as file:
        while n_read := file.readinto(buffer):
            crc = crc32(buffer[:n_read], crc)
    return crc


def path_in_project(path: Path) -> str:
    """Name a file within its project."""
    return f"{path.parent.name}/{path.name}"


def load(path: Path, *, mapped: bool = False) -> Any:
    """Read one of our own files; arrays are mapped read-only on request. Raises StoreDamaged, or FileNotFoundError."""
    try:
        with path.open("rb") as file:
            # A file that begins otherwise joblib would take for a compressed one, and expand it in memory.
            if file.read(1) != pickle.PROTO:
                raise pickle.UnpicklingError("not a pickle")
        return joblib.load(path, mmap_mode="r" if mapped else None)
    except UNREADABLE as error:
        raise StoreDamaged(f"{path_in_project(path)} cannot be read") from error


@contextmanager
def damage_if_unreadable(name: str) -> Iterator[None]:
    """Raise StoreDamaged where the file system cannot read a file: a bad block, or a directory in its place."""
    try:
        yield
    except OSError as error:
        if error.errno in TRANSIENT_ERRNOS:
            raise
        raise StoreDamaged(f"{name} cannot be read: {error.strerror}") from error


def load_small(path: Path) -> tuple[Any, bool]:
    """Read a file that `write_small` wrote, and tell whether its checksum vouches for it.

    What an earlier version of the service wrote has none. Raises StoreDamaged, or FileNotFoundError.
    """
    with damage_if_unreadable(path.name):
        data = path.read_bytes()
    body, seal = data[:-SEAL_BYTES], data[-SEAL_BYTES:]
    is_sealed = seal.startswith(SEAL)
    if is_sealed and seal != seal_of(body):
        raise StoreDamaged(f"{path.name} is not what was written: its checksum is another")
    try:
        return pickle.loads(data), is_sealed  # noqa: S301 - the data directory is ours alone
    except UNREADABLE as error:
        raise StoreDamaged(f"{path.name} cannot be read") from error


def seal_of(body: bytes) -> bytes:
    """Return what ends a file of `write_small`."""
    return SEAL + crc32(body).to_bytes(4, "little")


def write_joblib(path: Path, value: Any) -> StagedFile:
    """Write a new file and make it durable; its name becomes durable with its directory."""
    with convert_disk_errors(), closing(SummedFile(path)) as file:
        joblib.dump(value, file)
        return file.finish()


def write_small(path: Path, value: Any) -> None:
    """Write a new file as `write_joblib` does, of many small values: joblib reads it, but is ten times as slow.

    Its pickler is written in Python, which pays for large arrays and for nothing else.
    """
    with convert_disk_errors(), path.open("xb") as file:
        body = pickle.dumps(value, protocol=5)
        file.write(body)
        file.write(seal_of(body))
        fsync_file(file)


def fsync_file(file: BinaryIO) -> None:
    """Wait until a file's bytes are on disk."""
    file.flush()
    os.fsync(file.fileno())


def fsync_directory(path: Path) -> None:
    """Wait until a directory's names are on disk."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


@contextmanager
def convert_disk_errors() -> Iterator[None]:
    """Tell what cannot be written to apart from other failures of the file system."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreFull("no space is left where the projects lie; nothing was changed") from error
        if error.errno == errno.EROFS:
            problem = "the data directory is on a file system that is mounted read-only; nothing was changed"
            raise StoreReadOnly(problem) from error
        raise
