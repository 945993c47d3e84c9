"""Labels as votes of annotators, in columns, and the label of each sample that follows from its votes.

An anonymous label replaces all votes of its sample, and any later vote replaces it. Each named annotator has one vote a
sample.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol
from weakref import ReferenceType, ref

import numpy as np
from numpy.typing import NDArray

from service.domain.sorted_columns import contains, look_up, nth_of_value, rows_with, run_starts
from service.domain.splitmix import GOLDEN, MASK, mix, mix_one

SKIP = -1
"""The class code of a vote that the sample cannot be labelled."""

ANONYMOUS = -1
"""The annotator code of a label without an annotator."""

EVERYBODY = 2**31
"""The number of annotators that an anonymous skip counts for."""

ANNOTATOR_BITS = 20
"""A project has at most a million annotators, so that a vote's key (sample, annotator) fits one integer."""

UNVOTED = -2
"""Stands for the label of a sample without votes, where SKIP is that of a skipped one."""

FEW = 100
"""Number of votes that are cast one by one, which is faster than numpy for fewer, and not for more."""

MAX_RECENT = 500
"""Number of samples whose votes are kept apart before the columns are made again."""


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


class Vote(NamedTuple):
    """A vote, as in a row of `Votes`."""

    sample: int
    code: int
    annotator: int
    at: int
    query: bytes


class VoteColumns(NamedTuple):
    """The columns of `Votes`."""

    sample: NDArray[np.int64]
    code: NDArray[np.int32]
    annotator: NDArray[np.int32]
    at: NDArray[np.int64]
    query: NDArray[np.bytes_]


class VoteEdits(NamedTuple):
    """Votes without columns: those of `settled`, but `recent` has all votes on some samples."""

    settled: Votes
    recent: dict[int, tuple[Vote, ...]]

    def columns(self) -> VoteColumns:
        """Return the columns."""
        samples = sorted(self.recent)
        new = columns_of([vote for sample in samples for vote in self.recent[sample]])
        if len(self.settled) == 0:
            return new
        is_kept = np.ones(len(self.settled), np.bool_)
        is_kept[self.settled.rows_of(np.array(samples, np.int64))] = False
        return self.settled.take(is_kept).merge(Votes(*new)).columns


