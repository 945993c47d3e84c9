"""POST /fit: create a project, or fit its model again."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from service.domain.calibration import CalibrationMethod
from service.domain.columns import Columns
from service.domain.labels import EncodedLabels, Label
from service.domain.parameters import Parameters
from service.domain.preconditions import UNCONDITIONAL, Preconditions
from service.domain.project import (
    ConsensusMethod,
    EstimatorSpec,
    HeldOut,
    MissingValues,
    Project,
    Segment,
    SimilarLabels,
    TargetName,
    declare_classes,
    now,
)
from service.domain.sample_ids import SampleId, SampleIds
from service.domain.targets import TARGETS, target_of, target_of_values
from service.domain.votes import Votes
from service.errors import InvalidRequest, ProjectExists, ProjectNotFound
from service.learning.estimators import check_accepts_sparse, check_estimator, resolve_estimator
from service.learning.fit_time import note_on_fit_time, size_of_fit
from service.learning.pool import Pool, Rows, SparseRows, count_texts
from service.learning.texts import weights_of
from service.store import Snapshot, Store, Transaction
from service.store.files import StagedFile
from service.store.layout import held_out_labels_file, ids_file, model_file, rows_files, texts_file, urls_file
from service.store.staging import StagedRows, Staging
from service.usecases.columns import name_columns, notes_on_columns, order_columns
from service.usecases.run_once import run_once
from service.usecases.texts import Samples, TextUpload, stage_column, stage_features
from service.usecases.training import StagedModel, check_same_pool, read_to_fit, stage_model
from service.usecases.uploads import (
    admit_labels,
    check_lengths,
    refuse_missing_values,
    refuse_other_kind,
    target_files,
)

DEFAULT_ESTIMATOR = "auto"


@dataclass(frozen=True, slots=True, eq=False)
class HeldOutUpload:
    """The m samples of a held-out set, and their labels."""

    X: Samples
    y: EncodedLabels


@dataclass(frozen=True, slots=True, eq=False)
class HeldOutRows:
    """The features of a held-out set (m, d), and its labels."""

    X: StagedRows
    y: EncodedLabels


@dataclass(frozen=True, slots=True, eq=False)
class FitRequest:
    """The request of POST /fit; None where a field was not sent.

    `text` holds the parameters that turn the texts of a new pool into features; `keep_texts` stores the texts too.
    `in_background` leaves the fit to background threads. `missing_is_class` takes the spellings of a missing label as
    classes.
    """

    project_id: str
    X: Samples | None = None
    y: EncodedLabels | None = None
    ids: Sequence[SampleId] | None = None
    urls: Sequence[str] | None = None
    text: Parameters | None = None
    keep_texts: bool = True
    feature_names: Sequence[str] | None = None
    columns: Columns | None = None
    held_out: HeldOutUpload | None = None
    classes: Sequence[Label] | None = None
    estimator: EstimatorSpec | None = None
    consensus_method: ConsensusMethod | None = None
    skips_to_drop: int | None = None
    similar_labels: SimilarLabels | None = None
    missing_values: MissingValues | None = None
    calibration_method: CalibrationMethod | None = None
    random_state: int | None = None
    target: TargetName | None = None
    replace: bool = False
    missing_is_class: bool = False
    in_background: bool = False


def fit_project(
    store: Store, staging: Staging, request: FitRequest, preconditions: Preconditions = UNCONDITIONAL
) -> tuple[Project, bool]:
    """Create the project, or fit it again. Return it, and whether it is new.

    Everything is one commit: nothing changes before, whatever fails. Raises InvalidRequest, ProjectExists,
    ProjectReplaced, PreconditionFailed, TooManyProjects, FitFailed and the store's errors.
    """

    def change() -> tuple[Project, bool]:
        if request.X is not None:
            return create_project(store, staging, request, request.X, preconditions)
        return refit_project(store, staging, request, preconditions), False

    return run_once(
        store, request.project_id, preconditions, change, lambda prior: (prior.project, prior.kind == "create")
    )


def notes_on(request: FitRequest, project: Project) -> list[str]:
    """Return notes on a request that was accepted, and on the model of its project."""
    notes: list[str] = []
    if isinstance(request.X, StagedRows):
        notes += notes_on_columns("/X", request.X, request.feature_names or request.X.names)
    if request.held_out is not None and isinstance(request.held_out.X, StagedRows):
        notes += notes_on_columns("/X_test", request.held_out.X, None)
    if project.can_fit:
        notes += filter(None, [note_on_fit_time(*size_of_fit(project))])
    if project.model is not None:
        notes += [*filter(None, [project.model.reason]), *project.model.notes]
    return notes


def create_project(
    store: Store, staging: Staging, request: FitRequest, samples: Samples, preconditions: Preconditions
) -> tuple[Project, bool]:
    """Make a project of a new pool, or replace the pool of an existing one."""
    refuse_existing(store, request, preconditions)
    check_lengths(samples, {"y": request.y, "ids": request.ids, "urls": request.urls})
    X = name_columns(stage_features("texts", samples, request.text, staging), request.feature_names, staging)
    project = with_initial_labels(with_changes(new_project(request, X.open(), X.names), request), request.y)
    refuse_missing_values(X, project.missing_values)
    held_out = stage_held_out(request, project, staging)
    fitted = fit_staged(staging, request, held_out, Snapshot(project, new_pool(X, project)))
    columns = stage_columns(request, samples, staging)
    with store.transaction(request.project_id, create=True, preconditions=preconditions) as transaction:
        old = transaction.project
        if old is not None and not request.replace:
            raise ProjectExists(request.project_id)
        if old is not None:
            project = project.continuing(old)
        segment = Segment(project.last_file + 1, X.n_rows, X.is_sparse)
        project = replace(project, segments=(segment,), last_file=segment.number)
        files = {**target_files(rows_files(segment), X), **{file(segment): columns[file] for file in columns}}
        return commit_fit(transaction, staging, request, project, held_out, fitted, files), old is None


def new_pool(X: StagedRows, project: Project) -> Pool:
    """Return the pool of a new project; the terms of texts are weighted by all of them."""
    rows, text, weights = X.open(), project.text, None
    if text is not None and project.n_texts is not None:
        weights = weights_of(count_texts(rows, X.n_rows), text, X.n_columns)
    return Pool.of(rows, allows_missing=project.allows_missing).weighted(weights)


def stage_columns(
    request: FitRequest, samples: Samples, staging: Staging
) -> dict[Callable[[Segment], str], StagedFile | None]:
    """Write the ids, texts and addresses of samples to staged files, by the function that names their file."""
    texts = samples.texts if isinstance(samples, TextUpload) and request.keep_texts else None
    return {
        ids_file: None if request.ids is None else staging.ids(SampleIds.build(request.ids)),
        texts_file: stage_column(texts, staging),
        urls_file: stage_column(request.urls, staging),
    }


def refit_project(store: Store, staging: Staging, request: FitRequest, preconditions: Preconditions) -> Project:
    """Fit an existing project again, with the changes of the request."""
    try:
        snapshot = read_to_fit(store, request.project_id)
    except ProjectNotFound:
        preconditions.check(None)
        problem = f"is required: there is no project {request.project_id!r} yet, and a pool creates it"
        raise InvalidRequest.at("/X", problem) from None
    preconditions.check(snapshot.project)
    held_out = stage_held_out(request, snapshot.project, staging)
    project = with_changes(snapshot.project, request)
    if snapshot.pool is not None and project.allows_missing != snapshot.project.allows_missing:
        snapshot = replace(snapshot, pool=replace(snapshot.pool, allows_missing=project.allows_missing))
    fitted = fit_staged(staging, request, held_out, replace(snapshot, project=project))
    with store.transaction(request.project_id, preconditions=preconditions) as transaction:
        # Labels given during the fit stay, and make the next fit due.
        current = with_changes(check_same_pool(transaction.project, snapshot.project), request)
        return commit_fit(transaction, staging, request, current, held_out, fitted, {})


def stage_held_out(request: FitRequest, project: Project, staging: Staging) -> HeldOutRows | None:
    """Return the features of the request's held-out set, with columns in the order of the pool; None without one."""
    if request.held_out is None:
        return None
    X = stage_features("X_test", request.held_out.X, project.text, staging)
    return HeldOutRows(order_columns("/X_test", X, project.feature_names, staging), request.held_out.y)


