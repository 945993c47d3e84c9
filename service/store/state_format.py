"""Conversion between a project's state and the plain values and arrays that are written to disk.

Files name no class of the service, so that classes can be renamed without making old files unreadable.
"""

from __future__ import annotations

import itertools
from dataclasses import asdict, astuple, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.domain.calibration import Calibration
from service.domain.columns import Columns
from service.domain.consensus import Consensus
from service.domain.learning_curve import LearningCurve
from service.domain.project import (
    DEFAULT_CONSENSUS_METHOD,
    Checksum,
    EstimatorSpec,
    EventLog,
    HeldOut,
    ModelRef,
    Project,
    Segment,
)
from service.domain.sorted_columns import contains, toggled
from service.domain.targets import TARGETS, Target
from service.domain.votes import Vote, Votes, VotesChange, vote_key
from service.errors import UnknownSchema

SCHEMA_VERSION = 5

OLDEST_SCHEMA = 1
"""The schema of the first version of the service."""

SEALED_SCHEMAS = range(2, SCHEMA_VERSION + 1)
"""Schemas whose states end with a checksum."""

OF_LATER_SCHEMAS: dict[str, Any] = {
    "consensus": DEFAULT_CONSENSUS_METHOD,
    "fit_asked": None,
    "fit_error": None,
    "checksums": {},
    "history": None,
}
"""Keys that states of the first schema lack."""

OF_SCHEMA_4: dict[str, Any] = {
    "columns": None,
    "text": None,
    "has_texts": False,
    "has_urls": False,
    "missing_values": "refuse",
    "calibration": "none",
}
"""Keys that states of earlier schemas lack."""

OF_SCHEMA_5: dict[str, Any] = {"target": "class", "table": None, "removed": np.empty(0, np.int64)}
"""Keys that states of earlier schemas lack."""

OF_MODELS_OF_SCHEMA_5: dict[str, Any] = {"thresholds": None}
"""Keys that their models lack."""

OF_MODELS_OF_SCHEMA_4: dict[str, Any] = {
    "n_texts": None,
    "reason": None,
    "notes": [],
    "calibration": "none",
    "calibrated_by": None,
}
"""Keys that their models lack."""

FIELD_OF_KEY = {
    "incarnation": "pool_id",
    "consensus": "consensus_method",
    "crowd": "consensus",
    "calibration": "calibration_method",
    "calibrated_by": "calibration",
    "ballots": "vote_hashes",
    "history": "event_log",
}
"""Keys on disk whose fields were renamed later."""

KEY_OF_FIELD = {field: key for key, field in FIELD_OF_KEY.items()}


def to_record(project: Project) -> dict[str, Any]:
    """Return the state as plain values."""
    votes, model, held_out, events = project.all_votes, project.model, project.held_out, project.event_log
    return {
        "schema_version": SCHEMA_VERSION,
        "project_id": project.project_id,
        "incarnation": project.pool_id,
        "version": project.version,
        "random_state": project.random_state,
        "estimator": from_spec(project.estimator),
        "segments": [(segment.number, segment.n_rows, segment.sparse) for segment in project.segments],
        "n_features": project.n_features,
        "feature_names": project.feature_names,
        "columns": project.columns and asdict(project.columns),
        "has_ids": project.has_ids,
        "held_out": None if held_out is None else (held_out.number, held_out.n_rows, held_out.sparse),
        "classes": project.classes,
        "classes_declared": project.classes_declared,
        "annotators": project.annotators,
        "votes": [votes.index, votes.code, votes.annotator, votes.at, votes.query],
        "labels_revision": project.labels_revision,
        "model": None if model is None else from_model(model),
        "last_model": project.last_model,
        "last_file": project.last_file,
        "created_at": project.created_at,
        "updated_at": project.updated_at,
        "consensus": project.consensus_method,
        "fit_asked": project.fit_asked,
        "fit_error": project.fit_error,
        "changed_since_fit": project.changed_since_fit,
        "skips_to_drop": project.skips_to_drop,
        "similar_labels": project.similar_labels,
        "relabeled_since_fit": project.relabeled_since_fit,
        "learning_curve": from_curve(project.learning_curve),
        "text": None if project.text is None else dict(project.text),
        "has_texts": project.has_texts,
        "has_urls": project.has_urls,
        "missing_values": project.missing_values,
        "calibration": project.calibration_method,
        "target": project.target,
        "table": None if votes.table is None else votes.table.to_plain(),
        "removed": project.removed,
        "checksums": {name: (file.n_bytes, file.crc) for name, file in project.checksums.items()},
        "history": None if events is None else (events.n_bytes, events.tail),
    }


