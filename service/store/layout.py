"""The names of a project's files. A project never uses a number twice."""

from __future__ import annotations

from service.domain.project import HeldOut, Project, Segment
from service.store.staging import DENSE, SPARSE

STATE = "state.joblib"
LOG = "events.log"
LEASES = "leases.joblib"
DRAWS = "draws.joblib"
SUMMARY = "summary.joblib"
FOLDERS = ("pool", "test", "models")

UNBORN = "unborn"
"""Marks a directory that earlier versions of the service left half-made: it has no state, and has not lost any."""


def rows_files(rows: Segment | HeldOut) -> dict[str, str]:
    """Return the files of rows by array: one matrix, or the three arrays of CSR."""
    folder = "pool" if isinstance(rows, Segment) else "test"
    if not rows.sparse:
        return dict.fromkeys(DENSE, f"{folder}/{rows.number:06d}.joblib")
    return {name: f"{folder}/{rows.number:06d}.{name}.joblib" for name in SPARSE}


def first_file(rows: Segment | HeldOut) -> str:
    """Return one of the files of rows, always the same one."""
    return min(rows_files(rows).values())


def newest_file(project: Project) -> str:
    """Return a file of the segment written last; within a pool id, it identifies the segments."""
    return first_file(max(project.segments, key=lambda segment: segment.number))


def ids_file(segment: Segment) -> str:
    """Return the file of a segment's ids."""
    return f"pool/{segment.number:06d}.ids.joblib"


def texts_file(segment: Segment) -> str:
    """Return the file of a segment's texts."""
    return f"pool/{segment.number:06d}.texts.joblib"


def urls_file(segment: Segment) -> str:
    """Return the file of the addresses of a segment's samples."""
    return f"pool/{segment.number:06d}.urls.joblib"


def held_out_labels_file(held_out: HeldOut) -> str:
    """Return the file of the class codes of a held-out set."""
    return f"test/{held_out.number:06d}.y.joblib"


def model_file(version: int) -> str:
    """Return the file of a fitted model."""
    return f"models/{version:06d}.joblib"


def files_of(project: Project) -> set[str]:
    """Return the files that a project's state names."""
    files = {name for segment in project.segments for name in rows_files(segment).values()}
    if project.has_ids:
        files |= {ids_file(segment) for segment in project.segments}
    if project.has_texts:
        files |= {texts_file(segment) for segment in project.segments}
    if project.has_urls:
        files |= {urls_file(segment) for segment in project.segments}
    if project.held_out is not None:
        files |= {*rows_files(project.held_out).values(), held_out_labels_file(project.held_out)}
    if project.model is not None:
        files.add(model_file(project.model.version))
    return files
