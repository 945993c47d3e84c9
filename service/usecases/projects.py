"""Projects as a resource: get one, list them, list events and labels, delete one."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import chain, repeat

import numpy as np
from numpy.typing import NDArray

from service.domain.calibration import CalibrationMethod
from service.domain.columns import Columns
from service.domain.labels import Label
from service.domain.parameters import Parameters
from service.domain.preconditions import UNCONDITIONAL, Preconditions
from service.domain.project import (
    ConsensusMethod,
    EstimatorSpec,
    MissingValues,
    ModelRef,
    Project,
    Score,
    SimilarLabels,
    TargetName,
    format_times,
)
from service.domain.sample_ids import SampleId
from service.domain.sorted_columns import look_up
from service.domain.targets import decode_labels, table_of
from service.domain.votes import ANONYMOUS, SKIP, Votes, vote_key
from service.errors import ProjectNotFound, StoreDamaged
from service.store import Page, Part, Snapshot, Store
from service.usecases.append import AppendResult

RECORDS_AT_ONCE = 1_000
"""Number of label records that are built and sent together."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FitStatus:
    """The state of a project's fit; `running_since` in microseconds since 1970 UTC, None if none runs."""

    due: bool
    running_since: int | None
    last_error: str | None


@dataclass(frozen=True, slots=True)
class ProjectSummary:
    """The attributes of a `Project` that a list shows, without its labels."""

    project_id: str
    version: int
    n_samples: int
    n_features: int
    feature_names: tuple[str, ...] | None
    columns: Columns | None
    text: Parameters | None
    has_texts: bool
    n_labeled: int
    n_unlabeled: int
    n_skipped: int
    n_removed: int
    classes: tuple[Label, ...]
    class_counts: list[int]
    estimator: EstimatorSpec
    consensus_method: ConsensusMethod
    skips_to_drop: int
    similar_labels: SimilarLabels
    missing_values: MissingValues
    calibration_method: CalibrationMethod
    target: TargetName
    random_state: int
    model: ModelRef | None
    n_labels_since_fit: int
    test_score: Score | None
    created_at: int
    updated_at: int
    fit_is_due: bool
    fit_error: str | None


SUMMARY_BYTES = 2_000
"""Size of a summary without its classes and names of columns, roughly."""


@dataclass(frozen=True, slots=True)
class ProjectStatus:
    """A project and the status of its fit, with notes on a request and the result of an append."""

    project: Project | ProjectSummary
    fit: FitStatus
    notes: Sequence[str] = ()
    appended: AppendResult | None = None


@dataclass(frozen=True, slots=True)
class ProjectPage:
    """Some projects, and the name after which the next page starts, None on the last page."""

    projects: list[ProjectStatus]
    next: str | None


@dataclass(frozen=True, slots=True)
class StoredLabel:
    """A stored label or skip; `labeled_at` in RFC 3339 format."""

    index: int
    id: SampleId | None
    label: Label | None
    skip: bool
    annotator: str | None
    query_id: str | None
    labeled_at: str
    consensus: Label | None
    quality: float | None


@dataclass(frozen=True, slots=True)
class StoredNumber(StoredLabel):
    """A stored number; `spread` is the standard deviation of all of its sample, None for a single one."""

    spread: float | None


def get(store: Store, project_id: str) -> Project:
    """Return a project, or raise ProjectNotFound."""
    return store.read(project_id).project


def summarize(project: Project) -> tuple[ProjectSummary, int]:
    """Return the summary of a project, and its size in bytes."""
    values = {field.name: getattr(project, field.name) for field in fields(ProjectSummary)}
    model = project.model and replace(project.model, consensus=None)  # it has an entry for each label
    return ProjectSummary(**values | {"model": model}), SUMMARY_BYTES + 100 * (
        len(project.classes) + len(project.feature_names or ())
    )


def with_fit_status(store: Store, project: Project | ProjectSummary) -> ProjectStatus:
    """Return a project with the current status of its fit."""
    is_due = project.fit_is_due
    # A fit that is at work is one that is due.
    since = store.fitting_since(project.project_id) if is_due else None
    return ProjectStatus(project, FitStatus(is_due, since, project.fit_error))


