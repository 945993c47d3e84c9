"""Leases of samples to annotators: frozen values, and pure functions that change them.

A sample is leased to one annotator at a time, until it is labelled or skipped, or the lease is released or expires.
Whether a sample was labelled since is derived from the times of the project's votes.

A reserve holds the samples that were selected at once for several annotators. It reserves nothing: those that no lease
holds are free, and those that are not open any more are passed over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from service.domain.project import MICROSECONDS, Project, now
from service.domain.sorted_columns import contains, look_up, run_starts
from service.domain.votes import ANNOTATOR_BITS, ANONYMOUS, SKIP, Votes
from service.errors import LeaseNotFound

MAX_LEASE_SECONDS = 7 * 24 * 3600
"""One week."""

Indices = NDArray[np.int64]
NO_INDICES: Indices = np.empty(0, np.int64)

MAX_RESERVES = 4
"""Largest number of reserves of a project; the oldest are dropped."""


@dataclass(frozen=True, slots=True, eq=False)
class Lease:
    """The samples of one query, leased to one annotator, in the order of the query. Times are in microseconds.

    `known_at` is the time of the last commit known to have left the samples open: a later vote ends the lease of its
    sample.
    """

    query_id: str
    annotator: str
    index: Indices
    seconds: int
    leased_at: int
    expires_at: int
    known_at: int


@dataclass(frozen=True, slots=True, eq=False)
class Reserve:
    """Samples (k,) selected for several annotators, in the order of asking, with their scores (k,) if there are any.

    `key` is the same for all requests that they answer. They do so until there is a newer model than `model_version`,
    which is 0 without a model. The other fields are those of the selection.
    """

    key: str
    model_version: int
    index: Indices
    scores: NDArray[np.float64] | None
    strategy: str
    fallback_reason: str | None
    reason: str | None


@dataclass(frozen=True, eq=False)
class Leases:
    """All leases of the pool `pool_id`; `changed_at` grows with each change.

    `at_work` are the annotators who leased samples, with the time when the last lease of each ends or would have ended.
    The last of the `reserves` is the newest.
    """

    pool_id: str
    all: tuple[Lease, ...] = ()
    changed_at: int = 0
    at_work: Mapping[str, int] = field(default_factory=dict)
    reserves: tuple[Reserve, ...] = ()

    @cached_property
    def index(self) -> Indices:
        """The samples of all leases, lease by lease."""
        return samples_of(self.all)

    @property
    def n_bytes(self) -> int:
        """Approximate memory used, in bytes."""
        n_reserved = sum(len(reserve.index) for reserve in self.reserves)
        return 2 * self.index.nbytes + 16 * n_reserved + 500 * (len(self.all) + len(self.reserves) + len(self.at_work))

    def find(self, query_id: str) -> Lease:
        """Return the lease of a query, or raise LeaseNotFound."""
        for lease in self.all:
            if lease.query_id == query_id:
                return lease
        raise LeaseNotFound(query_id)

    def with_leases(self, leases: tuple[Lease, ...]) -> Leases:
        """Return these leases with others in their place; empty ones are dropped."""
        kept = tuple(lease for lease in leases if len(lease.index))
        return replace(self, all=kept, changed_at=max(now(), self.changed_at + 1))

    def with_reserve(self, new: Reserve) -> Leases:
        """Return these leases with a new reserve, without those that it replaces or whose model is older."""
        kept = [old for old in self.reserves if old.key != new.key and old.model_version >= new.model_version]
        return replace(self, reserves=(*kept, new)[-MAX_RESERVES:])

    def find_reserve(self, key: str, oldest_model: int, newest_model: int) -> Reserve | None:
        """Return the reserve with this key, made with one of these versions of the model, None if there is none."""
        for reserve in self.reserves:
            if reserve.key == key and oldest_model <= reserve.model_version <= newest_model:
                return reserve
        return None

    def n_at_work(self, annotator: str | None, moment: int) -> int:
        """Return the number of annotators who lease samples at a moment, with this one, who may have no name."""
        return len({annotator, *(name for name, ends_at in self.at_work.items() if ends_at > moment)})


NO_LEASES = Leases("")


@dataclass(frozen=True, slots=True, eq=False)
class Holdings:
    """The leased samples from one annotator's view: `own` in the order they were leased, `others` sorted.

    `free_at` (k,) are the expiry times of the others.
    """

    own: Indices
    others: Indices
    free_at: Indices

    def __bool__(self) -> bool:
        return len(self.own) + len(self.others) > 0


NO_HOLDINGS = Holdings(NO_INDICES, NO_INDICES, NO_INDICES)


def live_leases(leases: Leases, project: Project, moment: int) -> Leases:
    """Return the leases without samples that have expired, were labelled or skipped since, or removed.

    None of them is of another pool.
    """
    if leases.pool_id != project.pool_id:
        return Leases(project.pool_id, (), leases.changed_at)
    if not leases.all:
        return leases
    sizes = n_samples(leases.all)
    is_held = np.repeat([lease.expires_at > moment for lease in leases.all], sizes)
    known_at = np.repeat([lease.known_at for lease in leases.all], sizes)
    is_held &= last_vote_times(deciding_votes(project), leases.index, known_at.min()) <= known_at
    is_held &= ~skipped_by_holder(leases, project, known_at)
    is_held &= ~contains(project.removed, leases.index)
    if is_held.all():
        return leases
    kept = np.split(is_held, np.cumsum(sizes)[:-1])
    remaining = (replace(lease, index=lease.index[rows]) for lease, rows in zip(leases.all, kept, strict=True))
    return replace(leases, all=tuple(lease for lease in remaining if len(lease.index)))


def n_samples(leases: Sequence[Lease]) -> list[int]:
    """Return the number of samples of each lease."""
    return [len(lease.index) for lease in leases]


def samples_of(leases: Sequence[Lease]) -> Indices:
    """Return the samples of some leases, lease by lease."""
    return np.concatenate([NO_INDICES, *(lease.index for lease in leases)])


def deciding_votes(project: Project) -> Votes:
    """Return the votes that end leases of other annotators, too: all but skips of samples that are not dropped."""
    votes = project.votes
    if project.skips_to_drop == 1:
        return votes
    return votes.take((votes.code != SKIP) | contains(project.labels.skipped, votes.index))


def last_vote_times(votes: Votes, index: Indices, after: int) -> Indices:
    """Return the time of the last vote on each sample (k,), 0 if it is not later than `after`."""
    is_late = votes.at > after
    late, at = votes.index[is_late], votes.at[is_late]
    answered = np.zeros(len(index), np.int64)
    if len(late):
        first = np.flatnonzero(run_starts(late))
        rows, found = look_up(late[first], index)
        answered[found] = np.maximum.reduceat(at, first)[rows[found]]
    return answered


def skipped_by_holder(leases: Leases, project: Project, known_at: Indices) -> NDArray[np.bool_]:
    """Return which of the held samples (k,) their own annotator has skipped since the lease."""
    names, votes = {name: code for code, name in enumerate(project.annotators)}, project.votes
    codes = np.repeat([names.get(lease.annotator, ANONYMOUS) for lease in leases.all], n_samples(leases.all))
    rows, found = look_up(votes.key, (leases.index << ANNOTATOR_BITS) + (codes + 1))
    found[found] = (votes.code[rows[found]] == SKIP) & (votes.at[rows[found]] > known_at[found])
    found &= codes != ANONYMOUS
    return found


def holdings_of(leases: Leases, annotator: str | None) -> Holdings:
    """Return the samples leased to an annotator and those leased to others, which are all if it is None.

    The leases must be live.
    """
    if not leases.all:
        return NO_HOLDINGS
    mine = sorted((lease for lease in leases.all if lease.annotator == annotator), key=lambda lease: lease.leased_at)
    others = [lease for lease in leases.all if lease.annotator != annotator]
    index = samples_of(others)
    free_at = np.repeat([lease.expires_at for lease in others], n_samples(others))
    order = np.argsort(index)
    return Holdings(samples_of(mine), index[order], free_at.astype(np.int64)[order])


def with_lease(leases: Leases, new: Lease) -> Leases:
    """Return the leases with another one; its samples leave the earlier leases of its annotator."""

    def without(lease: Lease) -> Lease:
        if lease.annotator != new.annotator:  # nearly all of thousands
            return lease
        return replace(lease, index=lease.index[~np.isin(lease.index, new.index)])

    at_work = {name: ends_at for name, ends_at in leases.at_work.items() if ends_at > new.leased_at}
    at_work[new.annotator] = new.expires_at
    return replace(leases, at_work=at_work).with_leases((*map(without, leases.all), new))


def renew(leases: Leases, query_id: str, moment: int, seconds: int | None) -> tuple[Leases, Lease]:
    """Return the leases with one that starts again at `moment`, and that lease. `seconds` None keeps its duration.

    Raises LeaseNotFound.
    """
    lease = leases.find(query_id)
    seconds = lease.seconds if seconds is None else seconds
    longer = replace(lease, seconds=seconds, expires_at=moment + seconds * MICROSECONDS)
    return leases.with_leases(tuple(longer if each is lease else each for each in leases.all)), longer


def without_lease(leases: Leases, query_id: str) -> Leases:
    """Return the leases without one, or raise LeaseNotFound."""
    released = leases.find(query_id)
    return leases.with_leases(tuple(lease for lease in leases.all if lease is not released))
