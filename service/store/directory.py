"""The directories of the store: creating, opening and sweeping them."""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from service.domain.project import PROJECT_ID, Project
from service.errors import ProjectNotFound
from service.store.files import fsync_directory
from service.store.layout import DRAWS, FOLDERS, LEASES, STATE, SUMMARY, UNBORN, files_of
from service.store.locks import has_path

NAME = re.compile(PROJECT_ID)


def check_name(project_id: str) -> None:
    """Raise ProjectNotFound for a name that no project can have."""
    if not NAME.fullmatch(project_id):
        raise ProjectNotFound(project_id[:64])


def make_directory(path: Path) -> None:
    """Create a directory and its missing parents, durably."""
    if not path.is_dir():
        make_directory(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)
        fsync_directory(path.parent)


def check_owner(root: Path) -> None:
    """Make our own directory private, and raise PermissionError for another user's that is writable for all.

    Its files are unpickled. Another user's volume that is writable for our group is accepted.
    """
    status = root.stat()
    if status.st_uid == os.geteuid():
        if stat.S_IMODE(status.st_mode) != 0o700:
            root.chmod(0o700)
    elif status.st_mode & 0o002:
        raise PermissionError(errno.EPERM, "it belongs to another user and is writable for all", str(root))


def sweep_project(directory: Path, project: Project) -> None:
    """Remove the files that a project's state does not name. The caller holds its lock."""
    named = files_of(project)
    for name in (f"{STATE}.new", f"{LEASES}.new", f"{DRAWS}.new", f"{SUMMARY}.new", UNBORN):
        (directory / name).unlink(missing_ok=True)
    for folder in FOLDERS:
        for path in (directory / folder).glob("*"):
            if f"{folder}/{path.name}" in named:
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()


@dataclass(frozen=True, slots=True)
class OpenDirectory:
    """An open directory: `path` leads to it even if it was moved away and another took its name."""

    name: Path
    descriptor: int

    @property
    def path(self) -> Path:
        """A path to the directory that is valid while it is open."""
        return Path(f"/proc/self/fd/{self.descriptor}")

    def has_its_name(self) -> bool:
        """Return whether the directory is still at the path it was opened with."""
        return has_path(self.descriptor, self.name)


@contextmanager
def open_directory(name: Path, project_id: str) -> Iterator[OpenDirectory]:
    """Keep a project's directory open, or raise ProjectNotFound."""
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        raise ProjectNotFound(project_id) from None
    try:
        yield OpenDirectory(name, descriptor)
    finally:
        os.close(descriptor)
