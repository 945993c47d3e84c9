"""Export and import of a project as one file."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.domain.calibration import CalibrationMethod
from service.domain.columns import Columns
from service.domain.events import IMPORT
from service.domain.labels import Label
from service.domain.learning_curve import LearningCurve
from service.domain.parameters import Parameters
from service.domain.preconditions import UNCONDITIONAL, Preconditions
from service.domain.project import (
    MICROSECONDS,
    ConsensusMethod,
    EstimatorSpec,
    EventLog,
    HeldOut,
    MissingValues,
    Project,
    Segment,
    SimilarLabels,
    TargetName,
    contradictions,
    now,
)
from service.domain.sample_ids import SampleIds
from service.domain.text_column import TextColumn
from service.domain.votes import Votes
from service.errors import FieldError, FitFailed, ImportTargetExists, InvalidRequest, ProjectNotFound, ServiceError
from service.learning.estimators import check_accepts_sparse
from service.learning.pool import Pool, count_texts
from service.learning.term_weights import sum_counts
from service.learning.texts import weights_of
from service.store import Part, Snapshot, Store
from service.store.files import StagedFile
from service.store.layout import LOG, held_out_labels_file, ids_file, model_file, rows_files, texts_file, urls_file
from service.store.staging import StagedRows, Staging
from service.usecases.run_once import run_once
from service.usecases.training import stage_model
from service.usecases.uploads import refuse_missing_values, target_files

MAX_CLOCK_SKEW = 24 * 3600 * MICROSECONDS
"""How far the clock of the exporting machine may be ahead of this one, in microseconds."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class ProjectFacts:
    """The values of an exported project other than its arrays. Times are in microseconds since 1970 UTC."""

    project_id: str
    version: int
    n_features: int
    feature_names: Sequence[str] | None
    columns: Columns | None
    random_state: int
    estimator: EstimatorSpec
    consensus: ConsensusMethod
    classes: Sequence[Label]
    classes_declared: bool
    annotators: Sequence[str]
    skips_to_drop: int
    similar_labels: SimilarLabels
    text: Parameters | None
    missing_values: MissingValues
    calibration_method: CalibrationMethod
    target: TargetName
    labels_revision: int
    last_model: int
    created_at: int
    updated_at: int
    learning_curve: Sequence[Mapping[str, Any]]
    removed: Sequence[int]


@dataclass(frozen=True, slots=True, eq=False)
class ImportRequest:
    """A project to import: its pool in segments, the ids, texts and addresses of each, and its events as a log."""

    facts: ProjectFacts
    segments: Sequence[StagedRows]
    ids: Sequence[SampleIds] | None
    texts: Sequence[TextColumn] | None
    urls: Sequence[TextColumn] | None
    X_test: StagedRows | None
    y_test: NDArray[np.int32] | None
    votes: Votes
    events: StagedFile


def export_project(store: Store, project_id: str) -> Snapshot:
    """Return a project without its model, as of one commit. Raises ProjectNotFound and the store's errors."""
    # Part.SUMS verifies the checksums: a damaged array must not leave with a new one.
    return store.read(project_id, Part.SUMS, Part.POOL, Part.IDS, Part.TEXTS, Part.URLS, Part.HELD_OUT, Part.EVENTS)


def refuse_taken(store: Store, project_id: str, preconditions: Preconditions = UNCONDITIONAL) -> None:
    """Raise ImportTargetExists or PreconditionFailed if a project of this name exists."""
    if preconditions.fingerprint is not None:
        return  # an earlier try of this request may have made it
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
    """Make a project of an exported one, with a model fitted to its labels if `try_enter` admits the fit.

    Raises InvalidRequest for facts that contradict each other, ImportTargetExists, PreconditionFailed, TooManyProjects
    and the store's errors.
    """
    return run_once(
        store,
        request.facts.project_id,
        preconditions,
        lambda: commit_import(store, staging, request, try_enter, preconditions),
        lambda prior: prior.project,
    )


def commit_import(
    store: Store,
    staging: Staging,
    request: ImportRequest,
    try_enter: Callable[[], AbstractContextManager[bool]],
    preconditions: Preconditions,
) -> Project:
    """Commit the imported project and its model at once."""
    project = build_project(request)
    wrong = [FieldError("/votes", problem) for problem in contradictions(project)] + impossible_times(project)
    if wrong:
        raise InvalidRequest(wrong)
    project = project.set_aside(project.removed)
    if project.is_sparse:
        check_accepts_sparse(project.estimator)
    for rows in (*request.segments, *(() if request.X_test is None else (request.X_test,))):
        refuse_missing_values(rows, project.missing_values)
    files, project = staged_files(project, staging, request), project.with_fit_asked()
    with try_enter() as admitted:
        project, model = fit_import(project, staging, request) if admitted else (project, None)
    if model is not None:
        files[model_file(project.last_model)] = model
    with store.transaction(project.project_id, create=True, preconditions=preconditions) as transaction:
        if transaction.project is not None:
            raise ImportTargetExists(project.project_id)
        # The version stays, since queries derive their seed from it: the copy asks about the same samples.
        return transaction.commit(replace(project.next_version(), version=project.version), files, IMPORT)


