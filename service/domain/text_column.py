"""Texts of the samples of a pool, stored for reading a few without the others."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class TextColumn:
    """n texts: their concatenated UTF-8 bytes, and where each starts (n + 1). The arrays may be mapped from disk."""

    text: NDArray[np.uint8]
    starts: NDArray[np.int64]

    @classmethod
    def build(cls, texts: Iterable[str]) -> TextColumn:
        """Return the column of some texts."""
        encoded = [text.encode() for text in texts]
        starts = np.zeros(len(encoded) + 1, np.int64)
        np.cumsum([len(each) for each in encoded], out=starts[1:])
        return cls(np.frombuffer(b"".join(encoded), np.uint8), starts)

    def pack(self) -> NDArray[np.uint8]:
        """Return everything as one array, so that mapping it takes one open file."""
        n = np.array([len(self)], np.int64)
        return np.concatenate([part.view(np.uint8) for part in (n, self.starts, self.text)])

    @classmethod
    def unpack(cls, packed: NDArray[np.uint8]) -> TextColumn:
        """Return the texts of a packed array, sharing its memory."""
        packed = packed.view(np.ndarray)  # reading a number from a memmap takes five times as long
        begin = 8 * (int(packed[:8].view(np.int64)[0]) + 2)
        return cls(text=packed[begin:], starts=packed[8:begin].view(np.int64))

    def followed_by(self, other: TextColumn) -> TextColumn:
        """Return a column with the texts of another one after these."""
        starts = np.concatenate([self.starts, other.starts[1:] + self.starts[-1]])
        return TextColumn(np.concatenate([self.text, other.text]), starts)

    def with_texts(self, positions: NDArray[np.int64], other: TextColumn) -> TextColumn:
        """Return a column with the texts of another one in some rows, given in order."""
        lengths = np.diff(self.starts)
        lengths[positions] = np.diff(other.starts)
        starts = np.zeros(len(self) + 1, np.int64)
        np.cumsum(lengths, out=starts[1:])
        parts, begin = [], 0
        for nth, position in enumerate(positions.tolist()):
            parts.append(self.text[self.starts[begin] : self.starts[position]])
            parts.append(other.text[other.starts[nth] : other.starts[nth + 1]])
            begin = position + 1
        return TextColumn(np.concatenate([*parts, self.text[self.starts[begin] :]]), starts)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def at(self, position: int) -> str:
        """Return the text of a row."""
        return self.text[self.starts[position] : self.starts[position + 1]].tobytes().decode()


@dataclass(frozen=True, eq=False)
class PoolTexts:
    """The texts of a whole pool, in one or more parts."""

    parts: tuple[TextColumn, ...]

    @cached_property
    def starts(self) -> list[int]:
        """The position of each part's first text, followed by the number of texts."""
        return [0, *accumulate(map(len, self.parts))]

    def at(self, positions: Sequence[int]) -> list[str]:
        """Return the texts of some rows."""
        homes = [bisect.bisect_right(self.starts, position) - 1 for position in positions]
        return [
            self.parts[home].at(position - self.starts[home]) for home, position in zip(homes, positions, strict=True)
        ]
