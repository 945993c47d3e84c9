"""How the service compiles functions with numba. Importing this module needs the extra 'compiled'."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit, types


def compiled(signature: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Compile a function for one signature, and keep the result on disk if there is a place for it."""

    def compile_(function: Callable[..., Any]) -> Callable[..., Any]:
        try:
            kept: Callable[..., Any] = njit(signature, nogil=True, cache=True)(function)
        except RuntimeError:  # neither the directory of this file nor that of the user can be written
            return njit(signature, nogil=True)(function)  # type: ignore[no-any-return]
        return kept

    return compile_


def read_only(dtype: Any, n_dimensions: int) -> Any:
    """Return the type of arrays that a compiled function reads."""
    return types.Array(dtype, n_dimensions, "C", readonly=True)
