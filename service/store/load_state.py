"""Reading the state of a project, and distinguishing a lost state from one that never existed."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import reduce
from pathlib import Path

from service.domain.project import Project
from service.errors import ProjectNotFound, StoreDamaged, UnknownSchema
from service.store.files import UNREADABLE, fsync_directory
from service.store.layout import FOLDERS, STATE, UNBORN
from service.store.state_file import LogEnd, read_further, read_state
from service.store.state_format import SEALED_SCHEMAS, from_record, with_change


def load_state(directory: Path, project_id: str) -> Project:
    """Read the state in a project's directory, or raise ProjectNotFound or StoreDamaged."""
    return load_with_log(directory, project_id)[0]


def load_with_log(
    directory: Path, project_id: str, known: tuple[Project, LogEnd | None] | None = None, *, to_end: bool = False
) -> tuple[Project, LogEnd | None]:
    """Return a state as `load_state` does, and the end of the log in its file, None if the file has no log.

    Of a file that was read before, when it held the `known` state, only the rest of the log is read. The state is on
    disk, unless it is read `to_end`, for which the caller holds the project's lock.
    """
    try:
        known_project, known_end = known or (None, None)
        further = None
        if known_end is not None:
            with suppress(StoreDamaged):
                further = read_further(directory / STATE, known_end, to_end=to_end)
        if known_project is not None and further is not None:
            changes, end = further
            return reduce(with_change, changes, known_project), end
        record, is_sealed, changes, log = read_state(directory / STATE, to_end=to_end)
        if not is_sealed and record["schema_version"] in SEALED_SCHEMAS:
            raise StoreDamaged(f"{STATE} is truncated: its checksum is missing")
        project = reduce(with_change, changes, from_record(record))
    except FileNotFoundError:
        raise ProjectNotFound(project_id) from None
    except UnknownSchema:
        raise
    except StoreDamaged as error:
        raise StoreDamaged.of(project_id, str(error)) from error
    except UNREADABLE as error:
        raise StoreDamaged.of(project_id, f"{STATE} does not hold the state of a project") from error
    if log is not None and log.published == 0 and not to_end:
        try:
            fsync_name(directory)
        except FileNotFoundError:
            raise ProjectNotFound(project_id) from None
    return project, log


def fsync_name(directory: Path) -> None:
    """Wait until the name of a state's file is on disk, and that of its project."""
    for path in (directory, directory / ".."):
        fsync_directory(path)


def has_lost_state(directory: Path) -> bool:
    """Return whether a directory has lost its state: it has a project's files, from which it can be repaired.

    The result is only valid for a directory that is not moved meanwhile; see `OpenDirectory`.
    """
    has_files = any(has_entries(directory / folder) for folder in FOLDERS)
    return has_files and not (directory / UNBORN).exists() and not (directory / STATE).exists()


def has_entries(folder: Path) -> bool:
    """Return whether a folder exists and is not empty."""
    try:
        return bool(os.listdir(folder))  # noqa: PTH208 - a list is needed, not an iterator
    except (FileNotFoundError, NotADirectoryError):
        return False
