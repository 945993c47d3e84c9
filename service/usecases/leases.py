"""Leases of samples to an annotator: created by POST /query, listed, renewed and released."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from service.compute.deadline import check_deadline
from service.domain.leases import (
    Lease,
    Reserve,
    holdings_of,
    last_vote_times,
    live_leases,
    renew,
    with_lease,
    without_lease,
)
from service.domain.project import MICROSECONDS, Project, format_time, now
from service.domain.sample_ids import SampleId
from service.learning.scoring import THREADS, Backend
from service.store import Part, Store, Transaction
from service.usecases.draws import keep_draw
from service.usecases.query import query_project
from service.usecases.query_request import QueryRequest
from service.usecases.query_result import QueryResult
from service.usecases.reserves import LeaseSelection, SelectionIsDue, model_version


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """A lease with its remaining samples; times in RFC 3339 format."""

    query_id: str
    annotator: str
    indices: list[int]
    ids: list[SampleId] | None
    leased_at: str
    expires_at: str


def lease_samples(
    store: Store,
    request: QueryRequest,
    backend_of: Callable[[Project], Backend] = lambda project: THREADS,
    enter: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> QueryResult:
    """Choose the next samples and lease them to the annotator, whose current leases come first.

    The samples are the next ones of a reserve, or else selected: for requests for leases of a project one after
    another, so no two select the same, unless that is quick. Labels go on meanwhile: if samples were labelled or leased
    before they could be leased, others are chosen. Raises what `query_project` raises.
    """
    if request.project_id is None or request.annotator is None:
        raise ValueError("a lease is of a project's samples, for an annotator")
    asked_at_model = model_version(store.read(request.project_id).project)
    selection = LeaseSelection(asked_at_model, may_select=request.strategy.ranks)
    with ExitStack() as turn:
        while True:
            try:
                answered = query_project(store, request, backend_of, enter, selection.choose)
            except SelectionIsDue:
                turn.enter_context(store.lease_turn(request.project_id))
                selection.may_select = True
                continue
            if not answered.indices:
                return answered
            answered = selection.with_model(answered)
            with store.transaction(request.project_id) as transaction:
                lease = create_lease(transaction, request, answered, selection.new_reserve)
            if lease is not None:
                return replace(answered, query_id=lease.query_id, lease_expires_at=format_time(lease.expires_at))
            check_deadline()


def create_lease(
    transaction: Transaction, request: QueryRequest, answered: QueryResult, reserve: Reserve | None
) -> Lease | None:
    """Lease the chosen samples, and keep the reserve that they are of if it is new.

    Return None if one of the samples is no longer available.
    """
    project, seen, moment = transaction.read().project, answered.project, now()
    if seen is None or seen.pool_id != project.pool_id:
        return None
    index = np.array(answered.indices, np.int64)
    leases = live_leases(transaction.leases(), project, moment)
    is_held = np.isin(index, holdings_of(leases, request.annotator).others)
    if is_held.any() or last_vote_times(project.votes, index, seen.updated_at).any():
        return None
    lease = Lease(
        query_id=uuid.uuid4().hex[:-8] + answered.query_id[-8:],  # the end names the strategy
        annotator=str(request.annotator),
        index=index,
        seconds=request.lease_seconds,
        leased_at=moment,
        expires_at=moment + request.lease_seconds * MICROSECONDS,
        known_at=project.updated_at,
    )
    keep_draw(transaction, answered, lease.query_id)
    transaction.keep_leases(with_lease(leases if reserve is None else leases.with_reserve(reserve), lease))
    return lease


def list_leases(store: Store, project_id: str) -> list[LeaseRecord]:
    """Return the leases, the first to expire first. Raises ProjectNotFound and the store's errors."""
    leases = store.leases(project_id)
    snapshot = store.read(project_id, Part.IDS)
    held = live_leases(leases, snapshot.project, now()).all
    names = None if snapshot.ids is None else snapshot.ids.names_at
    return [lease_record(lease, names) for lease in sorted(held, key=lambda lease: (lease.expires_at, lease.query_id))]


def renew_lease(
    store: Store, project_id: str, query_id: str, seconds: int | None, check_holder: Callable[[str], object]
) -> LeaseRecord:
    """Let a lease start again now, for `seconds` or as long as before.

    `check_holder` gets its annotator and may raise. Raises LeaseNotFound for an expired lease, and the store's errors.
    """
    with store.transaction(project_id) as transaction:
        snapshot, moment = transaction.read(Part.IDS), now()
        leases = live_leases(transaction.leases(), snapshot.project, moment)
        check_holder(leases.find(query_id).annotator)
        leases, lease = renew(leases, query_id, moment, seconds)
        transaction.keep_leases(leases)
    return lease_record(lease, None if snapshot.ids is None else snapshot.ids.names_at)


def release_lease(store: Store, project_id: str, query_id: str, check_holder: Callable[[str], object]) -> None:
    """Release the remaining samples of a lease. Raises as `renew_lease` does."""
    with store.transaction(project_id) as transaction:
        leases = live_leases(transaction.leases(), transaction.read().project, now())
        check_holder(leases.find(query_id).annotator)
        transaction.keep_leases(without_lease(leases, query_id))


def drop_ended_leases(transaction: Transaction, index: NDArray[np.int64]) -> None:
    """Drop the samples that labels have freed, so that a retracted label does not revive a lease of its sample."""
    leases = transaction.leases()
    alive = live_leases(leases, transaction.read().project, now())
    if (np.isin(index, leases.index) & ~np.isin(index, alive.index)).any():
        transaction.keep_leases(alive.with_leases(alive.all))


def lease_record(lease: Lease, names: Callable[[Sequence[int]], list[SampleId]] | None) -> LeaseRecord:
    """Return a lease as a record."""
    indices = lease.index.tolist()
    return LeaseRecord(
        query_id=lease.query_id,
        annotator=lease.annotator,
        indices=indices,
        ids=None if names is None else names(indices),
        leased_at=format_time(lease.leased_at),
        expires_at=format_time(lease.expires_at),
    )
