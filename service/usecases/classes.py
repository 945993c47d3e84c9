"""POST /projects/{id}/classes: rename and merge classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

from service.domain.labels import Label
from service.domain.preconditions import UNCONDITIONAL, Preconditions
from service.domain.project import HeldOut, Project
from service.domain.renaming import Codes, new_names, recode, with_class_names
from service.store import Part, Snapshot, Store
from service.store.files import StagedFile
from service.store.layout import held_out_labels_file, rows_files
from service.store.staging import Staging
from service.usecases.label import Refit, try_fit
from service.usecases.run_once import run_once
from service.usecases.uploads import target_files


@dataclass(frozen=True, slots=True)
class RenameRequest:
    """The request of POST /projects/{id}/classes: the new names of classes, each by its text in JSON."""

    project_id: str
    rename: Mapping[str, Label]
    refit: Refit = "wait"


def rename_classes(
    store: Store,
    staging: Staging,
    request: RenameRequest,
    try_enter: Callable[[], AbstractContextManager[bool]] = lambda: nullcontext(True),
    preconditions: Preconditions = UNCONDITIONAL,
) -> Project:
    """Rename classes in one commit; then fit if classes were merged, unless the request says otherwise.

    Raises InvalidRequest, ProjectNotFound, PreconditionFailed and the store's errors.
    """
    project = run_once(
        store,
        request.project_id,
        preconditions,
        lambda: commit_names(store, staging, request, preconditions),
        lambda prior: prior.project,
    )
    if request.refit == "wait" and project.fit_is_wanted:
        with try_enter() as there_is_room:
            project = try_fit(store, project) if there_is_room else project
    return project


def commit_names(store: Store, staging: Staging, request: RenameRequest, preconditions: Preconditions) -> Project:
    """Rename classes in one commit, and in the same one request the fit that a merge makes due."""
    preconditions.check(store.read(request.project_id).project)
    with store.transaction(request.project_id, preconditions=preconditions) as transaction:
        snapshot = transaction.read(Part.HELD_OUT)
        before = snapshot.project
        names = new_names(before, request.rename)
        project, codes = with_class_names(before, names)
        if project.classes == before.classes:
            return before
        files: dict[str, StagedFile] = {}
        if len(project.classes) < len(before.classes):
            project, files = with_recoded_held_out(replace(snapshot, project=project), codes, staging)
            project = project if request.refit == "never" else project.with_fit_asked()
        renamed = [(old, new) for old, new in zip(before.classes, names, strict=True) if old != new]
        details = {"renamed": {"from": [old for old, _ in renamed], "to": [new for _, new in renamed]}}
        return transaction.commit(project.next_version(), files, "rename", details)


def with_recoded_held_out(snapshot: Snapshot, codes: Codes, staging: Staging) -> tuple[Project, dict[str, StagedFile]]:
    """Return the project with new class codes in its held-out set, if it has one, and the files of that."""
    project, X_test, y_test = snapshot.project, snapshot.X_test, snapshot.y_test
    if project.held_out is None or X_test is None or y_test is None:
        return project, {}
    held_out = HeldOut(project.last_file + 1, project.held_out.n_rows, project.held_out.sparse)
    files = target_files(rows_files(held_out), staging.rows(X_test.segments[0]))
    files[held_out_labels_file(held_out)] = staging.dump(recode(codes, y_test))
    return replace(project, held_out=held_out, last_file=held_out.number), files
