"""GET /projects/{id}/report: go on labelling or stop, and the evidence for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.domain.calibration import Calibration
from service.domain.labels import Label
from service.domain.project import MICROSECONDS, Project, TargetName
from service.domain.sample_ids import SampleId
from service.domain.votes import ANONYMOUS, SKIP
from service.learning.confident_learning import find_suspects
from service.learning.tasks import task_of
from service.store import Part, Snapshot, Store
from service.telemetry.metrics import time_evidence
from service.usecases.annotators import AnnotatorRecord, annotator_records
from service.usecases.evaluation import Evaluation, evaluate_snapshot, predict_labeled
from service.usecases.expected_gain import ExpectedGain, expect_gain
from service.usecases.foreseen import why_no_folds
from service.usecases.stop_advice import (
    Evidence,
    StabilizingPredictions,
    Verdict,
    advise,
    stabilizing_predictions,
)
from service.usecases.training import read_with_model

MAX_SUSPECTS = 1_000
"""Maximum number of suspect labels in a report."""

CHECKED_CELLS = 2**24
"""Largest number of labelled samples x classes that are checked for suspect labels; beyond, random samples are."""

MAX_DAYS = 100
"""Maximum number of days in a report, the last ones with labels."""

DAY = 24 * 3600 * MICROSECONDS


@dataclass(frozen=True, slots=True)
class ClassCount:
    """The labels of a class, as a number and as a share of all."""

    label: Label
    n_labeled: int
    share: float


@dataclass(frozen=True, slots=True)
class SuspectLabel:
    """A label that is probably wrong, and the one that fits better; `quality` is the probability of the given one.

    Of a list of classes, it is that of the least probable decision about a class.
    """

    index: int
    id: SampleId | None
    given: Any
    suggested: Any
    quality: float


@dataclass(frozen=True, slots=True)
class AnnotatorDay:
    """The labels of an annotator on a day, None if anonymous."""

    annotator: str | None
    n_labels: int


@dataclass(frozen=True, slots=True)
class LabelDay:
    """The labels of a day (UTC) that still stand."""

    date: str
    n_labels: int
    annotators: Sequence[AnnotatorDay]


@dataclass(frozen=True, slots=True)
class Report:
    """Whether to go on labelling, and the evidence."""

    verdict: Verdict
    reasons: Sequence[str]
    stabilizing_predictions: StabilizingPredictions
    expected_gain: ExpectedGain
    classes: Sequence[ClassCount]
    annotators: Sequence[AnnotatorRecord]
    evaluation: Evaluation
    labels_per_day: Sequence[LabelDay]
    calibration: Calibration | None
    suspect_labels: Sequence[SuspectLabel] = field(default_factory=tuple)


def report_project(store: Store, project_id: str) -> tuple[Project, Report]:
    """Return a project and its report; the same state gives the same report.

    Raises ProjectNotFound, OutOfTime and the store's errors.
    """
    snapshot = read_with_model(store, project_id, Part.POOL, Part.IDS)
    return snapshot.project, report_snapshot(store, snapshot)


def report_snapshot(store: Store, snapshot: Snapshot) -> Report:
    """Return the report of a project with its pool, ids and model."""
    key = (*snapshot.project.commit, "report")

    def make() -> tuple[Report, int]:
        with time_evidence("report"):
            return sized(make_report(store, snapshot))

    report: Report = store.cache.get_or_make(key, make, "report")
    return report


def sized(report: Report) -> tuple[Report, int]:
    """Return a report with its size in bytes, roughly."""
    entries = (report.classes, report.annotators, report.suspect_labels, report.labels_per_day)
    return report, 5_000 + 500 * sum(map(len, entries))


def make_report(store: Store, snapshot: Snapshot) -> Report:
    """Collect the evidence of a project, and advise."""
    project, pool = snapshot.project, snapshot.mapped_pool
    evaluation = evaluate_snapshot(store, snapshot)
    suspects: list[SuspectLabel] = []
    gain = ExpectedGain()
    if project.model is not None and why_no_folds(project) is None:
        X = pool.take(project.labels.labeled)
        predicted = predict_labeled(store, snapshot)
        suspects = FIND_SUSPECTS[project.target](snapshot, predicted)
        gain = expect_gain(project, X, predicted, pool.medians)
    stability = stabilizing_predictions(project)
    verdict, reasons = advise(project, Evidence(stability, gain, evaluation, len(suspects)))
    return Report(
        verdict=verdict,
        reasons=reasons,
        stabilizing_predictions=stability,
        expected_gain=gain,
        classes=count_classes(project),
        annotators=list(annotator_records(project)),
        evaluation=evaluation,
        labels_per_day=labels_per_day(project),
        calibration=None if project.model is None else project.model.calibration,
        suspect_labels=suspects,
    )


def count_classes(project: Project) -> list[ClassCount]:
    """Return the number of labels of each class."""
    total = max(project.n_labeled, 1)
    return [ClassCount(label, n, n / total) for label, n in zip(project.classes, project.class_counts, strict=True)]


def suspect_labels(snapshot: Snapshot, P: NDArray[np.float64]) -> list[SuspectLabel]:
    """Return the labels that are probably wrong, the most suspect first.

    P (l, c) are the probabilities of the labelled samples by models fitted without them.
    """
    classes, codes = snapshot.project.classes, snapshot.project.labels.codes
    checked = rows_to_check(snapshot.project)
    rows, suggested = find_suspects(P[checked], codes[checked])
    rows, suggested = checked[rows[:MAX_SUSPECTS]], suggested[:MAX_SUSPECTS]
    given = codes[rows]
    return list_suspects(
        snapshot,
        rows,
        [classes[code] for code in given.tolist()],
        [classes[code] for code in suggested.tolist()],
        P[rows, given],
    )


def suspect_lists(snapshot: Snapshot, P: NDArray[np.float64]) -> list[SuspectLabel]:
    """Return the lists of classes that are probably wrong, the most suspect first.

    Each class is checked on its own, as two classes: a list that has it, and one that has not. P (l, c) are the
    marginals of the labelled samples by models fitted without them.
    """
    project = snapshot.project
    checked = rows_to_check(project)
    Y = task_of(project).labels(project, project.labels.codes)[checked]
    P, is_wrong = P[checked], np.zeros(Y.shape, bool)
    for column in range(Y.shape[1]):
        rows, _ = find_suspects(np.stack([1.0 - P[:, column], P[:, column]], axis=1), Y[:, column].astype(np.int32))
        is_wrong[rows, column] = True
    own = np.where(is_wrong, np.where(Y, P, 1.0 - P), np.inf).min(axis=1, initial=np.inf)
    found = np.flatnonzero(is_wrong.any(axis=1))
    found = found[np.argsort(own[found], kind="stable")][:MAX_SUSPECTS]
    given, suggested = (
        [[project.classes[code] for code in np.flatnonzero(row).tolist()] for row in lists]
        for lists in (Y[found], Y[found] ^ is_wrong[found])
    )
    return list_suspects(snapshot, checked[found], given, suggested, own[found])


def rows_to_check(project: Project) -> NDArray[np.intp]:
    """Return the positions of the labelled samples that are checked: all, or as many as there is time for."""
    n_rows, n_classes = project.n_labeled, len(project.classes)
    if n_rows * n_classes <= CHECKED_CELLS:
        return np.arange(n_rows)
    rng = np.random.default_rng(project.random_state)
    return np.sort(rng.permutation(n_rows)[: CHECKED_CELLS // n_classes])


def list_suspects(
    snapshot: Snapshot, rows: NDArray[np.intp], given: list[Any], suggested: list[Any], quality: NDArray[np.float64]
) -> list[SuspectLabel]:
    """Return suspect labels at positions (s,) among the labelled samples."""
    indices = snapshot.project.labels.labeled[rows].tolist()
    names = [None] * len(rows) if snapshot.ids is None else snapshot.ids.names_at(indices)
    return [SuspectLabel(*each) for each in zip(indices, names, given, suggested, quality.tolist(), strict=True)]


FIND_SUSPECTS: dict[TargetName, Callable[[Snapshot, NDArray[np.float64]], list[SuspectLabel]]] = {
    "class": suspect_labels,
    "number": lambda snapshot, predicted: [],
    "labels": suspect_lists,
}


def labels_per_day(project: Project) -> list[LabelDay]:
    """Return the labels of the last days with any, oldest first, by annotator."""
    votes = project.votes
    is_label = votes.code != SKIP
    pairs, counts = np.unique(
        np.stack([votes.at[is_label] // DAY, votes.annotator[is_label]]), axis=1, return_counts=True
    )
    days = np.unique(pairs[0])[-MAX_DAYS:]
    return [label_day(project, int(day), pairs[1, pairs[0] == day], counts[pairs[0] == day]) for day in days]


def label_day(project: Project, day: int, annotators: NDArray[np.int64], counts: NDArray[np.intp]) -> LabelDay:
    """Return the labels of a day, counted from 1970, by annotator."""
    shares = [
        AnnotatorDay(None if code == ANONYMOUS else project.annotators[code], n)
        for code, n in zip(annotators.tolist(), counts.tolist(), strict=True)
    ]
    return LabelDay(str(np.datetime64(day, "D")), int(counts.sum()), shares)
