"""The rows whose two largest logits are close, found in compiled code or without it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.learning.kernels import Kernel
from service.learning.linear_scorer import LinearHead, largest_two
from service.learning.pool import Matrix

LANES, ROWS_AT_ONCE = 8, 4
"""Features and rows that the compiled code takes at a time; the kernel has the same numbers."""

BLOCK_CELLS = 2**12
"""Cells of rows that share a norm: a norm for each row would take twice as long."""

ROOT_OF_TINY = 2.0**-63
"""Root of the smallest normal number of float32."""

LARGEST_NORM = 2e19
"""Norm above which the square of a norm overflows float32, so that a row counts as close."""

KERNEL = Kernel("service.learning.linear_kernel", "find_close")


def norms_of(X: Matrix) -> NDArray[np.float64]:
    """Return upper bounds of the norms (n,) of rows (n, d)."""
    with np.errstate(over="ignore"):
        norms: NDArray[np.float64] = np.sqrt(np.vecdot(X, X), dtype=np.float64)
    # For rounding, and for squares too small for the dtype.
    norms *= 1.1
    norms += X.shape[1] * ROOT_OF_TINY
    return norms


def norms_of_blocks(X: Matrix) -> tuple[NDArray[np.float64], int]:
    """Return upper bounds of the norms in blocks of rows (n, d), and the number of rows of all blocks but the last."""
    n, d = X.shape
    step = max(1, BLOCK_CELLS // d)
    n_whole = n // step * step
    norms = norms_of(X[:n_whole].reshape(-1, step * d))
    if n_whole < n:
        norms = np.append(norms, norms_of(X[n_whole:].reshape(1, -1)))
    return norms, step


@dataclass(frozen=True, slots=True, eq=False)
class CloseRows:
    """The search for rows whose two largest exact logits differ by up to `reach`.

    It allows for the errors of the logits, so it may find some more. `packed` are the kernel's arguments, if it may be
    used.
    """

    head: LinearHead
    reach: float
    packed: tuple[Any, ...] | None

    @classmethod
    def of(cls, head: LinearHead, reach: float) -> CloseRows:
        """Prepare the search under a model's head."""
        return cls(head, reach, pack(head, reach))

    def find(self, X: Matrix) -> NDArray[np.int64]:
        """Return the numbers of the rows among `X` (n, d), sorted."""
        kernel = None if self.packed is None else KERNEL.get(is_worth_it=True)
        if kernel is None or self.packed is None:
            return self._find_plainly(X)
        weights, *numbers = self.packed
        # The kernel may read beyond a row, up to the width of the weights.
        n_rows, d = X.shape
        n_whole = max(0, n_rows - -(-(weights.shape[1] - d) // d)) // ROWS_AT_ONCE * ROWS_AT_ONCE
        found = np.empty(n_rows + ROWS_AT_ONCE, np.int64)
        X = np.require(X, np.float32, ["C", "ALIGNED"])
        n_found = kernel(X[:n_whole], weights, *numbers, found)
        if n_whole < n_rows:
            n_last = n_rows - n_whole
            last = np.zeros((-(-n_last // ROWS_AT_ONCE) * ROWS_AT_ONCE, weights.shape[1]), np.float32)
            last[:n_last, :d] = X[n_whole:]
            others = np.empty(len(last), np.int64)
            others = others[: kernel(last, weights, *numbers, others)]
            others = n_whole + others[others < n_last]
            found[n_found : n_found + len(others)] = others
            n_found += len(others)
        return found[:n_found]

    def _find_plainly(self, X: Matrix) -> NDArray[np.int64]:
        with np.errstate(all="ignore"):
            first, second = largest_two(self.head.logits(X))
            first -= second
            norms, step = norms_of_blocks(X)
            limits = (self.reach + 2 * self.head.errors(norms)).astype(first.dtype)
            return np.flatnonzero(~(first > np.repeat(limits, step)[: len(X)]))


def pack(head: LinearHead, reach: float) -> tuple[Any, ...] | None:
    """Return the kernel's arguments: weights, intercepts, reach, and the error of a gap for a norm of 1.

    They are None for a head that computes in float64, and for one that overflows before the squares of features do.
    """
    d, n_classes = head.weights.shape
    if head.weights.dtype != np.float32 or head.errors.limit < LARGEST_NORM:
        return None
    weights = np.zeros((n_classes + n_classes % 2, -(-d // LANES) * LANES), np.float32)
    weights[:n_classes, :d] = head.weights.T
    intercepts = np.full(len(weights), -np.inf, np.float32)
    intercepts[:n_classes] = head.intercepts
    # A tenth more for the rounding of a norm, and the last term for squares too small for float32.
    slope = 1.1 * 2 * head.errors.slope
    reach = (1 + 1e-6) * (reach + 2 * head.errors.at_zero) + slope * weights.shape[1] * 1e-18
    return weights, np.repeat(intercepts, ROWS_AT_ONCE), np.float32(reach), np.float32(slope)
