"""POST /label: store labels and skips; and DELETE, which retracts them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.domain.labels import EncodedLabels, Label, is_blank, missing_spellings
from service.domain.preconditions import UNCONDITIONAL, Preconditions
from service.domain.project import Project, quote_label
from service.domain.sample_ids import PoolIds, SampleId, type_of_ids
from service.domain.targets import first_with_each_class, refuse_fractions, target_of
from service.domain.votes import ANNOTATOR_BITS, ANONYMOUS, NO_VOTES, SKIP, Votes, cast_votes, vote_key
from service.errors import FieldError, InvalidRequest, LabeledByOthers, LabelNotFound, ServiceError
from service.store import Part, Snapshot, Store, Transaction
from service.usecases.leases import drop_ended_leases
from service.usecases.run_once import run_once
from service.usecases.training import fit_if_due

MAX_ANNOTATORS = 2**ANNOTATOR_BITS - 1
"""Maximum number of annotators of a project: a vote's key has no room for more."""


log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SubmittedLabel:
    """A record of POST /label: a sample by index or id, and its label, None for a skip.

    With `new_class` the label may be a class that looks like another one. `retracts` takes this annotator's label or
    skip of the sample back; the other fields are then None.
    """

    index: int | None
    sample_id: SampleId | None
    label: Label | None
    annotator: str | None = None
    query_id: str | None = None
    new_class: bool = False
    retracts: bool = False


Refit = Literal["wait", "background", "never"]
"""Whether the reply waits for the fit that a change makes due."""


@dataclass(frozen=True, slots=True)
class LabelRequest:
    """The request of POST /label. With `ignores_unknown` records of samples that do not exist are left out.

    With `replaces_all` the records are all labels and skips that remain.
    """

    project_id: str
    labels: Sequence[SubmittedLabel]
    refit: Refit = "wait"
    ignores_unknown: bool = False
    replaces_all: bool = False


@dataclass(frozen=True, slots=True)
class LabelResult:
    """The project with the labels, the number of records stored, and the number that changed anything."""

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
    result = run_once(
        store,
        request.project_id,
        preconditions,
        lambda: store_labels(store, request, preconditions),
        lambda prior: LabelResult(prior.project, len(request.labels), prior.n_labels),
    )
    if request.refit == "wait" and result.project.fit_is_due:
        with try_enter() as there_is_room:
            result = replace(result, project=try_fit(store, result.project)) if there_is_room else result
    return result


def store_labels(store: Store, request: LabelRequest, preconditions: Preconditions) -> LabelResult:
    """Store all labels, or none."""
    parts = [Part.IDS] if any(record.index is None for record in request.labels) else []
    before, prepared = None, None
    # Prepared before locking, unless that will be in vain because others are changing the project.
    if not store.is_changing(request.project_id):
        before = store.read(request.project_id, *parts)
        preconditions.check(before.project)
        prepared = apply_labels(before, request)
        if prepared.project is before.project:
            return prepared

    def change(transaction: Transaction) -> LabelResult:
        if before is not None and prepared is not None and transaction.project is before.project:
            result = prepared
        else:
            result = apply_labels(transaction.read(*parts), request)
        if result.project is transaction.project:
            return result
        if request.replaces_all or any(record.retracts for record in request.labels):
            drop_ended_leases(transaction, unvoted_samples(transaction.read().project, result.project))
        return replace(result, project=transaction.commit(result.project.next_version()))

    return store.change(request.project_id, change, preconditions)


def apply_labels(snapshot: Snapshot, request: LabelRequest) -> LabelResult:
    """Return the project with the labels and without the retracted ones. Raises InvalidRequest."""
    project = snapshot.project
    answers = find_samples(project, snapshot.ids, request)
    refuse_repeated(answers)
    given = [answer for answer in answers if not answer.record.retracts]
    if request.replaces_all:
        changed, n_changed, n_retracted = with_only_labels(project, given)
    else:
        refuse_skipped(project, answers)
        changed, n_changed = with_labels(project, given)
        changed, n_retracted = without_labels(changed, [answer for answer in answers if answer.record.retracts])
    project = changed if n_changed + n_retracted else project
    project = project if request.refit == "never" else project.with_fit_asked()
    return LabelResult(project, len(answers), n_changed + n_retracted)


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

    def change(transaction: Transaction) -> Project:
        project = transaction.read().project
        votes = project.votes
        gone = Votes.of(votes.on(index))
        if len(gone) == 0:
            raise LabelNotFound(index)
        if annotator is not None and annotators_of(project, index) != {annotator}:
            raise LabeledByOthers(index, annotator)
        drop_ended_leases(transaction, np.array([index], np.int64))
        return transaction.commit(project.with_votes(votes.changed(gone, NO_VOTES)).next_version())

    return store.change(project_id, change, preconditions)


