"""One change of a project under its lock."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from service.domain.draws import Draws
from service.domain.leases import Leases
from service.domain.preconditions import RequestFingerprint
from service.domain.project import Checksum, Project
from service.errors import ProjectNotFound
from service.store.directory import sweep_project
from service.store.draws import write_draws
from service.store.events import append_events
from service.store.files import StagedFile, convert_disk_errors, fsync_directory, write_small
from service.store.layout import LOG, STATE, files_of
from service.store.leases import write_leases
from service.store.snapshot import CachedState, Part, Snapshot, Stamp, missing_file_error
from service.store.state_format import to_record


class ProjectStore(Protocol):
    """The methods of `Store` that a transaction calls."""

    def directory(self, project_id: str) -> Path:
        """Return the directory of a project."""

    def leases(self, project_id: str) -> Leases:
        """Return the leases of a project."""

    def draws(self, project_id: str) -> Draws:
        """Return the draws of a project."""

    def open_parts(self, directory: Path, project: Project, parts: tuple[Part, ...]) -> Snapshot:
        """Open the files of some parts."""

    def cache_state(self, cached: CachedState) -> None:
        """Cache a state."""


class Transaction:
    """A project under its lock: `project` is its state, None for a new one, whose directory is built elsewhere."""

    def __init__(
        self,
        store: ProjectStore,
        project_id: str,
        directory: Path,
        project: Project | None,
        fingerprint: RequestFingerprint | None,
    ) -> None:
        self.project = project
        self._fingerprint = None if fingerprint is None else str(fingerprint)
        self._store = store
        self._project_id = project_id
        self._directory = directory

    def commit(
        self,
        project: Project,
        staged: Mapping[str, StagedFile] | None = None,
        kind: str | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> Project:
        """Make `project` the state, with those of the staged files (target -> file) that only it names.

        A file that the old state names is not written again: an earlier model may have its name. `kind` and
        `details` are those of the event if they do not follow from the changes.
        """
        before, named = files_of(self.project) if self.project else set(), files_of(project)
        new_names = (named | {LOG} if self.project is None else named) - before
        files = {target: file for target, file in (staged or {}).items() if target in new_names}
        with convert_disk_errors(), ExitStack() as undo:
            self._move_files(files, undo)
            log = append_events(self._directory, self.project, project, kind, self._fingerprint, details)
            project = replace(project, checksums=self._checksums(named, files), event_log=log)
            stamp = self._replace_state(project, undo)
            fsync_directory(self._directory)
            if self.project is None:
                self._directory = self._directory.rename(self._store.directory(self._project_id))
                fsync_directory(self._directory.parent)
        self.project = project
        self._store.cache_state(CachedState(stamp, project, is_durable=True))
        if files or before - named:
            # The commit is done even if old files cannot be removed; they are swept when a process starts.
            with suppress(OSError):
                sweep_project(self._directory, project)
        return project

    def _checksums(self, named: set[str], files: Mapping[str, StagedFile]) -> dict[str, Checksum]:
        """Return the known checksums of the files that the new state names."""
        known = {**(self.project.checksums if self.project else {}), **{t: file.checksum for t, file in files.items()}}
        return {name: known[name] for name in sorted(named) if name in known}

    def _move_files(self, files: Mapping[str, StagedFile], undo: ExitStack) -> None:
        """Move staged files into the project, durably."""
        folders = {(self._directory / target).parent for target in files}
        missing = {folder for folder in folders if not folder.exists()}
        for folder in missing:
            folder.mkdir(mode=0o700)
        for target, file in files.items():
            undo.callback((self._directory / target).unlink, missing_ok=True)
            file.path.rename(self._directory / target)
        for folder in (*folders, *([self._directory] if missing else [])):
            fsync_directory(folder)

    def _replace_state(self, project: Project, undo: ExitStack) -> Stamp:
        """Write the new state over the old one, after which nothing is undone. Return its stamp."""
        new = self._directory / f"{STATE}.new"
        undo.callback(new.unlink, missing_ok=True)
        new.unlink(missing_ok=True)
        write_small(new, to_record(project))
        # The time of a commit is unique, so it distinguishes states; the clock of a file system ticks too slowly.
        os.utime(new, ns=(project.updated_at * 1000,) * 2)
        stamp = Stamp.of(new)
        new.rename(self._directory / STATE)
        undo.pop_all()
        return stamp

    def leases(self) -> Leases:
        """Return the current leases, or raise StoreDamaged."""
        return self._store.leases(self._project_id)

    def keep_leases(self, leases: Leases) -> None:
        """Replace the leases; the project's version stays the same."""
        write_leases(self._directory, leases)

    def draws(self) -> Draws:
        """Return the draws of the project's pool."""
        draws = self._store.draws(self._project_id)
        pool_id = self.read().project.pool_id
        return draws if draws.pool_id == pool_id else Draws(pool_id, changed_at=draws.changed_at)

    def keep_draws(self, draws: Draws) -> None:
        """Replace the draws; the project's version stays the same."""
        write_draws(self._directory, draws)

    def read(self, *parts: Part) -> Snapshot:
        """Open parts of the project."""
        if self.project is None:
            raise ProjectNotFound(self._project_id)
        try:
            return self._store.open_parts(self._directory, self.project, parts)
        except FileNotFoundError as error:
            raise missing_file_error(self.project, error) from error
