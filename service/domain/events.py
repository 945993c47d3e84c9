"""What a commit changed, as plain values, and the votes that a project's events come to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from service.domain.labels import ANONYMOUS, SKIP, Votes, contains
from service.domain.project import Project, format_time, format_times

JsonObject = dict[str, Any]

VoteKey = tuple[int, str | None]
VoteValue = tuple[Any, str | None, str]
"""A vote is of a sample by an annotator: its label (None for a skip), the query that asked, and when it was kept."""

MAX_LABELS = 100_000
"""How many labels an event holds, at most: those of one POST /label."""

BASELINE = "baseline"
"""The kind of the event that holds all there is, where those before it are not kept."""

IMPORT = "import"

BEGINNINGS = ("create", "replace", IMPORT, BASELINE)
"""Kinds of events that hold all labels there are."""

KINDS = (*BEGINNINGS, "append", "label", "retract", "fit", "change")


def events_of(
    before: Project | None, after: Project, kind: str | None = None, request: str | None = None
) -> Iterator[JsonObject]:
    """Yield what a commit changed: one event, and more of its version for labels that would make it too long.

    `kind` is told from that, unless it is given; `request` is the mark of what was asked. A project that comes in the
    place of another (`replace`) begins anew, and so does one after nothing.
    """
    same = before if before is not None and before.pool_id == after.pool_id else None
    facts, known = describe_project(after), describe_project(same) if same is not None else {}
    details = {name: value for name, value in facts.items() if name not in known or known[name] != value}
    if request is not None:
        details["request"] = request
    given, gone = diff_votes(same, after)
    if len(gone):
        details["retracted"] = vote_keys(after, gone)
    for begin in range(0, max(len(given), 1), MAX_LABELS):
        if len(given):
            details["labels"] = vote_columns(after, given.take(np.arange(begin, min(begin + MAX_LABELS, len(given)))))
        yield {
            "version": after.version,
            "at": format_time(after.updated_at),
            "kind": kind or kind_of(before, same, details),
            "incarnation": after.pool_id,
            "details": details,
        }
        kind, details = "label", {}


def baseline_events(project: Project) -> Iterator[JsonObject]:
    """Yield the events that stand for all that came before."""
    return events_of(None, project, BASELINE)


def describe_project(project: Project) -> JsonObject:
    """Return what is told of a project beside its labels."""
    model, held_out, score = project.model, project.held_out, project.test_score
    return {
        "n_samples": project.n_samples,
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

    What is new is later than the commit before; to compare vote by vote takes longer than all else that is computed.
    """
    if before is None:
        return after.votes, Votes.empty()
    old, new = before.votes, after.votes
    if old is new:
        return Votes.empty(), Votes.empty()
    given = new.take(np.flatnonzero(new.at > before.updated_at))
    n_kept = len(new) - len(given)
    n_replaced = np.count_nonzero(contains(old.key, given.key))
    if n_kept + n_replaced == len(old):
        return given, Votes.empty()
    return given, old.take(~contains(new.key, old.key))


def vote_columns(project: Project, votes: Votes) -> JsonObject:
    """Return votes as columns."""
    times, which = np.unique(votes.at, return_inverse=True)
    shown = format_times(times).tolist()
    return {
        **vote_keys(project, votes),
        "label": [None if code == SKIP else project.classes[code] for code in votes.code.tolist()],
        "query_id": [query.decode() or None for query in votes.query.tolist()],
        "labeled_at": [shown[at] for at in which.tolist()],
    }


def vote_keys(project: Project, votes: Votes) -> JsonObject:
    """Return the samples and the annotators of votes."""
    names = project.annotators
    who = [None if code == ANONYMOUS else names[code] for code in votes.annotator.tolist()]
    return {"index": votes.index.tolist(), "annotator": who}


def kind_of(before: Project | None, same: Project | None, details: Mapping[str, Any]) -> str:
    """Name what a commit is mainly about."""
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
    """Return the votes that events come to, in order, from the first or from a baseline on."""
    votes: dict[VoteKey, VoteValue] = {}
    for event in events:
        details = event["details"]
        if event["kind"] in BEGINNINGS:
            votes.clear()
        gone, given = details.get("retracted"), details.get("labels")
        if gone:
            for key in zip(gone["index"], gone["annotator"], strict=True):
                votes.pop(key, None)
        if given:
            keys = zip(given["index"], given["annotator"], strict=True)
            values = zip(given["label"], given["query_id"], given["labeled_at"], strict=True)
            votes.update(zip(keys, values, strict=True))
    return votes


def votes_of(project: Project) -> dict[VoteKey, VoteValue]:
    """Return a project's votes as `replay` does."""
    return replay(baseline_events(project))