def refuse_existing(store: Store, request: FitRequest, preconditions: Preconditions) -> None:
    """Raise ProjectExists or PreconditionFailed before any work is done, not only at the commit."""
    try:
        project = store.read(request.project_id).project
    except ProjectNotFound:
        preconditions.check(None)
        return
    preconditions.check(project)
    if not request.replace:
        raise ProjectExists(request.project_id)


def new_project(request: FitRequest, rows: Rows, names: tuple[str, ...] | None = None) -> Project:
    """Return a project that has only a pool, before its first commit."""
    at, target = now(), TARGETS[target_of_labels(request)]
    return Project(
        project_id=request.project_id,
        pool_id=uuid.uuid4().hex,
        version=0,
        random_state=0,
        estimator=resolve_estimator(DEFAULT_ESTIMATOR, {}),
        segments=(Segment(0, len(rows), isinstance(rows, SparseRows)),),
        n_features=rows.shape[1],
        feature_names=names,
        has_ids=request.ids is not None,
        text=request.text,
        has_texts=request.text is not None and request.keep_texts,
        has_urls=request.urls is not None,
        held_out=None,
        classes=(),
        classes_declared=False,
        annotators=(),
        votes=Votes.empty().with_table(target.new_table()),
        labels_revision=0,
        model=None,
        last_model=0,
        last_file=0,
        created_at=at,
        updated_at=at,
        consensus_method=target.consensus_methods[0],
        fit_asked=None,
        fit_error=None,
        target=target.name,
    )


