"""Projects on disk: a directory of joblib files for each, one commit point, one lock. Nothing else knows these files.

    AQ_DATA_DIR/projects/<project_id>/
      lock                   held by a writer around read-change-commit; readers never take it
      fit.lock               held around a fit, so that a burst of labels is answered by one
      state.joblib           the commit point: small, replaced atomically
      pool/000001.joblib     features: uncompressed, immutable, mapped;  000001.ids.joblib: the samples' names
      test/000001.joblib     the held-out set;  000001.y.joblib: its labels
      models/000007.joblib   fitted estimators
    AQ_DATA_DIR/staging/<token>/
      lock                   held by the request at work; a directory whose lock is free is rubbish
      ...                    files on their way into a project, or a project on its way out

A commit moves its staged files into the project, makes them durable, and renames the new state over the old. Before
the rename nothing has happened; after it everything has. The numbers of files never come again, so a file that a
state names is the file it meant, or it is gone and there is a newer state.
"""

from __future__ import annotations

import errno
import os
import pickle
import re
import shutil
import struct
import uuid
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO

import joblib
import numpy as np
from filelock import FileLock, Timeout
from joblib.numpy_pickle import NumpyArrayWrapper
from numpy.typing import NDArray

from service.errors import ProjectNotFound, StoreBusy, StoreDamaged, StoreFull, TooManyProjects, UnknownSchema
from service.ids import SampleIds
from service.project import PROJECT_ID, Project
from service.record import from_record, to_record

Matrix = NDArray[Any]

LOCK_SECONDS = 30.0
"""How long a request waits for another writer before it gives up."""

POLL_SECONDS = 0.005
"""How often a waiting writer looks again; a commit takes a few milliseconds."""

READ_TRIES = 100
"""How often a reader starts again because a writer swept a file away in between."""

ALIGNMENT = 64
"""Rows of a mapped matrix start at a multiple of a cache line."""

STATE = "state.joblib"

# What joblib raises on bytes that it did not write: a broken length, for one, asks for too much memory.
UNREADABLE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    RuntimeError,
    SystemError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
    struct.error,
)


class Part(Enum):
    """What of a project a reader asks for beside its state."""

    POOL = auto()
    IDS = auto()
    MODEL = auto()
    HELD_OUT = auto()


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """A project as of one commit, with the parts that were asked for and that it has.

    `X` is the pool (n, d) and `X_test` the held-out set, both mapped read-only; `y_test` holds class codes.
    """

    project: Project
    X: Matrix | None = None
    ids: SampleIds | None = None
    model: Any = None
    X_test: Matrix | None = None
    y_test: NDArray[np.int32] | None = None


class MatrixWriter:
    """Writes a matrix to a joblib file as its bytes come, holding none of them.

    `finish` checks the number of bytes and makes the file durable, `abandon` only closes it; as a context manager it
    does the one or the other.
    """

    def __init__(self, path: Path, dtype: np.dtype[Any], shape: tuple[int, int]) -> None:
        self.path = path
        self.missing = dtype.itemsize * shape[0] * shape[1]
        self._file = path.open("xb")
        # What joblib.dump writes ahead of an array's bytes: the pickled wrapper without its last opcode, then padding.
        wrapper = NumpyArrayWrapper(
            np.ndarray, shape, "C", dtype, allow_mmap=True, numpy_array_alignment_bytes=ALIGNMENT
        )
        head = pickle.dumps(wrapper, protocol=2).removesuffix(pickle.STOP)
        padding = ALIGNMENT - (len(head) + 1) % ALIGNMENT
        self._file.write(head + bytes([padding]) + b"\xff" * padding)

    def write(self, data: bytes | memoryview) -> None:
        """Append the next bytes, rows first."""
        self.missing -= len(data)
        with disk():
            self._file.write(data)

    def finish(self) -> None:
        """End the matrix; ValueError when bytes are missing."""
        # Closing writes what is still buffered, so a full disk may show only here.
        with disk(), self._file:
            if self.missing:
                raise ValueError(f"{self.missing} bytes are missing from the matrix")
            self._file.write(pickle.STOP)
            settle(self._file)

    def abandon(self) -> None:
        """Leave the matrix as it is; nobody misses what it lacks."""
        with suppress(OSError):
            self._file.close()

    def __enter__(self) -> MatrixWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.finish()
        else:
            self.abandon()


