"""Where the bytes of a part go: into a sink, which gives the field's value when all of them have come."""

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
    """Takes the bytes of a part as they come."""

    def write(self, data: bytes) -> None:
        """Take the next bytes."""

    def close(self) -> Any:
        """Return the field's value, now that all bytes have come."""

    def abandon(self) -> None:
        """Close the files of a part that will not be finished."""


class SpoolFile:
    """Takes bytes into a file that nothing names: those of a part that has to be seen whole, say."""

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
        """Return the file, now that all bytes have come."""
        with convert_disk_errors():
            self._file.close()
        return self.path

    def abandon(self) -> None:
        """Close the file of a part that will not be finished; nobody misses what it lacks."""
        with suppress(OSError):
            self._file.close()


class FileSink:
    """A sink for a format that is read when all of it is there.

    `read` says with ValueError what is wrong with the whole, and with InvalidRequest where. More than `limit` bytes
    are not spooled.
    """

    def __init__(self, pointer: str, path: Path, read: Callable[[Path], Any], limit: int | None = None) -> None:
        self.pointer = pointer
        self.limit = limit
        self._read = read
        self._spool = SpoolFile(path)

    def write(self, data: bytes) -> None:
        """Take the next bytes."""
        self._spool.write(data)
        if self.limit is not None and self._spool.n_bytes > self.limit:
            problem = f"makes the text more than AQ_MAX_JSON_BYTES allows, by which {self.limit} bytes are left for it"
            raise RequestEntityTooLarge(f"part {self.pointer[1:]!r} {problem}; send it as application/x-npy")

    @property
    def n_bytes_of_text(self) -> int:
        """How much came of what is limited, which is parsed as a whole."""
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
        """Close the file of a part that will not be finished."""
        self._spool.abandon()


class ArraySpool:
    """Takes an array whose length is known only at its end."""

    def __init__(self, staging: Staging, dtype: np.dtype[Any]) -> None:
        self.staging = staging
        self.dtype = dtype
        self._spool = SpoolFile(staging.new_path())

    def write(self, array: NDArray[Any]) -> None:
        """Append numbers, as the dtype of the whole."""
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
        """Close the file of an array that will not be finished."""
        self._spool.abandon()


def check_finite(pointer: str, block: NDArray[Any], first_row: int) -> None:
    """Raise InvalidRequest at the first cell of some rows (k, d) that is not a finite number."""
    if block.dtype.kind == "f" and not np.isfinite(block).all():
        row, column = divmod(int(np.argmin(np.isfinite(block))), block.shape[1])
        raise InvalidRequest.at(f"{pointer}/{first_row + row}/{column}", "must be a finite number")
