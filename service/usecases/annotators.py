"""GET /projects/{id}/annotators: how much each annotator labelled, and how well."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.domain.project import Project, format_times
from service.domain.sorted_columns import contains, look_up
from service.domain.votes import ANONYMOUS, SKIP
from service.store import Store


@dataclass(frozen=True, slots=True)
class AnnotatorRecord:
    """The work of an annotator, None if anonymous. Unknown values are None, times in RFC 3339 format."""

    annotator: str | None
    n_labels: int
    n_skips: int
    n_shared: int
    agreement: float | None
    accuracy: float | None
    first_at: str
    last_at: str


def list_annotators(store: Store, project_id: str) -> tuple[Project, Iterator[AnnotatorRecord]]:
    """Return a project and its annotators. Raises ProjectNotFound and the store's errors."""
    project = store.read(project_id).project
    return project, annotator_records(project)


def annotator_records(project: Project) -> Iterator[AnnotatorRecord]:
    """Yield the annotators of a project, anonymous first, the others in the order of their first vote."""
    votes = project.votes
    codes, who = np.unique(votes.annotator, return_inverse=True)

    def times(counted: NDArray[np.bool_]) -> NDArray[np.intp]:
        return np.bincount(who[counted], minlength=len(codes))

    is_label = votes.code != SKIP
    is_shared = is_label & contains(votes.shared_samples, votes.index)
    n_shared = times(is_shared)
    n_agreed = times(is_shared & (votes.code == project.labels.code_of(votes.index)))
    first, last = np.full(len(codes), np.iinfo(np.int64).max), np.zeros(len(codes), np.int64)
    np.minimum.at(first, who, votes.at)
    np.maximum.at(last, who, votes.at)
    columns = zip(
        codes.tolist(),
        times(is_label).tolist(),
        times(~is_label).tolist(),
        n_shared.tolist(),
        n_agreed.tolist(),
        accuracy_of(project, codes).tolist(),
        format_times(first).tolist(),
        format_times(last).tolist(),
        strict=True,
    )
    return (
        AnnotatorRecord(
            annotator=None if code == ANONYMOUS else project.annotators[code],
            n_labels=n_labels,
            n_skips=n_skips,
            n_shared=shared,
            agreement=agreed / shared if shared and project.target != "number" else None,
            accuracy=None if np.isnan(accuracy) else accuracy,
            first_at=first_at,
            last_at=last_at,
        )
        for code, n_labels, n_skips, shared, agreed, accuracy, first_at, last_at in columns
    )


def accuracy_of(project: Project, annotators: NDArray[np.int32]) -> NDArray[np.float64]:
    """Return the estimated accuracy of each annotator, NaN if unknown."""
    accuracy = np.full(len(annotators), np.nan)
    if project.consensus is not None:
        rows, found = look_up(project.consensus.annotator.astype(np.int64), annotators.astype(np.int64))
        accuracy[found] = project.consensus.accuracy[rows[found]]
    return accuracy
