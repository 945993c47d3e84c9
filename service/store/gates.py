"""Locks between the threads of a process, which exist while they are used."""

from __future__ import annotations

from collections.abc import Hashable
from threading import Lock
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)


class Gates(Generic[Key]):
    """One lock for each key in use, between the threads of this process.

    A thread enters as soon as another leaves; only waiting for another process needs polling.
    """

    def __init__(self) -> None:
        self._gates: dict[Key, tuple[Lock, int]] = {}
        self._lock = Lock()

    def enter(self, key: Key, seconds: float = -1) -> bool:
        """Enter the gate, and return whether it opened in time; -1 waits for ever."""
        with self._lock:
            gate, n_callers = self._gates.get(key, (Lock(), 0))
            self._gates[key] = gate, n_callers + 1
        if gate.acquire(timeout=seconds):
            return True
        self._leave(key)
        return False

    def open(self, key: Key) -> None:
        """Let the next thread in."""
        self._leave(key).release()

    def _leave(self, key: Key) -> Lock:
        with self._lock:
            gate, n_callers = self._gates.pop(key)
            if n_callers > 1:
                self._gates[key] = gate, n_callers - 1
            return gate
