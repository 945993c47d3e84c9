"""Fits that nobody waits for: one at a time in a project, whoever asked, and a few at a time in a process.

That a fit is wanted stands in the project's state (`Project.fit_is_wanted`). What is kept here is only which projects
this process has met in that state, so that it may be lost at any time: the next request that meets one brings it back.
"""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack
from threading import Condition, Thread

from service.domain.project import Project
from service.errors import FitFailed, ProjectNotFound, ProjectReplaced, StoreBusy
from service.store import Store
from service.telemetry.logging import project_context
from service.telemetry.metrics import in_background
from service.usecases.training import fit_in_turn

TURN_SECONDS = 0.1
"""How soon to look again at a project that somebody else fits just now."""

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 60.0
"""How soon to try again where a fit could not be made, such as on a full disk; twice as long after each time."""

log = logging.getLogger(__name__)


class BackgroundFits:
    """Makes the fits that projects want, in threads that last as long as there are any.

    The threads are daemons: a process that is told to stop does not wait for them, and the fit stays wanted.
    """

    def __init__(self, store: Store, n_threads: int) -> None:
        self._store = store
        self._n_threads = n_threads
        self._n_alive = 0
        self._waiting: dict[str, float] = {}  # when each project may be looked at, on the monotonic clock
        self._at_work: set[str] = set()
        self._n_failures: dict[str, int] = {}
        self._changed = Condition()

    def start_if_wanted(self, project: Project) -> None:
        """See to it that the project gets the fit that it wants, if it does. Returns at once."""
        if not project.fit_is_wanted:
            return
        with self._changed:
            self._waiting.setdefault(project.project_id, time.monotonic())
            if self._n_alive < self._n_threads:
                try:
                    Thread(target=self._work_off, name="background fit", daemon=True).start()
                except RuntimeError as error:  # no more threads are to be had; the next request tries again
                    log.warning("project %s waits for its fit: %s", project.project_id, error)
                else:
                    self._n_alive += 1
            self._changed.notify()

    def _work_off(self) -> None:
        while (project_id := self._next()) is not None:
            with in_background(), project_context(project_id):
                pause = self._attempt(project_id)
            with self._changed:
                self._at_work.remove(project_id)
                if pause is not None:
                    self._waiting[project_id] = time.monotonic() + pause
                self._changed.notify()

    def _next(self) -> str | None:
        """Wait for a project that may be looked at; None when there is none that another thread does not see to."""
        with self._changed:
            while True:
                open_ = {name: at for name, at in self._waiting.items() if name not in self._at_work}
                if not open_:
                    self._n_alive -= 1
                    return None
                project_id = min(open_, key=open_.__getitem__)
                seconds = open_[project_id] - time.monotonic()
                if seconds <= 0:
                    del self._waiting[project_id]
                    self._at_work.add(project_id)
                    return project_id
                self._changed.wait(seconds)

    def _attempt(self, project_id: str) -> float | None:
        """Make the fit, and return after how many seconds to look again; None when nothing is left to do."""
        try:
            pause = fit_if_wanted(self._store, project_id)
        except Exception:
            log.exception("the background fit of project %s could not be made; it is tried again", project_id)
            n_failures = self._n_failures[project_id] = self._n_failures.get(project_id, 0) + 1
            return float(min(FIRST_PAUSE_SECONDS * 2 ** (n_failures - 1), LONGEST_PAUSE_SECONDS))
        self._n_failures.pop(project_id, None)
        return pause


def fit_if_wanted(store: Store, project_id: str) -> float | None:
    """Make the fit that a project wants, unless somebody else is at it.

    Returns after how many seconds to look again, None when nothing is left to do. Raises whatever kept the fit from
    being made and may be gone another time.
    """
    try:
        with ExitStack() as turn:
            try:
                turn.enter_context(store.fit_turn(project_id, 0))
            except StoreBusy:
                return TURN_SECONDS
            before = store.read(project_id).project
            if not before.fit_is_wanted:
                return None
            after = fit_in_turn(store, project_id)
            log.info("fitted in the background")
    except ProjectNotFound:
        return None
    except ProjectReplaced:
        return 0.0  # the new pool may want a fit, too
    except FitFailed as error:
        if store.read(project_id).project.fit_asked == before.fit_asked:
            raise  # the state could not be made to tell, on a full disk, say: it would be tried at once
        log.warning("project %s keeps its model: %s", project_id, error)
        return 0.0  # labels that came meanwhile may be learnt from
    return 0.0 if after.fit_is_wanted else None