def sample_of_id(store: Store, project_id: str, text: str) -> int:
    """Return the index of the sample whose id is a text, or the number that a text shows. Raises LabelNotFound."""
    ids = store.read(project_id, Part.IDS).ids
    index = None if ids is None else ids.find_text(text)
    if index is None:
        raise LabelNotFound(text[:64])
    return index


def annotators_of(project: Project, index: int) -> set[str | None]:
    """Return the annotators of a sample; None is anonymous."""
    codes = {vote.annotator for vote in project.votes.on(index)}
    return {None if code == ANONYMOUS else project.annotators[code] for code in codes}


class Answer(NamedTuple):
    """A record of a request: its position there, and the sample that it names."""

    position: int
    sample: int
    record: SubmittedLabel


def find_samples(project: Project, ids: PoolIds | None, request: LabelRequest) -> list[Answer]:
    """Return the sample of each record, or raise InvalidRequest for unknown ones, unless the request ignores them.

    Removed samples count as unknown.
    """
    answers = []
    errors = []
    removed = set(project.removed.tolist())
    for position, record in enumerate(request.labels):
        index, is_ignored = find_sample(project, ids, record)
        if index is not None and index not in removed:
            answers.append(Answer(position, index, record))
        elif not (request.ignores_unknown and is_ignored):
            field, problem = ("index" if record.sample_id is None else "id"), why_unknown(project, ids, record)
            errors.append(
                FieldError(f"/labels/{position}/{field}", problem if index is None else was_removed(project, index))
            )
    if errors:
        raise InvalidRequest(errors)
    return answers


def find_sample(project: Project, ids: PoolIds | None, record: SubmittedLabel) -> tuple[int | None, bool]:
    """Return the sample of a record, None if it is unknown, and whether a request may ignore that."""
    if record.sample_id is None:
        return (record.index if record.index is not None and record.index < project.n_samples else None), True
    return (None if ids is None else ids.find(record.sample_id)), ids is not None and is_of_type(ids, record.sample_id)


def why_unknown(project: Project, ids: PoolIds | None, record: SubmittedLabel) -> str:
    """Return why no sample has the index or id of a record."""
    if record.sample_id is None:
        return f"must be from 0 to {project.n_samples - 1}"
    return "this project has no ids; use index" if ids is None else ids.why_unknown(record.sample_id)


def was_removed(project: Project, index: int) -> str:
    """Return that a sample was removed, and how to put it back."""
    return f"sample {index} was removed: POST /projects/{project.project_id}/samples/restore puts it back"


def is_of_type(ids: PoolIds, sample_id: SampleId) -> bool:
    """Return whether an id has the type of a pool's ids."""
    return type_of_ids(sample_id) == ids.type_name


def refuse_repeated(answers: Sequence[Answer]) -> None:
    """Raise InvalidRequest if a request has two labels of one annotator for one sample."""
    if len({answer.sample for answer in answers}) == len(answers):
        return
    first: dict[tuple[int, str | None], int] = {}
    errors = []
    times = Counter(answer.sample for answer in answers)
    n_labels = Counter(answer.sample for answer in answers if not is_named_skip(answer.record))
    for answer in answers:
        position, index, record = answer
        if times[index] == 1:
            continue
        if record.annotator is None and record.label is not None and n_labels[index] == 1:
            continue  # skips of annotators may stand beside it
        if record.annotator is None and not record.retracts:
            errors.append(sample_error(answer, f"sample {index} is labelled {times[index]} times; send one label"))
        elif first.setdefault((index, record.annotator), position) != position:
            errors.append(sample_error(answer, f"sample {index} is labelled twice by this annotator; send one label"))
    if errors:
        raise InvalidRequest(errors)


def is_named_skip(record: SubmittedLabel) -> bool:
    """Return whether a record is an annotator's skip."""
    return record.label is None and record.annotator is not None and not record.retracts


