"""Training: a model from a snapshot, and the fit that is due after labels have come."""

from __future__ import annotations

import logging

import numpy as np

from service.errors import FitFailed, ProjectReplaced
from service.estimators import fit
from service.project import ModelRef, Project, now
from service.scoring import Classifier, evaluate
from service.store import Part, Snapshot, Store
from service.store.layout import model_file

log = logging.getLogger(__name__)


def train(snapshot: Snapshot) -> tuple[Classifier, ModelRef]:
    """Fit the project's estimator on its labelled rows, and score it on the held-out set where there is one.

    The model's classes are the project's class codes. Raises FitFailed.
    """
    project, X = snapshot.project, snapshot.X
    if X is None:
        raise ValueError("training needs a snapshot with its pool")
    labels = project.resolved
    classifier = fit(project.estimator, np.asarray(X[labels.labeled]), labels.codes, project.random_state)
    score = None
    if snapshot.X_test is not None and snapshot.y_test is not None:
        score = evaluate(classifier, snapshot.X_test, snapshot.y_test, len(project.classes))
    return classifier, ModelRef(0, project.estimator, project.random_state, project.labels_revision, score)


def fit_if_due(store: Store, project_id: str) -> Project:
    """Bring a project's model up to its labels, and return the project.

    The fit runs outside the project's lock, one at a time: whoever waited for another's fit mostly finds the work
    done. A fit that fails loses no label; the project keeps the model it had.
    """
    with store.fit_turn(project_id):
        snapshot = store.read(project_id, Part.POOL, Part.HELD_OUT)
        if not snapshot.project.fit_is_due:
            return snapshot.project
        try:
            classifier, model = train(snapshot)
        except FitFailed as error:
            log.warning("project %s keeps its model: %s", project_id, error)
            return snapshot.project
        with store.stage() as staging:
            path = staging.dump(classifier)
            with store.transaction(project_id) as transaction:
                current = same_project(transaction.project, snapshot.project)
                fitted = current.with_model(model)
                if fitted is current:
                    return current
                return transaction.commit(fitted.committed(now()), {model_file(fitted.last_model): path})


def same_project(current: Project | None, before: Project) -> Project:
    """Return the current state of a project, or raise ProjectReplaced when it has another pool than before."""
    if current is None or current.incarnation != before.incarnation:
        raise ProjectReplaced(before.project_id)
    return current
