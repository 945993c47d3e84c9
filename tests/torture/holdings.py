"""Who held which sample when, by the clients' own clocks; and whether anybody was given what was not to be had."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from threading import Lock

FOREVER = float("inf")


@dataclass
class Grant:
    """A sample that was given to somebody between `sent` and `got`, and surely held from then on until `end`.

    Times are in seconds since 1970, all of one machine.
    """

    who: str
    sent: float
    got: float
    end: float


@dataclass
class Closed:
    """A sample that nobody may be given, between two moments: it has its label."""

    begin: float
    end: float = FOREVER


@dataclass
class Holdings:
    """All that the clients know of who had what."""

    grants: dict[int, list[Grant]] = field(default_factory=lambda: defaultdict(list))
    closed: dict[int, list[Closed]] = field(default_factory=lambda: defaultdict(list))
    lock: Lock = field(default_factory=Lock)

    def given(self, index: int, grant: Grant) -> None:
        with self.lock:
            self.grants[index].append(grant)

    def labelled(self, index: int, at: float) -> Closed:
        with self.lock:
            self.closed[index].append(closed := Closed(at))
        return closed

    def violations(self) -> Iterator[str]:
        """Yield each sample that was given to two at once, or although it was labelled."""
        for index, grants in self.grants.items():
            grants.sort(key=lambda grant: grant.sent)
            for position, first in enumerate(grants):
                for other in grants[position + 1 :]:
                    if first.who != other.who and overlap(first, other):
                        yield f"sample {index} was held by two at once: {first} and {other}"
            for closed in self.closed[index]:
                for grant in grants:
                    if closed.begin <= grant.sent and grant.got <= closed.end:
                        yield f"sample {index} was given away although it was labelled: {grant}, {closed}"


def overlap(first: Grant, other: Grant) -> bool:
    """Whether both surely held the sample at one moment, or one was given it while the other held it."""
    return max(first.got, other.got) < min(max(first.end, first.got), max(other.end, other.got)) or (
        first.got <= other.sent and other.got <= first.end
    )
