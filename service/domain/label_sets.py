"""The table of the labels of a project whose samples may have several classes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.domain.labels import EncodedLabels, Label
from service.domain.sorted_columns import contains, run_starts
from service.domain.splitmix import GOLDEN, mix
from service.domain.votes import SKIP, SampleLabels, ValueTable, Votes

Codes = NDArray[np.int32]
ClassSet = tuple[int, ...]
"""Codes of classes, ascending; empty for a sample with none of the classes."""


@dataclass(frozen=True, eq=False)
class LabelSetTable:
    """Distinct sets of class codes by their own codes, in any order."""

    sets: tuple[ClassSet, ...] = ()

    def __len__(self) -> int:
        return len(self.sets)

    @property
    def n_bytes(self) -> int:
        """Approximate memory used, in bytes: the tuples, the dictionary, and the members in an array."""
        return 150 * len(self.sets) + 16 * sum(map(len, self.sets))

    @cached_property
    def code_of(self) -> dict[ClassSet, int]:
        """The code of each set."""
        return {one: code for code, one in enumerate(self.sets)}

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """The number of classes in each set (k,)."""
        return np.fromiter(map(len, self.sets), np.int64, len(self.sets))

    @cached_property
    def members(self) -> NDArray[np.int64]:
        """The class codes of all sets, one set after the other."""
        return np.fromiter((code for one in self.sets for code in one), np.int64, int(self.sizes.sum()))

    def codes_of(self, sets: Sequence[ClassSet]) -> Codes:
        """Return the code of each set, which the table must have."""
        return np.fromiter((self.code_of[one] for one in sets), np.int32, len(sets))

    def with_sets(self, sets: Iterable[ClassSet]) -> LabelSetTable:
        """Return the table with sets appended that it does not have."""
        new = [one for one in dict.fromkeys(sets) if one not in self.code_of]
        return LabelSetTable((*self.sets, *new)) if new else self

    def merged(self, codes: Codes) -> tuple[LabelSetTable, Codes]:
        """Return the table with new codes (c,) of classes, some of which are the same, and the new code of each set."""
        sets = [tuple(sorted(set(codes[list(one)].tolist()))) for one in self.sets]
        table = LabelSetTable().with_sets(sets)
        return table, table.codes_of(sets)

    def members_of(self, codes: NDArray[np.integer[Any]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the classes of the sets with these codes (n,): for each the position among the codes, and its code."""
        sizes = self.sizes[codes]
        rows = np.repeat(np.arange(len(codes)), sizes)
        first = np.cumsum(self.sizes)[codes] - sizes
        within = np.arange(len(rows)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        return rows, self.members[np.repeat(first, sizes) + within]

    def indicators(self, codes: NDArray[np.integer[Any]], n_classes: int) -> NDArray[np.bool_]:
        """Return a mask (n, c) of the classes of each of some sets."""
        mask = np.zeros((len(codes), n_classes), np.bool_)
        mask[self.members_of(codes)] = True
        return mask

    def resolve(self, votes: Votes) -> SampleLabels:
        """Return the label of each sample: the classes that most of its votes have.

        On a tie the latest vote decides about a class; if votes with and without it have the same time, a hash of the
        sample and the class. A sample is skipped if all of its votes are skips. The table must be `completed`.
        """
        given = votes.take(votes.code != SKIP)
        skips = votes.index[votes.code == SKIP]
        skipped = skips[run_starts(skips) & ~contains(given.index, skips)]
        first = np.flatnonzero(run_starts(given.index))
        codes = given.code[first]
        samples, sets = self.agreed_sets(given)
        codes[np.searchsorted(given.index[first], samples)] = self.codes_of(sets)
        return SampleLabels(given.index[first], codes, skipped)

    def completed(self, votes: Votes) -> LabelSetTable:
        """Return the table with the label of each sample that follows from votes."""
        return self.with_sets(self.agreed_sets(votes.take(votes.code != SKIP))[1])

    def agreed_sets(self, given: Votes) -> tuple[NDArray[np.int64], list[ClassSet]]:
        """Return the samples (k,) with different labels, sorted, and the set that most of their votes agree on."""
        starts = run_starts(given.index)
        differs = np.zeros(len(given), np.bool_)
        differs[1:] = ~starts[1:] & (given.code[1:] != given.code[:-1])
        if not differs.any():
            return np.empty(0, np.int64), []
        samples = given.index[differs]
        samples = samples[run_starts(samples)]
        votes = given.take(contains(samples, given.index))
        rows, classes = self.members_of(votes.code)
        place = np.searchsorted(samples, votes.index)
        width = int(classes.max(initial=0)) + 1
        pairs, pair = np.unique(place[rows] * width + classes, return_inverse=True)
        sample, code = np.divmod(pairs, width)
        surplus = 2 * np.bincount(pair, minlength=len(pairs)) - np.bincount(place)[sample]
        is_latest = votes.at == np.maximum.reduceat(votes.at, np.flatnonzero(run_starts(votes.index)))[place]
        # Several votes have the latest time if they came in one request.
        n_late = np.bincount(place, is_latest)[sample]
        n_late_with = np.bincount(pair, is_latest[rows], len(pairs))
        lots = mix((samples[sample].astype(np.uint64) + np.uint64(1)) * GOLDEN + code.astype(np.uint64)) >> np.uint64(
            63
        )
        wins_tie = np.where(n_late_with == n_late, True, (n_late_with > 0) & (lots > 0))
        is_in = np.where(surplus == 0, wins_tie, surplus > 0)
        sample, agreed = sample[is_in], code[is_in].tolist()
        ends = np.searchsorted(sample, np.arange(len(samples) + 1)).tolist()
        return samples, [tuple(agreed[start:end]) for start, end in pairwise(ends)]

    def continues(self, before: ValueTable) -> bool:
        """Return whether the codes of an earlier table stand for the same sets in this one."""
        return isinstance(before, LabelSetTable) and self.sets[: len(before)] == before.sets

    def class_counts(self, labels: SampleLabels, n_classes: int) -> list[int]:
        """Return the number of labels with each class (c,)."""
        counts: list[int] = np.bincount(self.members_of(labels.codes)[1], minlength=n_classes).tolist()
        return counts

    def can_fit(self, labels: SampleLabels) -> bool:
        """Return whether two labels differ, so that some class is on one sample and not on another."""
        return len(labels.codes) > 0 and bool((labels.codes != labels.codes[0]).any())

    def to_plain(self, begin: int = 0) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the sizes (k,) of the sets from a code on, in the order of their codes, and all their members."""
        rest = LabelSetTable(self.sets[begin:]) if begin else self
        return rest.sizes, rest.members

    def extended(self, plain: tuple[NDArray[np.int64], NDArray[np.int64]]) -> LabelSetTable:
        """Return the table with sets appended, given by their sizes and members."""
        return LabelSetTable(self.sets + LabelSetTable.of_plain(*plain).sets) if len(plain[0]) else self

    @classmethod
    def of_plain(cls, sizes: NDArray[np.integer[Any]], members: NDArray[np.integer[Any]]) -> LabelSetTable:
        """Return the table of `to_plain`."""
        ends = np.cumsum(sizes).tolist()
        plain = members.tolist()
        return cls(tuple(tuple(plain[start:end]) for start, end in pairwise([0, *ends])))


@dataclass(frozen=True, slots=True, eq=False)
class IndicatorLabels:
    """n labels as codes of sets of columns, which stand for classes that are not known yet; -1 is unlabelled."""

    n_columns: int
    sets: tuple[tuple[int, ...], ...]
    codes: Codes

    def named(self, classes: Sequence[Label]) -> EncodedLabels:
        """Return the labels, given the class (c,) of each column."""
        values = tuple(tuple(sorted(classes[column] for column in one)) for one in self.sets)
        return EncodedLabels(values, self.codes)
