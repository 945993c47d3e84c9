"""The file of a project's summary, which spares the list of projects the states with their labels.

It is derived from a state, and kept with the stamp of that state's file, which every commit changes; with another stamp
it is out of date, and any reader writes it again. So it is no part of a commit, and is not synced: what a crash leaves
of it has a wrong checksum. Only after a power cut may the stamp be older or newer than the state, so a service that
starts compares the two.
"""

from __future__ import annotations

from collections.abc import Hashable
from contextlib import suppress
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from service.domain.project import Project
from service.errors import StoreDamaged, StoreFull, StoreUnwritable
from service.store.files import load_small, write_small
from service.store.layout import STATE, SUMMARY
from service.store.snapshot import Stamp


def read_summary(directory: Path, stamp: Stamp) -> tuple[Any, int] | None:
    """Return the summary of the state with a stamp, and its size; None without one of these classes."""
    with suppress(StoreDamaged, OSError):
        record = read_record(directory)
        if record["stamp"] == stamp_values(stamp) and record["shape"] == shape_of(record["summary"]):
            return record["summary"], record["n_bytes"]
    return None


def write_summary(directory: Path, stamp: Stamp, project: Project, summary: Any, n_bytes: int) -> None:
    """Keep the summary of a project, whose state had the stamp before it was read, unless the disk is unwritable."""
    record = {
        "stamp": stamp_values(stamp),
        "commit": project.commit,
        "shape": shape_of(summary),
        "summary": summary,
        "n_bytes": n_bytes,
    }
    new = directory / f"{SUMMARY}.new"
    # A file that exists is being written by another worker, or is left until the next sweep.
    with suppress(OSError, StoreUnwritable):
        try:
            write_small(new, record, durable=False)
            new.rename(directory / SUMMARY)
        except StoreFull:
            new.unlink(missing_ok=True)


def check_summary(directory: Path, project: Project) -> None:
    """Raise StoreDamaged if the file is unreadable, or has the stamp of this state and the summary of another."""
    record = read_record(directory)
    if record["stamp"] == stamp_values(Stamp.of(directory / STATE)) and record["commit"] != project.commit:
        raise StoreDamaged(f"{SUMMARY} is that of version {record['commit'][1]}, and not of {project.version}")


def drop_wrong_summary(directory: Path, project: Project) -> None:
    """Remove the summary of another state, or an unreadable one. The caller holds the project's lock."""
    try:
        is_wrong = read_record(directory)["commit"] != project.commit
    except FileNotFoundError:
        return
    except StoreDamaged:
        is_wrong = True
    if is_wrong:
        (directory / SUMMARY).unlink(missing_ok=True)


def read_record(directory: Path) -> dict[str, Any]:
    """Return what the file holds. Raises StoreDamaged, or FileNotFoundError."""
    record, is_sealed = load_small(directory / SUMMARY)
    if not is_sealed or not isinstance(record, dict) or not record.keys() >= {"stamp", "commit", "shape", "summary"}:
        raise StoreDamaged(f"{SUMMARY} does not hold a summary")
    return record


def stamp_values(stamp: Stamp) -> tuple[int, int, int]:
    """Return a stamp as plain values."""
    return stamp.inode, stamp.modified, stamp.size


def shape_of(value: Any) -> Hashable:
    """Return the names of the fields of a dataclass and of those within: other classes made another summary."""
    if not is_dataclass(value):
        return None
    inner = ((field.name, shape_of(getattr(value, field.name, None))) for field in fields(value))
    return type(value).__qualname__, tuple(inner)