class Staging:
    """A request's own directory, for files that no state names yet. It vanishes with the request."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._names = 0

    def new_path(self) -> Path:
        """Return a path that nothing else in this directory has."""
        self._names += 1
        return self.path / f"{self._names:06d}.joblib"

    def matrix_writer(self, dtype: np.dtype[Any], shape: tuple[int, int]) -> MatrixWriter:
        """Start a matrix of `shape` rows and columns."""
        with disk():
            return MatrixWriter(self.new_path(), dtype, shape)

    def matrix(self, array: Matrix) -> Path:
        """Write a matrix that is in memory."""
        with self.matrix_writer(array.dtype, array.shape) as writer:
            writer.write(np.ascontiguousarray(array).data.cast("B"))
        return writer.path

    def open_matrix(self, path: Path) -> Matrix:
        """Map a staged matrix."""
        matrix: Matrix = load(path, mapped=True)
        return matrix

    def dump(self, value: Any) -> Path:
        """Write any value of ours."""
        path = self.new_path()
        write_joblib(path, value)
        return path

    def ids(self, ids: SampleIds) -> Path:
        """Write the samples' names."""
        return self.dump({"text": ids.text, "starts": ids.starts, "order": ids.order})


class Transaction:
    """A project under its lock: `project` as it is, None where there is none yet."""

    def __init__(self, store: Store, directory: Path, project: Project | None) -> None:
        self.project = project
        self._store = store
        self._directory = directory

    def commit(self, project: Project, staged: Mapping[str, Path] | None = None) -> Project:
        """Make `project` the state, with those of the staged files (target -> where it is now) that only it names.

        A file that the state named before is never written again: it belongs to a model that came first, say.
        """
        new_names = files_of(project) - (files_of(self.project) if self.project else set())
        moved = {target: path for target, path in (staged or {}).items() if target in new_names}
        new = self._directory / f"{STATE}.new"
        with disk(), ExitStack() as undo:
            undo.callback(new.unlink, missing_ok=True)
            new.unlink(missing_ok=True)
            folders = {(self._directory / target).parent for target in moved}
            made = {folder for folder in folders if not folder.exists()}
            for folder in made:
                folder.mkdir(mode=0o700)
            for target, path in moved.items():
                undo.callback((self._directory / target).unlink, missing_ok=True)
                path.rename(self._directory / target)
            for folder in (*folders, *([self._directory] if made else [])):
                settle_directory(folder)
            write_joblib(new, to_record(project))
            new.rename(self._directory / STATE)
            undo.pop_all()
            settle_directory(self._directory)
            if self.project is None:
                settle_directory(self._directory.parent)
        self.project = project
        if moved:
            # The commit stands whatever becomes of the rubbish; what stays is swept when a process starts.
            with suppress(OSError):
                sweep_project(self._directory, project)
        return project

    def read(self, *parts: Part) -> Snapshot:
        """Open parts of the project as it is; nothing changes under the lock."""
        if self.project is None:
            raise ProjectNotFound(self._directory.name)
        try:
            return self._store.open_parts(self._directory, self.project, parts)
        except FileNotFoundError as error:
            raise lacking(self.project, error) from error


