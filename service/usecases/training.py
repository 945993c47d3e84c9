"""Training: fit a model to a snapshot, and bring a project's model up to date."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from service.compute.child_process import run_in_process
from service.compute.deadline import DEADLINE, check_deadline
from service.compute.threads import one_of_few_fits
from service.domain.calibration import Calibration
from service.domain.consensus import Consensus
from service.domain.learning_curve import FitMeasures
from service.domain.project import ModelRef, Project
from service.domain.votes import SampleLabels
from service.errors import Conflict, FitFailed, FitTooSlow, ModelDamaged, NotFound, ProjectReplaced, ServiceError
from service.learning.calibration import Codes, TemperedModel, fit_temperature
from service.learning.committees import BaggedCommittee, bootstrap
from service.learning.estimators import THREADED_ROWS, fit, why_reduced
from service.learning.evaluation import out_of_fold_probabilities
from service.learning.fit_time import faster_estimator, fit_seconds, size_of_fit
from service.learning.folds import FOLDS
from service.learning.missing_values import Medians
from service.learning.models import Classifier, Regressor
from service.learning.multilabel_scores import DEFAULT_THRESHOLD, choose_thresholds
from service.learning.number_models import NumberBag
from service.learning.pool import Features
from service.learning.tasks import task_of
from service.learning.weigh_votes import estimate_consensus
from service.store import Part, Snapshot, Store, Transaction
from service.store.files import StagedFile
from service.store.layout import model_file
from service.store.staging import Staging
from service.telemetry.metrics import time_fit
from service.usecases.fit_measures import measure_fit
from service.usecases.uniform_sample import MIN_ROWS, predict_out_of_fold, uniform_rows

log = logging.getLogger(__name__)

CHOSEN_CELLS = 2**20
"""Largest number of labelled cells x classes with which thresholds are chosen, which takes five more fits."""

FIT_TRIES = 3
"""Number of fits to try while the project changes during each."""

PROCESS_SECONDS = 10.0
"""Foreseen time from which a fit runs in a process of its own; to start one takes a few seconds."""

FIT_LIMIT: ContextVar[int | None] = ContextVar("FIT_LIMIT", default=None)
"""Time limit of a fit that runs in a process of its own, in seconds; without one, all fits run in their thread."""


@contextmanager
def fit_limit(seconds: int) -> Iterator[None]:
    """Limit the time of each long fit in the block."""
    token = FIT_LIMIT.set(seconds)
    try:
        yield
    finally:
        FIT_LIMIT.reset(token)


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """A fitted model, its reference, and what was measured at the fit."""

    classifier: Classifier | Regressor
    ref: ModelRef
    measures: FitMeasures


Prepare = Callable[[Store, Project, TrainedModel], AbstractContextManager[Callable[[Transaction], object]]]
"""Makes what is kept with a model, before it is committed; what it yields stores that in the same transaction."""


@contextmanager
def prepare_nothing(store: Store, before: Project, trained: TrainedModel) -> Iterator[Callable[[Transaction], object]]:
    """Keep nothing with a model."""
    yield lambda transaction: None


def train(snapshot: Snapshot) -> TrainedModel:
    """Fit and score a model as `fit_and_score` does, and measure it. Raises FitFailed.

    The snapshot's own model is the one before.
    """
    classifier, ref, X, labels = fit_and_score(snapshot)
    return TrainedModel(classifier, ref, measure_fit(snapshot, classifier, ref.thresholds, X, labels))


def fit_and_score(snapshot: Snapshot) -> tuple[Any, ModelRef, Features, SampleLabels]:
    """Fit the project's estimator to its labelled rows, and score it on the held-out set if there is one.

    The classes of a classifier are the project's class codes. Return the model, its reference, and the rows (l, d) and
    labels that it was fitted to. Raises FitFailed.
    """
    project, pool = snapshot.project, snapshot.mapped_pool
    is_large = project.n_labeled >= THREADED_ROWS
    with one_of_few_fits() if is_large else nullcontext(), time_fit(project.estimator.name):
        X = pool.take(project.votes.majority.labeled)
        learned = learn_in_time(project, X, pool.medians)
        classifier, labels, thresholds = learned.classifier, learned.labels, learned.thresholds
        task = task_of(project)
        score = None
        if snapshot.X_test is not None and snapshot.y_test is not None:
            score = task.score(project, classifier, thresholds, snapshot.X_test, snapshot.y_test)
    given = X, task.labels(project, labels.codes)
    model = ModelRef(
        version=0,  # set by Project.with_model
        estimator=project.estimator,
        random_state=project.random_state,
        labels_revision=project.labels_revision,
        held_out=project.held_out_number,
        test_score=score,
        consensus_method=project.consensus_method,
        consensus=learned.consensus,
        notes=task.notes(project, X, labels.codes),
        reason=why_reduced(project.estimator, *given, project.n_samples, project.target),
        n_texts=project.n_texts,
        calibration_method=project.calibration_method,
        calibration=learned.calibration,
        thresholds=thresholds,
    )
    return classifier, model, X, labels


@dataclass(frozen=True, slots=True)
class Learned:
    """What is learned from the labelled rows: the labels that count, the model, and its decisions."""

    consensus: Consensus | None
    labels: SampleLabels
    classifier: Any
    calibration: Calibration | None
    thresholds: tuple[float, ...] | None


def learn_in_time(project: Project, X: Features, medians: Medians | None) -> Learned:
    """Do the same as `learn`, in a process of its own if it may take long and there is a limit for it.

    Raises FitTooSlow at the limit, and OutOfTime at the deadline of the request.
    """
    limit = FIT_LIMIT.get()
    if limit is None or foreseen_seconds(project) < min(limit, PROCESS_SECONDS):
        return learn(project, X, medians)
    deadline = DEADLINE.get()
    try:
        return run_in_process(learn, project, X, medians, seconds=deadline.left(limit))
    except TimeoutError:
        deadline.check()
        raise FitTooSlow(project.estimator.name, limit, faster_estimator(*size_of_fit(project), limit)) from None


def foreseen_seconds(project: Project) -> float:
    """Foresee the time of one core for `learn`."""
    is_weighed = project.consensus_method == "crowdlab" and len(project.votes.shared_samples) > 0
    n_fits = 1 + FOLDS * (is_weighed + (project.calibration_method != "none"))
    return n_fits * fit_seconds(*size_of_fit(project))


def learn(project: Project, X: Features, medians: Medians | None) -> Learned:
    """Fit the project's estimator to its labelled rows (l, d). Raises FitFailed."""
    consensus, labels = labels_to_fit(project, X, medians)
    y = task_of(project).labels(project, labels.codes)
    classifier = fit(project.estimator, X, y, project.random_state, project.n_samples, medians, project.target)
    calibration = calibrate(project, X, labels.codes, medians)
    if calibration is not None:
        classifier = TemperedModel(classifier, calibration.temperature)
    return Learned(consensus, labels, classifier, calibration, thresholds_of(project, X, labels, medians))


