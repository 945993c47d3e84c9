"""Limits of concurrent heavy requests, and of concurrent selections: those that come later wait in their order."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from service.compute.deadline import DEADLINE
from service.compute.places import Places
from service.compute.threads import SELECTIONS, count_thread
from service.compute.waiting import YIELD_SLOT, slot_yielded
from service.errors import TooBusy
from service.telemetry.metrics import HEAVY_REQUESTS, time_wait

ADMISSION_WAIT_SECONDS = 1.0
"""How long a request that occupies a thread waits to be admitted: too short to keep quick requests waiting."""

LONGEST_WAIT_SECONDS = 20.0
"""How long a request waits that lets others run meanwhile."""

MOST_WAITING = 64
"""Largest number of requests of a worker that wait to be admitted."""


class AdmissionLimit:
    """The number of heavy requests that this process runs at once."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._places = Places(limit)

    @contextmanager
    def try_enter(self) -> Iterator[bool]:
        """Yield whether the request is admitted."""
        with time_wait("place"):
            is_admitted = wait_for_place(self._places)
        HEAVY_REQUESTS.inc(is_admitted)
        try:
            yield is_admitted
        finally:
            HEAVY_REQUESTS.dec(is_admitted)
            if is_admitted:
                self._places.give_back()

    @contextmanager
    def enter(self) -> Iterator[None]:
        """Admit the request, or raise TooBusy."""
        with self.try_enter() as is_admitted:
            if not is_admitted:
                raise TooBusy(self._limit)
            yield

    @contextmanager
    def enter_to_select(self) -> Iterator[None]:
        """Admit the request when a core is free for its selection, or raise TooBusy."""
        with self.enter():
            with time_wait("core"):
                has_core = wait_for_place(SELECTIONS)
            if not has_core:
                raise TooBusy(self._limit)
            try:
                with count_thread():
                    yield
            finally:
                SELECTIONS.give_back()


def wait_for_place(places: Places) -> bool:
    """Take a place, and return whether one became free in time."""
    if places.take():
        return True
    if YIELD_SLOT.get() is None:
        return places.take(ADMISSION_WAIT_SECONDS)
    if places.n_waiting >= MOST_WAITING:
        return False
    seconds = DEADLINE.get().left(LONGEST_WAIT_SECONDS)
    with slot_yielded(seconds):
        return places.take(seconds)
