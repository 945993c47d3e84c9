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


NOT_FINITE = "must be a finite number"


def first_missing(numbers: NDArray[Any], pointer_of: Callable[[int], str]) -> str | None:
    """Return the pointer to the first NaN among some numbers, None without any.

    Raises InvalidRequest at the first infinite one. `pointer_of` takes a position in the flat array.
    """
    if numbers.dtype.kind != "f" or np.isfinite(numbers).all():
        return None
    is_infinite = np.isinf(numbers)
    if is_infinite.any():
        raise InvalidRequest.at(pointer_of(int(np.argmax(is_infinite))), NOT_FINITE)
    return pointer_of(int(np.argmax(np.isnan(numbers))))


def first_missing_in_rows(block: NDArray[Any], pointer: str, first_row: int, below: str = "") -> str | None:
    """Do the same for a block of rows (k, d); the pointer to row i is `pointer`/i followed by `below`."""

    def pointer_of(position: int) -> str:
        row, column = divmod(position, block.shape[1])
        return f"{pointer}/{first_row + row}{below}/{column}"

    return first_missing(block, pointer_of)