def thresholds_of(
    project: Project, X: Features, labels: SampleLabels, medians: Medians | None
) -> tuple[float, ...] | None:
    """Return the marginal from which a sample has each class (c,), None if that is 0.5 for all, or without classes.

    They are chosen out of fold on the uniform rows, where there are enough and it takes no longer than a few fits.
    """
    if project.target != "labels" or X.size * len(project.classes) > CHOSEN_CELLS:
        return None
    rows = uniform_rows(project)
    if len(rows) < MIN_ROWS:
        return None
    Y, P = predict_out_of_fold(project, X, labels.codes, rows, medians)
    thresholds = choose_thresholds(P, Y)
    return tuple(thresholds.tolist()) if (thresholds != DEFAULT_THRESHOLD).any() else None


def calibrate(project: Project, X: Features, codes: Codes, medians: Medians | None) -> Calibration | None:
    """Return the temperature of a project's model, fitted out of fold to the labelled rows (l, d), None without."""
    if project.calibration_method == "none":
        return None
    wanted = np.ones(len(codes), np.bool_)
    P = out_of_fold_probabilities(
        project.estimator, X, codes, len(project.classes), project.random_state, wanted, project.n_samples, medians
    )
    return fit_temperature(P, codes)


@dataclass(frozen=True, slots=True, eq=False)
class StagedModel:
    """A fitted model that is not part of a project yet: its file, its reference, and the state it was fitted to."""

    file: StagedFile
    ref: ModelRef
    before: Project
    measures: FitMeasures


