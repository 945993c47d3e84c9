"""Wait within a request for a change that another request makes."""

from __future__ import annotations

import time
from collections.abc import Callable

Wait = Callable[[Callable[[], bool], float], None]
"""Returns once the condition is met, or after as many seconds at the latest."""

WAIT_KEY = "active-query.wait_for"
"""Key of the server's own `Wait` in a request's environment, which lets other requests run meanwhile."""

CHECK_SECONDS = 0.2
"""Time between two checks of a condition."""


def wait_in_thread(is_met: Callable[[], bool], seconds: float) -> None:
    """Wait in this thread, for a server without a `Wait` of its own."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and not is_met():
        time.sleep(CHECK_SECONDS)
