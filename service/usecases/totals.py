"""Totals over all projects, counted on request."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, fields
from threading import Lock

from service.domain.leases import live_leases
from service.domain.project import Project, now
from service.errors import ProjectNotFound, StoreDamaged
from service.store import Stamp, Store

COUNT_SECONDS = 0.5
"""Time limit for reading projects that changed since the last count; the others keep their last values."""


@dataclass(frozen=True, slots=True)
class Totals:
    """Counts over all projects. A property of a project itself counts 0 or 1."""

    projects: int = 0
    samples: int = 0
    labeled_samples: int = 0
    skipped_samples: int = 0
    leases: int = 0
    leased_samples: int = 0
    labels_since_fit: int = 0
    fits_due: int = 0
    fits_failed: int = 0
    projects_unreadable: int = 0
    projects_passed_over: int = 0

    @classmethod
    def of(cls, project: Project) -> Totals:
        """Count one project."""
        return cls(
            projects=1,
            samples=project.n_samples - project.n_removed,
            labeled_samples=project.n_labeled,
            skipped_samples=project.n_skipped,
            labels_since_fit=project.n_labels_since_fit,
            fits_due=int(project.fit_is_due),
            fits_failed=int(project.fit_error is not None),
        )


@dataclass(frozen=True, slots=True)
class ProjectTotals:
    """The totals of a project while its files have these stamps; of each lease, the expiry and number of samples."""

    stamps: tuple[Stamp, Stamp | None]
    totals: Totals
    leases: tuple[tuple[int, int], ...] = ()


class TotalsCounter:
    """Counts all projects of a store. Each state of a project is counted once."""

    def __init__(self, store: Store, seconds: float = COUNT_SECONDS) -> None:
        self._store = store
        self._seconds = seconds
        self._known: dict[str, ProjectTotals] = {}
        self._lock = Lock()

    def count(self) -> Totals:
        """Count all projects; of those that changed, as many as time allows."""
        with self._lock:
            deadline = time.monotonic() + self._seconds
            found: dict[str, ProjectTotals] = {}
            n_passed_over = 0
            for project_id, stamps in self._store.stamps():
                before = self._known.get(project_id)
                if before is not None and before.stamps == stamps:
                    found[project_id] = before
                elif time.monotonic() < deadline:
                    found[project_id] = count_project(self._store, project_id, stamps)
                else:
                    n_passed_over += 1
                    if before is not None:
                        found[project_id] = before
            self._known = found
        moment = now()
        held = [n_samples for each in found.values() for expires_at, n_samples in each.leases if expires_at > moment]
        of_all = Totals(leases=len(held), leased_samples=sum(held), projects_passed_over=n_passed_over)
        return add_totals([of_all, *(each.totals for each in found.values())])


def count_project(store: Store, project_id: str, stamps: tuple[Stamp, Stamp | None]) -> ProjectTotals:
    """Return the totals of a project."""
    try:
        leases = store.leases(project_id)
        project = store.peek(project_id)
    except ProjectNotFound:
        return ProjectTotals(stamps, Totals())  # deleted meanwhile
    except StoreDamaged:
        return ProjectTotals(stamps, Totals(projects=1, projects_unreadable=1))
    held = tuple((lease.expires_at, len(lease.index)) for lease in live_leases(leases, project, now()).all)
    return ProjectTotals(stamps, Totals.of(project), held)


def add_totals(parts: Iterable[Totals]) -> Totals:
    """Return the sum of totals."""
    counts = zip(*([getattr(each, field.name) for field in fields(Totals)] for each in parts), strict=True)
    return Totals(*map(sum, counts))
