"""Files on their way into a project."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from service.domain.sample_ids import SampleIds
from service.errors import StoreFull
from service.learning.pool import Matrix, Rows, SparseRows, count_cells
from service.store.files import MatrixWriter, StagedFile, convert_disk_errors, load, write_joblib

DENSE = ("rows",)
SPARSE = ("data", "indices", "indptr")
"""The arrays of rows: one matrix, or the three arrays of `SparseRows`."""

COPY_CELLS = 2**20
"""How many numbers are copied at a time."""


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
        """Write a value as a joblib file."""
        return write_joblib(self.new_path(), value)

    def ids(self, ids: SampleIds) -> StagedFile:
        """Write the samples' ids."""
        return self.array(ids.pack())


def open_rows(files: Mapping[str, Path], n_columns: int) -> Rows:
    """Map the rows in `files` (array -> path). Raises StoreDamaged, or FileNotFoundError."""
    arrays = {name: load(path, mapped=True) for name, path in files.items()}
    if arrays.keys() == set(DENSE):
        rows: Matrix = arrays["rows"]
        return rows
    return SparseRows(**arrays, n_columns=n_columns)
