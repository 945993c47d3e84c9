"""One project as one file: what goes out, and how what comes in becomes a project."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from service.domain.events import IMPORT
from service.domain.labels import Label, Votes
from service.domain.preconditions import UNCONDITIONAL, Preconditions
from service.domain.project import (
    MICROSECONDS,
    ConsensusMethod,
    EstimatorSpec,
    EventLog,
    HeldOut,
    Project,
    Segment,
    contradictions,
    now,
)
from service.domain.sample_ids import SampleIds
from service.errors import FieldError, ImportTargetExists, InvalidRequest, ProjectNotFound
from service.learning.estimators import check_accepts_sparse
from service.store import Part, Snapshot, Store
from service.store.files import StagedFile
from service.store.layout import LOG, held_out_labels_file, ids_file, rows_files
from service.store.staging import StagedRows, Staging
from service.usecases.label import try_fit
from service.usecases.run_once import run_once
from service.usecases.uploads import target_files

CLOCKS_DIFFER = 24 * 3600 * MICROSECONDS
"""By a day at most, in microseconds, the clock of an exporting machine may be ahead of this one's."""


@dataclass(frozen=True, slots=True, eq=False)
class ProjectFacts:
    """What an exported project is, beside its arrays. Times are in microseconds since 1970 UTC."""

    project_id: str
    version: int
    n_features: int
    random_state: int
    estimator: EstimatorSpec
    consensus: ConsensusMethod
    classes: Sequence[Label]
    classes_declared: bool
    annotators: Sequence[str]
    labels_revision: int
    last_model: int
    created_at: int
    updated_at: int


@dataclass(frozen=True, slots=True, eq=False)
class ImportRequest:
    """A project as it came: its pool in segments, with names for each or none, and its events as lines of a log."""

    facts: ProjectFacts
    segments: Sequence[StagedRows]
    ids: Sequence[SampleIds] | None
    X_test: StagedRows | None
    y_test: NDArray[np.int32] | None
    votes: Votes
    events: StagedFile


def export_project(store: Store, project_id: str) -> Snapshot:
    """Return all of a project as of one commit, but for its model. Raises ProjectNotFound and the store's errors."""
    # Without its sums a damaged number would come out with a checksum of its own.
    return store.read(project_id, Part.SUMS, Part.POOL, Part.IDS, Part.HELD_OUT, Part.EVENTS)


def refuse_taken(store: Store, project_id: str, preconditions: Preconditions = UNCONDITIONAL) -> None:
    """Raise ImportTargetExists, or PreconditionFailed, where there is a project of this name."""
    if preconditions.fingerprint is not None:
        return  # it may be the one that this request made before
    with suppress(ProjectNotFound):
        preconditions.check(store.read(project_id).project)
        raise ImportTargetExists(project_id)


def import_project(
    store: Store,
    staging: Staging,
    request: ImportRequest,
    try_enter: Callable[[], AbstractContextManager[bool]] = lambda: nullcontext(True),
    preconditions: Preconditions = UNCONDITIONAL,
) -> Project:
    """Make a project of what was exported, then fit its model, which is not part of that, if there is room for it.

    Raises InvalidRequest for what cannot be true at once, ImportTargetExists, PreconditionFailed, TooManyProjects and
    the store's errors.
    """
    project = run_once(
        store,
        request.facts.project_id,
        preconditions,
        lambda: commit_import(store, staging, request, preconditions),
        lambda prior: prior.project,
    )
    if not project.fit_is_due:
        return project
    with try_enter() as there_is_room:
        return try_fit(store, project) if there_is_room else project


def commit_import(store: Store, staging: Staging, request: ImportRequest, preconditions: Preconditions) -> Project:
    """Make the project, without a model."""
    project = build_project(request)
    wrong = [FieldError("/votes", problem) for problem in contradictions(project)] + impossible_times(project)
    if wrong:
        raise InvalidRequest(wrong)
    if project.is_sparse:
        check_accepts_sparse(project.estimator)
    files = staged_files(project, staging, request)
    with store.transaction(project.project_id, create=True, preconditions=preconditions) as transaction:
        if transaction.project is not None:
            raise ImportTargetExists(project.project_id)
        return transaction.commit(project.with_fit_asked().next_version(), files, IMPORT)


def impossible_times(project: Project) -> list[FieldError]:
    """Tell of times that no clock gave: they order the commits and the events that are still to come."""
    wrong = []
    if project.updated_at > now() + CLOCKS_DIFFER:
        wrong.append(FieldError("/manifest.json/project/updated_at", "lies in the future"))
    if project.created_at > project.updated_at:
        wrong.append(FieldError("/manifest.json/project/created_at", "is later than updated_at"))
    if len(project.votes) and project.votes.at.max() > project.updated_at:
        wrong.append(FieldError("/votes", "holds an answer that is later than the project's updated_at"))
    return wrong


def build_project(request: ImportRequest) -> Project:
    """Return the project of an import, before its first commit here."""
    facts, X_test = request.facts, request.X_test
    segments = tuple(
        Segment(number, rows.n_rows, rows.is_sparse) for number, rows in enumerate(request.segments, start=1)
    )
    last = len(segments)
    held_out = None if X_test is None else HeldOut(last + 1, X_test.n_rows, X_test.is_sparse)
    return Project(
        project_id=facts.project_id,
        # A pool is told from every other by this name, and its copy may be here.
        incarnation=uuid.uuid4().hex,
        version=facts.version,
        random_state=facts.random_state,
        estimator=facts.estimator,
        consensus_method=facts.consensus,
        segments=segments,
        n_features=facts.n_features,
        has_ids=request.ids is not None,
        held_out=held_out,
        classes=tuple(facts.classes),
        classes_declared=facts.classes_declared,
        annotators=tuple(facts.annotators),
        votes=request.votes,
        labels_revision=facts.labels_revision,
        model=None,
        last_model=facts.last_model,
        last_file=last if held_out is None else held_out.number,
        created_at=facts.created_at,
        updated_at=facts.updated_at,
        fit_asked=None,
        fit_error=None,
        event_log=EventLog(request.events.checksum.n_bytes),
    )


def staged_files(project: Project, staging: Staging, request: ImportRequest) -> dict[str, StagedFile]:
    """Tell which staged file becomes which of the project."""
    files: dict[str, StagedFile] = {LOG: request.events}
    for segment, rows in zip(project.segments, request.segments, strict=True):
        files |= target_files(rows_files(segment), rows)
    for segment, names in zip(project.segments, request.ids or (), strict=request.ids is not None):
        files[ids_file(segment)] = staging.ids(names)
    if project.held_out is not None and request.X_test is not None:
        files |= target_files(rows_files(project.held_out), request.X_test)
        files[held_out_labels_file(project.held_out)] = staging.dump(request.y_test)
    return files


def project_facts(project: Project) -> ProjectFacts:
    """Return what is exported of a project beside its arrays."""
    same = (field.name for field in fields(ProjectFacts) if field.name != "consensus")
    return ProjectFacts(consensus=project.consensus_method, **{name: getattr(project, name) for name in same})
