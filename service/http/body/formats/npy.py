"""Read .npy from untrusted clients: the header may lie, and the data is staged as it arrives."""

from __future__ import annotations

import math
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.errors import InvalidRequest
from service.http.body.formats.spool import Sink, first_missing
from service.http.body.limits import check_cells
from service.store.files import StagedFile, load
from service.store.staging import StagedArray, StagedRows, Staging

MAGIC = b"\x93NUMPY"
MAX_HEADER_BYTES = 10_000

# A header is a Python literal. It is matched, not parsed: for 10 kB of brackets or signs, Python's parser raises
# MemoryError, RecursionError or SystemError, and numpy's reader also TokenError and warnings.
MEMBER = r"'(\w+)'\s*:\s*('[^']*'|\[[^\[\]]*\]|True|False|\(\s*(?:\d{1,18}L?\s*(?:,\s*|(?=\))))*\))"
HEADER = re.compile(rf"\{{(?:\s*{MEMBER}(?:\s*,)?){{3}}\s*\}}\s*", re.ASCII)

# Types of a matrix or a column. An empty one such as U0 would announce a trillion texts in no bytes.
PLAIN_DTYPE = re.compile(r"[<>|=]?(?:b1|[iu][1248]|f[248]|[SU][1-9][0-9]{0,5})", re.ASCII)

NUMBERS = {2: "two", 3: "three"}

TRANSPOSE_ROWS = 4096
"""Rows of a Fortran-ordered matrix that are transposed at a time."""


@dataclass(frozen=True, slots=True)
class Header:
    """Contents of a .npy header; `size` is its own length in bytes."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran_order: bool
    size: int

    @property
    def n_bytes(self) -> int:
        """Bytes of data that must follow."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_header(data: bytes) -> Header | None:
    """Return the header at the start of a .npy file, or None if `data` is too short for it.

    Raises ValueError. Nothing is unpickled, and no memory is allocated for the data.
    """
    if not data.startswith(MAGIC[: len(data)]):
        raise ValueError("is not a .npy file: it does not begin with the magic string")
    if len(data) < len(MAGIC) + 2:
        return None
    version = data[6], data[7]
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"is a .npy file of version {version[0]}.{version[1]}; 1.0 and 2.0 are supported")
    length_format = "<H" if version == (1, 0) else "<I"
    begin = 8 + struct.calcsize(length_format)
    if len(data) < begin:
        return None
    (length,) = struct.unpack_from(length_format, data, 8)
    if length > MAX_HEADER_BYTES:
        raise ValueError(f"has a .npy header of {length} bytes; {MAX_HEADER_BYTES} are allowed")
    if len(data) < begin + length:
        return None
    return parse_header(data[begin : begin + length].decode("latin-1"), begin + length)


def parse_header(text: str, size: int) -> Header:
    """Parse the text of a header. Raises ValueError."""
    text = text.replace('"', "'")
    members = dict(re.findall(MEMBER, text, re.ASCII)) if HEADER.fullmatch(text) else {}
    descr, order, shape = (members.get(name, "") for name in ("descr", "fortran_order", "shape"))
    if not descr.startswith(("'", "[")) or order not in ("True", "False") or not shape.startswith("("):
        raise ValueError("has a .npy header that cannot be read")
    descr = descr.strip("'")
    if descr.lstrip("<>|=").startswith("O"):
        raise ValueError(
            "holds pickled Python objects, and nothing is unpickled: save plain numbers or fixed-width text"
        )
    if not PLAIN_DTYPE.fullmatch(descr):
        raise ValueError(f"holds {descr[:64]!r}; plain numbers up to 64 bits and fixed-width text are supported")
    return Header(np.dtype(descr), tuple(map(int, re.findall(r"\d+", shape, re.ASCII))), order == "True", size)


def read_column(path: Path, *, may_be_matrix: bool = False) -> NDArray[Any]:
    """Read a one-dimensional .npy file, or a matrix if allowed. Raises ValueError."""
    with path.open("rb") as file:
        header = read_header(file.read(MAX_HEADER_BYTES + 16))
        if header is None:
            raise ValueError("ends within its .npy header")
        if len(header.shape) != 1 and not (may_be_matrix and len(header.shape) == 2):
            more = ", or two for an indicator matrix" if may_be_matrix else ""
            raise ValueError(f"has {len(header.shape)} dimensions; it must have one{more}")
        check_length(path.stat().st_size - header.size, header)
        cells = np.fromfile(path, header.dtype, math.prod(header.shape), offset=header.size)
        return cells.reshape(header.shape, order="F" if header.fortran_order else "C")


def check_length(n_bytes: int, header: Header) -> None:
    """Raise ValueError unless the data has as many bytes as the header says."""
    if n_bytes != header.n_bytes:
        more_or_fewer = "more" if n_bytes > header.n_bytes else "fewer"
        raise ValueError(f"has {more_or_fewer} bytes than its header says ({n_bytes}, not {header.n_bytes})")