def from_record(record: dict[str, Any]) -> Project:
    """Return the project of a record. Raises UnknownSchema for a record of a later version of the service."""
    record = upgraded(record)
    target = TARGETS[record["target"]]
    table = target.read_table(record.pop("table"))
    removed = record.pop("removed")
    project = Project(
        **to_fields(
            {
                **record,
                "estimator": to_spec(record["estimator"]),
                "segments": tuple(Segment(*segment) for segment in record["segments"]),
                "held_out": None if record["held_out"] is None else HeldOut(*record["held_out"]),
                "votes": Votes(*record["votes"], table=table),
                "model": None if record["model"] is None else to_model(record["model"], target),
                "checksums": {name: Checksum(*sums) for name, sums in record["checksums"].items()},
                "history": None if record["history"] is None else EventLog(*record["history"]),
                "changed_since_fit": record["changed_since_fit"],
                "relabeled_since_fit": record["relabeled_since_fit"],
                "learning_curve": LearningCurve(*record["learning_curve"]),
                "skips_to_drop": record["skips_to_drop"],
                "similar_labels": record["similar_labels"],
                "missing_values": record["missing_values"],
                "calibration": record["calibration"],
                "feature_names": record["feature_names"],
                "columns": record["columns"] and Columns(**record["columns"]),
                **{key: record[key] for key in ("text", "has_texts", "has_urls", "target")},
            }
        )
    )
    return project.set_aside(removed)


SMALL = (
    "version",
    "classes",
    "annotators",
    "labels_revision",
    "updated_at",
    "fit_asked",
    "fit_error",
)
"""Fields that are small and change with labels."""

SORTED = ("changed_since_fit", "relabeled_since_fit")
"""Fields of sorted sample indices, of which labels change a few."""

FIELDS = tuple(field.name for field in fields(Project))


def small_change(before: Project, after: Project) -> dict[str, Any] | None:
    """Return the change from a state to the next one as plain values, None if it is not small.

    It is small if only labels changed, with what follows from them: their event is in the tail of the log of events.
    """
    values, new_values = vars(before), vars(after)
    changed = {name for name in FIELDS if values[name] is not new_values[name]}
    old, new = before.event_log, after.event_log
    if changed - {*SMALL, *SORTED, "votes", "event_log"} or old is None or new is None or old.n_bytes != new.n_bytes:
        return None
    change: dict[str, Any] = {name: getattr(after, name) for name in SMALL if name in changed}
    change["events"] = new.tail[len(old.tail) :]
    for name in SORTED:
        if name in changed:
            one, other = getattr(before, name), getattr(after, name)
            if one is None or other is None:
                return None
            change[name] = difference_of(one, other, after.votes.change_since(before.votes))
    if "votes" in changed:
        old_table, new_table = before.votes.table, after.votes.table
        if old_table is not None and new_table is not None:
            if not new_table.continues(old_table):
                return None
            change["table"] = new_table.to_plain(len(old_table))
        gone, given = before.votes.difference(after.votes)
        change["votes"] = [vote_key(vote.sample, vote.annotator) for vote in gone.rows()], [*map(tuple, given.rows())]
    return change


def difference_of(one: NDArray[np.int64], other: NDArray[np.int64], change: VotesChange | None) -> list[int]:
    """Return the samples that are in one of two sorted columns, usually a few of those whose votes change."""
    samples = np.array([] if change is None else change.samples(), np.int64)
    was_there, is_there = contains(one, samples), contains(other, samples)
    if len(other) - len(one) != np.count_nonzero(is_there) - np.count_nonzero(was_there):
        samples = np.setxor1d(one, other, assume_unique=True)
    else:
        samples = samples[was_there != is_there]
    found: list[int] = samples.tolist()
    return found


def with_change(before: Project, change: dict[str, Any]) -> Project:
    """Return the state after a change of `small_change`."""
    new = {name: change[name] for name in SMALL if name in change}
    for name in SORTED:
        if name in change:
            new[name] = toggled(getattr(before, name), np.array(change[name], np.int64))
    if "votes" in change:
        gone, given = change["votes"]
        votes = before.votes
        if "table" in change and votes.table is not None:
            votes = votes.with_table(votes.table.extended(change["table"]))
        if isinstance(gone, np.ndarray):  # early changes hold columns
            new["votes"] = votes.changed(votes.having(gone.tolist()), Votes(*given))
        else:
            new["votes"] = votes.changed(votes.having(gone), Votes.of(itertools.starmap(Vote, given)))
    log = before.event_log or EventLog()
    return before.having(**new, event_log=EventLog(log.n_bytes, log.tail + change["events"]))


