"""Files on their way into a project."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.domain.sample_ids import SampleIds
from service.errors import StoreFull
from service.learning.pool import Matrix, Rows, SparseRows, count_cells
from service.store.files import MatrixWriter, StagedFile, convert_disk_errors, load, write_pickle

DENSE = ("rows",)
SPARSE = ("data", "indices", "indptr")
"""The arrays of rows: one matrix, or the three arrays of `SparseRows`."""

COPY_CELLS = 2**20
"""How many numbers are copied at a time."""

Run = tuple[int, int, int]
"""Rows of the first or the second of two arrays (0 or 1), from one row to another."""


@dataclass(frozen=True, slots=True)
class StagedRows:
    """A checked matrix of features in staged files: one for each name of DENSE or SPARSE.

    `names` are those of the columns, if they have any. `index_names` are those of a pandas index, which is not in the
    matrix.
    `names` are those of the columns, if they have any. `missing` points to the first missing value (NaN), None without.
    """

    files: Mapping[str, StagedFile]
    n_rows: int
    n_columns: int
    names: tuple[str, ...] | None = None
    index_names: tuple[str, ...] = ()
    missing: str | None = None

    @property
    def n_cells(self) -> int:
        """The number of stored values; an empty sparse row counts as one."""
        return count_cells(self.open())

    @property
    def is_sparse(self) -> bool:
        """Whether the rows are stored as CSR."""
        return len(self.files) == len(SPARSE)

    def open(self) -> Rows:
        """Map the rows."""
        return open_rows({name: file.path for name, file in self.files.items()}, self.n_columns)


@dataclass(frozen=True, slots=True)
class StagedArray:
    """A checked array of any shape in a staged file, `transposed` if it came in Fortran order.

    `missing` points to the first NaN, None without.
    """

    path: Path
    transposed: bool
    missing: str | None = None

    def open(self) -> Matrix:
        """Map the array."""
        array: Matrix = load(self.path, mapped=True)
        return array.T if self.transposed else array


class Staging:
    """A request's own directory for files that no state names yet; it is removed at the end of the request.

    Unless it is `durable`, no file is synced to disk.
    """

    def __init__(self, path: Path, *, durable: bool = True) -> None:
        self.path = path
        self.durable = durable
        self._names = 0

    def check_room(self, n_bytes: int) -> None:
        """Raise StoreFull if `n_bytes` would not fit on the disk."""
        there = os.statvfs(self.path)
        if (n_free := there.f_bavail * there.f_frsize) < n_bytes:
            raise StoreFull(f"{n_bytes} bytes were announced, and {n_free} are free in the data directory")

    def new_path(self) -> Path:
        """Return an unused path in this directory."""
        self._names += 1
        return self.path / f"{self._names:06d}.joblib"

    def array_writer(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> MatrixWriter:
        """Return a writer for an array of a known shape, in C order."""
        with convert_disk_errors():
            return MatrixWriter(self.new_path(), dtype, shape, durable=self.durable)

    def array(self, array: Matrix) -> StagedFile:
        """Write an array from memory."""
        with self.array_writer(array.dtype, array.shape) as writer:
            writer.write(np.ascontiguousarray(array).data.cast("B"))
        return writer.staged

    def rows(self, rows: Rows) -> StagedRows:
        """Write rows from memory."""
        if isinstance(rows, SparseRows):
            arrays = {"data": rows.data, "indices": rows.indices, "indptr": rows.indptr}
            return StagedRows({name: self.array(array) for name, array in arrays.items()}, *rows.shape)
        return StagedRows({"rows": self.array(rows)}, *rows.shape)

    def with_rows(self, rows: Rows, positions: NDArray[np.int64], other: Rows, dtype: np.dtype[Any]) -> StagedRows:
        """Write rows of one kind with other ones at some positions, given in order, a block at a time."""
        runs = replaced_runs(positions, len(rows))
        if not isinstance(rows, SparseRows) or not isinstance(other, SparseRows):
            if isinstance(rows, SparseRows) or isinstance(other, SparseRows):
                raise TypeError("rows are all dense or all sparse")
            return StagedRows({"rows": self._write_runs((rows, other), runs, dtype, rows.shape)}, *rows.shape)
        lengths = np.diff(rows.indptr).astype(np.int64)
        lengths[positions] = np.diff(other.indptr)
        starts = np.append(0, np.cumsum(lengths))
        of_values = [
            (nth, int(source.indptr[first]), int(source.indptr[last]))
            for nth, first, last in runs
            for source in ((rows, other)[nth],)
        ]
        index_type = np.result_type(rows.indices, other.indices, np.min_scalar_type(-int(starts[-1])))
        sources, shape = (rows.indices, other.indices), (int(starts[-1]),)
        files = {
            "data": self._write_runs((rows.data, other.data), of_values, dtype, shape),
            "indices": self._write_runs(sources, of_values, index_type, shape),
            "indptr": self.array(starts.astype(index_type)),
        }
        return StagedRows(files, *rows.shape)

    def _write_runs(
        self, sources: tuple[Matrix, Matrix], runs: Sequence[Run], dtype: np.dtype[Any], shape: tuple[int, ...]
    ) -> StagedFile:
        """Write runs of two arrays, one after the other."""
        with self.array_writer(dtype, shape) as writer:
            for source, first, last in runs:
                step = max(1, COPY_CELLS // math.prod(shape[1:]))
                for begin in range(first, last, step):
                    block = np.ascontiguousarray(sources[source][begin : min(last, begin + step)], dtype)
                    writer.write(block.reshape(-1).view(np.uint8).data)
        return writer.staged

    def reorder(self, rows: StagedRows, order: Sequence[int]) -> StagedRows:
        """Write the columns of dense rows in another order, some rows at a time."""
        matrix = load(rows.files["rows"].path, mapped=True)
        step = max(1, COPY_CELLS // rows.n_columns)
        with self.array_writer(matrix.dtype, matrix.shape) as writer:
            for begin in range(0, rows.n_rows, step):
                block = np.ascontiguousarray(matrix[begin : begin + step, order])
                writer.write(block.reshape(-1).view(np.uint8).data)
        names = rows.names and tuple(rows.names[position] for position in order)
        return replace(rows, files={"rows": writer.staged}, names=names)

    def dump(self, value: Any) -> StagedFile:
        """Write a value that is read as a whole."""
        return write_pickle(self.new_path(), value)

    def ids(self, ids: SampleIds) -> StagedFile:
        """Write the samples' ids."""
        return self.array(ids.pack())


def replaced_runs(positions: NDArray[np.int64], n_rows: int) -> list[Run]:
    """Return the runs of n rows and of others at some positions, given in order, which replace them."""
    runs: list[Run] = []
    begin = 0
    for nth, position in enumerate(positions.tolist()):
        runs += [(0, begin, position), (1, nth, nth + 1)]
        begin = position + 1
    return [*runs, (0, begin, n_rows)]


def open_rows(files: Mapping[str, Path], n_columns: int) -> Rows:
    """Map the rows in `files` (array -> path). Raises StoreDamaged, or FileNotFoundError."""
    arrays = {name: load(path, mapped=True) for name, path in files.items()}
    if arrays.keys() == set(DENSE):
        rows: Matrix = arrays["rows"]
        return rows
    return SparseRows(**arrays, n_columns=n_columns)
