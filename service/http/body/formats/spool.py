"""Sinks: they take the bytes of a part, and return the value of the field at the end."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from werkzeug.exceptions import RequestEntityTooLarge

from service.errors import InvalidRequest
from service.store.files import COPY_BYTES, StagedFile, convert_disk_errors
from service.store.staging import Staging


class Sink(Protocol):
    """Takes the bytes of a part as they arrive."""

    def write(self, data: bytes) -> None:
        """Write the next bytes."""

    def close(self) -> Any:
        """Return the value of the field, after the last bytes."""

    def abandon(self) -> None:
        """Close the files of an unfinished part."""


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


class FileSink:
    """A sink for a format that is read when it is complete.

    `read` raises ValueError for an error of the whole part, or InvalidRequest at a place in it. `limit` is the largest
    number of bytes.
    """

    def __init__(self, pointer: str, path: Path, read: Callable[[Path], Any], limit: int | None = None) -> None:
        self.pointer = pointer
        self.limit = limit
        self._read = read
        self._spool = SpoolFile(path)

    def write(self, data: bytes) -> None:
        """Write the next bytes."""
        self._spool.write(data)
        if self.limit is not None and self._spool.n_bytes > self.limit:
            problem = (
                f"part {self.pointer[1:]!r} has more than the {self.limit} bytes that AQ_MAX_JSON_BYTES leaves for it"
            )
            raise RequestEntityTooLarge(f"{problem}; send it as application/x-npy")

    @property
    def n_bytes_of_text(self) -> int:
        """Bytes written so far, if they are limited because they are parsed as a whole."""
        return 0 if self.limit is None else self._spool.n_bytes

    def close(self) -> Any:
        """Read the file, and remove it."""
        path = self._spool.close()
        try:
            return self._read(path)
        except ValueError as error:
            raise InvalidRequest.at(self.pointer, str(error)) from None
        finally:
            path.unlink()

    def abandon(self) -> None:
        """Close the file of an unfinished part."""
        self._spool.abandon()


class ArraySpool:
    """A staged array whose length is known only at the end."""

    def __init__(self, staging: Staging, dtype: np.dtype[Any]) -> None:
        self.staging = staging
        self.dtype = dtype
        self._spool = SpoolFile(staging.new_path())

    def write(self, array: NDArray[Any]) -> None:
        """Append numbers, converted to the dtype of the array."""
        self._spool.write(np.ascontiguousarray(array, self.dtype).reshape(-1).view(np.uint8).data)

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


def check_finite(pointer: str, block: NDArray[Any], first_row: int) -> None:
    """Raise InvalidRequest at the first cell of a block of rows (k, d) that is not finite."""
    if block.dtype.kind == "f" and not np.isfinite(block).all():
        row, column = divmod(int(np.argmin(np.isfinite(block))), block.shape[1])
        raise InvalidRequest.at(f"{pointer}/{first_row + row}/{column}", "must be a finite number")