def target_of_labels(request: FitRequest) -> TargetName:
    """Return the target of a new project: numbers that are not whole cannot be classes."""
    if request.target is not None:
        return request.target
    given = (request.y, None if request.held_out is None else request.held_out.y)
    return "number" if any(labels and target_of_values(labels.values) == "number" for labels in given) else "class"


def with_changes(project: Project, request: FitRequest) -> Project:
    """Return the project with the settings and classes of the request."""
    refuse_unfit_settings(project, request)
    if request.missing_values == "refuse" and project.allows_missing:
        problem = "must be 'allow': the pool may have missing values already; 'replace': true with X makes a new one"
        raise InvalidRequest.at("/missing_values", problem)
    if request.missing_values == "allow" and not project.allows_missing:
        project = replace(project, model=None)  # it could not predict rows with missing values
    project = replace(
        project,
        estimator=request.estimator or project.estimator,
        consensus_method=request.consensus_method or project.consensus_method,
        skips_to_drop=request.skips_to_drop or project.skips_to_drop,
        similar_labels=request.similar_labels or project.similar_labels,
        columns=request.columns or project.columns,
        missing_values=request.missing_values or project.missing_values,
        calibration_method=request.calibration_method or project.calibration_method,
        random_state=project.random_state if request.random_state is None else request.random_state,
    )
    if project.is_sparse:
        check_accepts_sparse(project.estimator)
    if request.classes is not None:
        project = declare_classes(project, request.classes)
    held_out_labels = None if request.held_out is None else request.held_out.y
    for field, labels in (("y", request.y), ("y_test", held_out_labels)):
        if labels is not None:
            project = admit_labels(project, field, labels, missing_is_class=request.missing_is_class)
    return project


