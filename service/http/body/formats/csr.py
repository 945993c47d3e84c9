"""Read sparse matrices of `scipy.sparse.save_npz`: a zip archive with the three arrays of CSR, read in blocks of rows.

An archive of 5 kB may announce terabytes, so each member is read in pieces and only the bytes read count.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from io import SEEK_SET, FileIO
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from service.http.body.formats.npy import MAX_HEADER_BYTES, read_header
from service.http.body.formats.spool import first_missing
from service.store.spool import ArraySpool
from service.store.staging import SPARSE, StagedRows, Staging

MAGIC = b"PK\x03\x04"

MAX_COLUMNS = 2**22
"""Enough for a vocabulary or a 22-bit hash; a model stores a few numbers per column and class."""

MEMBERS = ("format.npy", "shape.npy", "data.npy", "indices.npy", "indptr.npy")
OPTIONAL_MEMBERS = {"_is_array.npy"}
MAX_FORMAT_BYTES = 16

BLOCK_ROWS = 4096
BLOCK_VALUES = 2**17
"""Largest number of rows, and of their values, that are read at a time; a single row may be longer."""

MAX_READ_BYTES = 2**17

# Exceptions of `zipfile` for broken archives, in addition to ValueError.
UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    OverflowError,
    UnicodeDecodeError,  # the name of a member
)

LENGTHS = "the lengths of indices, data and the end of indptr differ"


class BoundedReads(FileIO):
    """A file with a limit on each read: `zipfile` reads the whole list of members, however long it is."""

    most_bytes = MAX_READ_BYTES

    def read(self, size: int | None = -1, /) -> bytes:
        """Read up to `most_bytes`. Raises zipfile.BadZipFile if `size` is larger."""
        if size is not None and size > self.most_bytes:
            raise zipfile.BadZipFile("its list of members is too long")
        return super().read(self.most_bytes if size is None or size < 0 else size)

    def seek(self, offset: int, whence: int = SEEK_SET, /) -> int:
        """Set the position. Raises zipfile.BadZipFile for one before the start."""
        try:
            return super().seek(offset, whence)
        except OSError as error:
            raise zipfile.BadZipFile("it refers to a position outside of it") from error


class Member:
    """A .npy file in an archive, read in pieces. Errors are ValueError."""

    def __init__(self, name: str, file: IO[bytes]) -> None:
        self.name = name
        self._file = file
        head = file.read(MAX_HEADER_BYTES + 16)
        try:
            header = read_header(head)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        if header is None:
            raise ValueError(f"{name} ends within its .npy header")
        self.header = header
        self.n_left = math.prod(header.shape)
        self._head = head[header.size :]

    def take(self, count: int) -> NDArray[Any]:
        """Return the next numbers in native byte order."""
        if count > self.n_left:
            raise ValueError(LENGTHS)
        size = count * self.header.dtype.itemsize
        head, self._head = self._head[:size], self._head[size:]
        data = b"".join([head, *read_pieces(self._file, size - len(head))])
        if len(data) < size:
            raise ValueError(f"{self.name} has fewer bytes than its header says")
        self.n_left -= count
        numbers = np.frombuffer(data, self.header.dtype)
        return numbers.astype(numbers.dtype.newbyteorder("="), copy=False)

    def check_end(self) -> None:
        """Raise ValueError unless everything has been read."""
        if self.n_left:
            raise ValueError(LENGTHS)
        if self._head or self._file.read(1):
            raise ValueError(f"{self.name} has more bytes than its header says")


def read_pieces(file: IO[bytes], size: int) -> Iterator[bytes]:
    """Yield `size` bytes in pieces, or fewer at the end of the file; nothing is allocated in advance."""
    while size > 0 and (piece := file.read(min(size, MAX_READ_BYTES))):
        size -= len(piece)
        yield piece


@dataclass(frozen=True, slots=True)
class Block:
    """Rows in CSR: the number of values of each, and the columns and values of all."""

    lengths: NDArray[np.int64]
    columns: NDArray[np.int64]
    values: NDArray[Any]

    def row_of(self, position: int) -> int:
        """Return the row of a value."""
        return int(np.searchsorted(np.cumsum(self.lengths), position, side="right"))


def read_csr(path: Path, pointer: str, staging: Staging, max_cells: int) -> StagedRows:
    """Read an archive into three staged files, with the columns of each row sorted and unique.

    The number of rows and values together is at most `max_cells`. Raises InvalidRequest at a wrong value, or
    ValueError.
    """
    try:
        with BoundedReads(path) as file, zipfile.ZipFile(file) as archive, ExitStack() as files:
            members = open_members(archive, files)
            reader = CsrReader(pointer, members, read_shape(members["shape"]), max_cells)
            return stage_rows(reader, staging)
    except UNREADABLE as error:
        raise ValueError(f"is not a readable archive of scipy.sparse.save_npz: {error}") from None


def open_members(archive: zipfile.ZipFile, files: ExitStack) -> dict[str, Member]:
    """Open the arrays of a sparse matrix by name. Raises ValueError for any other archive."""
    listed = archive.infolist()
    names = {member.filename for member in listed}
    if "format.npy" not in names:
        raise ValueError("is not a sparse matrix: save one with scipy.sparse.save_npz(file, matrix.tocsr())")
    for member in listed:
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{member.filename[:64]!r} is compressed as scipy.sparse.save_npz does not")
    check_format(Member("format.npy", files.enter_context(archive.open("format.npy"))))
    wrong = (names ^ set(MEMBERS)) - OPTIONAL_MEMBERS
    if wrong or len(listed) > len(names):
        what = f"{min(wrong)[:64]!r} is missing or unknown" if wrong else "one occurs twice"
        raise ValueError(f"must have the members that scipy.sparse.save_npz writes: {what}")
    return {
        name.removesuffix(".npy"): Member(name, files.enter_context(archive.open(name)))
        for name in MEMBERS
        if name != "format.npy"
    }


def check_format(member: Member) -> None:
    """Raise ValueError unless the format of the matrix is CSR."""
    dtype, shape = member.header.dtype, member.header.shape
    if dtype.kind not in "SU" or shape not in ((), (1,)) or dtype.itemsize > MAX_FORMAT_BYTES:
        raise ValueError("has an unreadable format.npy")
    characters = member.take(1).view(np.uint8 if dtype.kind == "S" else np.uint32).tolist()
    if characters != list(b"csr"):
        name = "".join(chr(c) for c in characters if 97 <= c <= 122)
        raise ValueError(f"is a sparse matrix in the format {name!r}; send .tocsr()")


def read_shape(member: Member) -> tuple[int, int]:
    """Return the number of rows and columns. Raises ValueError."""
    if member.header.dtype.kind not in "iu" or member.header.shape != (2,):
        raise ValueError("has a shape.npy that is not two integers")
    rows, columns = member.take(2).tolist()
    if rows < 1 or columns < 1:
        raise ValueError(f"has shape ({rows}, {columns}); it must have rows and columns")
    if columns > MAX_COLUMNS:
        raise ValueError(f"has {columns} columns; {MAX_COLUMNS} are allowed")
    return rows, columns


class CsrReader:
    """Reads and checks the three arrays of CSR together, some rows at a time; `missing` points to the first NaN."""

    def __init__(self, pointer: str, members: Mapping[str, Member], shape: tuple[int, int], max_cells: int) -> None:
        self.pointer = pointer
        self.missing: str | None = None
        self.n_rows, self.n_columns = shape
        self.data, self.indices, self.indptr = (members[name] for name in SPARSE)
        for member, kinds in ((self.data, "fiub"), (self.indices, "i"), (self.indptr, "i")):
            if member.header.dtype.kind not in kinds or len(member.header.shape) != 1:
                raise ValueError(f"{member.name} holds {member.header.dtype} of {len(member.header.shape)} dimensions")
        if self.indptr.n_left != self.n_rows + 1 or self.indices.n_left != self.data.n_left:
            raise ValueError("has arrays of inconsistent lengths: indptr must have one entry more than there are rows")
        if self.n_rows + self.data.n_left > max_cells:
            problem = f"has {self.n_rows} rows and {self.data.n_left} values; AQ_MAX_POOL_CELLS allows {max_cells}"
            raise ValueError(problem)
        if self.indptr.take(1)[0] != 0:
            raise ValueError("has an indptr that does not start at 0")

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the staged values: float16 and booleans are widened to types that scipy and models support."""
        dtype = self.data.header.dtype.newbyteorder("=")
        if dtype == np.bool_:
            return np.dtype(np.uint8)
        return np.dtype(np.float32) if dtype == np.float16 else dtype

    @property
    def index_dtype(self) -> np.dtype[Any]:
        """Dtype of indices and indptr, which must be the same for scipy."""
        largest = max(self.data.n_left, self.n_columns)
        return np.dtype(np.int32 if largest <= np.iinfo(np.int32).max else np.int64)

    def blocks(self) -> Iterator[Block]:
        """Yield the rows. Raises ValueError, or InvalidRequest at a wrong value."""
        row, last = 0, 0
        while row < self.n_rows:
            ends = self.indptr.take(min(BLOCK_ROWS, self.n_rows - row)).astype(np.int64)
            lengths = np.diff(ends, prepend=last)
            self._check_lengths(lengths, row)
            last = int(ends[-1])
            for some in runs(lengths):
                yield self._block(some, row)
                row += len(some)
        for member in (self.data, self.indices, self.indptr):
            member.check_end()

    def _check_lengths(self, lengths: NDArray[np.int64], row: int) -> None:
        wrong = np.flatnonzero(lengths < 0)
        if len(wrong):
            raise ValueError(f"has an indptr that at row {row + int(wrong[0])} decreases")

    def _block(self, lengths: NDArray[np.int64], row: int) -> Block:
        most = max(BLOCK_VALUES, self.n_columns)
        block = self._read(np.minimum(lengths, most), row)
        # A row with repeated columns may be too long for memory; it is then the only one of its block.
        for n_read in range(most, int(lengths[0]), most):
            block = merge_repeated(
                join_rows(block, self._read(np.minimum(lengths - n_read, most), row)), self.n_columns
            )
        found = first_missing(block.values, lambda at: f"{self.pointer}/{row + block.row_of(at)}/{block.columns[at]}")
        self.missing = self.missing or found
        return block

    def _read(self, lengths: NDArray[np.int64], row: int) -> Block:
        count = int(lengths.sum())
        columns = self.indices.take(count).astype(np.int64)
        block = Block(lengths, columns, self.data.take(count).astype(self.dtype, copy=False))
        wrong = np.flatnonzero((columns < 0) | (columns >= self.n_columns))
        if len(wrong):
            at = int(wrong[0])
            problem = f"has column {columns[at]} in row {row + block.row_of(at)}"
            raise ValueError(f"{problem}; there are {self.n_columns} columns")
        return merge_repeated(block, self.n_columns)


