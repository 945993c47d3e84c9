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
from service.store.files import StagedFile, convert_disk_errors, fsync_directory
from service.store.layout import LOG, STATE, files_of
from service.store.leases import write_leases
from service.store.snapshot import CachedState, Part, Snapshot, Stamp, missing_file_error
from service.store.state_file import append_record, clear_log, write_state
from service.store.state_format import small_change, to_record
from service.store.syncs import Syncs


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

    @property
    def syncs(self) -> Syncs:
        """What is known to be on disk."""


class Transaction:
    """A project under its lock: `project` is its state, None for a new one, whose directory is built elsewhere.

    `unsynced` are the open file and the state of a commit that only wrote to the log in the file; it is on disk after
    the next sync. `opened` closes the file.
    """

    def __init__(
        self,
        store: ProjectStore,
        project_id: str,
        directory: Path,
        state: CachedState | None,
        fingerprint: RequestFingerprint | None,
        opened: ExitStack,
    ) -> None:
        self.project = None if state is None else state.project
        self.unsynced: tuple[int, CachedState] | None = None
        self._state = state
        self._opened = opened
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
            has_same_files = self.project is not None and not files and named == before
            sums = self.project.checksums if self.project and has_same_files else self._checksums(named, files)
            project = replace(project, checksums=sums, event_log=log)
            state = self._append_change(project) or self._replace_state(project, undo)
            if self.project is None:
                self._directory = self._directory.rename(self._store.directory(self._project_id))
                fsync_directory(self._directory.parent)
        self.project, self._state = project, state
        self._store.cache_state(state)
        if self.unsynced is None:
            self._store.syncs.note(project)
        if files or before - named:
            # The commit is done even if old files cannot be removed; they are swept when a process starts.
            with suppress(OSError):
                sweep_project(self._directory, project)
        return project

    def rewrite(self) -> None:
        """Write the state again as it is."""
        if self.project is not None:
            with ExitStack() as undo:
                self._store.cache_state(self._replace_state(self.project, undo))

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

    def _append_change(self, project: Project) -> CachedState | None:
        """Write a small change to the log in the file of the state, and return the new state.

        Return None if the change is not small, or the log is full.
        """
        if self._state is None or self._state.log is None:
            return None
        change, path = small_change(self._state.project, project), self._directory / STATE
        if change is None:
            return None
        if not self._state.log.is_clean:
            clear_log(path, self._state.log)
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._opened.callback(os.close, file)
        end = append_record(file, self._state.log, change)
        if end is None:
            return None
        os.utime(file, ns=(project.updated_at * 1000,) * 2)
        state = CachedState(Stamp.of(file), project, end)
        self.unsynced = file, state
        return state

    def _replace_state(self, project: Project, undo: ExitStack) -> CachedState:
        """Write the new state over the old one, after which nothing is undone."""
        new = self._directory / f"{STATE}.new"
        undo.callback(new.unlink, missing_ok=True)
        new.unlink(missing_ok=True)
        end = write_state(new, to_record(project))
        # The time of a commit is unique, so it distinguishes states; the clock of a file system ticks too slowly.
        os.utime(new, ns=(project.updated_at * 1000,) * 2)
        stamp = Stamp.of(new)
        new.rename(self._directory / STATE)
        undo.pop_all()
        fsync_directory(self._directory)
        self.unsynced = None
        return CachedState(stamp, project, end)

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