def refuse_unfit_settings(project: Project, request: FitRequest) -> None:
    """Raise InvalidRequest for settings that the target of the project does not have."""
    target = target_of(project)
    if request.target not in (None, target.name):
        problem = f"is {target.name!r} in this project and stays so; send X with 'replace': true to start over"
        raise InvalidRequest.at("/target", problem)
    if request.classes is not None and target.name == "number":
        able = " or ".join(repr(name) for name in TARGETS if name != target.name)
        problem = f"must be left out: the labels of this project are numbers; only target {able} has classes"
        raise InvalidRequest.at("/classes", problem)
    chosen = {
        "consensus": (request.consensus_method, target.consensus_methods),
        "calibration": (request.calibration_method, target.calibration_methods),
    }
    for field, (method, known) in chosen.items():
        if method is not None and method not in known:
            able = " or ".join(map(repr, known))
            problem = f"{method!r} is not for a project of {target.what}, which takes {able}"
            raise InvalidRequest.at(f"/{field}", problem)
    if request.estimator is not None:
        check_estimator(request.estimator, target.name)


def with_initial_labels(project: Project, y: EncodedLabels | None) -> Project:
    """Return the project with the anonymous labels that came with its pool."""
    if y is None:
        return project
    codes = target_of(project).encode(project, y)
    index = np.flatnonzero(codes >= 0)
    return project.with_votes(project.votes.merge(Votes.anonymous(index, codes[index], project.created_at)))


def fit_staged(
    staging: Staging, request: FitRequest, held_out: HeldOutRows | None, snapshot: Snapshot
) -> StagedModel | None:
    """Fit the project of a snapshot into a staged file; return None if it cannot be fitted, or not in this request."""
    if held_out is not None:
        snapshot = with_held_out(snapshot, held_out)
    if request.in_background or not snapshot.project.can_fit:
        return None
    return stage_model(staging, snapshot)


def with_held_out(snapshot: Snapshot, held_out: HeldOutRows) -> Snapshot:
    """Return the snapshot with the uploaded held-out set, or raise InvalidRequest if it does not fit."""
    X, project = held_out.X, snapshot.project
    refuse_other_kind("/X_test", X, project)
    refuse_missing_values(X, project.missing_values)
    if len(held_out.y.codes) != X.n_rows:
        raise InvalidRequest.at("/y_test", f"has {len(held_out.y.codes)} entries, but X_test has {X.n_rows} rows")
    X_test = Pool.of(X.open()).weighted(snapshot.pool.weights if snapshot.pool else None)
    return replace(snapshot, X_test=X_test, y_test=target_of(project).encode(project, held_out.y))


def commit_fit(
    transaction: Transaction,
    staging: Staging,
    request: FitRequest,
    project: Project,
    held_out: HeldOutRows | None,
    fitted: StagedModel | None,
    files: dict[str, StagedFile | None],
) -> Project:
    """Commit the project with its new files, including the held-out set and the model."""
    if held_out is not None:
        codes = target_of(project).encode(project, held_out.y)
        stored = HeldOut(project.last_file + 1, len(codes), held_out.X.is_sparse)
        project = replace(project, held_out=stored, last_file=stored.number)
        files |= target_files(rows_files(stored), held_out.X) | {held_out_labels_file(stored): staging.dump(codes)}
        # The model was scored on this set before the set had a number.
        fitted = fitted and replace(fitted, ref=replace(fitted.ref, held_out=stored.number))
    if fitted is not None:
        with_model = project.with_model(fitted.ref, fitted.before, fitted.measures)
        if with_model is not project:
            files[model_file(with_model.last_model)] = fitted.file
            project = with_model
    if request.in_background:
        project = project.with_fit_asked()
    return transaction.commit(project.next_version(), {t: file for t, file in files.items() if file is not None})