def runs(lengths: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Split rows into runs of at most BLOCK_VALUES values, or of one row."""
    ends = np.cumsum(lengths)
    start = 0
    while start < len(lengths):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + BLOCK_VALUES, side="right")))
        yield lengths[start:stop]
        start = stop


def join_rows(block: Block, more: Block) -> Block:
    """Return the rows of two blocks of one row as one row."""
    columns, values = np.r_[block.columns, more.columns], np.r_[block.values, more.values]
    return Block(block.lengths + more.lengths, columns, values)


def merge_repeated(block: Block, n_columns: int) -> Block:
    """Return rows with sorted, unique columns: repeated ones are summed. Raises ValueError."""
    rows = np.repeat(np.arange(len(block.lengths)), block.lengths)
    cells = rows * n_columns + block.columns
    if (cells[1:] > cells[:-1]).all():
        return block
    order = np.argsort(cells, kind="stable")
    cells, values = cells[order], block.values[order]
    first = np.flatnonzero(np.diff(cells, prepend=-1))
    if len(first) < len(cells):
        values = sum_runs(values, first)
        cells = cells[first]
    lengths = np.bincount(cells // n_columns, minlength=len(block.lengths))
    return Block(lengths, cells % n_columns, values)


def sum_runs(values: NDArray[Any], first: NDArray[np.int64]) -> NDArray[Any]:
    """Return the sums of the values from each position in `first` to the next. Raises ValueError on overflow."""
    with np.errstate(over="ignore", invalid="ignore"):
        added = np.add.reduceat(values, first, dtype=values.dtype)
    if values.dtype.kind != "f":
        limits, exact = np.iinfo(values.dtype), np.add.reduceat(values.astype(np.float64), first)
        if (exact < float(limits.min)).any() or (exact >= float(limits.max) + 1).any():
            raise ValueError(f"has several values for a cell, whose sum does not fit {values.dtype}")
    return added


def stage_rows(reader: CsrReader, staging: Staging) -> StagedRows:
    """Write the rows to staged files."""
    dtypes = {"data": reader.dtype, "indices": reader.index_dtype, "indptr": reader.index_dtype}
    arrays = {name: ArraySpool(staging, dtype) for name, dtype in dtypes.items()}
    try:
        n_values = 0
        arrays["indptr"].write(np.zeros(1))
        for block in reader.blocks():
            arrays["data"].write(block.values)
            arrays["indices"].write(block.columns)
            arrays["indptr"].write(n_values + np.cumsum(block.lengths))
            n_values += len(block.values)
        lengths = {"data": n_values, "indices": n_values, "indptr": reader.n_rows + 1}
        files = {name: array.close((lengths[name],)) for name, array in arrays.items()}
        return StagedRows(files, reader.n_rows, reader.n_columns, missing=reader.missing)
    finally:
        for array in arrays.values():
            array.abandon()
