"""Labels as votes of annotators, in columns, and the label of each sample that follows from its votes.

An anonymous label replaces all votes of its sample, and any later vote replaces it. Each named annotator has one vote a
sample.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol
from weakref import ReferenceType, ref

import numpy as np
from numpy.typing import NDArray

from service.domain.splitmix import GOLDEN, mix

Label = str | int | bool | float | tuple[Any, ...]
"""A class, a number where the target is one, or the classes of a sample that may have several, sorted."""

Values = tuple[Label, ...] | list[Label] | NDArray[np.float64]
"""Distinct labels of one type; numbers that are not all whole are an array."""

MAX_LABEL_LENGTH = 256
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1

LARGEST_NUMBER = 1e100
"""Largest magnitude of a number as a label: sums of squares of millions of them are numbers, too."""

SKIP = -1
"""The class code of a vote that the sample cannot be labelled."""

ANONYMOUS = -1
"""The annotator code of a label without an annotator."""

EVERYBODY = 2**31
"""The number of annotators that an anonymous skip counts for."""

MISSING_SPELLINGS = frozenset({"", "nan", "NaN", "None", "null", "<NA>", "N/A"})
"""Texts that tables have for a missing label, with or without blanks around them."""

ANNOTATOR_BITS = 20
"""A project has at most a million annotators, so that a vote's key (sample, annotator) fits one integer."""


MANY_EDITS = 500
"""Number of changed votes from which all are sorted again."""


def wrong_label(value: Any) -> str | None:
    """Return why a value is not a label, or None if it is one."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        return None if 1 <= len(value) <= MAX_LABEL_LENGTH else f"must be 1 to {MAX_LABEL_LENGTH} characters long"
    if isinstance(value, int):
        return None if INT64_MIN <= value <= INT64_MAX else "must fit 64 bits"
    return "must be a label: a string, an integer or a boolean"


def wrong_number(value: Any) -> str | None:
    """Return why a value is not a number that can be a label, or None if it is one."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and abs(value) <= LARGEST_NUMBER:
        return None
    return f"must be a number from {-LARGEST_NUMBER:g} to {LARGEST_NUMBER:g}"


def is_blank(value: Any) -> bool:
    """Return whether a value is text without a visible character."""
    return isinstance(value, str) and not value.strip()


def is_same_label(label: Label, other: Label) -> bool:
    """Return whether two labels have one type and are equal, for text apart from blanks around it."""
    if isinstance(label, str) and isinstance(other, str):
        return label.strip() == other.strip()
    return type(label) is type(other) and label == other


def missing_spellings(values: Sequence[Label], classes: Sequence[Label]) -> list[int]:
    """Return the positions of the values that probably mean a missing label and are not among the classes.

    These are MISSING_SPELLINGS, and the integer -1 if no other value or class is negative (scikit-learn's convention).
    """
    known = set(classes)
    new = [(position, value) for position, value in enumerate(values) if value not in known]
    if not new:
        return []
    only_minus_one = all(value >= 0 for value in {*values, *classes} - {-1} if type(value) is int)
    return [
        position
        for position, value in new
        if (value.strip() in MISSING_SPELLINGS if isinstance(value, str) else value == -1 and only_minus_one)
    ]


