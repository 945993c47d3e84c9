"""What a strategy is asked, and what it gets to see."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.pool import Features, Pool
from service.scoring import (
    THREADS,
    Backend,
    Classifier,
    Committee,
    Memory,
    Probabilities,
    Scorer,
    Scores,
    predict_probabilities,
    score_pool,
)

Positions = NDArray[np.int64]
Codes = NDArray[np.integer[Any]]
Learn = Callable[[Features, Codes], Classifier]
"""Trains a model on rows (l, d) and their class codes (l,). Raises FitFailed."""


@dataclass(frozen=True, eq=False)
class Question:
    """A pool (n, d) and what is known of it.

    `is_open` (n,) tells which rows may be answered; `labeled` are the indices of those that have a label, sorted.
    `model` is None until one was fitted, which takes two classes. `memory` holds the scores it gave before. `committee`
    gives one of so many members beside the model; without it the model is its own only member. `codes` (l,) are the
    classes of the labelled rows, and `learn` trains another model like this one; either is None where nobody knows it.
    """

    pool: Pool
    is_open: NDArray[np.bool_]
    labeled: NDArray[np.int64]
    model: Classifier | None
    n_classes_labeled: int
    memory: Memory | None = None
    backend: Backend = THREADS
    committee: Callable[[int], Committee] | None = None
    codes: Codes | None = None
    learn: Learn | None = None

    @cached_property
    def n_open(self) -> int:
        """How many rows may be answered."""
        return int(np.count_nonzero(self.is_open))

    @cached_property
    def candidates(self) -> NDArray[np.int64]:
        """The indices of the rows that may be answered, sorted."""
        return np.flatnonzero(self.is_open)


@dataclass(frozen=True, slots=True, eq=False)
class PoolView:
    """What a set strategy works on. It knows a candidate by its position in `candidates`, not by its pool index.

    `model` gives the probabilities; where a strategy needs them and there is one class so far, it is certain of that.
    """

    pool: Pool
    candidates: NDArray[np.int64]
    labeled: NDArray[np.int64]
    model: Classifier
    is_open: NDArray[np.bool_]
    memory: Memory | None = None
    backend: Backend = THREADS
    codes: Codes | None = None
    learn: Learn | None = None

    def features(self, positions: Positions) -> Features:
        """Return the rows of the candidates at these positions (k,), copied: dense (k, d), or a csr_array."""
        return self.pool.take(self.candidates[positions])

    def labeled_features(self, rows: NDArray[np.intp] | slice = slice(None)) -> Features:
        """Return the rows of the labelled samples, or of some of them, copied into memory."""
        return self.pool.take(self.labeled[rows])

    def probabilities(self, X: Features) -> Probabilities:
        """Return the model's probabilities (k, c) of rows that `features` returned."""
        return predict_probabilities(self.model, X)

    def scores(self, scorer: Scorer) -> Scores:
        """Return a score for each candidate (n,), SCORE_OF_BROKEN without finite probabilities, by one pass."""
        scores = score_pool(self.model, self.pool, scorer, self.is_open, memory=self.memory, backend=self.backend)
        starts = self.pool.starts
        return np.concatenate(
            [
                of_segment[self.is_open[start : start + len(of_segment)]]
                for start, of_segment in zip(starts, scores, strict=False)
            ]
        )