def fit_import(project: Project, staging: Staging, request: ImportRequest) -> tuple[Project, StagedFile | None]:
    """Return the project with its model and the model's file, or with the reason why the fit failed and None."""
    if not project.can_fit:
        return project, None
    pool = Pool(tuple(rows.open() for rows in request.segments), project.allows_missing)
    if project.text is not None and project.n_texts is not None:
        counts = sum_counts(count_texts(rows, len(rows)) for rows in pool.segments)
        pool = pool.weighted(weights_of(counts, project.text, project.n_features))
    X_test = None if request.X_test is None else Pool.of(request.X_test.open()).weighted(pool.weights)
    try:
        model = stage_model(staging, Snapshot(project, pool, X_test=X_test, y_test=request.y_test))
    except ServiceError as error:
        log.warning("project %s is imported without a model: %s", project.project_id, error)
        return project.with_failed_fit(project, str(error), is_final=isinstance(error, FitFailed)), None
    return project.with_model(model.ref, measures=model.measures), model.file


def impossible_times(project: Project) -> list[FieldError]:
    """Return an error for each time that would put later commits and events out of order."""
    wrong = []
    if project.updated_at > now() + MAX_CLOCK_SKEW:
        wrong.append(FieldError("/manifest.json/project/updated_at", "lies in the future"))
    if project.created_at > project.updated_at:
        wrong.append(FieldError("/manifest.json/project/created_at", "is later than updated_at"))
    if len(project.votes) and project.votes.at.max() > project.updated_at:
        wrong.append(FieldError("/votes", "holds a label that is later than the project's updated_at"))
    return wrong


def build_project(request: ImportRequest) -> Project:
    """Return the project of an import, before its first commit."""
    facts, X_test = request.facts, request.X_test
    segments = tuple(
        Segment(number, rows.n_rows, rows.is_sparse) for number, rows in enumerate(request.segments, start=1)
    )
    last = len(segments)
    held_out = None if X_test is None else HeldOut(last + 1, X_test.n_rows, X_test.is_sparse)
    return Project(
        project_id=facts.project_id,
        # Unique: the original may be in this store.
        pool_id=uuid.uuid4().hex,
        version=facts.version,
        random_state=facts.random_state,
        estimator=facts.estimator,
        consensus_method=facts.consensus,
        segments=segments,
        n_features=facts.n_features,
        feature_names=None if facts.feature_names is None else tuple(facts.feature_names),
        columns=facts.columns,
        has_ids=request.ids is not None,
        held_out=held_out,
        classes=tuple(facts.classes),
        classes_declared=facts.classes_declared,
        annotators=tuple(facts.annotators),
        skips_to_drop=facts.skips_to_drop,
        similar_labels=facts.similar_labels,
        text=facts.text,
        has_texts=request.texts is not None,
        has_urls=request.urls is not None,
        missing_values=facts.missing_values,
        calibration_method=facts.calibration_method,
        target=facts.target,
        votes=request.votes.completed(),
        labels_revision=facts.labels_revision,
        model=None,
        last_model=facts.last_model,
        last_file=last if held_out is None else held_out.number,
        created_at=facts.created_at,
        updated_at=facts.updated_at,
        fit_asked=None,
        fit_error=None,
        learning_curve=LearningCurve.from_plain(facts.learning_curve),
        removed=np.array(facts.removed, np.int64),
        event_log=EventLog(request.events.checksum.n_bytes),
    )


def staged_files(project: Project, staging: Staging, request: ImportRequest) -> dict[str, StagedFile]:
    """Return the staged files by their names in the project."""
    files: dict[str, StagedFile] = {LOG: request.events}
    for segment, rows in zip(project.segments, request.segments, strict=True):
        files |= target_files(rows_files(segment), rows)
    for segment, names in zip(project.segments, request.ids or (), strict=request.ids is not None):
        files[ids_file(segment)] = staging.ids(names)
    for file_of, columns in ((texts_file, request.texts), (urls_file, request.urls)):
        for segment, column in zip(project.segments, columns or (), strict=columns is not None):
            files[file_of(segment)] = staging.array(column.pack())
    if project.held_out is not None and request.X_test is not None:
        files |= target_files(rows_files(project.held_out), request.X_test)
        files[held_out_labels_file(project.held_out)] = staging.dump(request.y_test)
    return files


def project_facts(project: Project) -> ProjectFacts:
    """Return the values of a project that are exported beside its arrays."""
    renamed: dict[str, Any] = {
        "consensus": project.consensus_method,
        "learning_curve": project.learning_curve.to_plain(),
        "removed": project.removed.tolist(),
    }
    same = {field.name: getattr(project, field.name) for field in fields(ProjectFacts) if field.name not in renamed}
    return ProjectFacts(**same, **renamed)