class Store:
    """All projects below one directory. Any number of processes and threads may use the same directory."""

    def __init__(self, root: Path, *, cache_bytes: int = 0, max_projects: int = 1_000) -> None:
        self.root = root
        self.projects = root / "projects"
        self.staging = root / "staging"
        self.max_projects = max_projects
        self._models = ModelCache(cache_bytes)
        with disk():
            for folder in (root, self.projects, self.staging):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if root.stat().st_uid == os.geteuid():  # a volume may be lent by its group
                root.chmod(0o700)
            settle_directory(root)

    @contextmanager
    def stage(self) -> Iterator[Staging]:
        """Give a request a directory of its own, and take it away afterwards."""
        path = self.staging / uuid.uuid4().hex
        with disk(), locked(self.staging / "lock", "the staging area"):
            path.mkdir(mode=0o700)
            lock = FileLock(path / "lock")
            lock.acquire()
        try:
            yield Staging(path)
        finally:
            shutil.rmtree(path, ignore_errors=True)
            lock.release()

    def read(self, project_id: str, *parts: Part) -> Snapshot:
        """Open a project as of its newest commit, without a lock.

        Raises ProjectNotFound, or StoreDamaged when a file is missing or not what it must be.
        """
        for _ in range(READ_TRIES):
            with opened_directory(self.directory(project_id), project_id) as directory:
                project = load_state(directory, project_id)
                try:
                    return self.open_parts(directory, project, parts)
                except FileNotFoundError as error:
                    if (directory / STATE).exists() and load_state(directory, project_id).version == project.version:
                        raise lacking(project, error) from error
        raise StoreBusy(project_id)

    def open_parts(self, directory: Path, project: Project, parts: tuple[Part, ...]) -> Snapshot:
        """Open the files of `parts` that a project's state names."""
        found: dict[str, Any] = {}
        try:
            for part in parts:
                match part:
                    case Part.POOL:
                        found["X"] = load(directory / pool_file(project.segments[0].number), mapped=True)
                    case Part.IDS if project.has_ids:
                        ids = load(directory / ids_file(project.segments[0].number), mapped=True)
                        found["ids"] = SampleIds(**ids)
                    case Part.MODEL if project.model is not None:
                        path = directory / model_file(project.model.version)
                        found["model"] = self._models.get((project.incarnation, project.model.version), path)
                    case Part.HELD_OUT if project.held_out is not None:
                        found["X_test"] = load(directory / held_out_file(project.held_out.number), mapped=True)
                        found["y_test"] = load(directory / held_out_labels_file(project.held_out.number))
        except StoreDamaged as error:
            raise StoreDamaged(f"project {project.project_id!r}: {error}") from error
        return Snapshot(project, **found)

    @contextmanager
    def transaction(self, project_id: str, *, create: bool = False) -> Iterator[Transaction]:
        """Hold a project's lock around read-change-commit.

        Raises ProjectNotFound when there is no such project, unless `create`; TooManyProjects; StoreBusy.
        """
        directory = self.directory(project_id)
        with self._locked_directory(directory, create=create), ExitStack() as held:
            project = load_state(directory, project_id) if (directory / STATE).exists() else None
            if project is None:
                held.callback(remove_unborn, directory)
                if not create:
                    raise ProjectNotFound(project_id)
                held.enter_context(self._room_for_one_more())
            yield Transaction(self, directory, project)

    @contextmanager
    def _locked_directory(self, directory: Path, *, create: bool) -> Iterator[None]:
        while True:
            if create:
                with disk():
                    directory.mkdir(mode=0o700, exist_ok=True)
            elif not directory.is_dir():
                raise ProjectNotFound(directory.name)
            try:
                lock = acquired(directory / "lock", directory.name)
            except ProjectNotFound:
                # A sweep took the empty directory for a half-made project, or a DELETE came in between.
                if create:
                    continue
                raise
            break
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def _room_for_one_more(self) -> Iterator[None]:
        with locked(self.root / "lock", "the data directory"):
            if len(self.project_ids()) >= self.max_projects:
                raise TooManyProjects(self.max_projects)
            yield

    @contextmanager
    def fit_turn(self, project_id: str) -> Iterator[None]:
        """Hold a project's turn to fit; whoever waited may find the work done, or the project gone."""
        directory = self.directory(project_id)
        if not directory.is_dir():
            raise ProjectNotFound(project_id)
        with locked(directory / "fit.lock", project_id):
            yield

    def delete(self, project_id: str) -> None:
        """Take a project away, even one that cannot be read, or raise ProjectNotFound."""
        directory = self.directory(project_id)
        with self.stage() as staging, self._locked_directory(directory, create=False), disk():
            if not (directory / STATE).exists():
                remove_unborn(directory)
                raise ProjectNotFound(project_id)
            gone = staging.path / "project"
            directory.rename(gone)
            # Whoever waits for these locks finds them unlinked, and looks for the project anew.
            (gone / "lock").unlink()
            (gone / "fit.lock").unlink(missing_ok=True)
            # The state goes before all else: a reader at work finds the project gone, and no file of it missing.
            (gone / STATE).unlink()
            settle_directory(self.projects)

    def project_ids(self) -> list[str]:
        """List the projects there are, in order of their names."""
        return sorted(path.name for path in self.projects.iterdir() if (path / STATE).exists())

    def check_writable(self) -> None:
        """Write and remove a file, or raise OSError or StoreFull."""
        with self.stage() as staging:
            staging.dump(None)

    def sweep(self) -> None:
        """Remove what dead processes left behind: staged files, half-made projects, files that no state names."""
        with locked(self.staging / "lock", "the staging area"):
            for path in self.staging.iterdir():
                if path.is_dir():
                    with free(path / "lock") as is_rubbish:
                        if is_rubbish:
                            shutil.rmtree(path, ignore_errors=True)
        for directory in self.projects.iterdir():
            if not directory.is_dir():
                continue
            with free(directory / "lock") as is_free:
                if is_free and (directory / STATE).exists():
                    # A project that cannot be read keeps all its files: they are what it can be mended from.
                    with suppress(StoreDamaged):
                        sweep_project(directory, load_state(directory, directory.name))
                elif is_free:
                    remove_unborn(directory)

    def directory(self, project_id: str) -> Path:
        """Return where a project lies. No name can lead elsewhere."""
        if not re.fullmatch(PROJECT_ID, project_id):
            raise ProjectNotFound(project_id[:64])
        return self.projects / project_id


