"""Valid and invalid .npy files."""

from __future__ import annotations

import struct
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray


def npy(array: NDArray[Any]) -> bytes:
    """Return an array as a .npy file; object arrays are pickled."""
    file = BytesIO()
    np.save(file, array)
    return file.getvalue()


def npy_with_header(
    header: str, data: bytes = b"", version: tuple[int, int] = (1, 0), length: int | None = None
) -> bytes:
    """Return a .npy file with any header."""
    text = header.encode("latin-1")
    size = struct.pack("<H" if version == (1, 0) else "<I", len(text) if length is None else length)
    return b"\x93NUMPY" + bytes(version) + size + text + data
