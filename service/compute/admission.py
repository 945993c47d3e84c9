"""Places for work that holds a thread for long: fewer than there are threads, which leaves some to quick requests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore

from service.errors import TooBusy
from service.telemetry.metrics import HEAVY_REQUESTS, time_wait

ADMISSION_WAIT_SECONDS = 1.0
"""How long a request waits for a place: long enough for a burst of short work, too short to hold a thread."""


class AdmissionLimit:
    """So many places, which threads of this process share."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._free = BoundedSemaphore(limit)

    @contextmanager
    def try_enter(self) -> Iterator[bool]:
        """Take a place until the end, and tell whether there was one."""
        with time_wait("place"):
            is_admitted = self._free.acquire(timeout=ADMISSION_WAIT_SECONDS)
        HEAVY_REQUESTS.inc(is_admitted)
        try:
            yield is_admitted
        finally:
            HEAVY_REQUESTS.dec(is_admitted)
            if is_admitted:
                self._free.release()

    @contextmanager
    def enter(self) -> Iterator[None]:
        """Hold a place until the end, or raise TooBusy where there is none."""
        with self.try_enter() as is_admitted:
            if not is_admitted:
                raise TooBusy(self._limit)
            yield
