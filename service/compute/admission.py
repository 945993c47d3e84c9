"""Places for work that holds a thread for long: fewer than there are threads, which leaves some to quick requests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore

from service.errors import TooBusy
from service.telemetry.metrics import HEAVY_REQUESTS, waiting

PATIENCE_SECONDS = 1.0
"""How long a request waits for a place: long enough for a burst of short work, too short to hold a thread."""


class Places:
    """So many places, which threads of this process share."""

    def __init__(self, n_places: int) -> None:
        self._n_places = n_places
        self._free = BoundedSemaphore(n_places)

    @contextmanager
    def take(self) -> Iterator[bool]:
        """Take a place until the end, and tell whether there was one."""
        with waiting("place"):
            has_place = self._free.acquire(timeout=PATIENCE_SECONDS)
        HEAVY_REQUESTS.inc(has_place)
        try:
            yield has_place
        finally:
            HEAVY_REQUESTS.dec(has_place)
            if has_place:
                self._free.release()

    @contextmanager
    def claim(self) -> Iterator[None]:
        """Hold a place until the end, or raise TooBusy where there is none."""
        with self.take() as has_place:
            if not has_place:
                raise TooBusy(self._n_places)
            yield
