"""The contract of labels in plain Python: who said what of which sample, and what that comes to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Vote(NamedTuple):
    """What somebody said: a label, or None for a skip, and the query that asked."""

    label: Any
    query_id: str | None = None


@dataclass(frozen=True)
class Answer:
    """One record of POST /label."""

    index: int
    label: Any
    annotator: str | None = None
    query_id: str | None = None

    @property
    def plain(self) -> dict[str, Any]:
        """The record as JSON has it."""
        said = {"skip": True} if self.label is None else {"label": self.label}
        who = {"annotator": self.annotator, "query_id": self.query_id}
        return {"index": self.index} | said | {name: value for name, value in who.items() if value is not None}


Votes = dict[int, dict[str | None, Vote]]


@dataclass(frozen=True)
class Book:
    """All votes by sample, and each sample's by annotator, in the order in which they were given."""

    votes: Votes = field(default_factory=dict)

    def labels(self, index: int) -> list[Any]:
        return [vote.label for vote in self.votes.get(index, {}).values() if vote.label is not None]

    def consensus(self, index: int) -> Any:
        """The majority of a sample's labels, the latest of those that tie; None without a label."""
        labels = self.labels(index)
        return max(labels, key=lambda label: (labels.count(label), last(labels, label)), default=None)

    def is_skipped(self, index: int) -> bool:
        return index in self.votes and not self.labels(index)

    @property
    def labeled(self) -> set[int]:
        return {index for index in self.votes if not self.is_skipped(index)}

    @property
    def skipped(self) -> set[int]:
        return {index for index in self.votes if self.is_skipped(index)}

    def refused(self, answers: Sequence[Answer]) -> bool:
        """Whether a label is given to a sample that was skipped."""
        return any(answer.label is not None and self.is_skipped(answer.index) for answer in answers)

    def changes(self, answer: Answer) -> bool:
        """Whether an answer says anything new; nobody in particular says nothing new where it is the consensus."""
        if answer.annotator is None and answer.label is None:
            return not self.is_skipped(answer.index)
        if answer.annotator is None:
            return bool(self.consensus(answer.index) != answer.label)
        old = self.votes.get(answer.index, {}).get(answer.annotator)
        return old is None or old.label != answer.label

    def answered(self, answers: Sequence[Answer]) -> tuple[Book, int]:
        """The book after a request, none of which is refused, and how many of its records changed anything."""
        new = [answer for answer in answers if self.changes(answer)]
        votes = dict(self.votes)
        for answer in new:
            replaced = {None, answer.annotator}
            stay = {} if answer.annotator is None else votes.get(answer.index, {})
            stay = {who: vote for who, vote in stay.items() if who not in replaced}
            votes[answer.index] = {**stay, answer.annotator: Vote(answer.label, answer.query_id)}
        return Book(votes), len(new)

    def retracted(self, index: int) -> Book:
        return Book({other: said for other, said in self.votes.items() if other != index})


def last(values: Sequence[Any], value: Any) -> int:
    """The position of the last of some equal values."""
    return max(position for position, other in enumerate(values) if other == value)


def votes_in(labels: Iterable[dict[str, Any]]) -> Votes:
    """The votes of a reply of GET /labels."""
    votes: Votes = {}
    for record in labels:
        label = None if record["skip"] else record["label"]
        votes.setdefault(record["index"], {})[record["annotator"]] = Vote(label, record["query_id"])
    return votes
