"""Projects on disk: a directory of joblib files for each, one commit point, one lock. No other package reads them.

    AQ_DATA_DIR/projects/<project_id>/
      lock                   held by a writer while it reads, changes and commits; readers never take it
      fit.lock               held during a fit, so that a burst of labels needs only one
      fit.running            the start of that fit; locked while it runs
      state.joblib           the commit point: small, replaced atomically, or labels are appended
      leases.joblib          which samples are leased to whom; replaced atomically, separately from the state
      draws.joblib           samples that queries drew with known probabilities; replaced atomically, separately, too
      lease.lock             held while samples are selected for a lease, so that none is selected twice
      summary.joblib         the state without its labels, for the list of projects; see `summaries`
      events.log             the changes of every commit, except the last ones, which are in the state
      pool/000001.joblib     a segment of the pool: uncompressed, immutable, mapped
      pool/000002.data.joblib, .indices.joblib, .indptr.joblib: a sparse one
      pool/000001.ids.joblib the ids of the segment's samples;  .texts.joblib, .urls.joblib: their texts and addresses
      test/000001.joblib     the held-out set;  000001.y.joblib: its labels
      models/000007.joblib   fitted estimators
    AQ_DATA_DIR/replies/     replies to requests with an Idempotency-Key
    AQ_DATA_DIR/staging/<token>/
      lock                   held by the request; a directory whose lock is free is rubbish
      ...                    files on their way into a project, or a project being created or deleted

A commit moves its staged files into the project, makes them durable, and renames the new state over the old one, which
makes all changes visible at once. A commit of labels only appends them to a log at the end of the state's file
(`state_file`). Those that wait for the lock in one process are made by the thread that gets it, and appended together,
with one sync (`groups`). File numbers are never used twice, so a file that a state names is the right one, or it is
gone and there is a newer state.

The directory of a project appears and disappears in one step: a new one is built in the staging area and renamed into
`projects`; a deleted one is renamed into the staging area before its files are removed. Only the holder of a project's
lock renames its directory. So if a reader that keeps the directory open misses a file, the project is damaged if the
directory still has its name; otherwise the reader starts again.
"""

from __future__ import annotations

import errno
import logging
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from service.compute.waiting import slot_yielded
from service.domain.draws import NO_DRAWS, Draws
from service.domain.events import JsonObject
from service.domain.leases import NO_LEASES, Leases
from service.domain.preconditions import UNCONDITIONAL, Preconditions
from service.domain.project import Project
from service.errors import (
    ProjectNotFound,
    ServiceError,
    StoreBusy,
    StoreDamaged,
    StoreReadOnly,
    TooManyProjects,
)
from service.store import locks
from service.store.cache import Cache, Key
from service.store.directory import check_name, check_owner, make_directory, open_directory, sweep_project
from service.store.draws import read_draws
from service.store.events import Page, event_of, read_page
from service.store.files import child, convert_disk_errors, fsync_directory
from service.store.fit_marker import mark_running, remove_stale_marks, running_since
from service.store.groups import Change, Groups
from service.store.idempotency import Replies
from service.store.layout import DRAWS, LEASES, STATE, files_of, held_out_labels_file, newest_file
from service.store.leases import read_leases
from service.store.load_state import has_lost_state, load_state, load_with_log
from service.store.locks import FIT_SECONDS, LOCK_SECONDS, acquire_lock, locked, try_lock
from service.store.simulations import Simulations
from service.store.snapshot import (
    UNKNOWN,
    CachedState,
    NotCached,
    Part,
    PartLoader,
    Snapshot,
    Stamp,
    in_project,
    missing_file_error,
    same_files,
)
from service.store.staging import Staging
from service.store.summaries import drop_wrong_summary, read_summary, write_summary
from service.store.transaction import Transaction, settle_state
from service.telemetry.metrics import count_cache_lookup

log = logging.getLogger(__name__)

FIT_MARK = "fit.running"
FIT_LOCK, LEASE_LOCK = "fit.lock", "lease.lock"

REFRESH_SECONDS = 10.0
"""How often a worker checks whether its cached projects still exist."""

OF_ALL_SEGMENTS = [(what,) for what in ("pool", "ids", "texts", "urls")]
"""The third part of the cache keys of objects over all segments."""

SETTLED_NS = 10**9
"""Age of a file, in nanoseconds, that no writer is still changing."""

READ_TRIES = 100
"""How often a reader starts again because a writer removed a file."""


