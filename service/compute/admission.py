"""Limit of concurrent heavy requests, below the number of threads, so that quick requests always find one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore

from service.errors import TooBusy
from service.telemetry.metrics import HEAVY_REQUESTS, time_wait

ADMISSION_WAIT_SECONDS = 1.0
"""How long a request waits to be admitted: long enough for a burst of short work, too short to block a thread."""


class AdmissionLimit:
    """The number of heavy requests that this process runs at once."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._free = BoundedSemaphore(limit)

    @contextmanager
    def try_enter(self) -> Iterator[bool]:
        """Yield whether the request is admitted."""
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
        """Admit the request, or raise TooBusy."""
        with self.try_enter() as is_admitted:
            if not is_admitted:
                raise TooBusy(self._limit)
            yield
