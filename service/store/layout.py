"""What the files of a project are called. A number never comes again in the life of a project."""

from __future__ import annotations

from service.project import Project

STATE = "state.joblib"
FOLDERS = ("pool", "test", "models")


def pool_file(number: int) -> str:
    """Where a segment of the pool lies in its project."""
    return f"pool/{number:06d}.joblib"


def ids_file(number: int) -> str:
    """Where the names of a segment's samples lie."""
    return f"pool/{number:06d}.ids.joblib"


def held_out_file(number: int) -> str:
    """Where a held-out set lies."""
    return f"test/{number:06d}.joblib"


def held_out_labels_file(number: int) -> str:
    """Where the class codes of a held-out set lie."""
    return f"test/{number:06d}.y.joblib"


def model_file(version: int) -> str:
    """Where a fitted model lies."""
    return f"models/{version:06d}.joblib"


def files_of(project: Project) -> set[str]:
    """List the files that a project's state names."""
    files = {pool_file(segment.number) for segment in project.segments}
    if project.has_ids:
        files |= {ids_file(segment.number) for segment in project.segments}
    if project.held_out is not None:
        files |= {held_out_file(project.held_out.number), held_out_labels_file(project.held_out.number)}
    if project.model is not None:
        files.add(model_file(project.model.version))
    return files