class ArraySink:
    """Writes the array of a .npy file to a staged file as its bytes arrive, with one chunk in memory.

    Raises InvalidRequest at `pointer` unless the array has the `axes`, holds finite numbers or NaN of a supported type,
    and at most `max_cells` of them.
    """

    axes: tuple[str, ...]

    def __init__(self, pointer: str, staging: Staging, max_cells: int) -> None:
        self.pointer = pointer
        self.staging = staging
        self.max_cells = max_cells
        self._head = b""
        self._body: ArrayBody | None = None

    def write(self, data: bytes) -> None:
        """Write the next bytes."""
        if self._body is not None:
            self._body.write(data)
            return
        self._head += data
        try:
            header = read_header(self._head)
        except ValueError as error:
            raise InvalidRequest.at(self.pointer, str(error)) from None
        if header is not None:
            self._check(header)
            self._body = ArrayBody(self.pointer, header, self.staging)
            rest, self._head = self._head[header.size :], b""
            self._body.write(rest)

    def finish_body(self) -> ArrayBody:
        """Complete the staged file, and return the body."""
        if self._body is None:
            raise InvalidRequest.at(self.pointer, "ends within its .npy header")
        self._body.finish()
        return self._body

    def abandon(self) -> None:
        """Close the file of an unfinished array."""
        if self._body is not None:
            self._body.writer.abandon()

    def _check(self, header: Header) -> None:
        problem, axes = None, f"{', '.join(self.axes[:-1])} and {self.axes[-1]}"
        if header.dtype.kind not in "fiub":
            problem = f"holds {header.dtype}; float16, float32, float64, integers and booleans are taken"
        elif len(header.shape) != len(self.axes):
            problem = f"has {len(header.shape)} dimensions; it must have {NUMBERS[len(self.axes)]}, {axes}"
        elif 0 in header.shape:
            problem = f"has shape {header.shape}; it must have {axes}"
        if problem:
            raise InvalidRequest.at(self.pointer, problem)
        check_cells(self.pointer, header.shape, self.max_cells)


class MatrixSink(ArraySink):
    """Sink for a matrix."""

    axes = ("rows", "columns")

    def close(self) -> StagedRows:
        """Return the staged matrix, transposed if it came in Fortran order."""
        body = self.finish_body()
        file = transpose_file(body.writer.path, self.staging) if body.header.fortran_order else body.writer.staged
        n_rows, n_columns = body.header.shape
        return StagedRows({"rows": file}, n_rows, n_columns, missing=body.missing)


class SamplesSink:
    """Sink for samples: a matrix of numbers, or a column of texts, as the header says."""

    def __init__(self, matrix: Sink, column: Sink) -> None:
        self._sinks = {False: matrix, True: column}
        self._sink: Sink | None = None
        self._head = b""

    def write(self, data: bytes) -> None:
        """Write the next bytes."""
        if self._sink is None:
            data = self._head = self._head + data
            try:
                header = read_header(data)
            except ValueError:
                header, self._sink = None, self._sinks[False]  # which says what is wrong
            if header is not None:
                self._sink = self._sinks[header.dtype.kind == "U"]
        if self._sink is not None:
            self._sink.write(data)

    def close(self) -> Any:
        """Return the staged matrix, or the column."""
        return (self._sink or self._sinks[False]).close()

    def abandon(self) -> None:
        """Close the files of an unfinished array."""
        for sink in self._sinks.values():
            sink.abandon()


class MembersSink(ArraySink):
    """Sink for one matrix per committee member."""

    axes = ("members", "rows", "columns")

    def close(self) -> StagedArray:
        """Return the staged array."""
        body = self.finish_body()
        return StagedArray(body.writer.path, body.header.fortran_order, body.missing)


def transpose_file(path: Path, staging: Staging) -> StagedFile:
    """Write a matrix whose file has its columns one after another in row-major order, and remove that file."""
    columns = load(path, mapped=True)
    n_rows = columns.shape[1]
    with staging.array_writer(columns.dtype, (n_rows, columns.shape[0])) as writer:
        for begin in range(0, n_rows, TRANSPOSE_ROWS):
            block = np.ascontiguousarray(columns[:, begin : begin + TRANSPOSE_ROWS].T)
            writer.write(block.data.cast("B"))
    path.unlink()
    return writer.staged


class ArrayBody:
    """Data of a .npy file; `missing` points to its first NaN."""

    def __init__(self, pointer: str, header: Header, staging: Staging) -> None:
        self.pointer = pointer
        self.header = header
        shape = header.shape[::-1] if header.fortran_order else header.shape
        dtype = np.dtype(np.uint8) if header.dtype == np.bool_ else header.dtype.newbyteorder("=")
        self.writer = staging.array_writer(dtype, shape)
        self._pending = b""
        self._n_bytes = 0
        self._n_numbers = 0
        self.missing: str | None = None

    def write(self, data: bytes) -> None:
        """Write the next bytes."""
        self._n_bytes += len(data)
        if self._n_bytes > self.header.n_bytes:
            raise InvalidRequest.at(self.pointer, f"has more bytes than its header says ({self.header.n_bytes})")
        # Only a number that two pieces share is copied.
        size = self.header.dtype.itemsize
        missing = -len(self._pending) % size
        self._pending += data[:missing]
        if len(self._pending) == size:
            self._take(np.frombuffer(self._pending, self.header.dtype))
            self._pending = b""
        whole = max(0, len(data) - missing) // size
        if whole:
            self._take(np.frombuffer(data, self.header.dtype, whole, offset=missing))
        self._pending += data[missing + whole * size :]

    def _take(self, numbers: NDArray[Any]) -> None:
        found = first_missing(numbers, self._pointer_to)
        self.missing = self.missing or found
        if numbers.dtype == np.bool_:
            numbers = (numbers.view(np.uint8) != 0).view(np.uint8)  # a byte of the file may be any number
        if not numbers.dtype.isnative:
            numbers = numbers.astype(numbers.dtype.newbyteorder("="))
        self.writer.write(numbers.data.cast("B"))
        self._n_numbers += len(numbers)

    def finish(self) -> None:
        """Complete the staged file."""
        try:
            check_length(self._n_bytes, self.header)
        except ValueError as error:
            raise InvalidRequest.at(self.pointer, str(error)) from None
        self.writer.finish()

    def _pointer_to(self, position: int) -> str:
        order: Any = "F" if self.header.fortran_order else "C"
        at = np.unravel_index(self._n_numbers + position, self.header.shape, order=order)
        return "/".join([self.pointer, *map(str, at)])