Found = TypeVar("Found")
BesideState = TypeVar("BesideState", Leases, Draws)


class FilesChanged(Exception):
    """A file that a state names was removed because there is a newer state."""


class Store:
    """All projects below one directory. Any number of processes and threads may use the same directory."""

    def __init__(
        self, root: Path, *, cache_bytes: int = 0, max_projects: int = 1_000, reply_bytes: int = 2**28
    ) -> None:
        self.root = root
        self.projects = root / "projects"
        self.staging = root / "staging"
        self.max_projects = max_projects
        self.replies = Replies(root / "replies", reply_bytes)
        self.simulations = Simulations.of(root)
        self.cache = Cache(cache_bytes)
        self._groups = Groups()
        # The projects that another process changed before the last `change` of this one.
        self._contended: set[str] = set()
        # The last known pool id of each project, to find cached parts of an earlier pool.
        self._pool_ids: dict[str, str] = {}
        self._refreshed_at = time.monotonic()
        with convert_disk_errors():
            for folder in (root, self.projects, self.staging, self.replies.root, self.simulations.root):
                make_directory(folder)
            check_owner(root)

    @contextmanager
    def stage(self, *, durable: bool = True) -> Iterator[Staging]:
        """Create a directory for a request, and remove it at the end; its files may leave it only if `durable`."""
        path = self.staging / uuid.uuid4().hex
        with convert_disk_errors(), locked(self.staging / "lock", "the staging area", kind="staging"):
            path.mkdir(mode=0o700)
            lock = acquire_lock(path / "lock", "the staging area", kind="staging")
        try:
            yield Staging(path, durable=durable)
        finally:
            shutil.rmtree(path, ignore_errors=True)
            lock.release()

    def read(self, project_id: str, *parts: Part) -> Snapshot:
        """Open a project as of its newest commit, without a lock.

        Raises ProjectNotFound, or StoreDamaged if a file is missing or damaged.
        """
        self.refresh_known_projects()
        with suppress(NotCached):
            return self.read_cached(project_id, parts)
        return self._read(project_id, lambda directory, project: self.open_parts(directory, project, parts))

    def events(self, project_id: str, after: int, limit: int) -> tuple[Project, Page]:
        """Find up to `limit` events of a project after a version, without a lock.

        Raises ProjectNotFound, or StoreDamaged.
        """

        def look(directory: Path, project: Project) -> tuple[Project, Page]:
            try:
                return project, read_page(directory, project, after, limit)
            except StoreDamaged as error:
                raise in_project(error, project) from error

        return self._read(project_id, look)

    def leases(self, project_id: str) -> Leases:
        """Return a project's leases, including ended ones and those of an earlier pool.

        To select samples, read them before the state. Raises ProjectNotFound for an invalid name, or StoreDamaged.
        """
        return self._read_beside(project_id, LEASES, read_leases, NO_LEASES)

    def draws(self, project_id: str) -> Draws:
        """Return a project's draws, or those of an earlier pool; a damaged file is logged, and counts as none."""
        try:
            return self._read_beside(project_id, DRAWS, read_draws, NO_DRAWS)
        except StoreDamaged as error:
            log.error("%s", error)
            return NO_DRAWS

    def _read_beside(
        self, project_id: str, name: str, read: Callable[[Path], BesideState], nothing: BesideState
    ) -> BesideState:
        """Return the value of a file beside the state, from the cache if the file has not changed."""
        check_name(project_id)
        path, key = f"{self.projects}/{project_id}/{name}", (name, project_id)
        try:
            stamp = Stamp.of(path)
            cached: tuple[Stamp, BesideState] | None = self.cache.get(key)
            is_hit = cached is not None and cached[0] == stamp
            count_cache_lookup(name.removesuffix(".joblib"), is_hit=is_hit)
            if cached is not None and is_hit:
                return cached[1]
            value = read(Path(path))
        except (FileNotFoundError, NotADirectoryError):
            return nothing
        except StoreDamaged as error:
            raise StoreDamaged.of(project_id, str(error)) from error
        self.cache.put(key, (stamp, value), value.n_bytes)
        return value

    def event_of_request(self, project_id: str, key: str) -> tuple[Project, JsonObject] | None:
        """Return a project and the last event of a request with this key; None without either. Raises StoreDamaged."""

        def look(directory: Path, project: Project) -> tuple[Project, JsonObject | None]:
            try:
                return project, event_of(directory, project, key)
            except StoreDamaged as error:
                raise in_project(error, project) from error

        try:
            project, event = self._read(project_id, look)
        except ProjectNotFound:
            return None
        return None if event is None else (project, event)

    def _read(self, project_id: str, look: Callable[[Path, Project], Found]) -> Found:
        """Call `look` with a project's directory and state, again if a writer removed a file in between."""
        for _ in range(READ_TRIES):
            with open_directory(self.directory(project_id), project_id) as directory:
                try:
                    return self._look_once(directory.path, project_id, look)
                except FilesChanged:
                    continue
                except StoreDamaged:
                    # Files that are missing in a directory that was moved away may have been removed with it.
                    if directory.has_its_name():
                        raise
                except OSError as error:
                    if error.errno not in (errno.EMFILE, errno.ENFILE) or len(self.cache) == 0:
                        raise
                    # A mapping holds a file open until it is dropped from the cache and no request uses it.
                    self.cache.drop(lambda _: True)
        raise StoreBusy(f"project {project_id!r}")

    def _look_once(self, directory: Path, project_id: str, look: Callable[[Path, Project], Found]) -> Found:
        project = self.read_state(directory, project_id)
        try:
            return look(directory, project)
        except FileNotFoundError as error:
            if self.read_state(directory, project_id).commit == project.commit:
                raise missing_file_error(project, error) from error
            raise FilesChanged from None

    def read_cached(self, project_id: str, parts: tuple[Part, ...]) -> Snapshot:
        """Return a snapshot from the cache, or raise NotCached; the only file operation is a stat of the state."""
        cached: CachedState | None = self.cache.get(("state", project_id))
        if cached is None or not cached.stamp.matches(f"{self.projects}/{project_id}/{STATE}"):
            raise NotCached
        snapshot = self.open_parts(None, cached.project, parts)
        count_cache_lookup("state", is_hit=True)
        return snapshot

    def open_parts(self, directory: Path | None, project: Project, parts: tuple[Part, ...]) -> Snapshot:
        """Open the files of `parts` that a project's state names; without a directory only cached ones."""
        found: dict[str, Any] = {}
        loader = PartLoader(self.cache, directory, project)
        n_texts = project.n_texts
        if Part.WEIGHTS_OF_MODEL in parts and project.model is not None:
            n_texts = project.model.n_texts
        try:
            for part in parts:
                match part:
                    case Part.POOL:
                        found["pool"] = loader.pool(n_texts)
                    case Part.SUMS:
                        loader.check_rows()
                    case Part.IDS if project.has_ids:
                        found["ids"] = loader.ids()
                    case Part.TEXTS if project.has_texts:
                        found["texts"] = loader.texts()
                    case Part.URLS if project.has_urls:
                        found["urls"] = loader.urls()
                    case Part.MODEL if project.model is not None:
                        found["model"] = loader.model(project.model)
                    case Part.EVENTS:
                        found["events"] = loader.events()
                    case Part.HELD_OUT if project.held_out is not None:
                        found["X_test"] = loader.held_out(project.held_out, n_texts)
                        found["y_test"] = loader.whole(held_out_labels_file(project.held_out))
        except StoreDamaged as error:
            raise in_project(error, project) from error
        return Snapshot(project, **found)

    def read_state(self, directory: Path, project_id: str) -> Project:
        """Return the project in a directory, from the cache if its state has not changed.

        Raises ProjectNotFound or StoreDamaged.
        """
        return self.open_state(directory, project_id).project

    def open_state(self, directory: Path, project_id: str, *, to_end: bool = False) -> CachedState:
        """Return the state in a directory as `read_state` does, with its place on disk.

        A caller that holds the project's lock reads its log `to_end`.
        """
        try:
            stamp = Stamp.of(child(directory, STATE))
        except FileNotFoundError:
            self.forget(project_id)
            if has_lost_state(directory):
                raise StoreDamaged.of(project_id, f"{STATE} is missing") from None
            raise ProjectNotFound(project_id) from None
        cached: CachedState | None = self.cache.get(("state", project_id))
        is_hit = cached is not None and cached.stamp == stamp and (not to_end or cached.is_settled)
        count_cache_lookup("state", is_hit=is_hit)
        if cached is not None and is_hit:
            return cached
        known = None if cached is None else (cached.project, cached.log)
        project, log = load_with_log(directory, project_id, known, to_end=to_end)
        state = CachedState(stamp if is_written(stamp, project) else UNKNOWN, project, log)
        self.cache_state(state)
        return state

    def cache_state(self, cached: CachedState) -> None:
        """Cache a state, and drop cached parts that only earlier states name."""
        project = cached.project
        before: CachedState | None = self.cache.get(("state", project.project_id))
        old = self._pool_ids.get(project.project_id)
        self._pool_ids[project.project_id] = project.pool_id
        self.cache.put(("state", project.project_id), cached, project.n_bytes)
        if before is not None and same_files(before.project, project):
            return
        named, newest = files_of(project), newest_file(project)

        def is_stale(key: Key) -> bool:
            is_of_other_segments = key[2:3] in OF_ALL_SEGMENTS and key[1] != newest
            return key[0] == old and (old != project.pool_id or key[1] not in named or is_of_other_segments)

        self.cache.drop(is_stale)

    def refresh_known_projects(self) -> None:
        """Drop cached projects that other workers deleted or replaced: mapped files occupy the disk."""
        if time.monotonic() < self._refreshed_at + REFRESH_SECONDS:
            return
        self._refreshed_at = time.monotonic()
        for project_id in list(self._pool_ids):
            # Damage is reported by the requests for that project.
            with suppress(OSError, ServiceError):
                self.read_state(self.projects / project_id, project_id)

    def forget(self, project_id: str) -> None:
        """Drop all cached parts of a project."""
        gone = self._pool_ids.pop(project_id, None)
        self._contended.discard(project_id)
        locks.close_kept_in(self.projects / project_id)
        own = [(kind, project_id) for kind in ("state", LEASES, DRAWS, "summary")]
        self.cache.drop(lambda key: key[0] == gone or key in own)

    @contextmanager
    def transaction(
        self, project_id: str, *, create: bool = False, preconditions: Preconditions = UNCONDITIONAL
    ) -> Iterator[Transaction]:
        """Hold a project's lock while it is read, changed and committed.

        With `create`, the first commit creates a missing project. Raises ProjectNotFound,
        PreconditionFailed, TooManyProjects or StoreBusy.
        """
        with ExitStack() as held:
            directory, state = self._open_locked(held, project_id, preconditions if create else None)
            transaction = Transaction(self, project_id, directory, state, is_shared=False)
            transaction.begin(preconditions)
            yield transaction

    def change(
        self, project_id: str, make: Callable[[Transaction], Found], preconditions: Preconditions = UNCONDITIONAL
    ) -> Found:
        """Return `make(transaction)`, called under the project's lock as if it were alone.

        The changes of this process that wait for the lock are made one after another, each on the state that the
        others left, and are written and synced together. Raises as `transaction` and `make` do.
        """
        change = Change(make, preconditions)
        with self._groups.turn(project_id, change) as leads:
            if leads:
                self._change_together(project_id, change)
        return change.result()

    def _change_together(self, project_id: str, own: Change[Found]) -> None:
        """Make a change, and those of other threads that wait for the project."""
        others: list[Change[Any]] = []
        try:
            with ExitStack() as held:
                seconds = locks.LOCK_SECONDS - (time.monotonic() - own.began_at)
                known: CachedState | None = self.cache.get(("state", project_id))
                directory, state = self._open_locked(held, project_id, seconds=max(seconds, 0))
                (self._contended.discard if state is known else self._contended.add)(project_id)
                transaction = Transaction(self, project_id, directory, state, is_shared=True)
                own.run(transaction)
                for other in self._groups.members(project_id):
                    others.append(other)
                    other.run(transaction)
                transaction.flush()
        except BaseException as error:
            for change in [own, *others]:
                change.fail(error)
            if not isinstance(error, Exception):
                raise
        finally:
            for other in others:
                other.end()

    def is_changing(self, project_id: str) -> bool:
        """Return whether a thread of this process is in `change` of a project, or other processes change it as often.

        Then it is likely to change before it is locked.
        """
        return self._groups.are_waiting(project_id) or project_id in self._contended

    def _open_locked(
        self,
        held: ExitStack,
        project_id: str,
        preconditions_of_new: Preconditions | None = None,
        seconds: float | None = None,
    ) -> tuple[Path, CachedState | None]:
        """Lock a project until `held` is closed, waiting up to `seconds`; return its directory and state.

        With preconditions for a new project, a missing one is built, and its state is None. Raises ProjectNotFound,
        PreconditionFailed or TooManyProjects.
        """
        while True:
            state, directory = self._lock_project(held, project_id, seconds), self.directory(project_id)
            if state is not None:
                return directory, state
            if preconditions_of_new is None:
                raise ProjectNotFound(project_id)
            preconditions_of_new.check(None)
            held.enter_context(locked(self.root / "lock", "the data directory", kind="data_directory"))
            if not directory.is_dir():
                return self._build_project(held), None
            held.close()  # another process has just created it

    def _lock_project(self, held: ExitStack, project_id: str, seconds: float | None) -> CachedState | None:
        """Lock a project until `held` is closed, and return its state, None if it does not exist."""
        directory = self.directory(project_id)
        with suppress(ProjectNotFound):
            held.enter_context(self._project_lock(project_id, seconds))
            with suppress(ProjectNotFound):
                return self._settle(directory, self.open_state(directory, project_id, to_end=True))
            self._move_away(directory)
            held.close()
        return None

    def _settle(self, directory: Path, state: CachedState) -> CachedState:
        """Return the state of a locked project after finishing what a process left that died in a commit."""
        if state.log is None or (state.log.is_settled and state.stamp is not UNKNOWN):
            return state
        with convert_disk_errors():
            settled = settle_state(directory, state.project, state.log)
        self.cache_state(settled)
        return settled

    def _project_lock(self, project_id: str, seconds: float | None = None) -> AbstractContextManager[None]:
        return locked(child(self.directory(project_id), "lock"), f"project {project_id!r}", seconds, kind="project")

    def _build_project(self, held: ExitStack) -> Path:
        """Create a locked directory for a new project; the next commit moves it into `projects`.

        The caller holds the lock of the data directory.
        """
        if len(self.project_ids()) >= self.max_projects:
            raise TooManyProjects(self.max_projects)
        directory = held.enter_context(self.stage()).path / "project"
        with convert_disk_errors():
            directory.mkdir(mode=0o700)
        # No other commit may follow before this one is durable.
        held.callback(acquire_lock(directory / "lock", "a new project", kind="project").release)
        return directory

    def _move_away(self, directory: Path) -> None:
        """Remove a directory from `projects` in one step, and then its files. The caller holds its lock."""
        with self.stage() as staging, convert_disk_errors():
            directory.rename(staging.path / "project")
            fsync_directory(self.projects)

    @contextmanager
    def fit_turn(self, project_id: str, seconds: float = FIT_SECONDS) -> Iterator[None]:
        """Hold a project's fit lock; after a wait, the fit may be done already, or the project gone."""
        with self._turn(project_id, FIT_LOCK, seconds, "fit"):
            yield

    @contextmanager
    def lease_turn(self, project_id: str, seconds: float = LOCK_SECONDS) -> Iterator[None]:
        """Hold a project's lease lock: concurrent selections would select the same samples."""
        with self._turn(project_id, LEASE_LOCK, seconds, "lease"):
            yield

    @contextmanager
    def _turn(self, project_id: str, name: str, seconds: float, kind: str) -> Iterator[None]:
        """Hold a lock that may be held for long: other requests run while this one waits for it."""
        path, what = self.directory(project_id) / name, f"project {project_id!r}"
        with ExitStack() as held:
            try:
                held.enter_context(locked(path, what, 0, kind=kind))
            except StoreBusy:
                if seconds == 0:
                    raise
                with slot_yielded(seconds):
                    held.enter_context(locked(path, what, seconds, kind=kind))
            yield

    @contextmanager
    def fitting(self, project_id: str) -> Iterator[None]:
        """Mark the project as being fitted, for all workers. The caller holds its fit lock."""
        with open_directory(self.directory(project_id), project_id) as directory, ExitStack() as marked:
            try:
                marked.enter_context(mark_running(directory.path / FIT_MARK))
            except FileNotFoundError:
                raise ProjectNotFound(project_id) from None
            yield

    def fitting_since(self, project_id: str) -> int | None:
        """Return the start of the running fit, in microseconds since 1970 UTC; None if none is running."""
        return running_since(self.directory(project_id) / FIT_MARK)

    def delete(self, project_id: str, preconditions: Preconditions = UNCONDITIONAL) -> None:
        """Delete a project, even an unreadable one without preconditions.

        Raises ProjectNotFound or PreconditionFailed.
        """
        directory = self.directory(project_id)
        with self.stage() as staging, self._project_lock(project_id), convert_disk_errors():
            exists = (directory / STATE).exists() or has_lost_state(directory)
            if exists and preconditions is not UNCONDITIONAL:
                preconditions.check(self.read_state(directory, project_id))
            directory.rename(staging.path / "project")
            fsync_directory(self.projects)
            self.forget(project_id)
            if not exists:
                raise ProjectNotFound(project_id)

    def project_ids(self) -> list[str]:
        """Return the names of all projects, sorted."""
        return sorted(path.name for path in self.projects.iterdir() if (path / STATE).exists())

    def stamps(self) -> Iterator[tuple[str, tuple[Stamp, Stamp | None]]]:
        """Yield the name of each project and the stamps of its state and leases."""
        for path in self.projects.iterdir():
            with suppress(FileNotFoundError, NotADirectoryError):
                stamp, stamp_of_leases = Stamp.of(path / STATE), None
                with suppress(FileNotFoundError):
                    stamp_of_leases = Stamp.of(path / LEASES)
                yield path.name, (stamp, stamp_of_leases)

    def peek(self, project_id: str) -> Project:
        """Return a project without caching it. Raises ProjectNotFound or StoreDamaged."""
        cached: CachedState | None = self.cache.get(("state", project_id))
        directory = self.directory(project_id)
        if cached is not None and cached.stamp.matches(f"{directory}/{STATE}"):
            return cached.project
        return load_state(directory, project_id)

    def summarize(self, project_id: str, make: Callable[[Project], tuple[Found, int]]) -> Found:
        """Return the summary of a project; `make` returns it with its size.

        It is cached instead of the state, and kept in a file beside it. Raises ProjectNotFound or StoreDamaged.
        """
        key = ("summary", project_id)
        try:
            stamp = Stamp.of(self.directory(project_id) / STATE)
        except FileNotFoundError:
            raise ProjectNotFound(project_id) from None
        cached: tuple[Stamp, Found] | None = self.cache.get(key)
        if cached is not None and cached[0] == stamp:
            return cached[1]
        directory = self.directory(project_id)
        found: tuple[Any, int] | None = read_summary(directory, stamp)
        if found is None:
            project = self.peek(project_id)
            found = make(project)
            if not is_written(stamp, project):
                return found[0]
            write_summary(directory, stamp, project, *found)
        summary, n_bytes = found
        self.cache.put(key, (stamp, summary), n_bytes)
        return summary

    def check_writable(self) -> None:
        """Write and remove a file, or raise OSError or StoreUnwritable."""
        with self.stage() as staging:
            staging.dump(None)

    def sweep(self) -> None:
        """Remove leftovers of dead processes: staged files, unfinished projects, files that no state names.

        On a read-only file system, nothing is removed.
        """
        with suppress(StoreReadOnly):
            self._sweep()

    def _sweep(self) -> None:
        self.replies.sweep()
        self.simulations.sweep()
        with locked(self.staging / "lock", "the staging area", kind="staging"):
            for path in self.staging.iterdir():
                if path.is_dir():
                    with try_lock(path / "lock") as is_rubbish:
                        if is_rubbish:
                            shutil.rmtree(path, ignore_errors=True)
        for directory in self.projects.iterdir():
            if not directory.is_dir():
                continue
            with try_lock(directory / "lock") as is_free:
                if is_free and (directory / STATE).exists():
                    # An unreadable project keeps all its files, from which it may be repaired. Files that cannot be
                    # removed must not prevent the service from starting.
                    with suppress(StoreDamaged, OSError):
                        remove_stale_marks(directory / FIT_MARK)
                        project, end = load_with_log(directory, directory.name, to_end=True)
                        if end is not None and not end.is_settled:
                            settle_state(directory, project, end)
                        sweep_project(directory, project)
                        drop_wrong_summary(directory, project)
                elif is_free and not has_lost_state(directory):
                    with suppress(OSError):
                        self._move_away(directory)

    def directory(self, project_id: str) -> Path:
        """Return the directory of a project. Raises ProjectNotFound for an invalid name."""
        check_name(project_id)
        return child(self.projects, project_id)


def is_written(stamp: Stamp, project: Project) -> bool:
    """Return whether a stamp is that of a whole commit, and not of a file that a writer is changing.

    The clock of a file system may give the next change the same time.
    """
    return stamp.modified == project.updated_at * 1000 or time.time_ns() - stamp.modified > SETTLED_NS