def upgraded(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record of any known schema with the keys of the current one, or raise UnknownSchema."""
    written = record.pop("schema_version")
    if written not in range(OLDEST_SCHEMA, SCHEMA_VERSION + 1):
        raise UnknownSchema(
            f"the state of project {record.get('project_id')!r} has schema version {written!r}; this version of the "
            f"service reads {OLDEST_SCHEMA} to {SCHEMA_VERSION}: run the version that wrote it, or a later one"
        )
    model = record["model"]
    if written == OLDEST_SCHEMA:
        model = model and {**model, "consensus": DEFAULT_CONSENSUS_METHOD, "crowd": None}
        record = {**record, **OF_LATER_SCHEMAS, "model": model}
    if written < 3:
        is_current = model is None or model["labels_revision"] == record["labels_revision"]
        changed = np.empty(0, np.int64) if is_current else None
        new_keys = {"skips_to_drop": 1, "feature_names": None, "similar_labels": "refuse"}
        record = {**record, "changed_since_fit": changed, **new_keys}
    if written < 4:
        record = {**OF_SCHEMA_4, **record, "model": model and {**OF_MODELS_OF_SCHEMA_4, **model}}
        changed = record["changed_since_fit"]
        # Which of them were labelled before is unknown, so the next fit is not measured on any.
        relabeled = np.empty(0, np.int64) if changed is None else changed
        record = {**record, "relabeled_since_fit": relabeled, "learning_curve": from_curve(LearningCurve())}
    if written < 5:
        model = record["model"]
        record = {**OF_SCHEMA_5, **record, "model": model and {**OF_MODELS_OF_SCHEMA_5, **model}}
    return record


def to_fields(plain: dict[str, Any]) -> dict[str, Any]:
    """Return values by the names of their fields instead of their keys on disk."""
    return {FIELD_OF_KEY.get(key, key): value for key, value in plain.items()}


def from_curve(curve: LearningCurve) -> list[Any]:
    """Return a learning curve as plain values."""
    return [curve.points, curve.strategies, curve.questions]


def from_spec(spec: EstimatorSpec) -> tuple[str, dict[str, Any]]:
    """Return the name and parameters of an estimator as plain values."""
    return spec.name, dict(spec.params)


def to_spec(plain: tuple[str, dict[str, Any]]) -> EstimatorSpec:
    """Return the estimator with a name and parameters."""
    return EstimatorSpec(*plain)


def from_model(model: ModelRef) -> dict[str, Any]:
    """Return a model reference as plain values."""
    score = model.test_score
    return {
        "version": model.version,
        "estimator": from_spec(model.estimator),
        "random_state": model.random_state,
        "labels_revision": model.labels_revision,
        "held_out": model.held_out,
        "test_score": None if score is None else astuple(score),
        "consensus": model.consensus_method,
        "crowd": model.consensus and from_consensus(model.consensus),
        "reason": model.reason,
        "n_texts": model.n_texts,
        "notes": list(model.notes),
        "calibration": model.calibration_method,
        "calibrated_by": model.calibration and astuple(model.calibration),
        "thresholds": model.thresholds,
    }


def from_consensus(consensus: Consensus) -> dict[str, Any]:
    """Return a consensus as plain values."""
    return {KEY_OF_FIELD.get(field.name, field.name): getattr(consensus, field.name) for field in fields(Consensus)}


def to_model(plain: dict[str, Any], target: Target) -> ModelRef:
    """Return the model reference of `from_model` in a project of a target."""
    score = plain["test_score"]
    return ModelRef(
        **to_fields(
            {
                **plain,
                "estimator": to_spec(plain["estimator"]),
                "test_score": None if score is None else target.score_type(*score),
                "notes": tuple(plain["notes"]),
                "calibration": plain["calibration"],
                "calibrated_by": plain["calibrated_by"] and Calibration(*plain["calibrated_by"]),
                "crowd": plain["crowd"] and Consensus(**to_fields(plain["crowd"])),
            }
        )
    )
