"""Files and arrays whose length is known only at the end."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.store.files import COPY_BYTES, StagedFile, convert_disk_errors
from service.store.staging import Staging


class SpoolFile:
    """A new file in the staging directory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.n_bytes = 0
        with convert_disk_errors():
            self._file = path.open("xb")

    def write(self, data: bytes | memoryview) -> None:
        """Append the next bytes."""
        self.n_bytes += len(data)
        with convert_disk_errors():
            self._file.write(data)

    def close(self) -> Path:
        """Close the file, and return its path."""
        with convert_disk_errors():
            self._file.close()
        return self.path

    def abandon(self) -> None:
        """Close the file of an unfinished part, ignoring errors."""
        with suppress(OSError):
            self._file.close()


class ArraySpool:
    """A staged array whose length is known only at the end."""

    def __init__(self, staging: Staging, dtype: np.dtype[Any]) -> None:
        self.staging = staging
        self.dtype = dtype
        self._spool = SpoolFile(staging.new_path())

    def write(self, array: NDArray[Any]) -> None:
        """Append numbers, converted to the dtype of the array."""
        self._spool.write(np.ascontiguousarray(array, self.dtype).reshape(-1).view(np.uint8).data)

    def widened(self, dtype: np.dtype[Any]) -> ArraySpool:
        """Return the array in a dtype that also holds numbers of `dtype`; if that is another one, a copy."""
        wide = np.result_type(self.dtype, dtype)
        if wide == self.dtype:
            return self
        copy = ArraySpool(self.staging, wide)
        path = self._spool.close()
        with path.open("rb") as file:
            while data := file.read(COPY_BYTES):
                copy.write(np.frombuffer(data, self.dtype))
        path.unlink()
        return copy

    def close(self, shape: tuple[int, ...]) -> StagedFile:
        """Return the staged array."""
        path = self._spool.close()
        with path.open("rb") as file, self.staging.array_writer(self.dtype, shape) as writer:
            while data := file.read(COPY_BYTES):
                writer.write(data)
        path.unlink()
        return writer.staged

    def abandon(self) -> None:
        """Close the file of an unfinished array."""
        self._spool.abandon()
