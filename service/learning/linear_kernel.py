"""The compiled search for rows with close logits. Importing this module needs the extra 'compiled'.

Four rows and two classes at a time stay in registers, from the features to the gap between the two largest logits.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit, types

from service.learning.jit import compiled, read_only
from service.learning.lanes import (
    LANES,
    add,
    add_product,
    first_lane,
    greater,
    lesser,
    load,
    not_greater,
    spread,
    subtract,
    sums,
    swap_halves,
)

float32, int64, uint64 = types.float32, types.int64, types.uint64

ZERO, ONE, LANE, ROWS = np.uint64(0), np.uint64(1), np.uint64(LANES), np.uint64(4)
BIT, OF_ROWS = np.uint8(1), np.uint8(15)
NOTHING, LOWEST = np.float32(0), np.float32(-np.inf)


@njit(inline="always")
def norm_of(X, start, step, width):  # type: ignore[no-untyped-def]
    """Return the norm of four rows as one vector; a bound on that of each."""
    a = b = c = d = spread(NOTHING)
    for column in range(ZERO, width, LANE):
        x = load(X, start + column)
        a = add_product(x, x, a)
        x = load(X, start + step + column)
        b = add_product(x, x, b)
        x = load(X, start + step + step + column)
        c = add_product(x, x, c)
        x = load(X, start + step + step + step + column)
        d = add_product(x, x, d)
    total = add(add(a, b), add(c, d))
    return math.sqrt(first_lane(sums(total, total, total, total, total, total, total, total)))


@njit(inline="always")
def gaps_of(X, start, step, weights, intercepts, width):  # type: ignore[no-untyped-def]
    """Return the gap between the two largest logits of four rows, twice."""
    first = second = spread(LOWEST)
    for two in range(np.uint64(intercepts.shape[0]) // LANE):
        a = b = c = d = e = f = g = h = spread(NOTHING)
        one = two * (width + width)
        other = one + width
        for column in range(ZERO, width, LANE):
            v, w = load(weights, one + column), load(weights, other + column)
            x = load(X, start + column)
            a, e = add_product(x, v, a), add_product(x, w, e)
            x = load(X, start + step + column)
            b, f = add_product(x, v, b), add_product(x, w, f)
            x = load(X, start + step + step + column)
            c, g = add_product(x, v, c), add_product(x, w, g)
            x = load(X, start + step + step + step + column)
            d, h = add_product(x, v, d), add_product(x, w, h)
        z = add(sums(a, b, c, d, e, f, g, h), load(intercepts, two * LANE))
        second = greater(second, lesser(first, z))
        first = greater(first, z)
    other = swap_halves(first)
    second = greater(greater(second, swap_halves(second)), lesser(first, other))
    return subtract(greater(first, other), second)


@compiled(uint64(read_only(float32, 2), read_only(float32, 2), read_only(float32, 1), float32, float32, int64[::1]))
def find_close(X, weights, intercepts, reach, slope, found):  # type: ignore[no-untyped-def]
    """Write the numbers of rows (n, d) whose gap is not above `reach` + `slope` times their norm; return how many.

    Rows count in fours, n being a multiple of that, with a common norm, so it may be more. `weights` (c, w), c being
    even, are filled up with zeros to a multiple of LANES; `intercepts` (c / 2, 2, 4) have that of each class, -inf for
    a class more. Rows are read up to w: at zero weights, the begin of the next ones, which must be there.
    """
    step, width, n_found = np.uint64(X.shape[1]), np.uint64(weights.shape[1]), ZERO
    flat, weights = X.reshape(X.size), weights.reshape(weights.size)
    for row in range(ZERO, np.uint64(X.shape[0]), ROWS):
        limit = np.float32(reach + slope * norm_of(flat, row * step, step, width))
        close = not_greater(gaps_of(flat, row * step, step, weights, intercepts, width), spread(limit)) & OF_ROWS
        lane = ZERO
        while close:
            if close & BIT:
                found[n_found] = row + lane
                n_found += ONE
            close >>= BIT
            lane += ONE
    return n_found
