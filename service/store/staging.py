"""Where files lie on their way into a project."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from service.ids import SampleIds
from service.store.files import Matrix, MatrixWriter, disk, load, write_joblib


class Staging:
    """A request's own directory, for files that no state names yet. It vanishes with the request."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._names = 0

    def new_path(self) -> Path:
        """Return a path that nothing else in this directory has."""
        self._names += 1
        return self.path / f"{self._names:06d}.joblib"

    def matrix_writer(self, dtype: np.dtype[Any], shape: tuple[int, int]) -> MatrixWriter:
        """Start a matrix of `shape` rows and columns."""
        with disk():
            return MatrixWriter(self.new_path(), dtype, shape)

    def matrix(self, array: Matrix) -> Path:
        """Write a matrix that is in memory."""
        with self.matrix_writer(array.dtype, array.shape) as writer:
            writer.write(np.ascontiguousarray(array).data.cast("B"))
        return writer.path

    def open_matrix(self, path: Path) -> Matrix:
        """Map a staged matrix."""
        matrix: Matrix = load(path, mapped=True)
        return matrix

    def dump(self, value: Any) -> Path:
        """Write any value of ours."""
        path = self.new_path()
        write_joblib(path, value)
        return path

    def ids(self, ids: SampleIds) -> Path:
        """Write the samples' names."""
        return self.dump({"text": ids.text, "starts": ids.starts, "order": ids.order})
