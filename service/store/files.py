"""Files that survive: written, made durable, mapped, and read with an error that says which file it was."""

from __future__ import annotations

import errno
import math
import os
import pickle
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import joblib
import numpy as np
from joblib.numpy_pickle import NumpyArrayWrapper
from numpy.typing import NDArray

from service.errors import StoreDamaged, StoreFull

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


class MatrixWriter:
    """Writes a matrix, or an array of any shape, to a joblib file as its bytes come, holding none of them.

    `finish` checks the number of bytes and makes the file durable, unless it is not `kept`; `abandon` only closes it.
    As a context manager it does the one or the other.
    """

    def __init__(self, path: Path, dtype: np.dtype[Any], shape: tuple[int, ...], *, kept: bool = True) -> None:
        self.path = path
        self.kept = kept
        self.missing = dtype.itemsize * math.prod(shape)
        self._file = path.open("xb")
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
        with disk():
            self._file.write(data)

    def finish(self) -> None:
        """End the matrix; ValueError when bytes are missing."""
        # Closing writes what is still buffered, so a full disk may show only here.
        with disk(), self._file:
            if self.missing:
                raise ValueError(f"{self.missing} bytes are missing from the matrix")
            self._file.write(pickle.STOP)
            if self.kept:
                settle(self._file)

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


def load(path: Path, *, mapped: bool = False) -> Any:
    """Read one of our own files; arrays are mapped read-only on request. Raises StoreDamaged, or FileNotFoundError."""
    try:
        with path.open("rb") as file:
            # A file that begins otherwise joblib would take for a compressed one, and expand it in memory.
            if file.read(1) != pickle.PROTO:
                raise pickle.UnpicklingError("not a pickle")
        return joblib.load(path, mmap_mode="r" if mapped else None)
    except UNREADABLE as error:
        raise StoreDamaged(f"the file {path.parent.name}/{path.name} cannot be read") from error


def load_small(path: Path) -> Any:
    """Read a file that `write_small` wrote. Raises StoreDamaged, or FileNotFoundError."""
    try:
        return pickle.loads(path.read_bytes())  # noqa: S301 - the data directory is ours alone
    except UNREADABLE as error:
        raise StoreDamaged(f"the file {path.parent.name}/{path.name} cannot be read") from error


def write_joblib(path: Path, value: Any) -> None:
    """Write a new file and make it durable; its name becomes durable with its directory."""
    with disk(), path.open("xb") as file:
        joblib.dump(value, file)
        settle(file)


def write_small(path: Path, value: Any) -> None:
    """Write a new file as `write_joblib` does, of many small values: joblib reads it, but is ten times as slow.

    Its pickler is written in Python, which pays for large arrays and for nothing else.
    """
    with disk(), path.open("xb") as file:
        file.write(pickle.dumps(value, protocol=5))
        settle(file)


def settle(file: BinaryIO) -> None:
    """Wait until a file's bytes are on disk."""
    file.flush()
    os.fsync(file.fileno())


def settle_directory(path: Path) -> None:
    """Wait until a directory's names are on disk."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


@contextmanager
def disk() -> Iterator[None]:
    """Tell a full disk apart from other failures of the file system."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreFull("no space is left where the projects lie; nothing was changed") from error
        raise
