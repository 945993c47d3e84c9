"""One change of a project under its lock."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from service.domain.draws import Draws
from service.domain.leases import Leases
from service.domain.preconditions import Preconditions
from service.domain.project import Checksum, Project
from service.errors import ProjectNotFound, ServiceError
from service.store.directory import sweep_project
from service.store.draws import write_draws
from service.store.events import append_events
from service.store.files import StagedFile, child, convert_disk_errors, fsync_directory
from service.store.layout import LOG, STATE, files_of
from service.store.leases import write_leases
from service.store.load_state import fsync_name
from service.store.snapshot import CachedState, Part, Snapshot, Stamp, missing_file_error, same_files
from service.store.state_file import LogEnd, clear_log, publish, record_of, write_records, write_state
from service.store.state_format import small_change, to_record

log = logging.getLogger(__name__)


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
    """A project under its lock: `project` is its state, None for a new one, whose directory is built elsewhere.

    With `is_shared`, several requests make their changes, and small ones wait for `flush`.
    """

    def __init__(
        self, store: ProjectStore, project_id: str, directory: Path, state: CachedState | None, *, is_shared: bool
    ) -> None:
        self.project = None if state is None else state.project
        self._state = state
        self._end = None if state is None else state.log
        self._records: list[bytes] = []
        self._is_known = True
        self._fingerprint: str | None = None
        self._store = store
        self._project_id = project_id
        self._directory = directory
        self._is_shared = is_shared

    def begin(self, preconditions: Preconditions) -> None:
        """Begin the change of a request. Raises PreconditionFailed."""
        self._check_known()
        preconditions.check(self.project)
        self._fingerprint = None if preconditions.fingerprint is None else str(preconditions.fingerprint)

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
        with convert_disk_errors(), ExitStack() as undo:
            before, files = self.project, self._new_files(project, staged or {})
            self._move_files(files, undo)
            events = append_events(self._directory, before, project, kind, self._fingerprint, details)
            project = project.having(event_log=events)
            is_changed = before is None or bool(files) or not same_files(before, project)
            if is_changed:
                project = project.having(checksums=self._checksums(project, files))
            if is_changed or not self._add_record(project):
                self._replace_state(project, undo)
            self.project = project
        if not self._is_shared:
            self.flush()
        if is_changed:
            # The commit is done even if old files cannot be removed; they are swept when a process starts.
            with suppress(OSError):
                sweep_project(self._directory, project)
        return project

    def flush(self) -> None:
        """Make all commits durable, and let readers see them. Raises OSError and the store's errors."""
        self._check_known()
        if not self._records or self._state is None or self._state.log is None or self.project is None:
            return
        end, path = self._state.log, child(self._directory, STATE)
        try:
            with open_for_writing(path) as file:
                write_records(file, end, self._records)
                state = finish_log(file, self.project, self._end or end)
        except (OSError, ServiceError):
            log.exception("the log of project %s cannot be written: its state is written again", self._project_id)
            # What a failed write or sync left on disk is unknown.
            with suppress(OSError, ServiceError), open_for_writing(path) as file:
                clear_log(file, end)
            with convert_disk_errors(), ExitStack() as undo:
                self._replace_state(self.project, undo)
            return
        self._keep(state)

    def _check_known(self) -> None:
        """Raise OSError after a whole state was written whose name may not be durable."""
        if not self._is_known:
            raise OSError(f"the state of project {self._project_id} was written, but not synced")

    def _keep(self, state: CachedState) -> None:
        """Keep the state on disk."""
        self._state, self._end, self._records, self._is_known = state, state.log, [], True
        self._store.cache_state(state)

    def _new_files(self, project: Project, staged: Mapping[str, StagedFile]) -> dict[str, StagedFile]:
        """Return the staged files that the new state names and the current one does not."""
        if not staged:
            return {}
        names = files_of(project) - files_of(self.project) if self.project else files_of(project) | {LOG}
        return {target: file for target, file in staged.items() if target in names}

    def _checksums(self, project: Project, files: Mapping[str, StagedFile]) -> dict[str, Checksum]:
        """Return the known checksums of the files that the new state names."""
        known = {**(self.project.checksums if self.project else {}), **{t: file.checksum for t, file in files.items()}}
        return {name: known[name] for name in sorted(files_of(project)) if name in known}

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

    def _add_record(self, project: Project) -> bool:
        """Add the record of a small change, and return whether the change is small and the log has room for it."""
        if self.project is None or self._end is None:
            return False
        change = small_change(self.project, project)
        added = None if change is None else record_of(change, self._end)
        if added is None:
            return False
        record, self._end = added
        self._records.append(record)
        return True

    def _replace_state(self, project: Project, undo: ExitStack) -> None:
        """Write the new state over the old one, after which nothing is undone."""
        new = self._directory / f"{STATE}.new"
        undo.callback(new.unlink, missing_ok=True)
        new.unlink(missing_ok=True)
        end = write_state(new, to_record(project))
        new.rename(self._directory / STATE)
        undo.pop_all()
        self._is_known = False
        fsync_directory(self._directory)
        if self.project is None:
            self._directory = self._directory.rename(self._store.directory(self._project_id))
            fsync_directory(self._directory.parent)
        with open_for_writing(self._directory / STATE) as file:
            self._keep(publish_state(file, project, end))

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


@contextmanager
def open_for_writing(path: Path) -> Iterator[int]:
    """Open a file without emptying it."""
    file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        yield file
    finally:
        os.close(file)


def finish_log(file: int, project: Project, end: LogEnd) -> CachedState:
    """Sync and publish the records in the open file of a state."""
    with convert_disk_errors():
        os.fdatasync(file)
    return publish_state(file, project, end)


def publish_state(file: int, project: Project, end: LogEnd) -> CachedState:
    """Publish the state in an open file, which is on disk."""
    end = publish(file, end)
    # The time of a commit is unique, so it distinguishes states; the clock of a file system ticks too slowly.
    os.utime(file, ns=(project.updated_at * 1000,) * 2)
    return CachedState(Stamp.of(file), project, end)


def settle_state(directory: Path, project: Project, end: LogEnd) -> CachedState:
    """Finish the commits in the log of a state that a process left which died. The caller holds the project's lock."""
    with open_for_writing(directory / STATE) as file:
        if not end.is_clean:
            clear_log(file, end)
        if end.published == 0:
            fsync_name(directory)
        return finish_log(file, project, end)
