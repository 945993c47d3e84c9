"""A limit to the time that a request may take, looked at wherever its work falls into parts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from service.errors import OutOfTime


@dataclass(frozen=True, slots=True)
class Deadline:
    """When work must have ended, on the monotonic clock, and how many seconds it had."""

    at: float
    seconds: float

    def check(self) -> None:
        """Raise OutOfTime when it has passed."""
        if time.monotonic() > self.at:
            raise OutOfTime(self.seconds)


NO_DEADLINE = Deadline(float("inf"), float("inf"))
DEADLINE: ContextVar[Deadline] = ContextVar("DEADLINE", default=NO_DEADLINE)


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Give what this thread does so many seconds, also in the threads that it hands parts to."""
    token = DEADLINE.set(Deadline(time.monotonic() + seconds, seconds))
    try:
        yield
    finally:
        DEADLINE.reset(token)


def check_deadline() -> None:
    """Raise OutOfTime when the time of this thread's work is over."""
    DEADLINE.get().check()
