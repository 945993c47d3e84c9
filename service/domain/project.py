"""What a project is: frozen values, and the pure transitions between them. Nothing here touches a disk or a network.

What a sample is trained on is derived from its votes (`Project.labels`), and whether a fit is due is derived from the
labels and the model (`Project.fit_is_due`), so that no second truth has to survive a crash.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from service.domain.consensus import Consensus
from service.domain.labels import (
    ANONYMOUS,
    SKIP,
    EncodedLabels,
    Label,
    SampleLabels,
    Votes,
    contains,
    look_up,
    misplaced_anonymous,
)
from service.domain.parameters import Parameters
from service.errors import MAX_ERRORS, FieldError, InvalidRequest

MICROSECONDS = 1_000_000
"""In a second: all times are so many since 1970 UTC."""

MAX_CLASSES = 10_000
"""More classes than anybody tells apart; what has more is a number or a name that was taken for a label."""

PROJECT_ID = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
"""What a project may be called."""

GROW_CLASSES = "POST /fit with a longer list of 'classes' declares it"


ConsensusMethod = Literal["crowdlab", "majority"]
"""How the votes of several people on one sample become one label."""

DEFAULT_CONSENSUS_METHOD: ConsensusMethod = "crowdlab"


@dataclass(frozen=True, slots=True)
class EstimatorSpec:
    """Which estimator a project trains: a name of `estimators.ESTIMATORS` and all its parameters."""

    name: str
    params: Parameters


@dataclass(frozen=True, slots=True)
class TestScore:
    """How well a model does on the held-out set. Log loss is in nats, the others are shares of 1."""

    accuracy: float
    balanced_accuracy: float
    f1_macro: float
    log_loss: float

    __test__ = False  # pytest collects classes called Test*


@dataclass(frozen=True, slots=True)
class ModelRef:
    """A fitted model: the file of its number, what it was fitted with and on, and how well it does.

    `held_out` is the number of the held-out set that it was scored on, None without one. `consensus` is what was found
    out about the votes that it was fitted to, None where there was nothing to weigh.
    """

    version: int
    estimator: EstimatorSpec
    random_state: int
    labels_revision: int
    held_out: int | None
    test_score: TestScore | None
    consensus_method: ConsensusMethod = DEFAULT_CONSENSUS_METHOD
    consensus: Consensus | None = None


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of the pool's rows, kept in the files of its number."""

    number: int
    n_rows: int
    sparse: bool = False


@dataclass(frozen=True, slots=True)
class HeldOut:
    """The held-out set, kept in the files of its number."""

    number: int
    n_rows: int
    sparse: bool = False


@dataclass(frozen=True, slots=True)
class Checksum:
    """What tells a file from nearly every other: how many bytes it has, and their CRC-32 (as in zip archives)."""

    n_bytes: int
    crc: int


@dataclass(frozen=True, slots=True)
class EventLog:
    """Where the events of a project lie: in its log, of which so many bytes count, and behind those in `tail`."""

    n_bytes: int = 0
    tail: tuple[bytes, ...] = ()


