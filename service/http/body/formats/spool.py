"""Sinks: they take the bytes of a part, and return the value of the field at the end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from werkzeug.exceptions import RequestEntityTooLarge

from service.errors import InvalidRequest
from service.store.spool import SpoolFile


class Sink(Protocol):
    """Takes the bytes of a part as they arrive."""

    def write(self, data: bytes) -> None:
        """Write the next bytes."""

    def close(self) -> Any:
        """Return the value of the field, after the last bytes."""

    def abandon(self) -> None:
        """Close the files of an unfinished part."""


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


def check_finite(pointer: str, block: NDArray[Any], first_row: int) -> None:
    """Raise InvalidRequest at the first cell of a block of rows (k, d) that is not finite."""
    if block.dtype.kind == "f" and not np.isfinite(block).all():
        row, column = divmod(int(np.argmin(np.isfinite(block))), block.shape[1])
        raise InvalidRequest.at(f"{pointer}/{first_row + row}/{column}", "must be a finite number")
