"""Reading the state of a project, and telling one that is missing from one that there never was."""

from __future__ import annotations

from pathlib import Path

from service.domain.project import Project
from service.errors import ProjectNotFound, StoreDamaged, UnknownSchema
from service.store.files import UNREADABLE, load_small
from service.store.layout import FOLDERS, STATE, UNBORN
from service.store.state_format import SCHEMA_VERSION, from_record


def load_state(directory: Path, project_id: str) -> Project:
    """Read the state in a project's directory, or raise ProjectNotFound or StoreDamaged."""
    try:
        record, is_sealed = load_small(directory / STATE)
        if not is_sealed and record["schema_version"] == SCHEMA_VERSION:
            raise StoreDamaged(f"{STATE} is cut short: it lacks its checksum")
        return from_record(record)
    except FileNotFoundError:
        raise ProjectNotFound(project_id) from None
    except UnknownSchema:
        raise
    except StoreDamaged as error:
        raise StoreDamaged.of(project_id, str(error)) from error
    except UNREADABLE as error:
        raise StoreDamaged.of(project_id, f"{STATE} is not what a project's state is") from error


def lost_state(directory: Path) -> bool:
    """Tell whether a directory lacks a state that it had: its files are what the project can be mended from."""
    has_files = any(any((directory / folder).glob("*")) for folder in FOLDERS)
    # In this order: a first commit may come in between.
    return has_files and not (directory / UNBORN).exists() and not (directory / STATE).exists()
