"""POST /label: store labels and skips; and DELETE, which retracts them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Literal

from service.domain.labels import ANNOTATOR_BITS, ANONYMOUS, SKIP, Label, Votes, cast_votes, is_blank, missing_spellings
from service.domain.preconditions import UNCONDITIONAL, Preconditions
from service.domain.project import Project, extend_classes, quote_label
from service.domain.sample_ids import PoolIds, SampleId, type_of_ids
from service.errors import FieldError, InvalidRequest, LabeledByOthers, LabelNotFound, ServiceError
from service.store import Part, Snapshot, Store
from service.usecases.leases import drop_ended_leases
from service.usecases.run_once import run_once
from service.usecases.training import fit_if_due

MAX_ANNOTATORS = 2**ANNOTATOR_BITS - 1
"""Maximum number of annotators of a project: a vote's key has no room for more."""


log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SubmittedLabel:
    """A record of POST /label: a sample by index or id, and its label, None for a skip.

    With `new_class` the label may be a class that looks like another one.
    """

    index: int | None
    sample_id: SampleId | None
    label: Label | None
    annotator: str | None = None
    query_id: str | None = None
    new_class: bool = False


Refit = Literal["wait", "background", "never"]
"""Whether the reply waits for the fit that a change makes due."""


@dataclass(frozen=True, slots=True)
class LabelRequest:
    """The request of POST /label."""

    project_id: str
    labels: Sequence[SubmittedLabel]
    refit: Refit = "wait"


@dataclass(frozen=True, slots=True)
class LabelResult:
    """The project with the labels, the number of records, and the number that changed anything."""

    project: Project
    n_accepted: int
    n_changed: int


def label_project(
    store: Store,
    request: LabelRequest,
    try_enter: Callable[[], AbstractContextManager[bool]] = lambda: nullcontext(True),
    preconditions: Preconditions = UNCONDITIONAL,
) -> LabelResult:
    """Store all labels, or none; then fit if the request waits for that and `try_enter` admits it.

    Unless `refit` is "never", the same commit requests the fit. Raises InvalidRequest for each wrong record,
    ProjectNotFound, PreconditionFailed and the store's errors.
    """
    project, n_changed = run_once(
        store,
        request.project_id,
        preconditions,
        lambda: store_labels(store, request, preconditions),
        lambda prior: (prior.project, prior.n_labels),
    )
    if request.refit == "wait" and project.fit_is_due:
        with try_enter() as there_is_room:
            project = try_fit(store, project) if there_is_room else project
    return LabelResult(project, len(request.labels), n_changed)


def store_labels(store: Store, request: LabelRequest, preconditions: Preconditions) -> tuple[Project, int]:
    """Store all labels, or none. Return the project, and the number of labels that are changes."""
    parts = [Part.IDS] if any(record.index is None for record in request.labels) else []
    before = store.read(request.project_id, *parts)
    preconditions.check(before.project)
    # Computed before locking, and again only if another commit came first: mostly, no request waits for another.
    project, n_changed = apply_labels(before, request)
    is_new = project is not before.project
    if is_new:
        with store.transaction(request.project_id, preconditions=preconditions) as transaction:
            if transaction.project is not before.project:
                project, n_changed = apply_labels(transaction.read(*parts), request)
                is_new = project is not transaction.project
            if is_new:
                project = transaction.commit(project.next_version())
    if not is_new:
        store.make_durable(project)
    return project, n_changed


def apply_labels(snapshot: Snapshot, request: LabelRequest) -> tuple[Project, int]:
    """Return the project with the labels, and the number that are changes. Raises InvalidRequest."""
    project, labels = snapshot.project, request.labels
    indices = find_samples(project, snapshot.ids, labels)
    refuse_repeated(labels, indices)
    refuse_skipped(project, labels, indices)
    changed, n_changed = with_labels(project, labels, indices)
    project = changed if n_changed else project
    return project if request.refit == "never" else project.with_fit_asked(), n_changed


def try_fit(store: Store, project: Project) -> Project:
    """Return the project with an up-to-date model, or unchanged if the fit fails.

    The labels are stored already and stay; `n_labels_since_fit` in the reply shows that the model is older.
    """
    try:
        return fit_if_due(store, project.project_id)
    except ServiceError as error:
        log.warning("project %s keeps its model: %s", project.project_id, error)
        return project


def retract_label(
    store: Store,
    project_id: str,
    index: int,
    annotator: str | None = None,
    preconditions: Preconditions = UNCONDITIONAL,
) -> Project:
    """Retract all labels and skips of a sample. Raises LabelNotFound or PreconditionFailed.

    With an `annotator`, all of them must be this one's: raises LabeledByOthers otherwise.
    """
    with store.transaction(project_id, preconditions=preconditions) as transaction:
        project = transaction.read().project
        kept = project.votes.index != index
        if kept.all():
            raise LabelNotFound(index)
        if annotator is not None and annotators_of(project, index) != {annotator}:
            raise LabeledByOthers(index, annotator)
        drop_ended_leases(transaction, index)
        return transaction.commit(project.with_votes(project.votes.take(kept)).next_version())


def annotators_of(project: Project, index: int) -> set[str | None]:
    """Return the annotators of a sample; None is anonymous."""
    codes = project.votes.annotator[project.votes.index == index].tolist()
    return {None if code == ANONYMOUS else project.annotators[code] for code in codes}


