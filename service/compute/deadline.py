"""The time limit of a request, checked between the parts of its work."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from service.errors import OutOfTime


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment on the monotonic clock, and the time limit in seconds that led to it."""

    at: float
    seconds: float

    def check(self) -> None:
        """Raise OutOfTime if the deadline has passed."""
        if time.monotonic() > self.at:
            raise OutOfTime(self.seconds)

    def left(self, at_most: float) -> float:
        """Return the seconds until the deadline, from 0 up to `at_most`."""
        return max(0.0, min(self.at - time.monotonic(), at_most))


NO_DEADLINE = Deadline(float("inf"), float("inf"))
DEADLINE: ContextVar[Deadline] = ContextVar("DEADLINE", default=NO_DEADLINE)


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Limit the time of the block, including the work that it hands to other threads."""
    token = DEADLINE.set(Deadline(time.monotonic() + seconds, seconds))
    try:
        yield
    finally:
        DEADLINE.reset(token)


def check_deadline() -> None:
    """Raise OutOfTime if this request's deadline has passed."""
    DEADLINE.get().check()
