"""Changes that are made together: those that wait for a project's lock are made by the thread that gets it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from threading import Lock
from typing import Any, Generic, TypeVar

from service.domain.preconditions import Preconditions
from service.store.transaction import Transaction

T = TypeVar("T")


class Change(Generic[T]):
    """A change of a project by a request. It is made once, by any thread, in the context of the request."""

    def __init__(self, make: Callable[[Transaction], T], preconditions: Preconditions) -> None:
        self._make = make
        self._preconditions = preconditions
        self.began_at = time.monotonic()
        self._context = copy_context()
        self._turn = Lock()
        self._turn.acquire()
        self._results: list[T] = []
        self._error: BaseException | None = None
        self._is_over = False

    def run(self, transaction: Transaction) -> None:
        """Make the change, and keep its result or error."""
        try:
            transaction.begin(self._preconditions)
            self._results.append(self._context.run(self._make, transaction))
        except Exception as error:  # noqa: BLE001 - raised in the thread of the request
            self._error = error

    def fail(self, error: BaseException) -> None:
        """Keep an error instead of the result, unless the change has failed."""
        self._error = self._error or error

    def result(self) -> T:
        """Return the result of the change, or raise its error."""
        if self._error is not None:
            raise self._error
        return self._results[0]

    def wait(self) -> bool:
        """Wait until the change was made by another thread, and return False; True if it is this thread's turn."""
        self._turn.acquire()
        return not self._is_over

    def end(self) -> None:
        """Let the thread of the request return."""
        self._is_over = True
        self._turn.release()

    def lead(self) -> None:
        """Let the thread of the request make its change, and those that wait."""
        self._turn.release()


class Groups:
    """The changes of each project that wait in this process, the first ones first."""

    def __init__(self) -> None:
        self._waiting: dict[str, list[Change[Any]]] = {}
        self._lock = Lock()

    def are_waiting(self, project_id: str) -> bool:
        """Return whether a thread is changing a project, or waits for its lock."""
        return project_id in self._waiting

    @contextmanager
    def turn(self, project_id: str, change: Change[T]) -> Iterator[bool]:
        """Wait until a change was made, or until it is its thread's turn to make it, and yield which."""
        with self._lock:
            waiting = self._waiting.get(project_id)
            if waiting is None:
                self._waiting[project_id] = []
            else:
                waiting.append(change)
        leads = waiting is None or change.wait()
        try:
            yield leads
        finally:
            if leads:
                self._hand_over(project_id)

    def members(self, project_id: str) -> Iterator[Change[Any]]:
        """Yield the changes that wait, and those that come meanwhile."""
        while self._waiting[project_id]:
            yield self._waiting[project_id].pop(0)

    def _hand_over(self, project_id: str) -> None:
        with self._lock:
            waiting = self._waiting[project_id]
            if waiting:
                waiting.pop(0).lead()
            else:
                del self._waiting[project_id]
