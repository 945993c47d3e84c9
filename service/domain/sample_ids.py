"""The caller's own ids of the samples, stored for looking up a few without reading them all."""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.domain.labels import INT64_MAX, INT64_MIN, MAX_LABEL_LENGTH

SampleId = str | int

INTEGER = b"\xff"
"""The first byte of an integer id, whose decimal digits follow; no text in UTF-8 has this byte."""


@dataclass(frozen=True, slots=True, eq=False)
class SampleIds:
    """n unique ids: their concatenated bytes (see `encode_id`), where each starts, and their order by a 64-bit hash.

    The arrays may be mapped from disk: finding an id takes a few short reads, reading one at a position takes one.
    """

    text: NDArray[np.uint8]
    starts: NDArray[np.int64]
    hashes: NDArray[np.uint64]
    order: NDArray[np.int64]

    @classmethod
    def build(cls, names: Sequence[SampleId]) -> SampleIds:
        """Build the index of unique ids, given in the order of the pool's rows."""
        encoded = list(map(encode_id, names))
        starts = np.zeros(len(encoded) + 1, np.int64)
        np.cumsum([len(name) for name in encoded], out=starts[1:])
        hashes = np.fromiter(map(hash_of, encoded), np.uint64, len(encoded))
        order = np.argsort(hashes, kind="stable")
        return cls(np.frombuffer(b"".join(encoded), np.uint8), starts, hashes[order], order)

    def pack(self) -> NDArray[np.uint8]:
        """Return everything as one array, so that mapping it takes one open file instead of four."""
        n = np.array([len(self)], np.int64)
        return np.concatenate([part.view(np.uint8) for part in (n, self.starts, self.hashes, self.order, self.text)])

    @classmethod
    def unpack(cls, packed: NDArray[np.uint8]) -> SampleIds:
        """Return the ids of a packed array, sharing its memory."""
        packed = packed.view(np.ndarray)  # reading a number from a memmap takes five times as long
        n = int(packed[:8].view(np.int64)[0])
        starts, hashes, order, end = np.cumsum([8, 8 * (n + 1), 8 * n, 8 * n]).tolist()
        return cls(
            text=packed[end:],
            starts=packed[starts:hashes].view(np.int64),
            hashes=packed[hashes:order].view(np.uint64),
            order=packed[order:end].view(np.int64),
        )

    def __len__(self) -> int:
        return len(self.order)

    def names_at(self, positions: Iterable[int]) -> list[SampleId]:
        """Return the ids of some rows."""
        return [decode_id(self._encoded(position)) for position in positions]

    def find(self, name: SampleId) -> int | None:
        """Return the position of an id, None if it is unknown."""
        wanted = encode_id(name)
        rank = int(np.searchsorted(self.hashes, np.uint64(hash_of(wanted))))
        return next((at for at in self._positions_from(rank, hash_of(wanted)) if self._encoded(at) == wanted), None)

    def _positions_from(self, rank: int, hash_: int) -> Iterator[int]:
        """Yield the positions of the ids with one hash, nearly always a single one."""
        while rank < len(self) and int(self.hashes[rank]) == hash_:
            yield int(self.order[rank])
            rank += 1

    def _encoded(self, position: int) -> bytes:
        return self.text[self.starts[position] : self.starts[position + 1]].tobytes()


def wrong_id(value: Any) -> str | None:
    """Return why a value is not a sample's id, or None if it is one."""
    if type(value) is int:
        return None if INT64_MIN <= value <= INT64_MAX else "must fit 64 bits"
    if isinstance(value, str) and 1 <= len(value) <= MAX_LABEL_LENGTH:
        return None
    return f"must be a string of 1 to {MAX_LABEL_LENGTH} characters or an integer"


def encode_id(name: SampleId) -> bytes:
    """Return an id as bytes: text in UTF-8, or INTEGER and decimal digits, so that 12 and "12" differ."""
    return name.encode() if isinstance(name, str) else INTEGER + str(name).encode()


def decode_id(encoded: bytes) -> SampleId:
    """Return the id of its bytes. Raises ValueError for bytes that are none."""
    return int(encoded[1:]) if encoded[:1] == INTEGER else encoded.decode()


def type_of_ids(name: SampleId) -> str:
    """Return the JSON type of an id, with its article."""
    return "a string" if isinstance(name, str) else "an integer"


def hash_of(encoded: bytes) -> int:
    """Return a 64-bit hash of an id, the same in every process."""
    return int.from_bytes(blake2b(encoded, digest_size=8).digest(), "little")


@dataclass(frozen=True, eq=False)
class PoolIds:
    """The ids of a whole pool, in one or more parts: of one type, and unique over all parts."""

    parts: tuple[SampleIds, ...]

    @cached_property
    def starts(self) -> list[int]:
        """The position of each part's first id, followed by the number of ids."""
        return [0, *accumulate(map(len, self.parts))]

    def names_at(self, positions: Sequence[int]) -> list[SampleId]:
        """Return the ids of some rows."""
        starts = self.starts
        homes = [bisect.bisect_right(starts, position) - 1 for position in positions]
        return [
            self.parts[home].names_at([position - starts[home]])[0]
            for home, position in zip(homes, positions, strict=True)
        ]

    @cached_property
    def type_name(self) -> str:
        """The JSON type of the ids, with its article."""
        return type_of_ids(self.first)

    @property
    def first(self) -> SampleId:
        """The id of the first row."""
        return self.names_at([0])[0]

    def find(self, name: SampleId) -> int | None:
        """Return the position of an id, None if it is unknown."""
        for part, start in zip(self.parts, self.starts, strict=False):
            if (found := part.find(name)) is not None:
                return start + found
        return None

    def why_unknown(self, name: SampleId) -> str:
        """Return why no sample has an id: it is of another type than the others, or not among them."""
        given = type_of_ids(name)
        return (
            "is not an id of the pool"
            if given == self.type_name
            else f"is {given}; each id of this project is {self.type_name}"
        )

    def find_text(self, text: str) -> int | None:
        """Return the position of the id that a text shows, None if it is unknown."""
        if self.type_name == type_of_ids(text):
            return self.find(text)
        return self.find(int(text)) if re.fullmatch("0|-?[1-9][0-9]{0,18}", text) else None

    def find_known(self, names: Sequence[SampleId]) -> Iterator[tuple[int, int]]:
        """Yield the positions in `names` of those that exist already, and their positions here."""
        hashes = np.fromiter((hash_of(encode_id(name)) for name in names), np.uint64, len(names))
        alike = np.zeros(len(names), np.bool_)
        for part in self.parts:
            ranks = np.searchsorted(part.hashes, hashes)
            there = ranks < len(part)
            alike[there] |= part.hashes[ranks[there]] == hashes[there]
        return (
            (position, found)
            for position in np.flatnonzero(alike).tolist()
            if (found := self.find(names[position])) is not None
        )
