"""The compiled pass of rows through packed trees. Importing this module needs the extra 'compiled'.

Rows walk down a tree in groups: the steps of one row wait for each other, those of a group do not. No step has a
branch, which would be predicted wrongly half of the time.
"""

from __future__ import annotations

import numpy as np
from numba import types

from service.learning.jit import compiled, read_only

float64, int32, uint32, uint64 = types.float64, types.int32, types.uint32, types.uint64

LANES = 16
"""Rows of a group."""

ZERO, ONE, LANE, SIGN = np.uint64(0), np.uint64(1), np.uint64(LANES), np.int32(-(2**31))


@compiled(types.boolean(read_only(int32, 2), uint64, uint64, uint32[:, ::1]))
def fill_keys(X, first, n_rows, keys):  # type: ignore[no-untyped-def]
    """Write rows of float32, read as int32, as unsigned integers of the same order; return whether none is NaN.

    A group's row of `keys` has feature after feature, each of all its lanes.
    """
    for row in range(n_rows):
        group, lane = row // LANE, row % LANE
        for feature in range(np.uint64(X.shape[1])):
            bits = X[first + row, feature]
            if (bits & np.int32(0x7FFFFFFF)) > np.int32(0x7F800000):
                return False
            keys[group, feature * LANE + lane] = np.uint32(bits ^ ((bits >> np.int32(31)) | SIGN))
    return True


@compiled(types.void(read_only(uint32, 1), read_only(uint32, 1), uint64, uint64, uint32[:, ::1], uint64, uint32[::1]))
def find_leaves(limits, links, n_steps, shift, keys, n_rows, at):  # type: ignore[no-untyped-def]
    """Write the leaf of each row into `at`: `n_steps` steps without a look whether all have arrived, then with one.

    A leaf leads to itself: its feature is the one after the last, of which all keys are 0.
    """
    to_left = (ONE << shift) - ONE
    for group in range((n_rows + LANE - ONE) // LANE):
        of_group, here = keys[group], at[group * LANE :]
        for lane in range(LANE):
            here[lane] = 0
        for _ in range(n_steps):
            for lane in range(LANE):
                node = np.uint64(here[lane])
                link = np.uint64(links[node])
                here[lane] = (link & to_left) + np.uint64(limits[node] < of_group[(link >> shift) + lane])
        moved = ONE
        while moved:
            moved = ZERO
            for lane in range(LANE):
                node = np.uint64(here[lane])
                link = np.uint64(links[node])
                below = (link & to_left) + np.uint64(limits[node] < of_group[(link >> shift) + lane])
                moved |= node ^ below
                here[lane] = below


@compiled(
    types.boolean(
        read_only(int32, 2),
        read_only(uint32, 1),
        read_only(uint32, 1),
        read_only(uint64, 1),
        read_only(uint64, 1),
        uint64,
        read_only(uint32, 1),
        read_only(float64, 1),
        uint64,
        float64[:, :, ::1],
    )
)
def add_leaves(X, limits, links, roots, steps, shift, classes, values, block, out):  # type: ignore[no-untyped-def]
    """Add the values of the leaves of rows to `out` (1, n, c), tree after tree, or to that of each tree (m, n, c).

    `X` (n, d) are float32, read as int32. Returns False, having added to some rows, if a feature is NaN.
    """
    n = np.uint64(X.shape[0])
    keys = np.zeros((block // LANE, np.uint64(X.shape[1] + 1) * LANE), np.uint32)
    at = np.empty(block, np.uint32)
    first = ZERO
    while first < n:
        n_rows = min(block, n - first)
        if not fill_keys(X, first, n_rows, keys):
            return False
        for tree in range(np.uint64(len(roots))):
            of_tree, links_of_tree = limits[roots[tree] :], links[roots[tree] :]
            find_leaves(of_tree, links_of_tree, steps[tree], shift, keys, n_rows, at)
            total = out[tree if out.shape[0] > 1 else ZERO]
            for row in range(n_rows):
                entry = np.uint64(of_tree[np.uint64(at[row])])
                last = ZERO
                while not last:
                    column = np.uint64(classes[entry])
                    last = column & ONE
                    total[first + row, column >> ONE] += values[entry]
                    entry += ONE
        first += block
    return True