def stage_model(staging: Staging, snapshot: Snapshot) -> StagedModel:
    """Train as `train` does, and write the model to a staged file. Raises FitFailed."""
    trained = train(snapshot)
    return StagedModel(staging.dump(trained.classifier), trained.ref, snapshot.project, trained.measures)


def labels_to_fit(
    project: Project, X: Features, medians: Medians | None = None
) -> tuple[Consensus | None, SampleLabels]:
    """Return the consensus of the votes on the labelled rows (l, d), and the labels that follow from it.

    Without a consensus the majority counts: if no sample has several labels, if the project asks for it, or if the
    weighed votes would leave a single class.
    """
    majority = project.votes.majority
    if (
        project.consensus_method == "crowdlab"
        and len(project.votes.shared_samples)
        and len(np.unique(majority.codes)) > 1
    ):
        consensus = estimate_consensus(project, X, medians)
        labels = consensus.apply_to(project.votes)
        if len(np.unique(labels.codes)) > 1:
            return consensus, labels
    return None, majority


def train_committee(snapshot: Snapshot, n_members: int) -> BaggedCommittee | NumberBag:
    """Fit `n_members` of the project's estimator, each to a bootstrap sample of the labels (Breiman 1996).

    The same state gives the same committee. Members that fail to fit are left out; without any, the current model is
    the only member.
    """
    project, pool = snapshot.project, snapshot.mapped_pool
    labels, target = project.labels, project.target
    X, y = pool.take(labels.labeled), task_of(project).labels(project, labels.codes)
    rng = np.random.default_rng([project.random_state, n_members])
    members = []
    for seed in rng.integers(2**32, size=n_members).tolist():
        check_deadline()
        rows = bootstrap(y, rng) if target == "class" else rng.integers(len(y), size=len(y))
        with suppress(FitFailed):
            members.append(fit(project.estimator, X[rows], y[rows], seed, project.n_samples, pool.medians, target))
    if target == "number":
        return NumberBag(tuple(members or [snapshot.model]), project.labels_revision)
    return BaggedCommittee.of(members or [snapshot.model], project.labels_revision)


def fit_if_due(store: Store, project_id: str) -> Project:
    """Bring a project's model up to date, and return the project.

    The fit runs outside the project's lock, one at a time: after waiting for another fit, there is mostly nothing to
    do. Raises FitFailed, ProjectReplaced, ProjectNotFound and the store's errors; the project then keeps its model, and
    `fit_error` has the reason.
    """
    with store.fit_turn(project_id):
        return fit_in_turn(store, project_id)


def fit_in_turn(store: Store, project_id: str, prepare: Prepare = prepare_nothing) -> Project:
    """Do the same as `fit_if_due` for a caller that holds the project's fit lock."""
    snapshot = read_to_fit(store, project_id)
    # Again if the estimator or the held-out set changed meanwhile, and the model was not adopted.
    for _ in range(FIT_TRIES):
        if not snapshot.project.fit_is_due:
            break
        model = fit_snapshot(store, snapshot, prepare)
        snapshot = read_to_fit(store, project_id)
        if snapshot.project.labels_revision > model.labels_revision:
            break  # newer labels have requested a fit of their own if they want one
    return snapshot.project