class Votes:
    """Votes in parallel columns, sorted by sample and annotator, with one row for each pair.

    `at` is in microseconds since 1970 UTC; `query` is the ASCII id of the query that asked, or empty. `code` stands for
    a class of the project, or for a value of `table` if there is one.

    A change of a few votes copies no columns: these are made when they are first read, or after many such changes.
    """

    def __init__(
        self,
        index: NDArray[np.int64],
        code: NDArray[np.int32],
        annotator: NDArray[np.int32],
        at: NDArray[np.int64],
        query: NDArray[np.bytes_],
        *,
        table: ValueTable | None = None,
    ) -> None:
        self._form: VoteColumns | VoteEdits = VoteColumns(index, code, annotator, at, query)
        self._length = len(index)
        self.table = table

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
    def of(cls, votes: Iterable[Vote]) -> Votes:
        """Return votes that are given in order."""
        recent: dict[int, tuple[Vote, ...]] = {}
        for vote in votes:
            recent[vote.sample] = (*recent.get(vote.sample, ()), vote)
        return cls._new(VoteEdits(NO_VOTES, recent), sum(map(len, recent.values())), None)

    @classmethod
    def from_rows(cls, rows: Iterable[tuple[int, int, int, bytes]], at: int) -> Votes:
        """Return votes from rows (index, class code, annotator code, query id) in any order.

        The votes on a sample get consecutive times in the order of the rows, a microsecond apart, starting with `at`.
        """
        rows = list(rows)
        if len(rows) <= FEW:
            counts: dict[int, int] = {}
            votes = []
            for sample, code, annotator, query in rows:
                counts[sample] = counts.get(sample, -1) + 1
                votes.append(Vote(sample, code, annotator, at + counts[sample], query))
            return cls.of(sorted(votes, key=place_of))
        columns = tuple(zip(*rows, strict=True))
        index = np.array(columns[0], np.int64)
        unsorted = cls(
            index,
            np.array(columns[1], np.int32),
            np.array(columns[2], np.int32),
            at + (nth_of_value(index) if len(set(columns[0])) < len(index) else np.zeros(len(index), np.int64)),
            np.array(columns[3], np.bytes_),
        )
        is_ordered = (unsorted.key[1:] >= unsorted.key[:-1]).all()
        return unsorted if is_ordered else unsorted.take(np.argsort(unsorted.key))

    @property
    def columns(self) -> VoteColumns:
        """The columns, in the order of the fields of `Vote`."""
        form = self._form
        if isinstance(form, VoteEdits):
            form = self._form = form.columns()
        return form

    @property
    def index(self) -> NDArray[np.int64]:
        """The sample of each vote."""
        return self.columns.sample

    @property
    def code(self) -> NDArray[np.int32]:
        """The code of each vote's label, SKIP for a skip."""
        return self.columns.code

    @property
    def annotator(self) -> NDArray[np.int32]:
        """The code of each vote's annotator, ANONYMOUS for none."""
        return self.columns.annotator

    @property
    def at(self) -> NDArray[np.int64]:
        """The time of each vote."""
        return self.columns.at

    @property
    def query(self) -> NDArray[np.bytes_]:
        """The query that asked for each vote."""
        return self.columns.query

    def __len__(self) -> int:
        return self._length

    def __getstate__(self) -> dict[str, Any]:
        """Return what is pickled: all but the origin, which refers to votes of this process."""
        return {name: value for name, value in self.__dict__.items() if name != "origin"} | {"_form": self.columns}

    @cached_property
    def majority(self) -> SampleLabels:
        """The majority label of each sample, computed once for all states of a project that share the votes.

        With a table, its own rule counts instead of the majority.
        """
        return resolve_votes(self) if self.table is None else self.table.resolve(self)

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
        return self if self.table is None else self.with_table(self.table.completed(self))

    def with_table(self, table: ValueTable | None) -> Votes:
        """Return the votes with another table, in which their codes stand for the same values."""
        return self if table is self.table else self._new(self._form, len(self), table)

    @cached_property
    def latest(self) -> int:
        """The time of the latest vote, or a later one if it was retracted; 0 without any."""
        return int(self.at.max(initial=0))

    @property
    def n_bytes(self) -> int:
        """Memory used, in bytes."""
        form = self._form
        n_bytes = 0 if self.table is None else self.table.n_bytes
        if isinstance(form, VoteEdits):
            return n_bytes + form.settled.n_bytes + BYTES_OF_RECENT * len(form.recent)
        # The cached properties count too: key, majority, hashes and numbers of labels.
        return n_bytes + sum(column.nbytes for column in form) + 4 * form.sample.nbytes + form.code.nbytes

    @cached_property
    def key(self) -> NDArray[np.int64]:
        """An integer for each vote, in the order of samples, then annotators."""
        keys: NDArray[np.int64] = vote_key(self.index, self.annotator)
        return keys

    def rows(self) -> list[Vote]:
        """Return the votes one by one."""
        form = self._form
        if isinstance(form, VoteEdits) and len(form.settled) == 0:
            return [vote for sample in sorted(form.recent) for vote in form.recent[sample]]
        return [Vote(*row) for row in zip(*(column.tolist() for column in self.columns), strict=True)]

    def lists(self) -> list[list[Any]]:
        """Return the columns as lists."""
        if isinstance(self._form, VoteEdits) and len(self) <= FEW:
            return (
                [list(column) for column in zip(*self.rows(), strict=True)] if len(self) else [[] for _ in Vote._fields]
            )
        return [column.tolist() for column in self.columns]

    def on(self, sample: int) -> tuple[Vote, ...]:
        """Return the votes on a sample."""
        form = self._form
        if isinstance(form, VoteEdits):
            found = form.recent.get(sample)
            return form.settled.on(sample) if found is None else found
        row, n_rows = int(form.sample.searchsorted(sample)), len(form.sample)
        votes = []
        while row < n_rows and form.sample[row] == sample:
            votes.append(Vote(*(column[row].item() for column in form)))
            row += 1
        return tuple(votes)

    def having(self, keys: Sequence[int]) -> Votes:
        """Return the votes with some keys, given in order, which all exist."""
        if len(keys) > FEW:
            return self.take(np.searchsorted(self.key, np.array(keys, np.int64)))
        wanted = {*keys}
        samples = sorted({key >> ANNOTATOR_BITS for key in wanted})
        return Votes.of(
            vote for sample in samples for vote in self.on(sample) if vote_key(sample, vote.annotator) in wanted
        )

    def take(self, rows: NDArray[np.intp] | NDArray[np.bool_]) -> Votes:
        """Return some of the votes, in the given order."""
        columns: Iterator[Any] = (column[rows] for column in self.columns)
        return Votes(*columns, table=self.table)

    def rows_of(self, samples: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the rows of the votes on some samples, given in order."""
        first = np.searchsorted(self.index, samples, "left")
        counts = np.searchsorted(self.index, samples, "right") - first
        begin = np.cumsum(counts) - counts
        return np.repeat(first - begin, counts) + np.arange(counts.sum())

    def changed(self, gone: Votes, given: Votes) -> Votes:
        """Return the votes without some, and with new ones; they remember what changed."""
        if len(gone) + len(given) <= FEW:
            removed = {place_of(vote) for vote in gone.rows()}
            votes: dict[int, list[Vote]] = {}
            for vote in (*gone.rows(), *given.rows()):
                if vote.sample not in votes:
                    votes[vote.sample] = [each for each in self.on(vote.sample) if place_of(each) not in removed]
            for vote in given.rows():
                votes[vote.sample].append(vote)
            return self.with_votes_on({sample: tuple(sorted(each, key=place_of)) for sample, each in votes.items()})
        is_kept = np.ones(len(self), np.bool_)
        is_kept[look_up(self.key, gone.key)[0]] = False
        return self.take(is_kept).merge(given)._arisen(self, gone, given)

    def with_votes_on(self, new: dict[int, tuple[Vote, ...]]) -> Votes:
        """Return the votes with all votes on a few samples replaced, in order; they remember what changed."""
        old = {sample: self.on(sample) for sample in new}
        gone = Votes.of(vote for sample in sorted(new) for vote in old[sample] if vote not in new[sample])
        given = Votes.of(vote for sample in sorted(new) for vote in new[sample] if vote not in old[sample])
        form = self._form
        if isinstance(form, VoteEdits) and len(form.recent) + len(new) > MAX_RECENT:
            form = self.columns
        length = len(self) + len(given) - len(gone)
        recent, settled = ({**form.recent, **new}, form.settled) if isinstance(form, VoteEdits) else (new, self)
        votes = self._new(VoteEdits(settled, recent), length, self.table)
        if self.table is None and "majority" in self.__dict__:
            votes.__dict__["majority"] = self.majority.with_codes(
                {sample: majority_of(each) for sample, each in new.items()}
            )
        return votes._arisen(self, gone, given)

    @classmethod
    def _new(cls, form: VoteColumns | VoteEdits, length: int, table: ValueTable | None) -> Votes:
        """Return votes of any form."""
        votes = cls.__new__(cls)
        votes._form, votes._length, votes.table = form, length, table
        return votes

    def _arisen(self, before: Votes, gone: Votes, given: Votes) -> Votes:
        """Keep how these votes arose, and return them."""
        latest = max((vote.at for vote in given.rows()), default=0) if len(given) <= FEW else given.latest
        self.__dict__["latest"] = max(before.latest, latest)
        self.__dict__["origin"] = VotesChange(ref(before), gone, given)
        return self

    @cached_property
    def origin(self) -> VotesChange | None:
        """The change from which these votes arose, None if unknown."""
        return None

    def change_since(self, before: Votes) -> VotesChange | None:
        """Return the change from which these votes arose, None if they did not arise from others directly."""
        return self.origin if self.origin is not None and self.origin.before() is before else None

    def difference(self, later: Votes) -> tuple[Votes, Votes]:
        """Return the votes that are gone or changed later, and the later votes that are new or changed."""
        change = later.change_since(self)
        if change is not None:
            return change.gone, change.given
        rows, found = look_up(self.key, later.key)
        is_same = found.copy()
        for old, new in self._pairs(later):
            is_same[found] &= old[rows[found]] == new[found]
        is_gone = np.ones(len(self), np.bool_)
        is_gone[rows[is_same]] = False
        return self.take(is_gone), later.take(~is_same)

    def merge(self, other: Votes) -> Votes:
        """Return the votes of both, sorted; `other` has codes of the same classes or table."""
        columns: Iterator[Any] = map(np.concatenate, self._pairs(other))
        both = Votes(*columns, table=self.table)
        return both.take(np.argsort(both.key, kind="stable"))

    def _pairs(self, other: Votes) -> Iterator[tuple[Any, Any]]:
        """Return the same columns of both."""
        return zip(self.columns, other.columns, strict=True)


def place_of(vote: Vote) -> tuple[int, int]:
    """Return the sample and annotator of a vote, which order votes."""
    return vote.sample, vote.annotator


def columns_of(votes: Sequence[Vote]) -> VoteColumns:
    """Return the columns of votes."""
    index, code, annotator, at, query = zip(*votes, strict=True) if votes else ((),) * len(Vote._fields)
    return VoteColumns(
        np.array(index, np.int64),
        np.array(code, np.int32),
        np.array(annotator, np.int32),
        np.array(at, np.int64),
        np.array(query, np.bytes_),
    )


NO_VOTES = Votes.empty()

BYTES_OF_RECENT = 400
"""Memory of a sample's votes that are kept apart."""


class LabelColumns(NamedTuple):
    """The columns of `SampleLabels`."""

    labeled: NDArray[np.int64]
    codes: NDArray[np.int32]
    skipped: NDArray[np.int64]


class LabelEdits(NamedTuple):
    """Labels without columns: those of `settled`, but `recent` has those of some samples: a code, SKIP or UNVOTED."""

    settled: SampleLabels
    recent: dict[int, int]

    def columns(self) -> LabelColumns:
        """Return the columns."""
        old = self.settled.columns
        samples = np.array(sorted(self.recent), np.int64)
        codes = np.array([self.recent[sample] for sample in samples.tolist()], np.int32)
        is_kept = ~contains(samples, old.labeled)
        labeled = np.concatenate([old.labeled[is_kept], samples[codes > SKIP]])
        order = np.argsort(labeled, kind="stable")
        skipped = np.concatenate([old.skipped[~contains(samples, old.skipped)], samples[codes == SKIP]])
        return LabelColumns(
            labeled[order],
            np.concatenate([old.codes[is_kept], codes[codes > SKIP]])[order],
            np.sort(skipped, kind="stable"),
        )


class SampleLabels:
    """The labelled samples with one class code each, and the skipped samples, both sorted."""

    def __init__(self, labeled: NDArray[np.int64], codes: NDArray[np.int32], skipped: NDArray[np.int64]) -> None:
        self._form: LabelColumns | LabelEdits = LabelColumns(labeled, codes, skipped)
        self.n_labeled = len(labeled)
        self.n_skipped = len(skipped)

    @property
    def columns(self) -> LabelColumns:
        """The columns."""
        form = self._form
        if isinstance(form, LabelEdits):
            form = self._form = form.columns()
        return form

    @property
    def labeled(self) -> NDArray[np.int64]:
        """The samples with a label."""
        return self.columns.labeled

    @property
    def codes(self) -> NDArray[np.int32]:
        """The codes of their labels."""
        return self.columns.codes

    @property
    def skipped(self) -> NDArray[np.int64]:
        """The samples that are skipped."""
        return self.columns.skipped

    @cached_property
    def counts(self) -> NDArray[np.intp]:
        """The number of samples with each code, at least up to the largest one."""
        return np.bincount(self.codes)

    def code_of(self, index: NDArray[np.int64]) -> NDArray[np.int32]:
        """Return the class code of each sample, SKIP without a label."""
        if isinstance(self._form, LabelEdits) and len(index) <= FEW:
            return np.array([max(self.code_at(sample), SKIP) for sample in index.tolist()], np.int32)
        rows, found = look_up(self.labeled, index)
        codes = np.full(len(index), SKIP, np.int32)
        codes[found] = self.codes[rows[found]]
        return codes

    def code_at(self, sample: int) -> int:
        """Return the class code of a sample, SKIP if it is skipped, UNVOTED if it is neither labelled nor skipped."""
        form = self._form
        if isinstance(form, LabelEdits):
            code = form.recent.get(sample)
            return form.settled.code_at(sample) if code is None else code
        row = int(form.labeled.searchsorted(sample))
        if row < len(form.labeled) and form.labeled[row] == sample:
            return int(form.codes[row])
        row = int(form.skipped.searchsorted(sample))
        return SKIP if row < len(form.skipped) and form.skipped[row] == sample else UNVOTED

    def with_codes(self, new: dict[int, int]) -> SampleLabels:
        """Return the labels with those of a few samples replaced, each by a class code, SKIP or UNVOTED."""
        old = [self.code_at(sample) for sample in new]
        form = self._form
        if isinstance(form, LabelEdits) and len(form.recent) + len(new) > MAX_RECENT:
            form = self.columns
        labels = SampleLabels.__new__(SampleLabels)
        if isinstance(form, LabelEdits):
            labels._form = LabelEdits(form.settled, {**form.recent, **new})
        else:
            labels._form = LabelEdits(self, new)
        counts = np.zeros(max(len(self.counts), max(new.values(), default=SKIP) + 1), np.intp)
        counts[: len(self.counts)] = self.counts
        labels.n_labeled, labels.n_skipped = self.n_labeled, self.n_skipped
        for codes, change in ((old, -1), (new.values(), 1)):
            for code in codes:
                if code > SKIP:
                    counts[code] += change
                    labels.n_labeled += change
                labels.n_skipped += change * (code == SKIP)
        labels.counts = counts
        return labels


@dataclass(frozen=True, slots=True, eq=False)
class VotesChange:
    """A change of votes: those before, as long as they are in memory, those that are gone, and the new ones."""

    before: ReferenceType[Votes]
    gone: Votes
    given: Votes

    def samples(self) -> list[int]:
        """Return the samples whose votes change, in order."""
        return sorted({vote.sample for votes in (self.gone, self.given) for vote in votes.rows()})


def majority_of(votes: Sequence[Vote]) -> int:
    """Return the label of a sample with these votes as `resolve_votes` does, SKIP or UNVOTED."""
    given = [vote for vote in votes if vote.code != SKIP]
    if len(given) <= 1:
        return given[0].code if given else SKIP if votes else UNVOTED
    counts: dict[int, int] = {}
    latest: dict[int, int] = {}
    for vote in given:
        counts[vote.code] = counts.get(vote.code, 0) + 1
        latest[vote.code] = max(latest.get(vote.code, 0), vote.at)
    return max(counts, key=lambda code: (counts[code], latest[code], lot_of(given[0].sample, code)))


def hash_of(votes: Sequence[Vote]) -> int:
    """Return the hash of the votes on a sample as `Votes.vote_hashes` has it."""
    given = (((vote.annotator + 1) << 32) + vote.code + 1 for vote in votes if vote.code != SKIP)
    return sum(mix_one(vote * int(GOLDEN)) for vote in given) & MASK


def lot_of(sample: int, code: int) -> int:
    """Return the hash of a sample and a class that decides between labels that tie."""
    return mix_one((sample + 1) * int(GOLDEN) + code)


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
    if len(new) <= FEW:
        return cast_few(votes, new.rows(), before)
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
    there = votes.take(votes.rows_of(np.unique(new.index)))
    replaced = (
        rows_with(there.key, new.key)
        | rows_with(there.index, new.index[anonymous])
        | ((there.annotator == ANONYMOUS) & (there.code == SKIP))
        | ((there.annotator == ANONYMOUS) & rows_with(there.index, new.index[new.code != SKIP]))
    )
    return votes.changed(there.take(replaced), new), len(new)


def cast_few(votes: Votes, new: Iterable[Vote], before: SampleLabels) -> tuple[Votes, int]:
    """Return the votes after a few `new` ones as `cast_votes` does."""
    by_sample: dict[int, list[Vote]] = {}
    for vote in new:
        by_sample.setdefault(vote.sample, []).append(vote)
    changed: dict[int, tuple[Vote, ...]] = {}
    n_changed = 0
    for sample, given in by_sample.items():
        there, label = votes.on(sample), before.code_at(sample)
        known = {vote.annotator: vote.code for vote in there}
        given = [
            vote
            for vote in given
            if known.get(vote.annotator) != vote.code and not (vote.annotator == ANONYMOUS and vote.code == label)
        ]
        if given:
            changed[sample] = after_votes(there, given)
            n_changed += len(given)
    return (votes.with_votes_on(changed) if changed else votes), n_changed


def after_votes(there: Sequence[Vote], given: Sequence[Vote]) -> tuple[Vote, ...]:
    """Return the votes on a sample after new ones that change something."""
    annotators = {vote.annotator for vote in given}
    if ANONYMOUS in annotators:
        return tuple(given)
    has_label = any(vote.code != SKIP for vote in given)
    kept = [
        vote
        for vote in there
        if vote.annotator not in annotators and not (vote.annotator == ANONYMOUS and (has_label or vote.code == SKIP))
    ]
    return tuple(sorted([*kept, *given], key=place_of))


def misplaced_anonymous(votes: Votes) -> NDArray[np.int64]:
    """Return the samples with an anonymous vote and others; an anonymous label may only have named skips beside it."""
    after = np.flatnonzero(votes.index[1:] == votes.index[:-1]) + 1
    first = after[votes.annotator[after - 1] == ANONYMOUS] - 1
    named_labels = votes.index[(votes.code != SKIP) & (votes.annotator != ANONYMOUS)]
    wrong = (votes.code[first] == SKIP) | contains(named_labels, votes.index[first])
    samples: NDArray[np.int64] = votes.index[first[wrong]]
    return samples
