"""SplitMix64: a deterministic hash used as a random number."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
"""Multiples of this odd number, modulo 2**64, visit every number before one repeats."""

MASK = 2**64 - 1


def mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return a hash of each number: every bit depends on every bit of `z` (Steele et al. 2014)."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)  # all modulo 2**64
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def mix_one(z: int) -> int:
    """Return the hash of one number, as `mix` does, modulo 2**64."""
    z &= MASK
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & MASK
    return z ^ (z >> 31)
