"""Fits in background threads: one at a time for each project, a few at a time in a process.

A project rests between two of them, so that people who label and query at the same time get most of the cores; labels
that come meanwhile share the next fit.

A project's state says whether a fit is wanted (`Project.fit_is_wanted`). A process only keeps the projects that it has
seen in that state, and may lose them: the next request that meets such a project brings it back.
"""

from __future__ import annotations

import logging
import math
import time
from contextlib import ExitStack
from threading import Condition, Thread

from service.compute.threads import SELECTIONS
from service.domain.project import MICROSECONDS, Project, now
from service.errors import FitFailed, ProjectNotFound, ProjectReplaced, StoreBusy
from service.store import Store
from service.telemetry.logging import project_context
from service.telemetry.metrics import in_background
from service.usecases.select_ahead import select_ahead
from service.usecases.training import fit_in_turn, fit_limit

TURN_SECONDS = 0.1
"""Pause before looking again at a project that another process is fitting."""

REST, LONGEST_REST_SECONDS = 4.0, 3.0
"""Time from a project's newest model to its next background fit: a multiple of what the last one took, and a limit."""

BUSY_SECONDS = 0.25
"""Pause before looking again at a project while queries wait for a core, up to the longest rest."""

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 60.0
"""Pause after a fit that could not be made, on a full disk for example; it doubles with each try."""

log = logging.getLogger(__name__)


class BackgroundFits:
    """Fits projects in daemon threads, which end when no project is left.

    A process that shuts down does not wait for them: the fit stays wanted.
    """

    def __init__(self, store: Store, n_threads: int, fit_seconds: int) -> None:
        self._store = store
        self._fit_seconds = fit_seconds
        self._n_threads = n_threads
        self._n_alive = 0
        self._waiting: dict[str, float] = {}  # when to look at each project, by the monotonic clock
        self._at_work: set[str] = set()
        self._n_failures: dict[str, int] = {}
        self._rests: dict[str, float] = {}  # seconds
        self._changed = Condition()

    def start_if_wanted(self, project: Project) -> None:
        """Make sure that the project gets its fit if it wants one. Returns at once."""
        if not project.fit_is_wanted:
            return
        with self._changed:
            self._waiting.setdefault(project.project_id, time.monotonic())
            if self._n_alive < self._n_threads:
                try:
                    Thread(target=self._work_off, name="background fit", daemon=True).start()
                except RuntimeError as error:  # no more threads; the next request tries again
                    log.warning("project %s waits for its fit: %s", project.project_id, error)
                else:
                    self._n_alive += 1
            self._changed.notify()

    def _work_off(self) -> None:
        while (project_id := self._next()) is not None:
            with in_background(), project_context(project_id), fit_limit(self._fit_seconds):
                pause = self._attempt(project_id)
            with self._changed:
                self._at_work.remove(project_id)
                if pause is not None:
                    self._waiting[project_id] = time.monotonic() + pause
                self._changed.notify()

    def _next(self) -> str | None:
        """Wait for a project to look at; return None if other threads have all of them."""
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
        """Make the fit. Return the seconds until the project needs another look, None if it needs none."""
        began = time.monotonic()
        try:
            pause, is_fitted = fit_if_wanted(self._store, project_id, self._rests.get(project_id, 0.0))
        except Exception:
            log.exception("background fit of project %s failed and will be tried again", project_id)
            n_failures = self._n_failures[project_id] = self._n_failures.get(project_id, 0) + 1
            return float(min(FIRST_PAUSE_SECONDS * 2 ** (n_failures - 1), LONGEST_PAUSE_SECONDS))
        self._n_failures.pop(project_id, None)
        if is_fitted:
            self._rests[project_id] = min(REST * (time.monotonic() - began), LONGEST_REST_SECONDS)
        return pause


def fit_if_wanted(store: Store, project_id: str, rest_seconds: float) -> tuple[float | None, bool]:
    """Make the fit that a project wants, unless another process is making it or the newest model is younger than that.

    Return the seconds until the project needs another look, None if it needs none, and whether it was fitted. Raises
    errors that may not recur.
    """
    try:
        with ExitStack() as turn:
            try:
                turn.enter_context(store.fit_turn(project_id, 0))
            except StoreBusy:
                return TURN_SECONDS, False
            before = store.read(project_id).project
            if not before.fit_is_wanted:
                return None, False
            age = seconds_with_model(before)
            if age < rest_seconds:
                return rest_seconds - age, False
            if age < LONGEST_REST_SECONDS and SELECTIONS.n_waiting:
                return BUSY_SECONDS, False
            after = fit_in_turn(store, project_id, select_ahead)
            log.info("fitted in the background")
    except ProjectNotFound:
        return None, False
    except ProjectReplaced:
        return 0.0, False  # the new pool may want a fit, too
    except FitFailed as error:
        if store.read(project_id).project.fit_asked == before.fit_asked:
            raise  # the failure is not stored, on a full disk for example: a retry must wait
        log.warning("project %s keeps its model: %s", project_id, error)
        return 0.0, False  # newer labels may be fittable
    return (0.0 if after.fit_is_wanted else None), True


def seconds_with_model(project: Project) -> float:
    """Return the age of a project's newest model, of any worker; a clock that was set back makes it 0."""
    points = project.learning_curve.points
    if project.model is None or not len(points):
        return math.inf
    return max(0.0, (now() - int(points["fitted_at"][-1])) / MICROSECONDS)