@dataclass(frozen=True, eq=False)
class Project:
    """The whole state of a project. `version` counts its commits; `incarnation` is new with every new pool.

    `changed_since_fit` (k,) are the samples whose labels changed since the current model's snapshot, sorted; None in a
    state of an earlier version that did not record them.
    `fit_asked` is the revision of the labels that a model was last asked of, None when nobody asks; `fit_error` says
    why the last fit failed, until one succeeds.
    `checksums` are of the files that lie beside the state, by name. A state that an earlier version of the service
    wrote has neither them nor a history.
    """

    project_id: str
    pool_id: str
    version: int
    random_state: int
    estimator: EstimatorSpec
    segments: tuple[Segment, ...]
    n_features: int
    has_ids: bool
    held_out: HeldOut | None
    classes: tuple[Label, ...]
    classes_declared: bool
    annotators: tuple[str, ...]
    votes: Votes
    labels_revision: int
    model: ModelRef | None
    last_model: int
    last_file: int
    created_at: int
    updated_at: int
    consensus_method: ConsensusMethod
    fit_asked: int | None
    fit_error: str | None
    changed_since_fit: NDArray[np.int64] | None = field(default_factory=lambda: np.empty(0, np.int64))
    checksums: Mapping[str, Checksum] = field(default_factory=dict)
    event_log: EventLog | None = EventLog()
    skips_to_drop: int = 1

    @property
    def n_samples(self) -> int:
        """How many rows the pool has."""
        return sum(segment.n_rows for segment in self.segments)

    @property
    def commit(self) -> tuple[str, int]:
        """Name this state among all that there ever were."""
        return self.pool_id, self.version

    @property
    def tag(self) -> str:
        """Tell this state from all others that a project of this name has or had, briefly."""
        return f"{self.pool_id[:8]}-{self.version}"

    @property
    def is_sparse(self) -> bool:
        """Whether the pool is kept as CSR."""
        return self.segments[0].sparse

    @property
    def consensus(self) -> Consensus | None:
        """What is known about the people behind the votes, None where it plays no part."""
        return self.model.consensus if self.model is not None and self.consensus_method == "crowdlab" else None

    @cached_property
    def labels(self) -> SampleLabels:
        """What the votes come to: the consensus found with the model, the majority where votes are newer.

        A sample without a label is skipped once `skips_to_drop` annotators skipped it, or one without a name.
        """
        labels = self.votes.majority if self.consensus is None else self.consensus.apply_to(self.votes)
        if self.skips_to_drop == 1:
            return labels
        return replace(labels, skipped=labels.skipped[self.votes.skip_counts >= self.skips_to_drop])

    @property
    def n_bytes(self) -> int:
        """How much memory it takes, nearly."""
        consensus = self.model.consensus if self.model else None
        n_bytes = self.votes.n_bytes + sum(map(len, self.event_log.tail if self.event_log else ()))
        return n_bytes + (consensus.n_bytes + self.labels.codes.nbytes if consensus else 0)

    @property
    def n_labeled(self) -> int:
        """How many samples have a label."""
        return len(self.labels.labeled)

    @property
    def n_skipped(self) -> int:
        """How many samples were skipped."""
        return len(self.labels.skipped)

    @property
    def n_unlabeled(self) -> int:
        """How many samples can still be asked about."""
        return self.n_samples - self.n_labeled - self.n_skipped

    @property
    def n_labels_since_fit(self) -> int:
        """Number of samples whose label was given, changed or retracted since the current model's snapshot.

        Without a model, the number of labelled samples. A sample counts once, also when its label was retracted. A
        further vote that changes no label counts if votes are weighed.
        """
        if self.model is None:
            return self.n_labeled
        if self.changed_since_fit is None:
            return self.labels_revision - self.model.labels_revision
        return len(self.changed_since_fit)

    @property
    def class_counts(self) -> list[int]:
        """How many samples are labelled with each of `classes`."""
        counts: list[int] = np.bincount(self.labels.codes, minlength=len(self.classes)).tolist()
        return counts

    @property
    def n_classes_labeled(self) -> int:
        """How many classes have at least one labelled sample."""
        return int(np.count_nonzero(self.class_counts))

    @property
    def can_fit(self) -> bool:
        """Whether there is something to learn: two classes, also by the majority that the next fit starts from."""
        has_two = self.n_classes_labeled >= 2
        return has_two and (self.consensus is None or len(np.unique(self.votes.majority.codes)) >= 2)

    @property
    def fit_is_due(self) -> bool:
        """Whether a fit would give another model than the current one."""
        return (self.model is None or not self.matches(self.model, self.labels_revision)) and self.can_fit

    @property
    def fit_is_wanted(self) -> bool:
        """Whether somebody asked for a model that is still to be made: without that, a fit that is due can wait."""
        is_open = self.fit_asked is not None and not (self.model and self.matches(self.model, self.fit_asked))
        return is_open and self.can_fit

    def matches(self, model: ModelRef, labels_revision: int) -> bool:
        """Tell whether a model is of this project's estimator, seed and held-out set, and has seen a revision."""
        return (
            model.estimator == self.estimator
            and model.random_state == self.random_state
            and model.held_out == self.held_out_number
            and model.consensus_method == self.consensus_method
            and model.labels_revision >= labels_revision
        )

    @property
    def held_out_number(self) -> int | None:
        """The number of the held-out set, None without one."""
        return self.held_out.number if self.held_out else None

    @property
    def test_score(self) -> TestScore | None:
        """How well the current model does on the current held-out set, None without either."""
        return self.model.test_score if self.model and self.model.held_out == self.held_out_number else None

    def next_moment(self) -> int:
        """Return the time in microseconds since 1970 UTC, later than the last commit even if the clock was set back."""
        return max(now(), self.updated_at + 1)

    def next_version(self) -> Project:
        """Return the project as its next version, later than the last and no earlier than any of its votes."""
        # The clock may be set back between a vote and its commit.
        moment = max(self.next_moment(), int(self.votes.at.max(initial=0)))
        return replace(self, version=self.version + 1, updated_at=moment)

    def continuing(self, old: Project) -> Project:
        """Return the project as the successor of another: its counters go on, so that no file name comes again."""
        return replace(
            self,
            version=old.version,
            last_model=old.last_model,
            last_file=old.last_file,
            created_at=old.created_at,
            updated_at=old.updated_at,
        )

    def with_votes(self, votes: Votes) -> Project:
        """Return the project with other votes, and without its model if they can no longer be fitted."""
        index = self.changed_samples(self.votes, votes)
        changed = replace(self, votes=votes, labels_revision=self.labels_revision + len(index))
        if not changed.can_fit:
            return replace(changed, model=None, fit_asked=None, fit_error=None)
        if changed.model is None or self.changed_since_fit is None:
            return changed
        return replace(changed, changed_since_fit=np.union1d(self.changed_since_fit, index))

    def changed_samples(self, before: Votes, after: Votes) -> NDArray[np.int64]:
        """Return the samples whose label is given, changed or retracted by a change of votes, sorted.

        If votes are weighed, also those with several labels whose votes change.
        """
        old, new = before.majority, after.majority
        given = new.labeled[old.code_of(new.labeled) != new.codes]
        retracted = old.labeled[new.code_of(old.labeled) == SKIP]
        reweighed = reweighed_samples(before, after) if self.consensus_method == "crowdlab" else given[:0]
        return np.unique(np.concatenate([given, retracted, reweighed]))

    def with_fit_asked(self) -> Project:
        """Return the project with a model asked for of the labels that there are; as it is where none is due."""
        if not self.fit_is_due or self.fit_asked == self.labels_revision:
            return self
        return replace(self, fit_asked=self.labels_revision)

    def with_failed_fit(self, before: Project, error: str, *, is_final: bool) -> Project:
        """Return the project after a fit of the state `before` failed.

        A final failure would come again, so that it settles what was asked up to then, until somebody asks anew.
        """
        is_settled = is_final and self.fit_asked == before.fit_asked and self.estimator == before.estimator
        asked = None if is_settled else self.fit_asked
        if not self.fit_is_due or (error, asked) == (self.fit_error, self.fit_asked):
            return self
        return replace(self, fit_error=error, fit_asked=asked)

    def with_model(self, model: ModelRef, votes: Votes | None = None) -> Project:
        """Return the project with `model`, which was fitted to `votes` (the current ones by default).

        The model gets the next model version. Return the project unchanged if its estimator has changed meanwhile, its
        model has seen more labels, or the labels left cannot be fitted.
        """
        outdated = self.model is not None and self.matches(self.model, model.labels_revision + 1)
        if outdated or not self.can_fit or not self.matches(model, 0):
            return self
        number = self.last_model + 1
        fitted = replace(
            self,
            model=replace(model, version=number),
            last_model=number,
            fit_error=None,
            changed_since_fit=self.changed_samples(self.votes if votes is None else votes, self.votes),
        )
        # Votes that came meanwhile may leave a single class beside the consensus of the others.
        return fitted if fitted.can_fit else self


