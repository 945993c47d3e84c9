"""A reference implementation of the label contract: votes by sample and annotator, and their consensus."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Vote(NamedTuple):
    """A label, or None for a skip, and the query it answers."""

    label: Any
    query_id: str | None = None


@dataclass(frozen=True)
class LabelRecord:
    """One record of POST /label."""

    index: int
    label: Any
    annotator: str | None = None
    query_id: str | None = None

    @property
    def as_json(self) -> dict[str, Any]:
        """The record as the request sends it."""
        vote = {"skip": True} if self.label is None else {"label": self.label}
        optional = {"annotator": self.annotator, "query_id": self.query_id}
        return {"index": self.index} | vote | {name: value for name, value in optional.items() if value is not None}


Votes = dict[int, dict[str | None, Vote]]


@dataclass(frozen=True)
class ExpectedLabels:
    """Votes by sample and annotator, oldest first."""

    votes: Votes = field(default_factory=dict)

    def labels(self, index: int) -> list[Any]:
        return [vote.label for vote in self.votes.get(index, {}).values() if vote.label is not None]

    def consensus(self, index: int) -> Any:
        """The most frequent label of a sample, the latest on a tie; None without a label."""
        labels = self.labels(index)
        return max(labels, key=lambda label: (labels.count(label), last_position(labels, label)), default=None)

    def is_skipped(self, index: int) -> bool:
        return index in self.votes and not self.labels(index)

    @property
    def labeled(self) -> set[int]:
        return {index for index in self.votes if not self.is_skipped(index)}

    @property
    def skipped(self) -> set[int]:
        return {index for index in self.votes if self.is_skipped(index)}

    def refuses(self, records: Sequence[LabelRecord]) -> bool:
        """Whether the service refuses the records: one of them labels a sample skipped without an annotator."""
        return any(record.label is not None and self.vote(record.index) == Vote(None) for record in records)

    def vote(self, index: int) -> Vote | None:
        """The vote without an annotator, reduced to its label."""
        vote = self.votes.get(index, {}).get(None)
        return vote and Vote(vote.label)

    def changes(self, record: LabelRecord) -> bool:
        """Whether a record changes anything. An anonymous label that equals the consensus does not."""
        if record.annotator is None and record.label is None:
            return not self.is_skipped(record.index)
        if record.annotator is None:
            return bool(self.consensus(record.index) != record.label)
        old = self.votes.get(record.index, {}).get(record.annotator)
        return old is None or old.label != record.label

    def after_labels(self, records: Sequence[LabelRecord]) -> tuple[ExpectedLabels, int]:
        """Apply the records of a request that is not refused; also return how many of them changed something."""
        new = [record for record in records if self.changes(record)]
        votes = dict(self.votes)
        for record in new:
            replaced = {record.annotator}
            if record.label is not None or self.vote(record.index) == Vote(None):
                replaced.add(None)
            others = {} if record.annotator is None else votes.get(record.index, {})
            others = {name: vote for name, vote in others.items() if name not in replaced}
            votes[record.index] = {**others, record.annotator: Vote(record.label, record.query_id)}
        return ExpectedLabels(votes), len(new)

    def after_retraction(self, index: int) -> ExpectedLabels:
        return ExpectedLabels({other: votes for other, votes in self.votes.items() if other != index})


def last_position(values: Sequence[Any], value: Any) -> int:
    """Return the last position of a value."""
    return max(position for position, other in enumerate(values) if other == value)


def votes_in_reply(labels: Iterable[dict[str, Any]]) -> Votes:
    """Return the votes in the records of GET /labels."""
    votes: Votes = {}
    for record in labels:
        label = None if record["skip"] else record["label"]
        votes.setdefault(record["index"], {})[record["annotator"]] = Vote(label, record["query_id"])
    return votes