def refuse_skipped(project: Project, answers: Sequence[Answer]) -> None:
    """Raise InvalidRequest for labels of samples with an anonymous skip."""
    votes = project.votes
    if votes.majority.n_skipped == 0:
        return
    there = (vote for answer in answers for vote in votes.on(answer.sample))
    skipped = {vote.sample for vote in there if vote.code == SKIP and vote.annotator == ANONYMOUS}
    if not skipped:
        return
    errors = [
        sample_error(
            answer,
            f"sample {answer.sample} was skipped: "
            f"DELETE /projects/{project.project_id}/labels/{answer.sample} retracts the skip",
        )
        for answer in answers
        if answer.record.label is not None and answer.sample in skipped
    ]
    if errors:
        raise InvalidRequest(errors)


def sample_error(answer: Answer, problem: str) -> FieldError:
    """Return an error at the field that identifies the sample of a record."""
    return FieldError(f"/labels/{answer.position}/{'id' if answer.record.index is None else 'index'}", problem)


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


def with_labels(project: Project, answers: Sequence[Answer]) -> tuple[Project, int]:
    """Return the project with the labels, and the number that are changes. Raises InvalidRequest."""
    if not answers:
        return project, 0
    firsts: dict[Label, int] = {}
    for position, _, record in answers:
        if record.label is not None:
            firsts.setdefault(record.label, position)
    positions = list(firsts.values())
    confirmed = {record.label for _, _, record in answers if record.new_class and record.label is not None}
    target = target_of(project)
    if target.name == "class":
        refuse_fractions(f"/labels/{at}/label" for at, _, record in answers if isinstance(record.label, float))
        refuse_missing_labels(project, {label: at for label, at in firsts.items() if label not in confirmed})
    if target.name == "labels":
        known = first_with_each_class([*confirmed])
        given = first_with_each_class([*firsts])
        refuse_missing_labels(project, {label: positions[at] for label, at in given.items() if label not in known})
    project = target.admit(project, list(firsts), lambda nth: f"/labels/{positions[nth]}/label", confirmed)
    codes = target.encode(project, EncodedLabels(tuple(firsts), np.arange(len(firsts), dtype=np.int32)))
    code_of = dict(zip(firsts, codes.tolist(), strict=True))
    annotator_code = {name: code for code, name in enumerate(project.annotators)}
    for position, _, record in answers:
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
            SKIP if record.label is None else code_of[record.label],
            ANONYMOUS if record.annotator is None else annotator_code[record.annotator],
            (record.query_id or "").encode(),
        )
        for _, index, record in answers
    )
    votes, n_changed = cast_votes(project.votes, Votes.from_rows(rows, project.next_moment()), project.labels)
    return (project.with_votes(votes) if n_changed else project), n_changed


def with_only_labels(project: Project, answers: Sequence[Answer]) -> tuple[Project, int, int]:
    """Return the project with these labels and no others, and the numbers of changes and of retracted labels."""
    votes = project.votes
    kept = np.isin(votes.key, keys_of(project, answers))
    changed, n_changed = with_labels(replace(project, votes=votes.take(kept)), answers)
    # Compared with all votes at once: without the others alone, the project might lose its model.
    only = replace(
        project,
        classes=changed.classes,
        annotators=changed.annotators,
        votes=votes.with_table(changed.votes.table),
    ).with_votes(changed.votes)
    return only, n_changed, int(np.count_nonzero(~kept))


def keys_of(project: Project, answers: Sequence[Answer]) -> NDArray[np.int64]:
    """Return the keys of votes of known annotators on samples."""
    code_of = {None: ANONYMOUS} | {name: code for code, name in enumerate(project.annotators)}
    keys = [vote_key(index, code_of[record.annotator]) for _, index, record in answers if record.annotator in code_of]
    return np.array(keys, np.int64)


def without_labels(project: Project, answers: Sequence[Answer]) -> tuple[Project, int]:
    """Return the project without the labels and skips that answers retract, and their number."""
    wanted, votes = {*keys_of(project, answers).tolist()}, project.votes
    there = (vote for sample in sorted({answer.sample for answer in answers}) for vote in votes.on(sample))
    gone = Votes.of(vote for vote in there if vote_key(vote.sample, vote.annotator) in wanted)
    return (project.with_votes(votes.changed(gone, NO_VOTES)) if len(gone) else project), len(gone)


def unvoted_samples(before: Project, after: Project) -> NDArray[np.int64]:
    """Return the samples that had a label or skip and have none."""
    change = after.votes.change_since(before.votes)
    if change is None:
        return np.setdiff1d(before.votes.index, after.votes.index)
    return np.array([sample for sample in change.samples() if not after.votes.on(sample)], np.int64)