def reweighed_samples(before: Votes, after: Votes) -> NDArray[np.int64]:
    """Return the samples with several labels, before or after, whose ballots are not what they were."""
    several = np.concatenate(
        [before.shared_samples, after.shared_samples[~contains(before.shared_samples, after.shared_samples)]]
    )
    if len(several):
        several = several[vote_hashes_of(before, several) != vote_hashes_of(after, several)]
    return several


def vote_hashes_of(votes: Votes, index: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return the ballots of each sample, 0 for one without a label."""
    rows, found = look_up(votes.majority.labeled, index)
    hashes = np.zeros(len(index), np.uint64)
    hashes[found] = votes.vote_hashes[rows[found]]
    return hashes


def now() -> int:
    """Return the time in microseconds since 1970 UTC."""
    return int(datetime.now(UTC).timestamp() * MICROSECONDS)


def format_times(microseconds: NDArray[np.int64]) -> NDArray[np.str_]:
    """Show microseconds since 1970 UTC as RFC 3339 tells."""
    return np.datetime_as_string(microseconds.astype("M8[us]"), timezone="UTC")


def format_time(microseconds: int) -> str:
    """Show a single time as `show_times` does."""
    return str(format_times(np.array(microseconds)))


def extend_classes(project: Project, values: Sequence[Label], pointer: Callable[[int], str]) -> Project:
    """Return the project with those of `values` that it does not know added to its classes, sorted, behind the others.

    Raises InvalidRequest, at `pointer(position)` of each value that is of another type than the project's labels, or
    that is not among the classes that were declared.
    """
    errors = []
    new: list[Label] = []
    known = set(project.classes)
    for position, value in enumerate(values):
        if project.classes and type(value) is not type(project.classes[0]):
            wanted = type_name(project.classes[0])
            problem = f"{quote_label(value)} is {type_name(value)}; this project's labels are each {wanted}"
            errors.append(FieldError(pointer(position), problem))
        elif value in known:
            continue
        elif project.classes_declared:
            declared = ", ".join(quote_label(label) for label in project.classes[:10])
            problem = f"{quote_label(value)} is not among the declared classes ({declared}): {GROW_CLASSES}"
            errors.append(FieldError(pointer(position), problem))
        elif len(known) + len(new) == MAX_CLASSES:
            errors.append(FieldError(pointer(position), f"is one class too many; a project has at most {MAX_CLASSES}"))
        else:
            new.append(value)
        if len(errors) > MAX_ERRORS:
            break
    if errors:
        raise InvalidRequest(errors)
    return replace(project, classes=project.classes + tuple(sorted(new))) if new else project


def declare_classes(project: Project, classes: Sequence[Label]) -> Project:
    """Return the project with its classes declared: no label outside them is taken from now on.

    Raises InvalidRequest at `/classes` when one that the project has is missing, or is of another type.
    """
    declared = {(type(label), label) for label in classes}  # True is not 1
    missing = [label for label in project.classes if (type(label), label) not in declared]
    if missing:
        names = ", ".join(quote_label(label) for label in missing[:10])
        raise InvalidRequest.at("/classes", f"may only grow; the project already has {names}")
    known = set(project.classes)
    new = tuple(label for label in classes if label not in known)
    return replace(project, classes=project.classes + new, classes_declared=True)


def encode_labels(project: Project, labels: EncodedLabels) -> NDArray[np.int32]:
    """Return labels as codes of the project's classes, which must have them all; -1 for unlabelled."""
    code_of = {label: code for code, label in enumerate(project.classes)}
    table = np.array([code_of[value] for value in labels.values] + [-1], np.int32)
    return table[labels.codes]


def contradictions(project: Project) -> Iterator[str]:
    """Yield what cannot be true of a project at once."""
    votes = project.votes
    columns = {len(column) for column in (votes.index, votes.code, votes.annotator, votes.at, votes.query)}
    if len(columns) > 1:
        yield "holds columns of votes that are not of one length"
        return
    if not (np.diff(votes.key) > 0).all():
        yield "holds votes that are not in order, or twice"
    elif len(misplaced_anonymous(votes)):
        yield "holds votes beside one without an annotator"
    if not ((votes.index >= 0) & (votes.index < project.n_samples)).all():
        yield "holds votes on samples that there are not"
    if not ((votes.code >= SKIP) & (votes.code < len(project.classes))).all():
        yield "holds votes for classes that there are not"
    if not ((votes.annotator >= ANONYMOUS) & (votes.annotator < len(project.annotators))).all():
        yield "holds votes of annotators that there are not"


def type_name(label: Label) -> str:
    """Name the type of a label as a caller of JSON knows it."""
    return {bool: "a boolean", int: "an integer", str: "a string"}[type(label)]


def quote_label(label: Label) -> str:
    """Show a label in an error message as it stands in JSON, cut to a length fit for reading."""
    if isinstance(label, bool):
        return "true" if label else "false"
    return str(label) if isinstance(label, int) else f'"{label[:64]}"'
