"""POST /projects/{id}/pool: append samples to the pool of a project."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from service.domain.labels import EncodedLabels, Votes
from service.domain.preconditions import UNCONDITIONAL, Preconditions
from service.domain.project import Project, Segment, encode_labels, extend_classes
from service.domain.sample_ids import PoolIds, SampleId, SampleIds, type_of_ids
from service.errors import MAX_ERRORS, FieldError, InvalidRequest
from service.learning.pool import Rows, common_dtype, concatenate_rows, count_cells
from service.store import Part, Snapshot, Store
from service.store.files import StagedFile
from service.store.layout import ids_file, rows_files
from service.store.staging import StagedRows, Staging
from service.usecases.columns import notes_on_columns, order_columns
from service.usecases.run_once import run_once
from service.usecases.uploads import (
    check_lengths,
    first_entry,
    refuse_missing_spellings,
    refuse_other_kind,
    target_files,
)

MAX_SEGMENTS = 2_000
"""Each segment has up to four mapped files, and a process has a limited number of open files."""

MERGED_ROWS = 2**16
MERGED_CELLS = 2**22
"""Segments up to this size are merged with the rows appended to them: 32 MB of float64."""


@dataclass(frozen=True, slots=True, eq=False)
class AppendRequest:
    """The request of POST /projects/{id}/pool; None where a field was not sent.

    `missing_is_class` takes the spellings of a missing label as classes.
    """

    project_id: str
    X: StagedRows
    y: EncodedLabels | None = None
    ids: Sequence[SampleId] | None = None
    missing_is_class: bool = False


def append_samples(
    store: Store, staging: Staging, request: AppendRequest, max_cells: int, preconditions: Preconditions = UNCONDITIONAL
) -> Project:
    """Append samples to the pool, and return the project. The indices of earlier samples stay the same.

    Labels of the new samples make a fit due. Raises InvalidRequest, ProjectNotFound, PreconditionFailed and the store's
    errors.
    """
    return run_once(
        store,
        request.project_id,
        preconditions,
        lambda: append_rows(store, staging, request, max_cells, preconditions),
        lambda prior: prior.project,
    )


def notes_on(request: AppendRequest) -> list[str]:
    """Return notes on a request that was accepted. They depend on the request alone, so a replay has the same."""
    return notes_on_columns("/X", request.X, request.X.names)


def append_rows(
    store: Store, staging: Staging, request: AppendRequest, max_cells: int, preconditions: Preconditions
) -> Project:
    """Append the samples in one commit."""
    check_lengths(request.X.n_rows, request.y, request.ids)
    names = None if request.ids is None else SampleIds.build(request.ids)
    before = store.read(request.project_id, Part.POOL, Part.IDS)
    preconditions.check(before.project)
    # Looking up a million ids takes a second: do it before locking, and again only if the pool has changed since.
    sent, request = request, with_ordered_columns(request, before.project, staging)
    check_samples(before, request, max_cells)
    with store.transaction(request.project_id, preconditions=preconditions) as transaction:
        snapshot = transaction.read(Part.POOL, Part.IDS)
        if pool_of(snapshot.project) != pool_of(before.project):
            request = with_ordered_columns(sent, snapshot.project, staging)
            check_samples(snapshot, request, max_cells)
        if len(snapshot.project.segments) == MAX_SEGMENTS:
            problem = (
                f"cannot be appended: the pool has {MAX_SEGMENTS} segments, the maximum; append more rows at a time"
            )
            raise InvalidRequest.at("/X", problem)
        project = with_new_labels(snapshot.project, request)
        segments, rows, names = merge_segments(snapshot, request.X, names)
        number = project.last_file + 1
        segment = Segment(number, len(rows), request.X.is_sparse)
        X = request.X if len(rows) == request.X.n_rows else staging.rows(rows)
        files: Mapping[str, StagedFile] = target_files(rows_files(segment), X)
        if names is not None:
            files = {**files, ids_file(segment): staging.ids(names)}
        project = replace(project, segments=(*segments, segment), last_file=number)
        return transaction.commit(project.next_version(), files)


def with_ordered_columns(request: AppendRequest, project: Project, staging: Staging) -> AppendRequest:
    """Return the request with its columns in the order of the pool."""
    return replace(request, X=order_columns("/X", request.X, project.feature_names, staging))


def pool_of(project: Project) -> tuple[str, tuple[Segment, ...]]:
    """Return a value that identifies the rows of a project."""
    return project.pool_id, project.segments


def check_samples(snapshot: Snapshot, request: AppendRequest, max_cells: int) -> None:
    """Raise InvalidRequest for samples that do not fit the pool."""
    project, X = snapshot.project, request.X
    refuse_other_kind("/X", X, project)
    if snapshot.pool is not None:
        cells = sum(map(count_cells, (*snapshot.pool.segments, X.open())))
        if cells > max_cells:
            raise InvalidRequest.at("/X", f"would make a pool of {cells} cells; AQ_MAX_POOL_CELLS allows {max_cells}")
    if project.has_ids and request.ids is None:
        raise InvalidRequest.at("/ids", "is required: this project was made with ids")
    if not project.has_ids and request.ids is not None:
        raise InvalidRequest.at("/ids", "must be omitted: this project was made without ids")
    if request.ids is not None and snapshot.ids is not None:
        given, wanted = type_of_ids(request.ids[0]), snapshot.ids.type_name
        if given != wanted:
            raise InvalidRequest.at("/ids/0", f"is {given}; each id of this project is {wanted}")
        known = list(islice(snapshot.ids.find_known(request.ids), MAX_ERRORS + 1))
        if known:
            raise InvalidRequest(FieldError(f"/ids/{position}", "is in the pool already") for position in known)


def with_new_labels(project: Project, request: AppendRequest) -> Project:
    """Return the project with the anonymous labels of the new samples."""
    if request.y is None:
        return project
    refuse_missing_spellings("y", request.y, project.classes, missing_is_class=request.missing_is_class)
    project = extend_classes(project, request.y.values, first_entry("y", request.y))
    codes = encode_labels(project, request.y)
    rows = np.flatnonzero(codes >= 0)
    new = Votes.anonymous(rows + project.n_samples, codes[rows], project.next_moment())
    return project.with_votes(project.votes.merge(new))


def merge_segments(
    snapshot: Snapshot, X: StagedRows, names: SampleIds | None
) -> tuple[tuple[Segment, ...], Rows, SampleIds | None]:
    """Return the segments that stay, and the rows and ids of the segment that follows them.

    That holds the new rows and those of small segments before them, so a pool that grows by single samples has few
    segments, and each row is rewritten only a few times.
    """
    if snapshot.pool is None:
        raise ValueError("an append needs a snapshot with its pool")
    pool, segments = snapshot.pool, snapshot.project.segments
    rows, n_kept = X.open(), len(segments)
    while n_kept and can_merge(pool.segments[n_kept - 1], rows):
        n_kept -= 1
        rows = concatenate_rows(pool.segments[n_kept], rows)
    if names is not None and snapshot.ids is not None and n_kept < len(segments):
        parts = (*snapshot.ids.parts[n_kept:], names)
        names = SampleIds.build(PoolIds(parts).names_at(range(len(rows))))
    return segments[:n_kept], rows, names


def can_merge(last: Rows, new: Rows) -> bool:
    """Return whether to rewrite a segment with the rows after it: it is small, and one dtype holds both."""
    is_small = len(last) <= min(MERGED_ROWS, len(new)) and count_cells(last) + count_cells(new) <= MERGED_CELLS
    return is_small and common_dtype(last.dtype, new.dtype) is not None
