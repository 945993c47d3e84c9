"""The state of a project: frozen values, and pure functions that change them.

The label of a sample is derived from its votes (`Project.labels`), and whether a fit is due from the labels and the
model (`Project.fit_is_due`): neither is stored, so neither can contradict the state after a crash.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from datetime import datetime, timedelta
from functools import cached_property
from itertools import islice
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from service.domain.calibration import Calibration, CalibrationMethod
from service.domain.columns import Columns
from service.domain.consensus import Consensus
from service.domain.labels import EncodedLabels, Label
from service.domain.learning_curve import FitMeasures, LearningCurve
from service.domain.new_labels import wrong_new_labels
from service.domain.parameters import Parameters
from service.domain.sorted_columns import contains, look_up, united
from service.domain.votes import (
    ANONYMOUS,
    EVERYBODY,
    FEW,
    SKIP,
    UNVOTED,
    SampleLabels,
    Vote,
    Votes,
    majority_of,
    misplaced_anonymous,
)
from service.errors import MAX_ERRORS, FieldError, InvalidRequest

MICROSECONDS = 1_000_000
"""Microseconds in a second: times are integers in microseconds since 1970 UTC."""

EPOCH = datetime(1970, 1, 1)

MAX_CLASSES = 10_000
"""Maximum number of classes; more of them are probably numbers or ids sent as labels."""

PROJECT_ID = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
"""Pattern of a project id."""

GROW_CLASSES = "declare it by POST /fit with a longer list of 'classes'"


TargetName = Literal["class", "number", "labels"]
"""What the labels of a project are."""

ConsensusMethod = Literal["crowdlab", "majority", "median"]
"""How the votes of several annotators on one sample become one label."""

DEFAULT_CONSENSUS_METHOD: ConsensusMethod = "crowdlab"

SimilarLabels = Literal["refuse", "allow"]
"""Whether a label may become a class that looks like another one."""

MissingValues = Literal["refuse", "allow"]
"""Whether features may be missing (NaN)."""


@dataclass(frozen=True, slots=True)
class EstimatorSpec:
    """The estimator that a project trains: a name in `estimators.ESTIMATORS`, and all its parameters."""

    name: str
    params: Parameters


@dataclass(frozen=True, slots=True)
class TestScore:
    """Scores of a model on the held-out set. Log loss is in nats, the others are between 0 and 1."""

    accuracy: float
    balanced_accuracy: float
    f1_macro: float
    log_loss: float

    __test__ = False  # pytest collects classes called Test*


@dataclass(frozen=True, slots=True)
class NumberScore:
    """Scores of a model of numbers on the held-out set, in units of the labels but for `r2`, 1 for a perfect model."""

    rmse: float
    mae: float
    r2: float


@dataclass(frozen=True, slots=True)
class LabelsScore:
    """Scores of a model of several labels a sample on the held-out set, all between 0 and 1.

    `lrap` is the label ranking average precision.
    """

    f1_micro: float
    f1_macro: float
    lrap: float
    hamming_loss: float


Score = TestScore | NumberScore | LabelsScore
"""Scores of a model, which depend on the target."""


@dataclass(frozen=True, slots=True)
class ModelRef:
    """A fitted model: its file number, the settings and labels that it was fitted with, and its scores.

    `held_out` is the number of the held-out set that it was scored on, None without one. `consensus` is that of the
    votes that it was fitted to, None if there were none to weigh. `calibration` is that of its probabilities, None if
    they are not calibrated. `reason` says why the estimator left a part of the
    model out, None if it did not; `notes` say what in the features and labels makes the model worse.
    `thresholds` (c,) are the marginals from which a sample has each class, None where all are 0.5 or a sample has one
    class. Terms of texts were weighted by the first `n_texts` texts of the pool, all there were; None for a pool of
    numbers.
    """

    version: int
    estimator: EstimatorSpec
    random_state: int
    labels_revision: int
    held_out: int | None
    test_score: Score | None
    consensus_method: ConsensusMethod = DEFAULT_CONSENSUS_METHOD
    consensus: Consensus | None = None
    reason: str | None = None
    n_texts: int | None = None
    notes: tuple[str, ...] = ()
    calibration_method: CalibrationMethod = "none"
    calibration: Calibration | None = None
    thresholds: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Segment:
    """Consecutive rows of the pool, stored in the files of its number."""

    number: int
    n_rows: int
    sparse: bool = False


@dataclass(frozen=True, slots=True)
class HeldOut:
    """The held-out set, stored in the files of its number."""

    number: int
    n_rows: int
    sparse: bool = False


@dataclass(frozen=True, slots=True)
class Checksum:
    """The size of a file in bytes, and its CRC-32 (as in zip archives)."""

    n_bytes: int
    crc: int


@dataclass(frozen=True, slots=True)
class EventLog:
    """The events of a project: the first `n_bytes` of its log file, followed by `tail`."""

    n_bytes: int = 0
    tail: tuple[bytes, ...] = ()


DECIDING = {
    "labels": frozenset({"votes", "model", "consensus_method", "skips_to_drop", "removed"}),
    "n_samples": frozenset({"segments"}),
}
"""The fields of a project from which its cached properties follow."""


@dataclass(frozen=True, eq=False)
class Project:
    """The whole state of a project. `version` counts its commits; each new pool has its own `pool_id`.

    `labels_revision` counts the changes of labels. `fit_asked` is its value when a fit was last requested, None if no
    request is open; `fit_error` says why the last fit failed, until one succeeds. `changed_since_fit` (k,) are the
    samples whose label changed since the current model's snapshot, sorted; `relabeled_since_fit` are those of them that
    it was fitted to. `checksums` are those of the files beside the state, by name. `feature_names` are None where
    columns go by position. `columns` say what the columns of the project's tables are, None if no request did. `text`
    holds the parameters that turned texts into features, None for a pool of numbers; `has_texts` and `has_urls` say
    whether the texts and addresses of the samples are stored. The labels are `classes` if the `target` is "class"; else
    `votes` has a table of them. States
    of earlier versions may lack `changed_since_fit` (None), `checksums` and `event_log`.
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
    feature_names: tuple[str, ...] | None = None
    similar_labels: SimilarLabels = "refuse"
    columns: Columns | None = None
    relabeled_since_fit: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    learning_curve: LearningCurve = field(default_factory=LearningCurve)
    text: Parameters | None = None
    has_texts: bool = False
    has_urls: bool = False
    missing_values: MissingValues = "refuse"
    calibration_method: CalibrationMethod = "none"
    target: TargetName = "class"
    removed: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    removed_votes: Votes = field(default_factory=Votes.empty)

    def having(self, **new: Any) -> Project:
        """Return the project with new values of some fields, as `dataclasses.replace` does in more time."""
        project = Project.__new__(Project)
        project.__dict__.update(self.__dict__, **new)
        for name, fields in DECIDING.items():
            if not fields.isdisjoint(new):
                project.__dict__.pop(name, None)
        if new.keys() & DECIDING["labels"] == {"votes"} and "labels" in self.__dict__:
            self._keep_labels(project)
        return project

    def _keep_labels(self, after: Project) -> None:
        """Compute the labels after a change of a few votes from those before, unless they are the majority."""
        change = after.votes.change_since(self.votes) if after.votes.table is None else None
        if change is not None and self.labels is not self.votes.majority and len(samples := change.samples()) <= FEW:
            codes = {sample: after.code_on(sample) for sample in samples}
            after.__dict__["labels"] = self.labels.with_codes(codes)

    def code_on(self, sample: int) -> int:
        """Return the class code that `labels` has for a sample, SKIP or UNVOTED."""
        votes = self.votes.on(sample)
        code = majority_of(votes)
        if code > SKIP and self.consensus is not None:
            found = self.consensus.code_on(votes)
            return code if found is None else found
        if code == SKIP and self.skips_to_drop > 1:
            n_skips = sum(EVERYBODY if vote.annotator == ANONYMOUS else 1 for vote in votes)
            return SKIP if n_skips >= self.skips_to_drop else UNVOTED
        return code

    @cached_property
    def n_samples(self) -> int:
        """Number of rows of the pool."""
        return sum(segment.n_rows for segment in self.segments)

    @property
    def commit(self) -> tuple[str, int]:
        """The id of this state, unique over all projects and times."""
        return self.pool_id, self.version

    @property
    def tag(self) -> str:
        """The entity tag of this state."""
        return f"{self.pool_id[:8]}-{self.version}"

    @property
    def allows_missing(self) -> bool:
        """Whether features may be missing (NaN)."""
        return self.missing_values == "allow"

    @property
    def is_sparse(self) -> bool:
        """Whether the pool is stored as CSR."""
        return self.segments[0].sparse

    @property
    def n_texts(self) -> int | None:
        """The number of texts that weight the terms; None for a pool of numbers or embeddings."""
        return self.n_samples if self.text is not None and "embeddings" not in self.text else None

    @property
    def consensus(self) -> Consensus | None:
        """The consensus of the current model, None without one or if the majority counts."""
        return self.model.consensus if self.model is not None and self.consensus_method == "crowdlab" else None

    @cached_property
    def labels(self) -> SampleLabels:
        """The label of each sample: the model's consensus, or the majority of votes that are newer.

        A sample without a label is skipped once `skips_to_drop` annotators skipped it, or an anonymous one did. Removed
        samples are among the skipped ones: they are asked about and counted as little.
        """
        labels = self.votes.majority if self.consensus is None else self.consensus.apply_to(self.votes)
        if self.skips_to_drop > 1:
            is_skipped = self.votes.skip_counts >= self.skips_to_drop
            labels = SampleLabels(labels.labeled, labels.codes, labels.skipped[is_skipped])
        if len(self.removed) == 0:
            return labels
        return SampleLabels(labels.labeled, labels.codes, np.union1d(labels.skipped, self.removed))

    @property
    def n_bytes(self) -> int:
        """Approximate memory used, in bytes."""
        consensus = self.model.consensus if self.model else None
        n_bytes = self.votes.n_bytes + sum(map(len, self.event_log.tail if self.event_log else ()))
        n_bytes += self.learning_curve.n_bytes
        return n_bytes + (consensus.n_bytes + 4 * self.n_labeled if consensus else 0)

    @property
    def n_labeled(self) -> int:
        """Number of samples with a label."""
        return self.labels.n_labeled

    @property
    def n_skipped(self) -> int:
        """Number of skipped samples that were not removed."""
        return self.labels.n_skipped - self.n_removed

    @property
    def n_removed(self) -> int:
        """Number of removed samples."""
        return len(self.removed)

    @property
    def n_unlabeled(self) -> int:
        """Number of samples that can still be asked about."""
        return self.n_samples - self.n_labeled - self.labels.n_skipped

    @property
    def is_unlabeled(self) -> NDArray[np.bool_]:
        """A mask (n,) of the samples with neither a label nor a skip that counts."""
        mask = np.ones(self.n_samples, np.bool_)
        mask[self.labels.labeled] = mask[self.labels.skipped] = False
        return mask

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
    def new_since_fit(self) -> NDArray[np.int64]:
        """The samples that were first labelled since the current model's snapshot, sorted; they may be retracted."""
        if self.model is None or self.changed_since_fit is None:
            return np.empty(0, np.int64)
        return np.setdiff1d(self.changed_since_fit, self.relabeled_since_fit, assume_unique=True)

    @property
    def n_codes(self) -> int:
        """Number of codes that labels may have."""
        return len(self.classes) if self.votes.table is None else len(self.votes.table)

    @property
    def class_counts(self) -> list[int]:
        """Number of samples labelled with each of `classes`; none for numbers."""
        if self.votes.table is not None:
            return self.votes.table.class_counts(self.labels, len(self.classes))
        counts: list[int] = self.labels.counts.tolist()
        return counts + [0] * (len(self.classes) - len(counts))

    @property
    def n_classes_labeled(self) -> int:
        """Number of classes with at least one labelled sample, or of different labels where these are no classes."""
        return int(np.count_nonzero(self.labels.counts))

    @property
    def can_fit(self) -> bool:
        """Whether two classes are labelled, also by the majority, which the next fit starts from; or two numbers."""
        if self.votes.table is not None:
            return self.votes.table.can_fit(self.labels)
        has_two = self.n_classes_labeled >= 2
        return has_two and (self.consensus is None or int(np.count_nonzero(self.votes.majority.counts)) >= 2)

    @property
    def fit_is_due(self) -> bool:
        """Whether a fit would give a model other than the current one."""
        return (self.model is None or not self.is_current(self.model, self.labels_revision)) and self.can_fit

    @property
    def fit_is_wanted(self) -> bool:
        """Whether a requested model is still missing; a fit that is due but not wanted can wait."""
        is_open = self.fit_asked is not None and not (self.model and self.is_current(self.model, self.fit_asked))
        return is_open and self.can_fit

    def is_current(self, model: ModelRef, labels_revision: int) -> bool:
        """Return whether a model matches, and the terms of its texts still have the same weights."""
        return self.matches(model, labels_revision) and model.n_texts == self.n_texts

    def matches(self, model: ModelRef, labels_revision: int) -> bool:
        """Return whether a model has this project's estimator, seed and held-out set, and has seen a revision."""
        return (
            model.estimator == self.estimator
            and model.random_state == self.random_state
            and model.held_out == self.held_out_number
            and model.consensus_method == self.consensus_method
            and model.calibration_method == self.calibration_method
            and model.labels_revision >= labels_revision
        )

    def has_codes_of(self, before: Project) -> bool:
        """Return whether the codes of the labels of an earlier state stand for the same labels in this one."""
        if self.votes.table is not None and before.votes.table is not None:
            has_classes = self.classes[: len(before.classes)] == before.classes
            return has_classes and self.votes.table.continues(before.votes.table)
        codes = np.unique(before.votes.code[before.votes.code != SKIP]).tolist()
        return all(self.classes[code : code + 1] == before.classes[code : code + 1] for code in codes)

    @property
    def held_out_number(self) -> int | None:
        """The number of the held-out set, None without one."""
        return self.held_out.number if self.held_out else None

    @property
    def test_score(self) -> Score | None:
        """Scores of the current model on the current held-out set, None without either."""
        return self.model.test_score if self.model and self.model.held_out == self.held_out_number else None

    def next_moment(self) -> int:
        """Return the current time, or a later one if the clock was set back: it is after the last commit."""
        return max(now(), self.updated_at + 1)

    def next_version(self) -> Project:
        """Return the next version of the project, committed after the last one and after all votes."""
        # The clock may be set back between a vote and its commit.
        moment = max(self.next_moment(), self.votes.latest)
        return self.having(version=self.version + 1, updated_at=moment)

    def continuing(self, old: Project) -> Project:
        """Return the project with the counters of the one it replaces, so that no file name is used twice."""
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
        votes = votes.completed()
        index = self.changed_samples(self.votes, votes)
        changed = self.having(votes=votes, labels_revision=self.labels_revision + len(index))
        if not changed.can_fit:
            return replace(changed, model=None, fit_asked=None, fit_error=None)
        if changed.model is None or self.changed_since_fit is None:
            return changed
        new = index[~contains(self.changed_since_fit, index)]
        return changed.having(
            changed_since_fit=united(self.changed_since_fit, new),
            relabeled_since_fit=united(self.relabeled_since_fit, new[self.votes.majority.code_of(new) != SKIP]),
        )

    @property
    def all_votes(self) -> Votes:
        """The votes on all samples, also on removed ones."""
        return self.votes.merge(self.removed_votes) if len(self.removed_votes) else self.votes

    def set_aside(self, removed: NDArray[np.int64]) -> Project:
        """Return a project without removed samples whose votes are on all samples, with these (k,) removed, sorted."""
        if len(removed) == 0:
            return self
        is_aside = contains(removed, self.votes.index)
        votes, aside = self.votes.take(~is_aside), self.votes.take(is_aside)
        return replace(self, votes=votes, removed=removed, removed_votes=aside)

    def with_removed(self, index: NDArray[np.int64]) -> Project:
        """Return the project with more samples (k,) removed, sorted. Their votes are kept apart, and do not count."""
        is_aside = contains(index, self.votes.index)
        aside = self.votes.take(is_aside).merge(self.removed_votes)
        changed = self.with_votes(self.votes.take(~is_aside))
        return replace(changed, removed=np.union1d(self.removed, index), removed_votes=aside)

    def with_restored(self, index: NDArray[np.int64]) -> Project:
        """Return the project with removed samples (k,) put back, sorted, with the votes that they had."""
        is_back = contains(index, self.removed_votes.index)
        back, aside = self.removed_votes.take(is_back), self.removed_votes.take(~is_back)
        changed = replace(self, removed=np.setdiff1d(self.removed, index), removed_votes=aside)
        return changed.with_votes(self.votes.merge(back))

    def with_new_features(self, index: NDArray[np.int64]) -> Project:
        """Return the project after samples got other features: a fit is due, and requested, if these matter to it."""
        n_learned = int(np.count_nonzero(contains(self.votes.majority.labeled, index)))
        if n_learned == 0 and self.n_texts is None:
            return self
        # The terms of a text are weighted by all texts.
        return replace(self, labels_revision=self.labels_revision + max(n_learned, 1)).with_fit_asked()

    def changed_samples(self, before: Votes, after: Votes) -> NDArray[np.int64]:
        """Return the samples whose label is given, changed or retracted by a change of votes, sorted.

        If votes are weighed, also those with several labels whose votes change.
        """
        change = after.change_since(before) if after.table is None else None
        if change is not None:
            samples = change.samples()
            if len(samples) <= FEW:
                is_weighed = self.consensus_method == "crowdlab"
                changed = [s for s in samples if is_changed(before.on(s), after.on(s), is_weighed=is_weighed)]
                return np.array(changed, np.int64)
            rows = np.array(samples, np.int64)
            before, after = before.take(before.rows_of(rows)), after.take(after.rows_of(rows))
        old, new = before.majority, after.majority
        given = new.labeled[old.code_of(new.labeled) != new.codes]
        retracted = old.labeled[new.code_of(old.labeled) == SKIP]
        reweighed = reweighed_samples(before, after) if self.consensus_method == "crowdlab" else given[:0]
        return np.unique(np.concatenate([given, retracted, reweighed]))

    def with_fit_asked(self) -> Project:
        """Return the project with a fit to its current labels requested, unchanged if none is due."""
        if not self.fit_is_due or self.fit_asked == self.labels_revision:
            return self
        return self.having(fit_asked=self.labels_revision)

    def with_failed_fit(self, before: Project, error: str, *, is_final: bool) -> Project:
        """Return the project after a fit of the state `before` failed.

        A final failure would repeat itself, so the request for a fit is dropped.
        """
        is_settled = is_final and self.fit_asked == before.fit_asked and self.estimator == before.estimator
        asked = None if is_settled else self.fit_asked
        if not self.fit_is_due or (error, asked) == (self.fit_error, self.fit_asked):
            return self
        return replace(self, fit_error=error, fit_asked=asked)

    def with_model(
        self, model: ModelRef, before: Project | None = None, measures: FitMeasures | None = None
    ) -> Project:
        """Return the project with `model`, which was fitted to the state `before` (this one by default).

        The model gets the next model version, and its measures become a point of the learning curve. Return the project
        unchanged if its estimator has changed meanwhile, its model has seen more labels, the labels left cannot be
        fitted, classes were renamed, or features may now be missing.
        """
        before = before or self
        outdated = self.model is not None and self.matches(self.model, model.labels_revision + 1)
        if outdated or not self.can_fit or not self.matches(model, 0) or not self.has_codes_of(before):
            return self
        if self.allows_missing != before.allows_missing:
            return self
        number, curve = self.last_model + 1, self.learning_curve
        if measures is not None:
            score = None if model.test_score is None else astuple(model.test_score)
            curve = curve.with_point(measures, number, self.next_moment(), score)
        changed = self.changed_samples(before.votes, self.votes)
        fitted = replace(
            self,
            model=replace(model, version=number),
            last_model=number,
            fit_error=None,
            changed_since_fit=changed,
            relabeled_since_fit=changed[before.votes.majority.code_of(changed) != SKIP],
            learning_curve=curve,
        )
        # With votes given during the fit, the new consensus may leave a single class.
        return fitted if fitted.can_fit else self


