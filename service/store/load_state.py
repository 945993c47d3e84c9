"""Reading the state of a project, and distinguishing a lost state from one that never existed."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import reduce
from pathlib import Path

from service.domain.project import Project
from service.errors import ProjectNotFound, StoreDamaged, UnknownSchema
from service.store.files import UNREADABLE
from service.store.layout import FOLDERS, STATE, UNBORN
from service.store.state_file import LogEnd, read_further, read_state
from service.store.state_format import SEALED_SCHEMAS, from_record, with_change


def load_state(directory: Path, project_id: str) -> Project:
    """Read the state in a project's directory, or raise ProjectNotFound or StoreDamaged."""
    return load_with_log(directory, project_id)[0]


def load_with_log(
    directory: Path, project_id: str, known: tuple[Project, LogEnd | None] | None = None
) -> tuple[Project, LogEnd | None]:
    """Return a state as `load_state` does, and the end of the log in its file, None if the file has no log.

    Of a file that was read before, when it held the `known` state, mostly only the new end of the log is read.
    """
    try:
        if known is not None and known[1] is not None:
            with suppress(StoreDamaged):
                changes, end = read_further(directory / STATE, known[1])
                if changes:
                    return reduce(with_change, changes, known[0]), end
        record, is_sealed, changes, log = read_state(directory / STATE)
        if not is_sealed and record["schema_version"] in SEALED_SCHEMAS:
            raise StoreDamaged(f"{STATE} is truncated: its checksum is missing")
        return reduce(with_change, changes, from_record(record)), log
    except FileNotFoundError:
        raise ProjectNotFound(project_id) from None
    except UnknownSchema:
        raise
    except StoreDamaged as error:
        raise StoreDamaged.of(project_id, str(error)) from error
    except UNREADABLE as error:
        raise StoreDamaged.of(project_id, f"{STATE} does not hold the state of a project") from error


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
