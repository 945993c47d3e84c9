"""What the files of a project are called. A number never comes again in the life of a project."""

from __future__ import annotations

from service.domain.project import HeldOut, Project, Segment
from service.store.staging import DENSE, SPARSE

STATE = "state.joblib"
LOG = "events.log"
LEASES = "leases.joblib"
FOLDERS = ("pool", "test", "models")

UNBORN = "unborn"
"""Marks a directory that earlier versions of the service left half-made: it has no state, and has not lost any."""


def rows_files(rows: Segment | HeldOut) -> dict[str, str]:
    """Where rows lie in their project, by the names of what they are kept in: one matrix, or the arrays of CSR."""
    folder = "pool" if isinstance(rows, Segment) else "test"
    if not rows.sparse:
        return dict.fromkeys(DENSE, f"{folder}/{rows.number:06d}.joblib")
    return {name: f"{folder}/{rows.number:06d}.{name}.joblib" for name in SPARSE}


def first_file(rows: Segment | HeldOut) -> str:
    """Return one of the files in which rows lie, always the same."""
    return min(rows_files(rows).values())


def ids_file(segment: Segment) -> str:
    """Where the names of a segment's samples lie."""
    return f"pool/{segment.number:06d}.ids.joblib"


def held_out_labels_file(held_out: HeldOut) -> str:
    """Where the class codes of a held-out set lie."""
    return f"test/{held_out.number:06d}.y.joblib"


def model_file(version: int) -> str:
    """Where a fitted model lies."""
    return f"models/{version:06d}.joblib"


def files_of(project: Project) -> set[str]:
    """List the files that a project's state names."""
    files = {name for segment in project.segments for name in rows_files(segment).values()}
    if project.has_ids:
        files |= {ids_file(segment) for segment in project.segments}
    if project.held_out is not None:
        files |= {*rows_files(project.held_out).values(), held_out_labels_file(project.held_out)}
    if project.model is not None:
        files.add(model_file(project.model.version))
    return files