class ModelCache:
    """Fitted models that were loaded lately, up to a number of bytes on disk. Losing it costs only time."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._models: OrderedDict[tuple[str, int], tuple[int, Any]] = OrderedDict()
        self._size = 0
        self._lock = Lock()

    def get(self, key: tuple[str, int], path: Path) -> Any:
        """Return the model of a project's incarnation and model version, loading it when it is not at hand."""
        with self._lock:
            if key in self._models:
                self._models.move_to_end(key)
                return self._models[key][1]
        size, model = path.stat().st_size, load(path)
        with self._lock:
            if key not in self._models:
                self._models[key] = (size, model)
                self._size += size
            while self._size > self.capacity:
                _, (dropped, _) = self._models.popitem(last=False)
                self._size -= dropped
        return model


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


def sweep_project(directory: Path, project: Project) -> None:
    """Remove the files that a project's state does not name. The caller holds its lock."""
    named = files_of(project)
    (directory / f"{STATE}.new").unlink(missing_ok=True)
    for folder in FOLDERS:
        for path in (directory / folder).glob("*"):
            if f"{folder}/{path.name}" not in named:
                path.unlink()


def remove_unborn(directory: Path) -> None:
    """Remove a project's directory when no commit ever made it a project. The caller holds its lock.

    The lock goes last: up to then nobody comes in, and whoever comes then finds an empty directory or none.
    """
    if (directory / STATE).exists():
        return
    for folder in FOLDERS:
        shutil.rmtree(directory / folder, ignore_errors=True)
    with suppress(OSError):
        (directory / f"{STATE}.new").unlink(missing_ok=True)
        (directory / "fit.lock").unlink(missing_ok=True)
        (directory / "lock").unlink()
        directory.rmdir()


def load_state(directory: Path, project_id: str) -> Project:
    """Read the state in a project's directory, or raise ProjectNotFound or StoreDamaged."""
    try:
        return from_record(load(directory / STATE))
    except FileNotFoundError:
        raise ProjectNotFound(project_id) from None
    except UnknownSchema:
        raise
    except (StoreDamaged, *UNREADABLE) as error:
        raise StoreDamaged(f"the state of project {project_id!r} cannot be read") from error


def lacking(project: Project, error: FileNotFoundError) -> StoreDamaged:
    """Return the error for a project that names a file that is not there."""
    return StoreDamaged(f"project {project.project_id!r} lacks its file {Path(error.filename).name}")


def load(path: Path, *, mapped: bool = False) -> Any:
    """Read one of our own files; arrays are mapped read-only on request. Raises StoreDamaged, or FileNotFoundError."""
    try:
        with path.open("rb") as file:
            # A file that begins otherwise joblib would take for a compressed one, and expand it in memory.
            if file.read(1) != pickle.PROTO:
                raise pickle.UnpicklingError("not a pickle")
        return joblib.load(path, mmap_mode="r" if mapped else None)
    except UNREADABLE as error:
        raise StoreDamaged(f"the file {path.parent.name}/{path.name} cannot be read") from error


def write_joblib(path: Path, value: Any) -> None:
    """Write a new file and make it durable; its name becomes durable with its directory."""
    with disk(), path.open("xb") as file:
        joblib.dump(value, file)
        settle(file)


def settle(file: BinaryIO) -> None:
    """Wait until a file's bytes are on disk."""
    file.flush()
    os.fsync(file.fileno())


def settle_directory(path: Path) -> None:
    """Wait until a directory's names are on disk."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


@contextmanager
def opened_directory(path: Path, project_id: str) -> Iterator[Path]:
    """Give a path that stays with this very directory, even if it is moved away and another takes its name."""
    try:
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        raise ProjectNotFound(project_id) from None
    try:
        yield Path(f"/proc/self/fd/{directory}")
    finally:
        os.close(directory)


def acquired(path: Path, what: str) -> FileLock:
    """Take a lock, or raise StoreBusy when it is not to be had, ProjectNotFound when its directory goes away.

    A directory that was gone before is made: that is filelock's way. Whoever holds the lock looks what is in it.
    """
    lock = FileLock(path, timeout=LOCK_SECONDS, poll_interval=POLL_SECONDS)
    try:
        with disk():
            lock.acquire()
    except Timeout:
        raise StoreBusy(what) from None
    except (FileNotFoundError, FileExistsError):
        # The second is how a directory shows that goes away just when filelock makes sure that it is there.
        raise ProjectNotFound(what) from None
    return lock


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold a lock."""
    lock = acquired(path, what)
    try:
        yield
    finally:
        lock.release()


@contextmanager
def free(path: Path) -> Iterator[bool]:
    """Tell whether nobody holds a lock, and hold it meanwhile if so."""
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except (Timeout, FileNotFoundError, FileExistsError):
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


@contextmanager
def disk() -> Iterator[None]:
    """Tell a full disk apart from other failures of the file system."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreFull("no space is left where the projects lie; nothing was changed") from error
        raise
