"""GET /projects/{id}/report: go on labelling or stop, and the evidence for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from service.domain.calibration import Calibration
from service.domain.labels import ANONYMOUS, SKIP, Label
from service.domain.project import MICROSECONDS, Project
from service.domain.sample_ids import SampleId
from service.learning.confident_learning import find_suspects
from service.store import Part, Snapshot, Store
from service.telemetry.metrics import time_evidence
from service.usecases.annotators import AnnotatorRecord, annotator_records
from service.usecases.evaluation import Evaluation, evaluate_snapshot, predict_labeled
from service.usecases.expected_gain import OF_OTHER_TARGETS, ExpectedGain, expect_gain
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
    """A label that is probably wrong, and the class that fits better; `quality` is the probability of the given one."""

    index: int
    id: SampleId | None
    given: Label
    suggested: Label
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
    if project.target != "class":
        gain = ExpectedGain(measured_on=OF_OTHER_TARGETS)
    elif project.model is not None:
        X = pool.take(project.labels.labeled)
        P = predict_labeled(store, snapshot)
        suspects = suspect_labels(snapshot, P)
        gain = expect_gain(project, X, P.argmax(axis=1) == project.labels.codes, pool.medians)
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
    project, ids = snapshot.project, snapshot.ids
    labels, n_classes = project.labels, len(project.classes)
    n_rows = len(labels.labeled)
    wanted = np.ones(n_rows, bool)
    if n_rows * n_classes > CHECKED_CELLS:
        rng = np.random.default_rng(project.random_state)
        wanted[rng.permutation(n_rows)[CHECKED_CELLS // n_classes :]] = False
    checked = np.flatnonzero(wanted)
    rows, suggested = find_suspects(P[checked], labels.codes[checked])
    rows, suggested = checked[rows[:MAX_SUSPECTS]], suggested[:MAX_SUSPECTS]
    indices = labels.labeled[rows].tolist()
    names = [None] * len(rows) if ids is None else ids.names_at(indices)
    given = labels.codes[rows]
    columns = zip(indices, names, given.tolist(), suggested.tolist(), P[rows, given].tolist(), strict=True)
    return [
        SuspectLabel(index, name, project.classes[code], project.classes[better], quality)
        for index, name, code, better, quality in columns
    ]


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
