"""DELETE /projects/{id}/samples and POST /projects/{id}/samples/restore: remove samples, and put them back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.domain.preconditions import UNCONDITIONAL, Preconditions
from service.domain.project import Project
from service.domain.sample_ids import PoolIds, SampleId
from service.domain.sorted_columns import contains
from service.errors import FieldError, InvalidRequest, LabeledByOthers
from service.store import Part, Snapshot, Store
from service.usecases.label import annotators_of
from service.usecases.leases import drop_ended_leases
from service.usecases.run_once import run_once

Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class SampleChoice:
    """Samples of a project, by index and by id."""

    project_id: str
    indices: Sequence[int] = ()
    ids: Sequence[SampleId] = ()


@dataclass(frozen=True, slots=True)
class RemovalResult:
    """The project after a request, and the number of samples that it removed or put back."""

    project: Project
    n_changed: int


def remove_samples(
    store: Store, choice: SampleChoice, annotator: str | None = None, preconditions: Preconditions = UNCONDITIONAL
) -> RemovalResult:
    """Remove samples: they are not asked about and not trained on, and keep their index.

    A sample that is removed already stays so. With an `annotator`, no others may have labelled the samples: raises
    LabeledByOthers. Raises InvalidRequest for unknown samples, ProjectNotFound, PreconditionFailed and the store's
    errors.
    """

    def change(project: Project, index: Indices) -> tuple[Project, Indices]:
        index = index[~contains(project.removed, index)]
        if annotator is not None:
            for sample in index[contains(project.votes.index, index)].tolist():
                if annotators_of(project, sample) != {annotator}:
                    raise LabeledByOthers(sample, annotator)
        return (project.with_removed(index) if len(index) else project), index

    return change_samples(store, choice, change, "remove", preconditions)


def restore_samples(store: Store, choice: SampleChoice, preconditions: Preconditions = UNCONDITIONAL) -> RemovalResult:
    """Put removed samples back, with the labels and skips that they had; the others stay as they are.

    Raises as `remove_samples` does.
    """

    def change(project: Project, index: Indices) -> tuple[Project, Indices]:
        index = index[contains(project.removed, index)]
        return (project.with_restored(index) if len(index) else project), index

    return change_samples(store, choice, change, "restore", preconditions)


def change_samples(
    store: Store,
    choice: SampleChoice,
    change: Callable[[Project, Indices], tuple[Project, Indices]],
    kind: str,
    preconditions: Preconditions,
) -> RemovalResult:
    """Commit a change of samples, which returns the project and the samples changed.

    If that changes labels, the commit requests a fit.
    """
    detail = f"{kind}d"

    def run() -> RemovalResult:
        with store.transaction(choice.project_id, preconditions=preconditions) as transaction:
            snapshot = transaction.read(Part.IDS)
            project, index = change(snapshot.project, find_samples(snapshot, choice))
            if len(index):
                drop_ended_leases(transaction, index)
                details = {detail: {"index": index.tolist()}}
                if project.labels_revision > snapshot.project.labels_revision:
                    project = project.with_fit_asked()
                project = transaction.commit(project.next_version(), kind=kind, details=details)
            return RemovalResult(project, len(index))

    return run_once(
        store,
        choice.project_id,
        preconditions,
        run,
        lambda prior: RemovalResult(prior.project, len(prior.details[detail]["index"])),
    )


def find_samples(snapshot: Snapshot, choice: SampleChoice) -> Indices:
    """Return the samples of a choice, sorted. Raises InvalidRequest for unknown ones."""
    n, ids = snapshot.project.n_samples, snapshot.ids
    errors = [
        FieldError(f"/indices/{position}", f"must be from 0 to {n - 1}")
        for position, index in enumerate(choice.indices)
        if index >= n
    ]
    found = [None if ids is None else ids.find(name) for name in choice.ids]
    errors += unknown_ids(ids, choice.ids, found)
    if errors:
        raise InvalidRequest(errors)
    known = [index for index in found if index is not None]
    return np.unique(np.array([*choice.indices, *known], np.int64))


def unknown_ids(ids: PoolIds | None, names: Sequence[SampleId], found: Iterable[int | None]) -> list[FieldError]:
    """Return an error for each id that no sample has."""
    return [
        FieldError(f"/ids/{position}", "this project has no ids; use indices" if ids is None else ids.why_unknown(name))
        for position, (name, index) in enumerate(zip(names, found, strict=True))
        if index is None
    ]
