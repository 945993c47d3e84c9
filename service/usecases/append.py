"""POST /projects/{id}/pool: append samples to the pool of a project."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import islice

import numpy as np

from service.domain.labels import EncodedLabels, Votes
from service.domain.preconditions import UNCONDITIONAL, Preconditions
from service.domain.project import Project, Segment, encode_labels, extend_classes
from service.domain.sample_ids import PoolIds, SampleId, SampleIds, type_of_ids
from service.domain.text_column import TextColumn
from service.errors import MAX_ERRORS, FieldError, InvalidRequest
from service.learning.pool import Rows, common_dtype, concatenate_rows, count_cells
from service.store import Part, Snapshot, Store
from service.store.files import StagedFile
from service.store.layout import ids_file, rows_files, texts_file, urls_file
from service.store.staging import StagedRows, Staging
from service.usecases.columns import notes_on_columns, order_columns
from service.usecases.run_once import run_once
from service.usecases.texts import Samples, TextUpload, stage_column, stage_features
from service.usecases.uploads import (
    check_lengths,
    first_entry,
    refuse_missing_spellings,
    refuse_missing_values,
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
    X: Samples
    y: EncodedLabels | None = None
    ids: Sequence[SampleId] | None = None
    urls: Sequence[str] | None = None
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
    return notes_on_columns("/X", request.X, request.X.names) if isinstance(request.X, StagedRows) else []


def append_rows(
    store: Store, staging: Staging, request: AppendRequest, max_cells: int, preconditions: Preconditions
) -> Project:
    """Append the samples in one commit."""
    check_lengths(request.X, {"y": request.y, "ids": request.ids, "urls": request.urls})
    before = store.read(request.project_id, Part.POOL, Part.IDS)
    preconditions.check(before.project)
    # Features of many texts, or a search for a million ids, take seconds: make them before locking, and again only if
    # the pool was replaced or has changed since.
    X = stage_samples(request, before.project, staging)
    names = None if request.ids is None else SampleIds.build(request.ids)
    check_samples(before, request, X, max_cells)
    with store.transaction(request.project_id, preconditions=preconditions) as transaction:
        snapshot = transaction.read(Part.POOL, Part.IDS, Part.TEXTS, Part.URLS)
        if snapshot.project.pool_id != before.project.pool_id:
            X = stage_samples(request, snapshot.project, staging)
        if pool_of(snapshot.project) != pool_of(before.project):
            check_samples(snapshot, request, X, max_cells)
        if len(snapshot.project.segments) == MAX_SEGMENTS:
            problem = (
                f"cannot be appended: the pool has {MAX_SEGMENTS} segments, the maximum; append more rows at a time"
            )
            raise InvalidRequest.at("/X", problem)
        project = with_new_labels(snapshot.project, request)
        columns = StoredColumns(
            names, texts_of(request, project), None if request.urls is None else TextColumn.build(request.urls)
        )
        segments, rows, columns = merge_segments(snapshot, X, columns)
        segment = Segment(project.last_file + 1, len(rows), X.is_sparse)
        X = X if len(rows) == X.n_rows else staging.rows(rows)
        files = target_files(rows_files(segment), X) | columns.stage(segment, staging)
        project = replace(project, segments=(*segments, segment), last_file=segment.number)
        if project.text is not None and not project.fit_is_wanted:
            # The weights of terms change, and no request for a fit was about those.
            project = replace(project, fit_asked=None)
        return transaction.commit(project.next_version(), files)


def stage_samples(request: AppendRequest, project: Project, staging: Staging) -> StagedRows:
    """Return the features of the samples, with columns in the order of the pool."""
    X = stage_features("X" if isinstance(request.X, StagedRows) else "texts", request.X, project.text, staging)
    return order_columns("/X", X, project.feature_names, staging)


def texts_of(request: AppendRequest, project: Project) -> TextColumn | None:
    """Return the texts to store, None if the project stores none."""
    return TextColumn.build(request.X.texts) if project.has_texts and isinstance(request.X, TextUpload) else None


def pool_of(project: Project) -> tuple[str, tuple[Segment, ...]]:
    """Return a value that identifies the rows of a project."""
    return project.pool_id, project.segments


def check_samples(snapshot: Snapshot, request: AppendRequest, X: StagedRows, max_cells: int) -> None:
    """Raise InvalidRequest for samples that do not fit the pool."""
    project = snapshot.project
    refuse_other_kind("/X", X, project)
    refuse_missing_values(X, project.missing_values)
    if snapshot.pool is not None:
        cells = sum(map(count_cells, (*snapshot.pool.segments, X.open())))
        if cells > max_cells:
            raise InvalidRequest.at("/X", f"would make a pool of {cells} cells; AQ_MAX_POOL_CELLS allows {max_cells}")
    for name, is_stored, column in (("ids", project.has_ids, request.ids), ("urls", project.has_urls, request.urls)):
        if is_stored and column is None:
            raise InvalidRequest.at(f"/{name}", f"is required: this project was made with {name}")
        if not is_stored and column is not None:
            raise InvalidRequest.at(f"/{name}", f"must be omitted: this project was made without {name}")
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


@dataclass(frozen=True, slots=True, eq=False)
class StoredColumns:
    """The columns beside the features of some samples; None where the project has none."""

    ids: SampleIds | None
    texts: TextColumn | None
    urls: TextColumn | None

    def stage(self, segment: Segment, staging: Staging) -> dict[str, StagedFile]:
        """Write the columns to the staged files of a segment."""
        files = {
            ids_file(segment): None if self.ids is None else staging.ids(self.ids),
            texts_file(segment): stage_column(self.texts, staging),
            urls_file(segment): stage_column(self.urls, staging),
        }
        return {name: file for name, file in files.items() if file is not None}


def merge_segments(
    snapshot: Snapshot, X: StagedRows, columns: StoredColumns
) -> tuple[tuple[Segment, ...], Rows, StoredColumns]:
    """Return the segments that stay, and the rows and columns of the segment that follows them.

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
    if n_kept == len(segments):
        return segments, rows, columns
    ids = columns.ids
    if ids is not None and snapshot.ids is not None:
        parts = (*snapshot.ids.parts[n_kept:], ids)
        ids = SampleIds.build(PoolIds(parts).names_at(range(len(rows))))
    texts, urls = (
        new if new is None or old is None else reduce(TextColumn.followed_by, (*old.parts[n_kept:], new))
        for old, new in ((snapshot.texts, columns.texts), (snapshot.urls, columns.urls))
    )
    return segments[:n_kept], rows, StoredColumns(ids, texts, urls)


def can_merge(last: Rows, new: Rows) -> bool:
    """Return whether to rewrite a segment with the rows after it: it is small, and one dtype holds both."""
    is_small = len(last) <= min(MERGED_ROWS, len(new)) and count_cells(last) + count_cells(new) <= MERGED_CELLS
    return is_small and common_dtype(last.dtype, new.dtype) is not None