def read_to_fit(store: Store, project_id: str) -> Snapshot:
    """Open a project with its data and its last model, or without a model that is lost or damaged."""
    try:
        return store.read(project_id, Part.POOL, Part.HELD_OUT, Part.MODEL)
    except ModelDamaged:
        return store.read(project_id, Part.POOL, Part.HELD_OUT)


def fit_snapshot(store: Store, snapshot: Snapshot, prepare: Prepare) -> ModelRef:
    """Fit the project of a snapshot, and commit the model, or else the reason for the failure."""
    project = snapshot.project
    try:
        with store.fitting(project.project_id):
            trained = train(snapshot)
            commit_model(store, project, trained, prepare)
    except (NotFound, Conflict):
        raise  # the project is gone
    except Exception as error:
        commit_failure(store, project, describe_failure(error), is_final=isinstance(error, FitFailed))
        raise
    return trained.ref


def describe_failure(error: Exception) -> str:
    """Return why a fit failed, for callers; the message of a bug is not for them."""
    if isinstance(error, ServiceError):
        return str(error)
    if isinstance(error, MemoryError):
        return "there is not enough memory for this fit"
    return "internal error; see the log of the service"


def commit_model(store: Store, before: Project, trained: TrainedModel, prepare: Prepare = prepare_nothing) -> None:
    """Commit a model fitted to a snapshot, unless the project has a newer one."""
    with store.stage() as staging:
        file = staging.dump(trained.classifier)
        with prepare(store, before, trained) as keep, store.transaction(before.project_id) as transaction:
            current = check_same_pool(transaction.project, before)
            fitted = current.with_model(trained.ref, before, trained.measures)
            if fitted is not current:
                transaction.commit(fitted.next_version(), {model_file(fitted.last_model): file})
                keep(transaction)


def commit_failure(store: Store, before: Project, error: str, *, is_final: bool) -> None:
    """Commit the reason why a fit failed; errors of the store are ignored, as the caller reports the failure anyway."""
    with suppress(ServiceError, OSError), store.transaction(before.project_id) as transaction:
        current = check_same_pool(transaction.project, before)
        failed = current.with_failed_fit(before, error, is_final=is_final)
        if failed is not current:
            transaction.commit(failed.next_version())


def check_same_pool(current: Project | None, before: Project) -> Project:
    """Return the current state of a project, or raise ProjectReplaced if its pool is another than before."""
    if current is None or current.pool_id != before.pool_id:
        raise ProjectReplaced(before.project_id)
    return current


def read_with_model(store: Store, project_id: str, *parts: Part) -> Snapshot:
    """Open a project with its model. A model whose file is lost or damaged is fitted again.

    If that fails, the project has no model. Raises ProjectNotFound and the store's errors.
    """
    try:
        return store.read(project_id, Part.MODEL, Part.WEIGHTS_OF_MODEL, *parts)
    except ModelDamaged as error:
        log.error("the model is discarded and fitted again: %s", error)
    try:
        give_up_model(store, project_id)
        fit_if_due(store, project_id)
        return store.read(project_id, Part.MODEL, Part.WEIGHTS_OF_MODEL, *parts)
    except (ServiceError, OSError) as error:
        log.error("project %s has no model: %s", project_id, error)
        snapshot = store.read(project_id, *parts)
        return replace(snapshot, project=replace(snapshot.project, model=None))


def give_up_model(store: Store, project_id: str) -> None:
    """Commit a project without its damaged model, so that a fit is due; another process may have done so already."""
    with store.transaction(project_id) as transaction:
        try:
            transaction.read(Part.MODEL)
        except ModelDamaged:
            project = transaction.read().project
            transaction.commit(replace(project, model=None).with_fit_asked().next_version())
