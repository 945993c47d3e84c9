"""The samples of a project: their ids, statuses and labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.domain.labels import Label
from service.domain.project import Project
from service.domain.sample_ids import SampleId
from service.domain.targets import decode_labels
from service.store import Part, Store

Positions = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class SampleRecord:
    """A sample: its status, and its label if it has one."""

    index: int
    id: SampleId | None
    status: str
    label: Label | None


@dataclass(frozen=True, slots=True, eq=False)
class SamplePage:
    """Samples in the order of the pool, and the index after which the next page starts, None on the last."""

    project: Project
    samples: list[SampleRecord]
    next: int | None


SAMPLES_OF_STATUS: Mapping[str, Callable[[Project], Positions]] = {
    "unlabeled": lambda project: np.flatnonzero(project.is_unlabeled),
    "labeled": lambda project: project.labels.labeled,
    "skipped": lambda project: np.setdiff1d(project.labels.skipped, project.removed, assume_unique=True),
    "removed": lambda project: project.removed,
}
"""A function for each status that returns its samples, sorted. Every sample has one status."""


def list_samples(store: Store, project_id: str, limit: int, after: int | None, status: str | None) -> SamplePage:
    """Return up to `limit` samples of a status, or of any, after an index. Raises ProjectNotFound."""
    snapshot = store.read(project_id, Part.IDS)
    project, ids = snapshot.project, snapshot.ids
    begin = 0 if after is None else after + 1
    if status is None:
        rows = np.arange(begin, min(project.n_samples, begin + limit + 1))
    else:
        of_status = SAMPLES_OF_STATUS[status](project)
        first = int(np.searchsorted(of_status, begin))
        rows = of_status[first : first + limit + 1]
    page = rows[:limit]
    indices = page.tolist()
    names = [None] * len(indices) if ids is None else ids.names_at(indices)
    statuses = statuses_of(project, page) if status is None else [status] * len(indices)
    labels = decode_labels(project, project.labels.code_of(page))
    samples = [SampleRecord(*record) for record in zip(indices, names, statuses, labels, strict=True)]
    return SamplePage(project, samples, indices[-1] if len(rows) > limit else None)


def statuses_of(project: Project, rows: Positions) -> list[str]:
    """Return the status of each row."""
    found = np.full(len(rows), "unlabeled", object)
    for status in SAMPLES_OF_STATUS.keys() - {"unlabeled"}:
        found[np.isin(rows, SAMPLES_OF_STATUS[status](project))] = status
    statuses: list[str] = found.tolist()
    return statuses