@dataclass(frozen=True, slots=True, eq=False)
class EncodedLabels:
    """n labels as codes: `values[codes[i]]` is the i-th label, and a code of -1 means unlabelled.

    The values are distinct. `float_rows` are the first rows of a list that hold no integer, where numbers are labels.
    """

    values: Values
    codes: NDArray[np.int32]
    float_rows: tuple[int, ...] = ()

    @property
    def are_numbers(self) -> bool:
        """Whether the labels are an array of numbers."""
        return isinstance(self.values, np.ndarray)

    @classmethod
    def encode(cls, labels: Iterable[Label | None]) -> EncodedLabels:
        """Encode labels of one type, in the order in which they first appear."""
        table: dict[Label | None, int] = {None: -1}
        codes = np.fromiter((table.setdefault(label, len(table) - 1) for label in labels), dtype=np.int32)
        return cls(tuple(label for label in table if label is not None), codes)

    @classmethod
    def of_numbers(cls, numbers: NDArray[np.float64]) -> EncodedLabels:
        """Encode numbers (n,), of which NaN means unlabelled."""
        given = ~np.isnan(numbers)
        values, inverse = np.unique(numbers[given] + 0.0, return_inverse=True)  # -0.0 becomes 0.0
        codes = np.full(len(numbers), -1, np.int32)
        codes[given] = inverse
        return cls(values, codes)

    def without(self, missing: Label) -> EncodedLabels:
        """Return the labels with those that are the same as `missing` as unlabelled."""
        if isinstance(self.values, np.ndarray):
            is_kept = np.append(self.values != missing, False)
        else:
            is_kept = np.array([not is_same_label(value, missing) for value in self.values] + [False])
        if is_kept[:-1].all():
            return self
        new_codes = np.where(is_kept, np.cumsum(is_kept) - 1, -1).astype(np.int32)
        if isinstance(self.values, np.ndarray):
            return EncodedLabels(self.values[is_kept[:-1]], new_codes[self.codes])
        values = tuple(value for value, kept in zip(self.values, is_kept[:-1], strict=True) if kept)
        return EncodedLabels(values, new_codes[self.codes])

    def only(self, is_kept: NDArray[np.bool_]) -> EncodedLabels:
        """Return the labels with those of the other rows as unlabelled."""
        codes = np.where(is_kept, self.codes, np.int32(-1))
        used, new_codes = np.unique(np.append(codes, np.int32(-1)), return_inverse=True)
        if isinstance(self.values, np.ndarray):
            return EncodedLabels(self.values[used[1:]], (new_codes[:-1] - 1).astype(np.int32))
        values = tuple(self.values[code] for code in used[1:].tolist())
        return EncodedLabels(values, (new_codes[:-1] - 1).astype(np.int32))


class ValueTable(Protocol):
    """The distinct labels that the codes of votes stand for, where a label is not a class of the project.

    Values are only ever appended, so that a code keeps its meaning. The table of a project also has the label of each
    sample that follows from its votes, such as the mean of two, which no annotator gave.
    """

    def __len__(self) -> int:
        """Return the number of values."""

    @property
    def n_bytes(self) -> int:
        """Memory used, in bytes."""

    def resolve(self, votes: Votes) -> SampleLabels:
        """Return the label of each sample."""

    def completed(self, votes: Votes) -> ValueTable:
        """Return the table with the label of each sample that follows from votes."""

    def can_fit(self, labels: SampleLabels) -> bool:
        """Return whether a model can be fitted to labels."""

    def continues(self, before: ValueTable) -> bool:
        """Return whether the codes of an earlier table stand for the same values in this one."""

    def class_counts(self, labels: SampleLabels, n_classes: int) -> list[int]:
        """Return the number of labels with each class (c,)."""

    def to_plain(self, begin: int = 0) -> Any:
        """Return the values from a code on as an array or plain values, in the order of their codes."""

    def extended(self, plain: Any) -> ValueTable:
        """Return the table with values of `to_plain` appended."""


def vote_key(index: Any, annotator: Any) -> Any:
    """Return an integer, or an array of them, that orders votes by sample, then by annotator."""
    return (index << ANNOTATOR_BITS) + (annotator + 1)


