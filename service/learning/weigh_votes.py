"""The consensus of several annotators' votes, estimated by CROWDLAB with models of the project's estimator."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from service.domain.consensus import Consensus
from service.domain.project import EstimatorSpec, Project
from service.domain.sorted_columns import contains, look_up
from service.domain.votes import SKIP, Votes
from service.learning.crowdlab import Codes, Numbers, VoteTable, weigh_votes
from service.learning.estimators import fit
from service.learning.folds import fit_folds
from service.learning.missing_values import Medians
from service.learning.models import predict_probabilities
from service.learning.pool import Features

MAX_ROWS = 50_000
"""Largest number of samples weighed: those with several votes first, then drawn at random."""

MAX_CELLS = 2**23
"""Largest number of probabilities, 67 MB: with many classes fewer samples are weighed."""


def estimate_consensus(project: Project, X: Features, medians: Medians | None = None) -> Consensus:
    """Estimate the consensus of a project's votes, given the features (l, d) of its labelled rows of >= 2 classes.

    `medians` (d,) are those of the pool if features may be missing. It fits the project's estimator five times. The
    same project gives the same result.
    """
    votes = project.votes
    labeled, majority = votes.majority.labeled, votes.majority.codes
    given = votes.take(votes.code != SKIP)
    # As in cleanlab, a declared class counts even without votes.
    classes = np.arange(len(project.classes), dtype=np.int32) if project.classes_declared else np.unique(given.code)
    rng = np.random.default_rng([project.random_state, project.labels_revision])
    rows = choose_rows(votes, len(classes), rng)
    given = given.take(contains(labeled[rows], given.index))
    annotators, annotator = np.unique(given.annotator, return_inverse=True)
    table = VoteTable(
        row=look_up(labeled[rows], given.index)[0],
        annotator=annotator,
        label=np.searchsorted(classes, given.code),
        n_samples=len(rows),
        n_annotators=len(annotators),
        n_classes=len(classes),
    )
    latest = np.searchsorted(classes, majority[rows])
    probabilities = unseen_probabilities(
        project.estimator, X[rows], latest, table, project.random_state, project.n_samples, medians
    )
    found = weigh_votes(table, probabilities, latest)
    return Consensus(
        index=labeled[rows],
        code=classes[found.consensus],
        quality=found.quality,
        vote_hashes=votes.vote_hashes[rows],
        annotator=annotators,
        weight=found.weights,
        accuracy=found.accuracy,
        model_weight=found.model_weight,
        temperature=found.temperature,
        n_classes=len(classes),
    )


def choose_rows(votes: Votes, n_classes: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Return the sorted positions of the labelled samples to weigh."""
    n_labeled = len(votes.majority.labeled)
    n_weighed = min(n_labeled, MAX_ROWS, MAX_CELLS // n_classes)
    is_single = np.ones(n_labeled, bool)
    is_single[look_up(votes.majority.labeled, votes.shared_samples)[0]] = False
    return np.sort(np.lexsort((rng.random(n_labeled), is_single))[:n_weighed])


def unseen_probabilities(
    spec: EstimatorSpec,
    X: Features,
    codes: Codes,
    votes: VoteTable,
    random_state: int,
    pool_rows: int = 0,
    medians: Medians | None = None,
) -> Numbers:
    """Return the out-of-fold probabilities (n, c) of rows (n, d) of a pool of `pool_rows`, with class codes (n,).

    All classes are equally likely if no model can be fitted or it overflows, and for a row of a class unseen by it.
    """
    probabilities = np.full((len(codes), votes.n_classes), 1.0 / votes.n_classes)
    fit_model = partial(fit, spec, random_state=random_state, pool_rows=pool_rows, medians=medians)
    for held_out, model in fit_folds(fit_model, X, codes, random_state, *training_labels(votes)):
        of_fold = predict_probabilities(model, X[held_out])
        is_known = np.isin(codes[held_out], model.classes_) & np.isfinite(of_fold).all(axis=1)
        probabilities[held_out[is_known]] = 0.0
        probabilities[np.ix_(held_out[is_known], model.classes_)] = of_fold[is_known]
    return probabilities


def training_labels(votes: VoteTable) -> tuple[Codes, Codes]:
    """Return training rows and labels (t,): the label with most votes, or all tied labels at half weight.

    If there are ties, the other rows are repeated instead, as not every estimator takes weights. With 400 rows and two
    annotators, 30 % of whose votes are wrong, this gains 1 to 3 points of consensus accuracy over the latest label, and
    0 to 1 over leaving out ties.
    """
    counts = votes.counts
    leading = counts == counts.max(axis=1, keepdims=True)
    rows, labels = np.nonzero(leading)
    n_leading = leading.sum(axis=1)
    copies = 1 + ((n_leading[rows] == 1) & (n_leading.max() > 1))
    return np.repeat(rows, copies), np.repeat(labels, copies)