def find_samples(project: Project, ids: PoolIds | None, labels: Sequence[SubmittedLabel]) -> list[int]:
    """Return the index of each record's sample, or raise InvalidRequest for unknown ones."""
    indices = []
    errors = []
    for position, record in enumerate(labels):
        if record.index is not None:
            index: int | None = record.index if record.index < project.n_samples else None
            problem = FieldError(f"/labels/{position}/index", f"must be from 0 to {project.n_samples - 1}")
        elif record.sample_id is not None:
            index = None if ids is None else ids.find(record.sample_id)
            problem = FieldError(f"/labels/{position}/id", why_unknown(ids, record.sample_id))
        if index is None:
            errors.append(problem)
        else:
            indices.append(index)
    if errors:
        raise InvalidRequest(errors)
    return indices


def why_unknown(ids: PoolIds | None, sample_id: SampleId) -> str:
    """Return why a pool has no sample with this id."""
    if ids is None:
        return "this project has no ids; use index"
    given = type_of_ids(sample_id)
    if given != ids.type_name:
        return f"is {given}; each id of this project is {ids.type_name}"
    return "is not an id of the pool"


def refuse_repeated(labels: Sequence[SubmittedLabel], indices: Sequence[int]) -> None:
    """Raise InvalidRequest if a request has two labels of one annotator for one sample."""
    first: dict[tuple[int, str | None], int] = {}
    errors = []
    times = Counter(indices)
    for position, (record, index) in enumerate(zip(labels, indices, strict=True)):
        if times[index] == 1:
            continue
        if record.annotator is None:
            errors.append(
                sample_error(position, record, f"sample {index} is labelled {times[index]} times; send one label")
            )
        elif first.setdefault((index, record.annotator), position) != position:
            errors.append(
                sample_error(position, record, f"sample {index} is labelled twice by this annotator; send one label")
            )
    if errors:
        raise InvalidRequest(errors)


def refuse_skipped(project: Project, labels: Sequence[SubmittedLabel], indices: Sequence[int]) -> None:
    """Raise InvalidRequest for labels of samples with an anonymous skip."""
    votes = project.votes
    skipped = set(votes.index[(votes.code == SKIP) & (votes.annotator == ANONYMOUS)].tolist())
    if not skipped:
        return
    errors = [
        sample_error(
            position,
            record,
            f"sample {index} was skipped: DELETE /projects/{project.project_id}/labels/{index} retracts the skip",
        )
        for position, (record, index) in enumerate(zip(labels, indices, strict=True))
        if record.label is not None and index in skipped
    ]
    if errors:
        raise InvalidRequest(errors)


def sample_error(position: int, record: SubmittedLabel, problem: str) -> FieldError:
    """Return an error at the field that identifies the sample of a record."""
    return FieldError(f"/labels/{position}/{'id' if record.index is None else 'index'}", problem)


def refuse_missing_labels(project: Project, firsts: Mapping[Label, int]) -> None:
    """Raise InvalidRequest for new labels, given with their first records, that probably mean a missing label."""
    labels = list(firsts)
    ways_out = '"skip": true says that it cannot be labelled, "new_class": true makes it a class'
    errors = [
        FieldError(
            f"/labels/{firsts[labels[at]]}/label", f"{quote_label(labels[at])} looks like a missing label; {ways_out}"
        )
        for at in missing_spellings(labels, project.classes)
        if not is_blank(labels[at])  # refused in any case, with `wrong_text`
    ]
    if errors:
        raise InvalidRequest(errors)


def with_labels(project: Project, labels: Sequence[SubmittedLabel], indices: Sequence[int]) -> tuple[Project, int]:
    """Return the project with the labels, and the number that are changes. Raises InvalidRequest."""
    firsts: dict[Label, int] = {}
    for position, record in enumerate(labels):
        if record.label is not None:
            firsts.setdefault(record.label, position)
    positions = list(firsts.values())
    confirmed = {record.label for record in labels if record.new_class and record.label is not None}
    refuse_missing_labels(project, {label: at for label, at in firsts.items() if label not in confirmed})
    project = extend_classes(project, list(firsts), lambda nth: f"/labels/{positions[nth]}/label", confirmed)
    class_code = {label: code for code, label in enumerate(project.classes)}
    annotator_code = {name: code for code, name in enumerate(project.annotators)}
    for position, record in enumerate(labels):
        if (
            record.annotator is not None
            and annotator_code.setdefault(record.annotator, len(annotator_code)) == MAX_ANNOTATORS
        ):
            problem = f"is new, and a project has at most {MAX_ANNOTATORS} annotators"
            raise InvalidRequest.at(f"/labels/{position}/annotator", problem)
    if len(annotator_code) > len(project.annotators):
        project = replace(project, annotators=tuple(annotator_code))
    rows = (
        (
            index,
            SKIP if record.label is None else class_code[record.label],
            ANONYMOUS if record.annotator is None else annotator_code[record.annotator],
            (record.query_id or "").encode(),
        )
        for record, index in zip(labels, indices, strict=True)
    )
    votes, n_changed = cast_votes(project.votes, Votes.from_rows(rows, project.next_moment()), project.labels)
    return (project.with_votes(votes) if n_changed else project), n_changed
