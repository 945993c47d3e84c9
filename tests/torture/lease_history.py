"""Which annotator leased which sample and when, by the clients' clocks; finds leases that overlap."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from threading import Lock

FOREVER = float("inf")


@dataclass
class Grant:
    """A lease on a sample, granted at some time between `sent` and `got` and valid until `end`.

    Times are Unix seconds of one machine.
    """

    annotator: str
    sent: float
    got: float
    end: float


@dataclass
class LabelledSpan:
    """The time during which a sample has a label and must not be leased."""

    begin: float
    end: float = FOREVER


@dataclass
class LeaseHistory:
    """All leases and labels that the clients know of."""

    grants: dict[int, list[Grant]] = field(default_factory=lambda: defaultdict(list))
    labelled: dict[int, list[LabelledSpan]] = field(default_factory=lambda: defaultdict(list))
    lock: Lock = field(default_factory=Lock)

    def add_grant(self, index: int, grant: Grant) -> None:
        with self.lock:
            self.grants[index].append(grant)

    def add_label(self, index: int, at: float) -> LabelledSpan:
        with self.lock:
            self.labelled[index].append(span := LabelledSpan(at))
        return span

    def violations(self) -> Iterator[str]:
        """Describe each sample that was leased to two annotators at once, or while it had a label."""
        for index, grants in self.grants.items():
            grants.sort(key=lambda grant: grant.sent)
            for position, first in enumerate(grants):
                for other in grants[position + 1 :]:
                    if first.annotator != other.annotator and overlap(first, other):
                        yield f"sample {index} was leased to two annotators at once: {first} and {other}"
            for span in self.labelled[index]:
                for grant in grants:
                    if span.begin <= grant.sent and grant.got <= span.end:
                        yield f"sample {index} was leased although it was labelled: {grant}, {span}"


def overlap(first: Grant, other: Grant) -> bool:
    """Whether both certainly held the sample at one moment, or one was granted while the other held it."""
    return max(first.got, other.got) < min(max(first.end, first.got), max(other.end, other.got)) or (
        first.got <= other.sent and other.got <= first.end
    )