def is_changed(before: Sequence[Vote], after: Sequence[Vote], *, is_weighed: bool) -> bool:
    """Return whether the label of a sample with these votes changes as `Project.changed_samples` does."""
    if max(majority_of(before), SKIP) != max(majority_of(after), SKIP):
        return True
    old, new = ({(vote.annotator, vote.code) for vote in votes if vote.code != SKIP} for votes in (before, after))
    return is_weighed and max(len(old), len(new)) > 1 and old != new


def reweighed_samples(before: Votes, after: Votes) -> NDArray[np.int64]:
    """Return the samples with several labels, before or after, whose votes changed."""
    several = np.concatenate(
        [before.shared_samples, after.shared_samples[~contains(before.shared_samples, after.shared_samples)]]
    )
    if len(several):
        several = several[vote_hashes_of(before, several) != vote_hashes_of(after, several)]
    return several


def vote_hashes_of(votes: Votes, index: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return the hash of each sample's votes, 0 without a label."""
    rows, found = look_up(votes.majority.labeled, index)
    hashes = np.zeros(len(index), np.uint64)
    hashes[found] = votes.vote_hashes[rows[found]]
    return hashes


def now() -> int:
    """Return the current time in microseconds since 1970 UTC."""
    return time.time_ns() // 1000


def format_times(microseconds: NDArray[np.int64]) -> NDArray[np.str_]:
    """Return times in RFC 3339 format."""
    return np.datetime_as_string(microseconds.astype("M8[us]"), timezone="UTC")


def format_time(microseconds: int) -> str:
    """Return a time in RFC 3339 format."""
    return f"{(EPOCH + timedelta(microseconds=microseconds)).isoformat(timespec='microseconds')}Z"


def extend_classes(
    project: Project, values: Sequence[Label], pointer: Callable[[int], str], confirmed: Collection[Label] = ()
) -> Project:
    """Return the project with new classes of `values` appended to its own, sorted.

    Raises InvalidRequest, at `pointer(position)`, for each value that has another type than the project's labels, is
    not among its declared classes, or looks like another class without being `confirmed`.
    """
    errors = []
    new: list[Label] = []
    known = set(project.classes)
    for position, value in enumerate(values):
        if project.classes and type(value) is not type(project.classes[0]):
            wanted = type_name(project.classes[0])
            problem = f"{quote_label(value)} is {type_name(value)}; each label of this project is {wanted}"
            errors.append(FieldError(pointer(position), problem))
        elif value in known:
            continue
        elif project.classes_declared:
            declared = ", ".join(quote_label(label) for label in project.classes[:10])
            problem = f"{quote_label(value)} is not among the declared classes ({declared}): {GROW_CLASSES}"
            errors.append(FieldError(pointer(position), problem))
        elif len(known) + len(new) == MAX_CLASSES:
            errors.append(FieldError(pointer(position), f"is a new class, and a project has at most {MAX_CLASSES}"))
        else:
            new.append(value)
        if len(errors) > MAX_ERRORS:
            break
    if errors:
        raise InvalidRequest(errors)
    if not new:
        return project
    refuse_wrong_new_labels(project, new, lambda label: pointer(values.index(label)), confirmed)
    return replace(project, classes=project.classes + tuple(sorted(new)))


def refuse_wrong_new_labels(
    project: Project, new: Sequence[Label], pointer: Callable[[Label], str], confirmed: Collection[Label] = ()
) -> None:
    """Raise InvalidRequest, at `pointer(label)`, for labels that cannot become classes of the project."""
    wrong = wrong_new_labels(project.classes, new, allow_similar=project.similar_labels == "allow", confirmed=confirmed)
    errors = [FieldError(pointer(label), problem) for label, problem in islice(wrong, MAX_ERRORS + 1)]
    if errors:
        raise InvalidRequest(errors)


def declare_classes(project: Project, classes: Sequence[Label]) -> Project:
    """Return the project with its classes declared: other labels are refused from now on.

    Raises InvalidRequest at `/classes` if a class of the project is missing, or if a new one looks like another.
    """
    declared = {(type(label), label) for label in classes}  # True is not 1
    missing = [label for label in project.classes if (type(label), label) not in declared]
    if missing:
        names = ", ".join(quote_label(label) for label in missing[:10])
        raise InvalidRequest.at("/classes", f"must include all classes of the project; {names} missing")
    known = set(project.classes)
    new = tuple(label for label in classes if label not in known)
    refuse_wrong_new_labels(project, new, lambda label: f"/classes/{classes.index(label)}")
    return replace(project, classes=project.classes + new, classes_declared=True)


def encode_labels(project: Project, labels: EncodedLabels) -> NDArray[np.int32]:
    """Return the class codes of labels, which must all be classes of the project; -1 if unlabelled."""
    code_of = {label: code for code, label in enumerate(project.classes)}
    table = np.array([code_of[value] for value in labels.values] + [-1], np.int32)
    return table[labels.codes]


def contradictions(project: Project) -> Iterator[str]:
    """Yield a description of each contradiction in a project's votes."""
    votes = project.votes
    columns = {len(column) for column in (votes.index, votes.code, votes.annotator, votes.at, votes.query)}
    if len(columns) > 1:
        yield "has vote columns of different lengths"
        return
    if not (np.diff(votes.key) > 0).all():
        yield "has votes that are out of order or duplicated"
    elif len(misplaced_anonymous(votes)):
        yield "has other votes on a sample with an anonymous one"
    if not ((votes.index >= 0) & (votes.index < project.n_samples)).all():
        yield "has votes on samples beyond the pool"
    if not (np.diff(project.removed, prepend=-1, append=project.n_samples) > 0).all():
        yield "has removed samples beyond the pool, out of order or repeated"
    if not ((votes.code >= SKIP) & (votes.code < project.n_codes)).all():
        yield "has votes for unknown classes" if votes.table is None else "has votes for unknown labels"
    if not ((votes.annotator >= ANONYMOUS) & (votes.annotator < len(project.annotators))).all():
        yield "has votes of unknown annotators"


def type_name(label: Label) -> str:
    """Return the JSON type of a label, with its article."""
    names = {bool: "a boolean", int: "an integer", float: "a number", str: "a string", tuple: "a list of classes"}
    return names[type(label)]


def quote_label(label: Label) -> str:
    """Return a label as JSON for an error message, cut if it is long."""
    if isinstance(label, bool):
        return "true" if label else "false"
    if isinstance(label, tuple):
        return f"[{', '.join(map(quote_label, label[:5]))}{', ...' if len(label) > 5 else ''}]"
    return f'"{label[:64]}"' if isinstance(label, str) else str(label)