@dataclass(frozen=True, eq=False)
class Votes:
    """Votes in parallel columns, sorted by sample and annotator, with one row for each pair.

    `at` is in microseconds since 1970 UTC; `query` is the ASCII id of the query that asked, or empty. `code` stands for
    a class of the project, or for a value of `table` if there is one.
    """

    index: NDArray[np.int64]
    code: NDArray[np.int32]
    annotator: NDArray[np.int32]
    at: NDArray[np.int64]
    query: NDArray[np.bytes_]
    table: ValueTable | None = field(default=None, kw_only=True)

    @classmethod
    def empty(cls) -> Votes:
        """Return no votes."""
        return cls.anonymous(np.array([], np.int64), np.array([], np.int32), 0)

    @classmethod
    def anonymous(cls, index: NDArray[np.int64], code: NDArray[np.int32], at: int) -> Votes:
        """Return anonymous votes on samples, given in order."""
        n = len(index)
        return cls(index, code, np.full(n, ANONYMOUS, np.int32), np.full(n, at, np.int64), np.zeros(n, "S1"))

    @classmethod
    def from_rows(cls, rows: Iterable[tuple[int, int, int, bytes]], at: int) -> Votes:
        """Return votes from rows (index, class code, annotator code, query id) in any order.

        The votes on a sample get consecutive times in the order of the rows, a microsecond apart, starting with `at`.
        """
        columns = tuple(zip(*rows, strict=True))
        index = np.array(columns[0], np.int64)
        votes = cls(
            index,
            np.array(columns[1], np.int32),
            np.array(columns[2], np.int32),
            at + (nth_of_value(index) if len(set(columns[0])) < len(index) else np.zeros(len(index), np.int64)),
            np.array(columns[3], np.bytes_),
        )
        is_ordered = (votes.key[1:] >= votes.key[:-1]).all()
        return votes if is_ordered else votes.take(np.argsort(votes.key))

    def __len__(self) -> int:
        return len(self.index)

    def __getstate__(self) -> dict[str, Any]:
        """Return what is pickled: all but the origin, which refers to votes of this process."""
        return {name: value for name, value in self.__dict__.items() if name != "origin"}

    @cached_property
    def majority(self) -> SampleLabels:
        """The majority label of each sample, computed once for all states of a project that share the votes.

        With a table, its own rule counts instead of the majority. If the votes arose from others, only the label of
        samples whose votes changed is computed.
        """
        if self.table is not None:
            return self.table.resolve(self)
        before = None if self.origin is None else self.origin.before()
        samples = None if before is None else self.samples_changed_since(before)
        if before is None or samples is None or "majority" not in before.__dict__:
            return resolve_votes(self)
        return before.majority.updated(samples, resolve_votes(self.take(self.rows_of(samples))))

    @cached_property
    def shared_samples(self) -> NDArray[np.int64]:
        """The samples with two labels or more, sorted."""
        given = self.index[self.code != SKIP]
        again: NDArray[np.int64] = given[~run_starts(given)]
        return again[run_starts(again)]

    @cached_property
    def n_labels(self) -> NDArray[np.intp]:
        """Number of labels of each labelled sample (l,)."""
        given = self.index[self.code != SKIP]
        return np.diff(np.append(np.flatnonzero(run_starts(given)), len(given)))

    @cached_property
    def skip_counts(self) -> NDArray[np.int64]:
        """Number of annotators who skipped each of `majority.skipped` (k,); EVERYBODY for an anonymous skip."""
        rows, found = look_up(self.majority.skipped, self.index)
        counts = np.where(self.annotator[found] == ANONYMOUS, EVERYBODY, 1)
        return np.bincount(rows[found], counts, minlength=len(self.majority.skipped)).astype(np.int64)

    @cached_property
    def vote_hashes(self) -> NDArray[np.uint64]:
        """A 64-bit hash of the votes of each labelled sample (l,): who gave it which label."""
        given = self.code != SKIP
        votes = ((self.annotator[given].astype(np.int64) + 1) << 32) + self.code[given] + 1
        first = np.flatnonzero(run_starts(self.index[given]))
        return np.add.reduceat(mix(votes.astype(np.uint64) * GOLDEN), first)  # modulo 2**64

    def completed(self) -> Votes:
        """Return the votes with a table that has the label of each sample."""
        table = None if self.table is None else self.table.completed(self)
        return self if table is self.table else replace(self, table=table)

    @cached_property
    def latest(self) -> int:
        """The time of the latest vote, or a later one if it was retracted; 0 without any."""
        return int(self.at.max(initial=0))

    @property
    def n_bytes(self) -> int:
        """Memory used, in bytes."""
        # The cached properties count too: key, majority, hashes and numbers of labels.
        n_bytes = sum(column.nbytes for column in self.columns) + 4 * self.index.nbytes + self.code.nbytes
        return n_bytes + (0 if self.table is None else self.table.n_bytes)

    @cached_property
    def key(self) -> NDArray[np.int64]:
        """An integer for each vote, in the order of samples, then annotators."""
        keys: NDArray[np.int64] = vote_key(self.index, self.annotator)
        return keys

    def take(self, rows: NDArray[np.intp] | NDArray[np.bool_]) -> Votes:
        """Return some of the votes, in the given order."""
        return Votes(*(column[rows] for column in self.columns), table=self.table)

    @property
    def columns(self) -> list[NDArray[Any]]:
        """The columns, in the order of the fields."""
        return [self.index, self.code, self.annotator, self.at, self.query]

    def rows_of(self, samples: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the rows of the votes on some samples, given in order."""
        first = np.searchsorted(self.index, samples, "left")
        counts = np.searchsorted(self.index, samples, "right") - first
        begin = np.cumsum(counts) - counts
        return np.repeat(first - begin, counts) + np.arange(counts.sum())

    def changed(self, gone: NDArray[np.intp], given: Votes) -> Votes:
        """Return the votes without some rows and with new votes, both in order; they remember what changed."""
        if len(gone) + len(given) > MANY_EDITS:
            is_kept = np.ones(len(self), np.bool_)
            is_kept[gone] = False
            votes = self.take(is_kept).merge(given)
        else:
            edits = edits_of(gone, np.searchsorted(self.key, given.key))
            pairs = zip(self.columns, given.columns, strict=True)
            votes = Votes(*(spliced(column, edits, new) for column, new in pairs), table=self.table)
            votes.__dict__["key"] = spliced(self.key, edits, given.key)
        votes.__dict__["latest"] = max(self.latest, given.latest)
        votes.__dict__["origin"] = VotesChange(ref(self), self.take(gone), given)
        return votes

    @cached_property
    def origin(self) -> VotesChange | None:
        """The change from which these votes arose, None if unknown."""
        return None

    def arose_from(self, before: Votes) -> bool:
        """Return whether these votes arose from others directly, so that their difference is known."""
        return self.origin is not None and self.origin.before() is before

    def samples_changed_since(self, before: Votes) -> NDArray[np.int64] | None:
        """Return the samples with other votes than before, None if these votes did not arise from those directly."""
        origin = self.origin
        if origin is None or not self.arose_from(before) or self.table is not None:
            return None
        return np.unique(np.concatenate([origin.gone.index, origin.given.index]))

    def difference(self, later: Votes) -> tuple[NDArray[np.int64], Votes]:
        """Return the keys of the votes that are gone or changed later, and the later votes that are new or changed."""
        if later.origin is not None and later.arose_from(self):
            return later.origin.gone.key, later.origin.given
        rows, found = look_up(self.key, later.key)
        is_same = found.copy()
        for old, new in zip(self.columns, later.columns, strict=True):
            is_same[found] &= old[rows[found]] == new[found]
        is_gone = np.ones(len(self), np.bool_)
        is_gone[rows[is_same]] = False
        return self.key[is_gone], later.take(~is_same)

    def merge(self, other: Votes) -> Votes:
        """Return the votes of both, sorted; `other` has codes of the same classes or table."""
        both = Votes(
            np.concatenate([self.index, other.index]),
            np.concatenate([self.code, other.code]),
            np.concatenate([self.annotator, other.annotator]),
            np.concatenate([self.at, other.at]),
            np.concatenate([self.query, other.query]),
            table=self.table,
        )
        return both.take(np.argsort(both.key, kind="stable"))


@dataclass(frozen=True, eq=False)
class SampleLabels:
    """The labelled samples with one class code each, and the skipped samples, both sorted."""

    labeled: NDArray[np.int64]
    codes: NDArray[np.int32]
    skipped: NDArray[np.int64]

    @cached_property
    def counts(self) -> NDArray[np.intp]:
        """The number of samples with each code, at least up to the largest one."""
        return np.bincount(self.codes)

    def code_of(self, index: NDArray[np.int64]) -> NDArray[np.int32]:
        """Return the class code of each sample, SKIP without a label."""
        rows, found = look_up(self.labeled, index)
        codes = np.full(len(index), SKIP, np.int32)
        codes[found] = self.codes[rows[found]]
        return codes

    def updated(self, samples: NDArray[np.int64], labels: SampleLabels) -> SampleLabels:
        """Return the labels with those of some samples, given in order, replaced by new ones."""
        rows, found = look_up(self.labeled, samples)
        edits = edits_of(rows[found], np.searchsorted(self.labeled, labels.labeled))
        rows, found = look_up(self.skipped, samples)
        skips = edits_of(rows[found], np.searchsorted(self.skipped, labels.skipped))
        updated = SampleLabels(
            spliced(self.labeled, edits, labels.labeled),
            spliced(self.codes, edits, labels.codes),
            spliced(self.skipped, skips, labels.skipped),
        )
        counts = np.bincount(labels.codes, minlength=len(self.counts))
        old_codes = self.code_of(samples)
        counts[: len(self.counts)] += self.counts
        counts -= np.bincount(old_codes[old_codes != SKIP], minlength=len(counts))
        updated.__dict__["counts"] = counts
        return updated


@dataclass(frozen=True, slots=True, eq=False)
class VotesChange:
    """A change of votes: those before, as long as they are in memory, those that are gone, and the new ones."""

    before: ReferenceType[Votes]
    gone: Votes
    given: Votes


def resolve_votes(votes: Votes) -> SampleLabels:
    """Return the label of each sample: the majority of its votes, the latest one on a tie.

    Labels that tie and have the same time win by a hash of the sample and the class, so that no class is favoured. A
    sample is skipped if all of its votes are skips.
    """
    given = votes.take(votes.code != SKIP)
    skips = votes.index[votes.code == SKIP]
    skipped = skips[run_starts(skips) & ~contains(given.index, skips)]
    if run_starts(given.index).all():
        return SampleLabels(given.index, given.code, skipped)
    order = np.lexsort((given.at, given.code, given.index))
    index, code, at = given.index[order], given.code[order], given.at[order]
    # A run is one label of one sample: its length counts the votes, its last row is the latest.
    first = np.flatnonzero(np.r_[True, (np.diff(index) != 0) | (np.diff(code) != 0)])
    last = np.r_[first[1:], len(index)] - 1
    lots = mix((index[first].astype(np.uint64) + np.uint64(1)) * GOLDEN + code[first].astype(np.uint64))
    best_last = np.lexsort((lots, at[last], last - first, index[first]))
    index, code = index[first][best_last], code[first][best_last]
    winner = np.r_[np.diff(index) != 0, True]
    return SampleLabels(index[winner], code[winner], skipped)


def cast_votes(votes: Votes, new: Votes, before: SampleLabels | None = None) -> tuple[Votes, int]:
    """Return the votes after `new` ones, and the number of new votes that are changes.

    `new` has at most one vote for each sample and annotator, and an anonymous vote is the only one on its sample. The
    same label again is no change; an anonymous one is compared with the sample's label in `before`. A named skip does
    not take an anonymous label away.
    """
    before = before or votes.majority
    rows, repeated = look_up(votes.key, new.key)
    repeated[repeated] = votes.code[rows[repeated]] == new.code[repeated]
    if repeated.all():
        return votes, 0
    anonymous = new.annotator == ANONYMOUS
    is_same = np.where(new.code == SKIP, contains(before.skipped, new.index), before.code_of(new.index) == new.code)
    changes = ~(repeated | (anonymous & is_same))
    if not changes.any():
        return votes, 0
    new = new.take(changes)
    anonymous = new.annotator == ANONYMOUS
    rows = votes.rows_of(np.unique(new.index))
    there = votes.take(rows)
    replaced = (
        rows_with(there.key, new.key)
        | rows_with(there.index, new.index[anonymous])
        | ((there.annotator == ANONYMOUS) & (there.code == SKIP))
        | ((there.annotator == ANONYMOUS) & rows_with(there.index, new.index[new.code != SKIP]))
    )
    return votes.changed(rows[replaced], new), len(new)


def misplaced_anonymous(votes: Votes) -> NDArray[np.int64]:
    """Return the samples with an anonymous vote and others; an anonymous label may only have named skips beside it."""
    after = np.flatnonzero(votes.index[1:] == votes.index[:-1]) + 1
    first = after[votes.annotator[after - 1] == ANONYMOUS] - 1
    named_labels = votes.index[(votes.code != SKIP) & (votes.annotator != ANONYMOUS)]
    wrong = (votes.code[first] == SKIP) | contains(named_labels, votes.index[first])
    samples: NDArray[np.int64] = votes.index[first[wrong]]
    return samples


def nth_of_value(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many earlier rows have the value of each row."""
    order = np.argsort(values, kind="stable")
    first = np.flatnonzero(run_starts(values[order]))
    nth = np.empty(len(values), np.int64)
    nth[order] = np.arange(len(values)) - np.repeat(first, np.diff(np.append(first, len(values))))
    return nth


Edits = list[tuple[int, bool]]
"""Rows of a column in order, and of each whether it is removed, or a new value inserted before it."""


def edits_of(gone: NDArray[np.intp], inserted: NDArray[np.intp]) -> Edits:
    """Return the edits that remove some rows of a column, and insert values before others."""
    return sorted([*((row, True) for row in gone.tolist()), *((row, False) for row in inserted.tolist())])


def spliced(column: NDArray[Any], edits: Edits, values: NDArray[Any]) -> NDArray[Any]:
    """Return a column after edits; `values` are inserted in order."""
    pieces, begin, n_inserted = [], 0, 0
    for row, is_gone in edits:
        pieces.append(column[begin:row])
        begin = row + is_gone
        if not is_gone:
            pieces.append(values[n_inserted : n_inserted + 1])
            n_inserted += 1
    return np.concatenate([*pieces, column[begin:]])


# The columns are sorted: numpy's own set operations do not use that, and take a hundred times as long.


def run_starts(column: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return a mask of the rows of a sorted column that are the first with their value."""
    first = np.ones(len(column), np.bool_)
    np.not_equal(column[1:], column[:-1], out=first[1:])
    return first


def look_up(column: NDArray[np.int64], values: NDArray[np.int64]) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Return the row of each value in a sorted column, and a mask of the values found there."""
    rows = np.searchsorted(column, values)
    found = rows < len(column)
    found[found] = column[rows[found]] == values[found]
    return rows, found


def contains(column: NDArray[np.int64], values: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return a mask of the values that a sorted column contains."""
    return look_up(column, values)[1]


def rows_with(column: NDArray[np.int64], values: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return a mask of the rows of a sorted column that hold one of a few values."""
    edges = np.zeros(len(column) + 1, np.int64)
    np.add.at(edges, np.searchsorted(column, values, "left"), 1)
    np.add.at(edges, np.searchsorted(column, values, "right"), -1)
    return np.cumsum(edges[:-1]) > 0
