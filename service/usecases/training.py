"""Training: a model from a snapshot, and the fit that is due after labels have come."""

from __future__ import annotations

from contextlib import suppress

import numpy as np

from service.committee import Bag, bootstrap
from service.errors import FitFailed, ProjectReplaced
from service.estimators import fit
from service.project import ModelRef, Project
from service.scoring import Classifier, evaluate
from service.store import Part, Snapshot, Store
from service.store.layout import model_file

FIT_TRIES = 3
"""How often a fit is made again because the project has changed under it."""


def train(snapshot: Snapshot) -> tuple[Classifier, ModelRef]:
    """Fit the project's estimator on its labelled rows, and score it on the held-out set where there is one.

    The model's classes are the project's class codes. Raises FitFailed.
    """
    project, pool = snapshot.project, snapshot.pool
    if pool is None:
        raise ValueError("training needs a snapshot with its pool")
    labels = project.resolved
    classifier = fit(project.estimator, pool.take(labels.labeled), labels.codes, project.random_state)
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
    )
    return classifier, model


def train_committee(snapshot: Snapshot, n_members: int) -> Bag:
    """Fit so many of the project's estimator, each to a bootstrap sample of the labels (Breiman 1996).

    The same state gives the same committee. A member that cannot learn from its sample is left out, and without any
    the current model stands alone.
    """
    project, pool = snapshot.project, snapshot.pool
    if pool is None:
        raise ValueError("training needs a snapshot with its pool")
    labels = project.resolved
    X = pool.take(labels.labeled)
    rng = np.random.default_rng([project.random_state, n_members])
    members = []
    for seed in rng.integers(2**32, size=n_members).tolist():
        rows = bootstrap(labels.codes, rng)
        with suppress(FitFailed):
            members.append(fit(project.estimator, X[rows], labels.codes[rows], seed))
    return Bag.of(members or [snapshot.model], project.labels_revision)


def fit_if_due(store: Store, project_id: str) -> Project:
    """Bring a project's model up to its labels, and return the project.

    The fit runs outside the project's lock, one at a time: whoever waited for another's fit mostly finds the work
    done. Raises FitFailed, ProjectReplaced, ProjectNotFound and the store's errors; the project keeps its model then.
    """
    with store.fit_turn(project_id):
        snapshot = store.read(project_id, Part.POOL, Part.HELD_OUT)
        # Once more where another estimator or held-out set came in between, and the model is not of this project.
        for _ in range(FIT_TRIES):
            if not snapshot.project.fit_is_due:
                break
            classifier, model = train(snapshot)
            commit_model(store, snapshot.project, classifier, model)
            snapshot = store.read(project_id, Part.POOL, Part.HELD_OUT)
            if snapshot.project.labels_revision > model.labels_revision:
                break  # labels that came meanwhile have requests of their own that wait for them
        return snapshot.project


def commit_model(store: Store, before: Project, classifier: Classifier, model: ModelRef) -> None:
    """Commit a model that was fitted to a snapshot, unless the project has one by now that is newer."""
    with store.stage() as staging:
        path = staging.dump(classifier)
        with store.transaction(before.project_id) as transaction:
            current = same_project(transaction.project, before)
            fitted = current.with_model(model)
            if fitted is not current:
                transaction.commit(fitted.committed(), {model_file(fitted.last_model): path})


def same_project(current: Project | None, before: Project) -> Project:
    """Return the current state of a project, or raise ProjectReplaced when it has another pool than before."""
    if current is None or current.incarnation != before.incarnation:
        raise ProjectReplaced(before.project_id)
    return current
