"""Training: a model from a snapshot, and the fit that is due after labels have come."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np

from service.compute.deadline import check_deadline
from service.domain.consensus import Consensus
from service.domain.labels import SampleLabels, Votes
from service.domain.project import ModelRef, Project
from service.errors import Conflict, FitFailed, ModelDamaged, NotFound, ProjectReplaced, ServiceError
from service.learning.committees import BaggedCommittee, bootstrap
from service.learning.estimators import fit
from service.learning.models import Classifier
from service.learning.pool import Features
from service.learning.scoring import evaluate
from service.learning.weigh_votes import estimate_consensus
from service.store import Part, Snapshot, Store
from service.store.files import StagedFile
from service.store.layout import model_file
from service.store.staging import Staging
from service.telemetry.metrics import time_fit

log = logging.getLogger(__name__)

FIT_TRIES = 3
"""How often a fit is made again because the project has changed under it."""


def train(snapshot: Snapshot) -> tuple[Classifier, ModelRef]:
    """Fit the project's estimator on its labelled rows, and score it on the held-out set where there is one.

    The model's classes are the project's class codes. Raises FitFailed.
    """
    project, pool = snapshot.project, snapshot.pool
    if pool is None:
        raise ValueError("training needs a snapshot with its pool")
    with time_fit(project.estimator.name):
        X = pool.take(project.votes.majority.labeled)
        consensus, labels = labels_to_fit(project, X)
        classifier = fit(project.estimator, X, labels.codes, project.random_state)
        score = None
        if snapshot.X_test is not None and snapshot.y_test is not None:
            score = evaluate(classifier, snapshot.X_test, snapshot.y_test, len(project.classes))
    model = ModelRef(
        version=0,  # given by Project.with_model
        estimator=project.estimator,
        random_state=project.random_state,
        labels_revision=project.labels_revision,
        held_out=project.held_out_number,
        test_score=score,
        consensus_method=project.consensus_method,
        consensus=consensus,
    )
    return classifier, model


@dataclass(frozen=True, slots=True, eq=False)
class StagedModel:
    """A fitted model that is not part of a project yet: its file, its reference, and the votes it was fitted to."""

    file: StagedFile
    ref: ModelRef
    votes: Votes


def stage_model(staging: Staging, snapshot: Snapshot) -> StagedModel:
    """Train as `train` does, and write the model to a staged file. Raises FitFailed."""
    classifier, ref = train(snapshot)
    return StagedModel(staging.dump(classifier), ref, snapshot.project.votes)


def labels_to_fit(project: Project, X: Features) -> tuple[Consensus | None, SampleLabels]:
    """Return what is found out about the votes on the labelled rows (l, d), and the labels that they come to.

    Nothing where no sample has several, where the majority is asked for, and where the weights would leave one class.
    """
    majority = project.votes.majority
    if (
        project.consensus_method == "crowdlab"
        and len(project.votes.shared_samples)
        and len(np.unique(majority.codes)) > 1
    ):
        consensus = estimate_consensus(project, X)
        labels = consensus.apply_to(project.votes)
        if len(np.unique(labels.codes)) > 1:
            return consensus, labels
    return None, majority


def train_committee(snapshot: Snapshot, n_members: int) -> BaggedCommittee:
    """Fit so many of the project's estimator, each to a bootstrap sample of the labels (Breiman 1996).

    The same state gives the same committee. A member that cannot learn from its sample is left out, and without any
    the current model stands alone.
    """
    project, pool = snapshot.project, snapshot.pool
    if pool is None:
        raise ValueError("training needs a snapshot with its pool")
    labels = project.labels
    X = pool.take(labels.labeled)
    rng = np.random.default_rng([project.random_state, n_members])
    members = []
    for seed in rng.integers(2**32, size=n_members).tolist():
        check_deadline()
        rows = bootstrap(labels.codes, rng)
        with suppress(FitFailed):
            members.append(fit(project.estimator, X[rows], labels.codes[rows], seed))
    return BaggedCommittee.of(members or [snapshot.model], project.labels_revision)


def fit_if_due(store: Store, project_id: str) -> Project:
    """Bring a project's model up to its labels, and return the project.

    The fit runs outside the project's lock, one at a time: whoever waited for another's fit mostly finds the work
    done. Raises FitFailed, ProjectReplaced, ProjectNotFound and the store's errors; the project keeps its model then,
    and its `fit_error` tells of a failure.
    """
    with store.fit_turn(project_id):
        return fit_in_turn(store, project_id)


def fit_in_turn(store: Store, project_id: str) -> Project:
    """Do what `fit_if_due` does, for a caller who has the project's turn."""
    snapshot = store.read(project_id, Part.POOL, Part.HELD_OUT)
    # Once more where another estimator or held-out set came in between, and the model is not of this project.
    for _ in range(FIT_TRIES):
        if not snapshot.project.fit_is_due:
            break
        model = fit_snapshot(store, snapshot)
        snapshot = store.read(project_id, Part.POOL, Part.HELD_OUT)
        if snapshot.project.labels_revision > model.labels_revision:
            break  # labels that came meanwhile have asked for a fit of their own, where they want one
    return snapshot.project


