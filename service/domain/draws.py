"""Samples that queries drew at random with known probabilities: frozen values, and pure functions that add to them.

From these draws and their labels LURE estimates the accuracy of the model on the whole pool (`usecases/lure.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from service.domain.project import now

Indices = NDArray[np.int64]

MAX_CELLS = 2**17
"""Largest number of values of all draws of a pool: 1 MB. The oldest draws are dropped."""


@dataclass(frozen=True, slots=True, eq=False)
class Draw:
    """Samples (b,) of a pool of `n_samples`, drawn one after another among all but `others` (o,), which are sorted.

    `log_q` (b,) are the logarithms of their probabilities given the samples drawn before.
    """

    index: Indices
    log_q: NDArray[np.float64]
    others: Indices
    n_samples: int

    @property
    def n_bytes(self) -> int:
        """Memory used, in bytes."""
        return self.index.nbytes + self.log_q.nbytes + self.others.nbytes


@dataclass(frozen=True, slots=True, eq=False)
class RecordedDraw:
    """The draw of a query. Draws with one seed have the same random numbers.

    `added` and `removed` are the differences between its other samples and those of the draw recorded before it.
    """

    query_id: str
    seed: tuple[int, ...]
    index: Indices
    log_q: NDArray[np.float64]
    n_samples: int
    added: Indices
    removed: Indices

    @property
    def n_cells(self) -> int:
        """The number of its values."""
        return 2 * len(self.index) + len(self.added) + len(self.removed) + len(self.seed)


@dataclass(frozen=True, eq=False)
class Draws:
    """The draws of the pool `pool_id`, in the order of recording, and the other samples (o,) of the last one, sorted.

    `changed_at` grows with each change.
    """

    pool_id: str
    all: tuple[RecordedDraw, ...] = ()
    others: Indices = field(default_factory=lambda: np.empty(0, np.int64))
    changed_at: int = 0

    @property
    def n_bytes(self) -> int:
        """Approximate memory used, in bytes."""
        return self.others.nbytes + sum(8 * draw.n_cells + 1_000 for draw in self.all)

    @cached_property
    def query_ids(self) -> frozenset[str]:
        """The ids of the queries."""
        return frozenset(draw.query_id for draw in self.all)

    def with_draw(self, query_id: str, seed: Sequence[int], draw: Draw) -> Draws:
        """Return these draws with the one of a query. Beyond MAX_CELLS the oldest ones are dropped."""
        added = np.setdiff1d(draw.others, self.others, assume_unique=True)
        removed = np.setdiff1d(self.others, draw.others, assume_unique=True)
        new = RecordedDraw(query_id, tuple(seed), draw.index, draw.log_q, draw.n_samples, added, removed)
        kept = [*self.all, new]
        n_cells = sum(each.n_cells for each in kept)
        while n_cells > MAX_CELLS and len(kept) > 1:
            n_cells -= kept.pop(0).n_cells
        return replace(self, all=tuple(kept), others=draw.others, changed_at=max(now(), self.changed_at + 1))


NO_DRAWS = Draws("")