def list_all(store: Store, limit: int, after: str | None, may_see: Callable[[str], bool]) -> ProjectPage:
    """Return up to `limit` of the projects that may be seen, in order of their names, from the first after `after`.

    Damaged projects are left out and logged.
    """
    names = [name for name in store.project_ids() if (after is None or name > after) and may_see(name)]
    projects = []
    for name in names[:limit]:
        try:
            projects.append(with_fit_status(store, store.summarize(name, summarize)))
        except ProjectNotFound:
            continue  # deleted meanwhile
        except StoreDamaged as error:
            log.error("left out of the list: %s", error)
    return ProjectPage(projects, names[limit - 1] if len(names) > limit else None)


def delete(store: Store, project_id: str, preconditions: Preconditions = UNCONDITIONAL) -> None:
    """Delete a project, or raise ProjectNotFound or PreconditionFailed."""
    store.delete(project_id, preconditions)


def list_events(store: Store, project_id: str, limit: int, after: int) -> tuple[Project, Page]:
    """Return a project and up to `limit` of its events after a version. Raises ProjectNotFound or StoreDamaged."""
    return store.events(project_id, after, limit)


@dataclass(frozen=True, slots=True, eq=False)
class LabelPage:
    """Stored labels of a project in order of their samples, built as they are consumed.

    `next` is the position after which the next page starts, None on the last page.
    """

    project: Project
    labels: Iterator[StoredLabel]
    record_type: type[StoredLabel]
    next: str | None


def list_labels(
    store: Store, project_id: str, limit: int | None = None, after: tuple[int, int] | None = None
) -> LabelPage:
    """Return up to `limit` stored labels after a sample and an annotator's code, or all of them."""
    snapshot = store.read(project_id, Part.IDS)
    project, votes = snapshot.project, snapshot.project.votes
    begin = 0 if after is None else int(np.searchsorted(votes.key, vote_key(*after), "right"))
    end = len(votes) if limit is None else min(len(votes), begin + limit)
    starts = range(begin, end, RECORDS_AT_ONCE)
    parts = (np.arange(start, min(start + RECORDS_AT_ONCE, end)) for start in starts)
    quality = quality_of(project, votes.index[begin:end])
    labels = chain.from_iterable(records_of(snapshot, rows, quality[rows - begin]) for rows in parts)
    record_type = StoredNumber if project.target == "number" else StoredLabel
    return LabelPage(project, labels, record_type, None if end == len(votes) else position_of(votes, end - 1))


def position_of(votes: Votes, row: int) -> str:
    """Return the position of a vote: its sample, and the annotator if there are more votes on the sample."""
    index = int(votes.index[row])
    is_last = row + 1 == len(votes) or votes.index[row + 1] != index
    return str(index) if is_last else f"{index}.{votes.annotator[row] + 1}"


def records_of(snapshot: Snapshot, rows: NDArray[np.int64], quality: NDArray[np.float64]) -> Iterator[StoredLabel]:
    """Return the stored labels of some rows of the votes, given the quality of their consensus, NaN if unknown."""
    project, votes = snapshot.project, snapshot.project.votes.take(rows)
    indices = votes.index.tolist()
    more = [] if project.target != "number" else [none_for_nan(spread_of(project, votes.index))]
    return map(
        StoredNumber if more else StoredLabel,
        indices,
        repeat(None) if snapshot.ids is None else snapshot.ids.names_at(indices),
        decode_labels(project, votes.code),
        (votes.code == SKIP).tolist(),
        [None if code == ANONYMOUS else project.annotators[code] for code in votes.annotator.tolist()],
        [query.decode() or None for query in votes.query.tolist()],
        format_times(votes.at).tolist(),
        decode_labels(project, project.labels.code_of(votes.index)),
        none_for_nan(quality),
        *more,
    )


def none_for_nan(values: NDArray[np.float64]) -> list[float | None]:
    """Return values with None for NaN."""
    return [None if math.isnan(value) else value for value in values.tolist()]


def spread_of(project: Project, index: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the standard deviation of the numbers given for each sample, NaN for one or none."""
    rows, found = look_up(project.votes.majority.labeled, index)
    spread = np.full(len(index), np.nan)
    spread[found] = table_of(project).spreads(project.votes)[rows[found]]
    return spread


def quality_of(project: Project, index: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the probability that the consensus of each sample is right, NaN if unknown."""
    quality = np.full(len(index), np.nan)
    if project.consensus is not None:
        rows, found = look_up(project.labels.labeled, index)
        quality[found] = project.consensus.quality_of(project.votes)[rows[found]]
    return quality
