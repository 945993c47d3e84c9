"""Events: the changes of each commit as plain values, and the votes that a sequence of events adds up to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from service.domain.project import Project, format_time
from service.domain.sorted_columns import contains
from service.domain.targets import decode_labels
from service.domain.votes import ANONYMOUS, Votes, place_of

JsonObject = dict[str, Any]

VoteKey = tuple[int, str | None]
VoteValue = tuple[Any, str | None, str]
"""A vote, by sample and annotator: its label (None for a skip), its query, and its time."""

MAX_LABELS = 100_000
"""Maximum number of labels in an event, as in one POST /label."""

BASELINE = "baseline"
"""The kind of an event that holds the whole state, if earlier events are missing."""

IMPORT = "import"

BEGINNINGS = ("create", "replace", IMPORT, BASELINE)
"""Kinds of events that hold all labels."""

KINDS = (*BEGINNINGS, "append", "label", "retract", "remove", "restore", "rename", "fit", "change")


def events_of(
    before: Project | None,
    after: Project,
    kind: str | None = None,
    request: str | None = None,
    more: Mapping[str, Any] | None = None,
) -> Iterator[JsonObject]:
    """Yield the event of a commit, and more of the same version for labels that exceed `MAX_LABELS`.

    `kind` is inferred from the change unless given; `request` is the fingerprint of the request, and `more`
    are details that the change does not show. A project with a new pool starts from nothing, also when it replaces
    another.
    """
    same = before if before is not None and before.pool_id == after.pool_id else None
    details = {} if same is not None and has_same_description(same, after) else changed_facts(same, after)
    if "model_version" in details:
        details["target"] = after.target
    if request is not None:
        details["request"] = request
    if same is None and after.n_removed:
        details["removed"] = {"index": after.removed.tolist()}
    details |= more or {}
    given, gone = diff_votes(same, after)
    if len(gone):
        samples, _, annotators, *_ = gone.lists()
        details["retracted"] = vote_keys(after, samples, annotators)
    for begin in range(0, max(len(given), 1), MAX_LABELS):
        if len(given) > MAX_LABELS:
            part = given.take(np.arange(begin, min(begin + MAX_LABELS, len(given))))
            details["labels"] = vote_columns(after, part)
        elif len(given):
            details["labels"] = vote_columns(after, given)
        yield {
            "version": after.version,
            "at": format_time(after.updated_at),
            "kind": kind or kind_of(before, same, details),
            "incarnation": after.pool_id,
            "details": details,
        }
        kind, details = "label", {}


def baseline_events(project: Project) -> Iterator[JsonObject]:
    """Yield events that hold the whole state of a project."""
    return events_of(None, project, BASELINE)


DESCRIBED = ("segments", "classes", "estimator", "consensus_method", "random_state", "held_out", "model")
"""The fields of a project from which `describe_project` follows."""


def has_same_description(before: Project, after: Project) -> bool:
    """Return whether a project is described by the same objects as before, which is quickly seen."""
    return all(getattr(before, name) is getattr(after, name) for name in DESCRIBED)


def changed_facts(before: Project | None, after: Project) -> JsonObject:
    """Return the values of `describe_project` that differ from those before."""
    known = {} if before is None else describe_project(before)
    return {name: value for name, value in describe_project(after).items() if name not in known or known[name] != value}


def describe_project(project: Project) -> JsonObject:
    """Return the values of a project that its events report, besides the labels."""
    model, held_out, score = project.model, project.held_out, project.test_score
    return {
        "n_samples": project.n_samples,
        "target": project.target,
        "classes": list(project.classes),
        "estimator": {"name": project.estimator.name, "params": dict(project.estimator.params)},
        "consensus": project.consensus_method,
        "random_state": project.random_state,
        "held_out": None if held_out is None else {"number": held_out.number, "n_samples": held_out.n_rows},
        "model_version": None if model is None else model.version,
        "test_score": score and asdict(score),
    }


def diff_votes(before: Project | None, after: Project) -> tuple[Votes, Votes]:
    """Return the votes that were given or changed, and those that are gone.

    New votes are those later than the previous commit: comparing vote by vote would cost more than the commit.
    """
    if before is None:
        return after.votes, Votes.empty()
    old, new = before.votes, after.votes
    if old is new:
        return Votes.empty(), Votes.empty()
    change = new.change_since(old)
    if change is not None:
        kept = {place_of(vote) for vote in change.given.rows()}
        return change.given, Votes.of(vote for vote in change.gone.rows() if place_of(vote) not in kept)
    is_given = new.at > before.updated_at
    if after.n_removed < before.n_removed:
        is_given |= contains(before.removed, new.index)  # votes of restored samples have their old times
    given = new.take(np.flatnonzero(is_given))
    n_kept = len(new) - len(given)
    n_replaced = np.count_nonzero(contains(old.key, given.key))
    if n_kept + n_replaced == len(old):
        return given, Votes.empty()
    return given, old.take(~contains(new.key, old.key))


def vote_columns(project: Project, votes: Votes) -> JsonObject:
    """Return votes as columns of an event."""
    samples, codes, annotators, times, queries = votes.lists()
    shown = {at: format_time(at) for at in {*times}}
    return {
        **vote_keys(project, samples, annotators),
        "label": decode_labels(project, np.array(codes, np.int32)),
        "query_id": [query.decode() or None for query in queries],
        "labeled_at": [shown[at] for at in times],
    }


def vote_keys(project: Project, samples: list[int], annotators: list[int]) -> JsonObject:
    """Return the samples and annotators of votes, as columns of an event."""
    names = project.annotators
    return {"index": samples, "annotator": [None if code == ANONYMOUS else names[code] for code in annotators]}


def kind_of(before: Project | None, same: Project | None, details: Mapping[str, Any]) -> str:
    """Return the kind of event that describes a commit best."""
    if before is None:
        return "create"
    if same is None:
        return "replace"
    if "n_samples" in details:
        return "append"
    if "labels" in details:
        return "label"
    if "retracted" in details:
        return "retract"
    return "fit" if details.get("model_version") is not None else "change"


def replay(events: Iterable[JsonObject]) -> dict[VoteKey, VoteValue]:
    """Return the votes after a sequence of events that begins with the first one or a baseline."""
    votes: dict[VoteKey, VoteValue] = {}
    for event in events:
        details = event["details"]
        if event["kind"] in BEGINNINGS:
            votes.clear()
        gone, given, renamed = details.get("retracted"), details.get("labels"), details.get("renamed")
        if renamed:
            name_of = dict(zip(renamed["from"], renamed["to"], strict=True))
            for key, (label, query, at) in votes.items():
                votes[key] = (name_of.get(label, label), query, at)
        if gone:
            for key in zip(gone["index"], gone["annotator"], strict=True):
                votes.pop(key, None)
        if given:
            keys = zip(given["index"], given["annotator"], strict=True)
            values = zip(given["label"], given["query_id"], given["labeled_at"], strict=True)
            votes.update(zip(keys, values, strict=True))
    return votes


def votes_of(project: Project) -> dict[VoteKey, VoteValue]:
    """Return the votes of a project as `replay` returns them."""
    return replay(baseline_events(project))
