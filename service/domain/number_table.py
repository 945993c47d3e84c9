"""The table of the labels of a project whose target is a number."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.domain.sorted_columns import contains, run_starts
from service.domain.votes import SKIP, SampleLabels, ValueTable, Votes

Numbers = NDArray[np.float64]
Codes = NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class NumberTable:
    """Distinct numbers (k,) by their codes, in any order."""

    values: Numbers

    @classmethod
    def empty(cls) -> NumberTable:
        """Return a table without numbers."""
        return cls(np.empty(0))

    def __len__(self) -> int:
        return len(self.values)

    @property
    def n_bytes(self) -> int:
        """Memory used, in bytes."""
        return self.values.nbytes

    def codes_of(self, numbers: Numbers) -> Codes:
        """Return the code of each number (n,), -1 for one that the table does not have.

        The few numbers are sorted and not the table, which may have a million.
        """
        wanted, inverse = np.unique(numbers, return_inverse=True)
        codes = np.full(len(wanted), -1, np.int32)
        if len(wanted):
            rows = np.minimum(np.searchsorted(wanted, self.values), len(wanted) - 1)
            found = np.flatnonzero(wanted[rows] == self.values)
            codes[rows[found]] = found
        return codes[inverse]

    def with_numbers(self, numbers: Numbers) -> NumberTable:
        """Return the table with numbers (n,) appended that it does not have."""
        new = np.unique(numbers[self.codes_of(numbers) < 0])
        return NumberTable(np.concatenate([self.values, new])) if len(new) else self

    def resolve(self, votes: Votes) -> SampleLabels:
        """Return the median of the numbers given for each sample: of two it is their mean.

        A sample is skipped if all of its votes are skips. A median that the table does not have is replaced by the
        number below it; see `completed`.
        """
        given = votes.take(votes.code != SKIP)
        skips = votes.index[votes.code == SKIP]
        skipped = skips[run_starts(skips) & ~contains(given.index, skips)]
        first = np.flatnonzero(run_starts(given.index))
        if len(first) == len(given):
            return SampleLabels(given.index, given.code, skipped)
        low, high = middle_codes(given, self.values)
        codes = low.copy()
        between = np.flatnonzero(low != high)
        means = self.codes_of(mean_of_two(self.values[low[between]], self.values[high[between]]))
        codes[between] = np.where(means >= 0, means, low[between])
        return SampleLabels(given.index[first], codes, skipped)

    def completed(self, votes: Votes) -> NumberTable:
        """Return the table with the median of each sample."""
        given = votes.take(votes.code != SKIP)
        if run_starts(given.index).all():
            return self
        low, high = middle_codes(given, self.values)
        between = low != high
        return self.with_numbers(mean_of_two(self.values[low[between]], self.values[high[between]]))

    def spreads(self, votes: Votes) -> Numbers:
        """Return the standard deviation of the numbers given for each labelled sample (l,), NaN for a single one."""
        given = votes.take(votes.code != SKIP)
        first = np.flatnonzero(run_starts(given.index))
        n = np.diff(np.append(first, len(given)))
        values = self.values[given.code]
        if not len(first):
            return np.empty(0)
        away = values - np.repeat(np.add.reduceat(values, first) / n, n)
        return np.where(n > 1, np.sqrt(np.add.reduceat(np.square(away), first) / n), np.nan)

    def to_plain(self, begin: int = 0) -> Numbers:
        """Return the numbers (k,) from a code on, in the order of their codes."""
        return self.values[begin:]

    def extended(self, plain: Numbers) -> NumberTable:
        """Return the table with numbers (k,) appended."""
        return NumberTable(np.concatenate([self.values, plain])) if len(plain) else self

    def continues(self, before: ValueTable) -> bool:
        """Return True: numbers are only appended."""
        return True

    def class_counts(self, labels: SampleLabels, n_classes: int) -> list[int]:
        """Return nothing: numbers are no classes."""
        return []

    def can_fit(self, labels: SampleLabels) -> bool:
        """Return whether at least two samples are labelled."""
        return len(labels.labeled) >= 2


def middle_codes(given: Votes, values: Numbers) -> tuple[Codes, Codes]:
    """Return the codes of the two middle numbers of each labelled sample, which are the same for an odd number."""
    first = np.flatnonzero(run_starts(given.index))
    n = np.diff(np.append(first, len(given)))
    codes = given.code[np.lexsort((values[given.code], given.index))]
    return codes[first + (n - 1) // 2], codes[first + n // 2]


def mean_of_two(low: Numbers, high: Numbers) -> Numbers:
    """Return the mean of each two numbers."""
    return (low + high) / 2
