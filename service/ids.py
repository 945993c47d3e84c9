"""The caller's own names of the samples, kept so that a few can be looked up without reading them all."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class SampleIds:
    """n unique names: their UTF-8 bytes one after the other, where each starts, and their order by name.

    The arrays may be mapped from disk: a look-up by name costs log2(n) short reads, one by position a single one.
    """

    text: NDArray[np.uint8]
    starts: NDArray[np.int64]
    order: NDArray[np.int64]

    @classmethod
    def build(cls, names: Sequence[str]) -> SampleIds:
        """Build the look-up from unique names, in the order of the pool's rows."""
        encoded = [name.encode() for name in names]
        starts = np.zeros(len(encoded) + 1, np.int64)
        np.cumsum([len(name) for name in encoded], out=starts[1:])
        order = np.array(sorted(range(len(encoded)), key=encoded.__getitem__), np.int64)
        return cls(np.frombuffer(b"".join(encoded), np.uint8), starts, order)

    def __len__(self) -> int:
        return len(self.order)

    def names_at(self, positions: Iterable[int]) -> list[str]:
        """Return the names of some rows."""
        return [self._encoded(position).decode() for position in positions]

    def find(self, name: str) -> int | None:
        """Return the position of a name, None where there is none."""
        wanted = name.encode()
        rank = bisect.bisect_left(range(len(self)), wanted, key=self._encoded_at_rank)
        if rank == len(self) or self._encoded_at_rank(rank) != wanted:
            return None
        return int(self.order[rank])

    def _encoded(self, position: int) -> bytes:
        return self.text[self.starts[position] : self.starts[position + 1]].tobytes()

    def _encoded_at_rank(self, rank: int) -> bytes:
        return self._encoded(int(self.order[rank]))
