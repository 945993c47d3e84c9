"""What a strategy is asked, and what it gets to see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.scoring import Classifier, Features

Positions = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """A pool (n, d), possibly mapped and read-only, and what is known of it; indices are sorted and unique.

    `candidates` are the rows that may be answered. `model` is None until one was fitted, which takes two classes.
    """

    X: Features
    candidates: NDArray[np.int64]
    labeled: NDArray[np.int64]
    model: Classifier | None
    n_classes_labeled: int


@dataclass(frozen=True, slots=True, eq=False)
class PoolView:
    """What a set strategy works on. It knows a candidate by its position in `candidates`, not by its pool index."""

    X: Features
    candidates: NDArray[np.int64]
    labeled: NDArray[np.int64]

    def features(self, positions: Positions) -> NDArray[Any]:
        """Return the rows (k, d) of the candidates at these positions (k,), copied into memory."""
        return np.asarray(self.X[self.candidates[positions]])
