"""POST /projects/{id}/pool: append samples to the pool of a project."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.domain.label_sets import IndicatorLabels
from service.domain.labels import EncodedLabels
from service.domain.preconditions import UNCONDITIONAL, Preconditions
from service.domain.project import Project, Segment
from service.domain.sample_ids import PoolIds, SampleId, SampleIds, type_of_ids
from service.domain.targets import target_of
from service.domain.text_column import TextColumn
from service.domain.votes import Votes
from service.errors import InvalidRequest
from service.learning.pool import Rows, common_dtype, concatenate_rows, count_cells
from service.store import Part, Snapshot, Store
from service.store.files import StagedFile
from service.store.layout import ids_file, rows_files, texts_file, urls_file
from service.store.staging import StagedRows, Staging
from service.usecases.columns import notes_on_columns, order_columns
from service.usecases.known_samples import (
    Arrivals,
    IfKnown,
    SentColumns,
    find_all,
    place_samples,
    refuse_without_ids,
    with_replaced_samples,
)
from service.usecases.run_once import PriorOutcome, run_once
from service.usecases.texts import Samples, TextUpload, stage_column, stage_features
from service.usecases.uploads import (
    admit_labels,
    check_lengths,
    name_columns,
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
    y: EncodedLabels | IndicatorLabels | None = None
    ids: Sequence[SampleId] | None = None
    urls: Sequence[str] | None = None
    if_known: IfKnown | None = None
    missing_is_class: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class AppendResult:
    """The project after an append, and how many of the samples sent were added, left out and replaced.

    `indices` are those of all samples sent, None if the request does not say what happens to known ones.
    """

    project: Project
    n_added: int
    n_ignored: int = 0
    n_replaced: int = 0
    indices: list[int] | None = None


def append_samples(
    store: Store, staging: Staging, request: AppendRequest, max_cells: int, preconditions: Preconditions = UNCONDITIONAL
) -> AppendResult:
    """Append samples to the pool. The indices of earlier samples stay the same.

    Labels of the new samples make a fit due, and replaced samples that the model was fitted to request one. Raises
    InvalidRequest, ProjectNotFound, PreconditionFailed and the store's errors.
    """
    return run_once(
        store,
        request.project_id,
        preconditions,
        lambda: append_rows(store, staging, request, max_cells, preconditions),
        lambda prior: recall(store, request, prior),
    )


def recall(store: Store, request: AppendRequest, prior: PriorOutcome) -> AppendResult:
    """Return the result of a request that has been done."""
    n_replaced = len(prior.details.get("replaced", {"index": ()})["index"])
    n_ignored = prior.details.get("n_ignored", 0)
    n_added = request.X.n_rows - n_replaced - n_ignored
    indices = None
    if request.if_known is not None and request.ids is not None:
        indices = find_all(store.read(request.project_id, Part.IDS).ids, request.ids)
    elif request.if_known is not None:
        indices = np.arange(prior.details["n_samples"] - n_added, prior.details["n_samples"])
    return AppendResult(prior.project, n_added, n_ignored, n_replaced, None if indices is None else indices.tolist())


def notes_on(request: AppendRequest) -> list[str]:
    """Return notes on a request that was accepted. They depend on the request alone, so a replay has the same."""
    return notes_on_columns("/X", request.X, request.X.names) if isinstance(request.X, StagedRows) else []


def append_rows(
    store: Store, staging: Staging, request: AppendRequest, max_cells: int, preconditions: Preconditions
) -> AppendResult:
    """Append the samples in one commit."""
    check_lengths(request.X, {"y": request.y, "ids": request.ids, "urls": request.urls})
    before = store.read(request.project_id, Part.POOL, Part.IDS)
    preconditions.check(before.project)
    # Features of many texts, or a search for a million ids, take seconds: make them before locking, and again only if
    # the pool was replaced or has changed since.
    X = stage_samples(request, before.project, staging)
    plan = plan_append(before, request, X, max_cells)
    if plan.changes_nothing:
        return plan.result(before.project, request)
    with store.transaction(request.project_id, preconditions=preconditions) as transaction:
        snapshot = transaction.read(Part.POOL, Part.IDS, Part.TEXTS, Part.URLS)
        if snapshot.project.pool_id != before.project.pool_id:
            X = stage_samples(request, snapshot.project, staging)
        if pool_of(snapshot.project) != pool_of(before.project):
            plan = plan_append(snapshot, request, X, max_cells)
        if plan.changes_nothing:
            return plan.result(snapshot.project, request)
        details: dict[str, Any] = {"n_ignored": plan.n_ignored} if plan.n_ignored else {}
        files: dict[str, StagedFile] = {}
        if plan.n_replaced:
            snapshot, files = replace_known(snapshot, request, plan, staging)
            details["replaced"] = {"index": plan.places.index[~plan.places.is_new].tolist()}
        if plan.n_added:
            snapshot, added = add_new(snapshot, request, plan, staging)
            files |= added
        return plan.result(transaction.commit(snapshot.project.next_version(), files, "append", details), request)


@dataclass(frozen=True, slots=True, eq=False)
class AppendPlan:
    """The staged features of the samples sent, where these go, and the index of the new ids."""

    X: StagedRows
    places: Arrivals
    replaces: bool
    names: SampleIds | None

    @property
    def n_added(self) -> int:
        """The number of new samples."""
        return len(self.places.index) - self.places.n_known

    @property
    def n_replaced(self) -> int:
        """The number of samples to replace."""
        return self.places.n_known if self.replaces else 0

    @property
    def n_ignored(self) -> int:
        """The number of samples to leave out."""
        return 0 if self.replaces else self.places.n_known

    @property
    def changes_nothing(self) -> bool:
        """Whether all samples are left out."""
        return not self.n_added and not self.n_replaced

    def columns(self, request: AppendRequest, project: Project, which: NDArray[np.bool_]) -> SentColumns:
        """Return some of the samples sent (n,) with all columns of the project but ids."""
        texts = request.X.texts if project.has_texts and isinstance(request.X, TextUpload) else None
        everything = SentColumns(self.X.open(), texts, request.urls)
        return everything if which.all() else everything.take(np.flatnonzero(which))

    def result(self, project: Project, request: AppendRequest) -> AppendResult:
        """Return the result of a request that left a project so."""
        indices = None if request.if_known is None else self.places.index.tolist()
        return AppendResult(project, self.n_added, self.n_ignored, self.n_replaced, indices)


def plan_append(snapshot: Snapshot, request: AppendRequest, X: StagedRows, max_cells: int) -> AppendPlan:
    """Return where samples go, or raise InvalidRequest for those that do not fit the pool."""
    check_samples(snapshot.project, request, X)
    check_ids(snapshot, request)
    places = place_samples(snapshot, request.ids, X.n_rows, request.if_known or "refuse")
    is_new, names = places.is_new, request.ids
    if names is not None and not is_new.all():
        names = [names[position] for position in np.flatnonzero(is_new).tolist()]
    plan = AppendPlan(X, places, request.if_known == "replace", SampleIds.build(names) if names else None)
    if snapshot.pool is not None:
        used = np.ones_like(is_new) if plan.replaces and X.is_sparse else is_new
        added = count_cells(plan.columns(request, snapshot.project, used).rows)
        cells = sum(map(count_cells, snapshot.pool.segments)) + added
        if added and cells > max_cells:
            raise InvalidRequest.at("/X", f"would make a pool of {cells} cells; AQ_MAX_POOL_CELLS allows {max_cells}")
    return plan


def replace_known(
    snapshot: Snapshot, request: AppendRequest, plan: AppendPlan, staging: Staging
) -> tuple[Snapshot, dict[str, StagedFile]]:
    """Return the snapshot with the known samples replaced, and its new files."""
    is_known = ~plan.places.is_new
    given = plan.columns(request, snapshot.project, is_known)
    return with_replaced_samples(snapshot, plan.places.index[is_known], given, staging)


def add_new(
    snapshot: Snapshot, request: AppendRequest, plan: AppendPlan, staging: Staging
) -> tuple[Snapshot, dict[str, StagedFile]]:
    """Return the snapshot with the project that the new samples make, and its new files."""
    if len(snapshot.project.segments) == MAX_SEGMENTS:
        problem = f"cannot be appended: the pool has {MAX_SEGMENTS} segments, the maximum; append more rows at a time"
        raise InvalidRequest.at("/X", problem)
    project, is_new = with_new_labels(snapshot.project, request, plan.places), plan.places.is_new
    new = plan.columns(request, project, is_new)
    texts, urls = (None if column is None else TextColumn.build(column) for column in (new.texts, new.urls))
    segments, rows, columns = merge_segments(snapshot, new.rows, StoredColumns(plan.names, texts, urls))
    segment = Segment(project.last_file + 1, len(rows), plan.X.is_sparse)
    is_unchanged = len(rows) == plan.X.n_rows and is_new.all()
    files = target_files(rows_files(segment), plan.X if is_unchanged else staging.rows(rows))
    project = replace(project, segments=(*segments, segment), last_file=segment.number)
    if project.text is not None and not project.fit_is_wanted:
        # The weights of terms change, and no request for a fit was about those.
        project = replace(project, fit_asked=None)
    return replace(snapshot, project=project), files | columns.stage(segment, staging)


def stage_samples(request: AppendRequest, project: Project, staging: Staging) -> StagedRows:
    """Return the features of the samples, with columns in the order of the pool."""
    X = stage_features("X" if isinstance(request.X, StagedRows) else "texts", request.X, project.text, staging)
    return order_columns("/X", X, project.feature_names, staging)


def pool_of(project: Project) -> tuple[str, tuple[Segment, ...]]:
    """Return a value that identifies the rows of a project."""
    return project.pool_id, project.segments


def check_samples(project: Project, request: AppendRequest, X: StagedRows) -> None:
    """Raise InvalidRequest for samples without the columns of the pool."""
    refuse_other_kind("/X", X, project)
    refuse_missing_values(X, project.missing_values)
    refuse_without_ids(project, request.if_known)
    for name, is_stored, column in (("ids", project.has_ids, request.ids), ("urls", project.has_urls, request.urls)):
        if is_stored and column is None:
            raise InvalidRequest.at(f"/{name}", f"is required: this project was made with {name}")
        if not is_stored and column is not None:
            raise InvalidRequest.at(f"/{name}", f"must be omitted: this project was made without {name}")


def check_ids(snapshot: Snapshot, request: AppendRequest) -> None:
    """Raise InvalidRequest for ids of another type than those of the pool."""
    if request.ids is not None and snapshot.ids is not None:
        given, wanted = type_of_ids(request.ids[0]), snapshot.ids.type_name
        if given != wanted:
            raise InvalidRequest.at("/ids/0", f"is {given}; each id of this project is {wanted}")


def with_new_labels(project: Project, request: AppendRequest, places: Arrivals) -> Project:
    """Return the project with the anonymous labels of the new samples."""
    if request.y is None:
        return project
    y = name_columns("y", request.y, project.classes) if isinstance(request.y, IndicatorLabels) else request.y
    y = y if places.is_new.all() else y.only(places.is_new)
    project = admit_labels(project, "y", y, missing_is_class=request.missing_is_class)
    codes = target_of(project).encode(project, y)
    rows = np.flatnonzero(codes >= 0)
    new = Votes.anonymous(places.index[rows], codes[rows], project.next_moment())
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
    snapshot: Snapshot, rows: Rows, columns: StoredColumns
) -> tuple[tuple[Segment, ...], Rows, StoredColumns]:
    """Return the segments that stay, and the rows and columns of the segment that follows them.

    That holds the new rows and those of small segments before them, so a pool that grows by single samples has few
    segments, and each row is rewritten only a few times.
    """
    pool, segments = snapshot.mapped_pool, snapshot.project.segments
    n_kept = len(segments)
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
