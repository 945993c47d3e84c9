"""A limited number of places, given in the order of asking."""

from __future__ import annotations

from collections import deque
from threading import Lock


class Places:
    """A semaphore that serves those who wait in the order in which they came. Waiting takes no CPU."""

    def __init__(self, n_places: int) -> None:
        self._n_free = n_places
        self._waiting: deque[Lock] = deque()
        self._lock = Lock()

    @property
    def n_waiting(self) -> int:
        """The number of threads that wait."""
        return len(self._waiting)

    def take(self, seconds: float = 0.0) -> bool:
        """Take a place, and return whether one was free in time; a negative time waits for ever."""
        with self._lock:
            if self._n_free:
                self._n_free -= 1
                return True
            if seconds == 0:
                return False
            ticket = Lock()
            ticket.acquire()
            self._waiting.append(ticket)
        if ticket.acquire(timeout=seconds):
            return True
        with self._lock:
            if ticket not in self._waiting:
                return True  # given at the last moment
            self._waiting.remove(ticket)
            return False

    def give_back(self) -> None:
        """Give a place to the thread that has waited longest, or to the next that asks."""
        with self._lock:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._n_free += 1
