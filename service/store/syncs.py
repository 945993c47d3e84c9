"""Waiting for commits to be on disk, once for all threads of this process that wait for the same project."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from service.domain.project import Project
from service.store.gates import Gates


class Syncs:
    """The newest commit of each project that this process knows to be on disk; all earlier ones are, too."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[str, int]] = {}
        self._gates: Gates[str] = Gates()
        self._lock = Lock()

    def note(self, project: Project) -> None:
        """Note that a commit is on disk."""
        with self._lock:
            if not self.covers(project.project_id, *project.commit):
                self._known[project.project_id] = project.commit

    def covers(self, project_id: str, pool_id: str, version: int) -> bool:
        """Return whether a commit is known to be on disk."""
        known_pool, known_version = self._known.get(project_id, ("", 0))
        return known_pool == pool_id and version <= known_version

    @contextmanager
    def turn(self, project: Project) -> Iterator[bool]:
        """Wait for the running sync of a project, and yield whether the commit needs one more."""
        self._gates.enter(project.project_id)
        try:
            yield not self.covers(project.project_id, *project.commit)
        finally:
            self._gates.open(project.project_id)

    def forget(self, project_id: str) -> None:
        """Forget a project."""
        self._known.pop(project_id, None)