def fit_snapshot(store: Store, snapshot: Snapshot) -> ModelRef:
    """Fit a project as it is in a snapshot, and commit the model, or else why there is none."""
    project = snapshot.project
    try:
        with store.fitting(project.project_id):
            classifier, model = train(snapshot)
            commit_model(store, project, classifier, model)
    except (NotFound, Conflict):
        raise  # there is nobody left to be told
    except Exception as error:
        commit_failure(store, project, describe_failure(error), is_final=isinstance(error, FitFailed))
        raise
    return model


def describe_failure(error: Exception) -> str:
    """Say for callers why a fit failed; what a bug says may hold what is none of their business."""
    if isinstance(error, ServiceError):
        return str(error)
    if isinstance(error, MemoryError):
        return "the memory does not suffice for this fit"
    return "this is a fault of the service; its log has more"


def commit_model(store: Store, before: Project, classifier: Classifier, model: ModelRef) -> None:
    """Commit a model that was fitted to a snapshot, unless the project has one by now that is newer."""
    with store.stage() as staging:
        file = staging.dump(classifier)
        with store.transaction(before.project_id) as transaction:
            current = check_same_pool(transaction.project, before)
            fitted = current.with_model(model, before.votes)
            if fitted is not current:
                transaction.commit(fitted.next_version(), {model_file(fitted.last_model): file})


def commit_failure(store: Store, before: Project, error: str, *, is_final: bool) -> None:
    """Commit that a fit of a project failed, as far as that can be: whoever asked for it is told in any case."""
    with suppress(ServiceError, OSError), store.transaction(before.project_id) as transaction:
        current = check_same_pool(transaction.project, before)
        failed = current.with_failed_fit(before, error, is_final=is_final)
        if failed is not current:
            transaction.commit(failed.next_version())


def check_same_pool(current: Project | None, before: Project) -> Project:
    """Return the current state of a project, or raise ProjectReplaced when it has another pool than before."""
    if current is None or current.pool_id != before.pool_id:
        raise ProjectReplaced(before.project_id)
    return current


def read_with_model(store: Store, project_id: str, *parts: Part) -> Snapshot:
    """Open a project with its model. One whose file is lost or damaged is fitted again: its labels are there.

    Where that cannot be done either, the project has no model. Raises ProjectNotFound and the store's errors.
    """
    try:
        return store.read(project_id, Part.MODEL, *parts)
    except ModelDamaged as error:
        log.error("the model is given up and fitted again: %s", error)
    try:
        give_up_model(store, project_id)
        fit_if_due(store, project_id)
        return store.read(project_id, Part.MODEL, *parts)
    except (ServiceError, OSError) as error:
        log.error("project %s has no model: %s", project_id, error)
        snapshot = store.read(project_id, *parts)
        return replace(snapshot, project=replace(snapshot.project, model=None))


def give_up_model(store: Store, project_id: str) -> None:
    """Commit a project without its model, so that a fit is due, unless somebody else was quicker."""
    with store.transaction(project_id) as transaction:
        try:
            transaction.read(Part.MODEL)
        except ModelDamaged:
            project = transaction.read().project
            transaction.commit(replace(project, model=None).with_fit_asked().next_version())
