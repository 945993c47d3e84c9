"""Wait within a request for a change that another request makes."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar

Wait = Callable[[Callable[[], bool], float], None]
"""Returns once the condition is met, or after as many seconds at the latest."""

WAIT_KEY = "active-query.wait_for"
"""Key of the server's own `Wait` in a request's environment, which lets other requests run meanwhile."""

YieldSlot = Callable[[float], AbstractContextManager[None]]
"""Lets other requests run during a block that waits. The argument is its longest wait, in seconds."""

YIELD_SLOT: ContextVar[YieldSlot | None] = ContextVar("YIELD_SLOT", default=None)
"""The server's own `YieldSlot` for the request of this thread, None without one."""

CHECK_SECONDS = 0.2
"""Time between two checks of a condition."""


def wait_in_thread(is_met: Callable[[], bool], seconds: float) -> None:
    """Wait in this thread, for a server without a `Wait` of its own."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and not is_met():
        time.sleep(CHECK_SECONDS)


def slot_yielded(seconds: float) -> AbstractContextManager[None]:
    """Let other requests run while this thread waits for a lock or a place, if the server can."""
    yield_slot = YIELD_SLOT.get()
    return nullcontext() if yield_slot is None else yield_slot(seconds)
