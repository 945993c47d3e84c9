"""What a reader gets of a project: its state, told by its file, and the parts that the state names, opened once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from service.domain.project import HeldOut, ModelRef, Project, Segment
from service.domain.sample_ids import PoolIds, SampleIds
from service.errors import ModelDamaged, StoreDamaged
from service.learning.pool import Pool, Rows
from service.store.cache import Cache
from service.store.events import Page, read_page
from service.store.files import check_size, check_sum, load, path_in_project
from service.store.layout import LOG, first_file, ids_file, model_file, rows_files
from service.store.staging import open_rows


class Part(Enum):
    """What of a project a reader asks for beside its state."""

    POOL = auto()
    IDS = auto()
    MODEL = auto()
    HELD_OUT = auto()
    EVENTS = auto()
    SUMS = auto()
    """No part, but that the bytes of the pool and the held-out set are looked at, too."""


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """A project as of one commit, with the parts that were asked for and that it has.

    The pool (n, d) and the held-out set `X_test` are mapped read-only; `y_test` holds class codes.
    """

    project: Project
    pool: Pool | None = None
    ids: PoolIds | None = None
    model: Any = None
    X_test: Pool | None = None
    y_test: NDArray[np.int32] | None = None
    events: Page | None = None


@dataclass(frozen=True, slots=True)
class Stamp:
    """What tells the file of a state, or of leases, from every other that a project had or will have."""

    inode: int
    modified: int
    size: int

    @classmethod
    def of(cls, path: Path | str) -> Stamp:
        """Look at a file, or raise FileNotFoundError."""
        status = os.stat(path)  # noqa: PTH116 - asked at every request, where a Path takes longer than the look
        return cls(status.st_ino, status.st_mtime_ns, status.st_size)

    def matches(self, path: str) -> bool:
        """Tell whether a file is the one that was looked at."""
        try:
            return Stamp.of(path) == self
        except FileNotFoundError:
            return False


@dataclass(frozen=True, slots=True)
class CachedState:
    """A state at hand. `is_durable` tells whether it is known to be on disk for good, and not only to be visible."""

    stamp: Stamp
    project: Project
    is_durable: bool


class NotCached(Exception):
    """What is asked for has to be read from disk."""


@dataclass(frozen=True, slots=True)
class PartLoader:
    """Opens the files that a state names, unless they are at hand: a file is what it is for its incarnation's life.

    Without a directory nothing is opened, and what is not at hand raises NotCached.
    """

    cache: Cache
    directory: Path | None
    project: Project

    def pool(self) -> Pool:
        """Map the pool."""
        pool: Pool = self._of_all_segments("pool", lambda: Pool(tuple(map(self._rows, self.project.segments))))
        return pool

    def held_out(self, held_out: HeldOut) -> Pool:
        """Map the held-out set."""
        return Pool.of(self._rows(held_out))

    def ids(self) -> PoolIds:
        """Map the samples' names."""
        ids: PoolIds = self._of_all_segments("ids", lambda: PoolIds(tuple(map(self._names, self.project.segments))))
        return ids

    def model(self, model: ModelRef) -> Any:
        """Load the model. Raises ModelDamaged where it cannot be had, if not because it was swept just now."""
        try:
            return self.whole(model_file(model.version))
        except StoreDamaged as error:
            raise ModelDamaged(str(error)) from error

    def events(self) -> Page:
        """Map all events."""
        return read_page(self._path(""), self.project, -1, self.project.version + 2)

    def whole(self, file: str) -> Any:
        """Load a file that is kept in memory: about as large there as it is on disk."""

        def read() -> tuple[Any, int]:
            path = self._path(file)
            check_sum(path, self.project.checksums.get(file))
            return load(path), path.stat().st_size

        return self._cached(file, read, "model" if file.startswith("models/") else "held_out")

    def check_rows(self) -> None:
        """Raise StoreDamaged unless every byte of the pool and the held-out set is as it was written."""
        held_out = self.project.held_out
        for rows in (*self.project.segments, *(() if held_out is None else (held_out,))):
            for file in rows_files(rows).values():
                check_sum(self._path(file), self.project.checksums.get(file))

    def _rows(self, rows: Segment | HeldOut) -> Rows:
        files = rows_files(rows)

        def map_rows() -> tuple[Rows, int]:
            paths = {name: self._path(file) for name, file in files.items()}
            # The bytes of a large pool are looked at by `active-query check` alone.
            for name, file in files.items():
                check_size(paths[name], self.project.checksums.get(file))
            mapped = open_rows(paths, self.project.n_features)
            if mapped.shape != (rows.n_rows, self.project.n_features):
                raise StoreDamaged(f"{first_file(rows)} holds {mapped.shape} and not {rows.n_rows} rows")
            return mapped, self.cache.n_bytes_of_mapping * len(files)

        kind = "segment" if isinstance(rows, Segment) else "held_out"
        mapped: Rows = self._cached(first_file(rows), map_rows, kind)
        return mapped

    def _names(self, segment: Segment) -> SampleIds:
        file = ids_file(segment)

        def map_names() -> tuple[SampleIds, int]:
            path = self._path(file)
            check_sum(path, self.project.checksums.get(file))
            return SampleIds.unpack(load(path, mapped=True)), self.cache.n_bytes_of_mapping

        names: SampleIds = self._cached(file, map_names, "segment")
        return names

    def _of_all_segments(self, what: Literal["pool", "ids"], make: Callable[[], Pool | PoolIds]) -> Any:
        """Return what is made of all segments, which follows from the last: others are never put behind that one."""
        segments = self.project.segments
        # It keeps its segments mapped, even where each by itself was let go of.
        size = self.cache.n_bytes_of_mapping * len(segments)
        key = (self.project.pool_id, first_file(segments[-1]), what)
        return self.cache.get_or_make(key, lambda: (make(), size), what)

    def _path(self, file: str) -> Path:
        if self.directory is None:
            raise NotCached
        return self.directory / file

    def _cached(self, file: str, make: Callable[[], tuple[Any, int]], kind: str) -> Any:
        return self.cache.get_or_make((self.project.pool_id, file), make, kind)


def same_files(one: Project, other: Project) -> bool:
    """Tell whether two states of a project name the same files."""
    names = ("pool_id", "segments", "has_ids", "held_out", "model")
    return all(getattr(one, name) == getattr(other, name) for name in names)


@contextmanager
def error_context(project: Project) -> Iterator[None]:
    """Say of which project a file is damaged."""
    try:
        yield
    except StoreDamaged as error:
        raise type(error).of(project.project_id, str(error)) from error


def missing_file_error(project: Project, error: FileNotFoundError) -> StoreDamaged:
    """Return the error for a project that names a file that is not there."""
    path = Path(error.filename)
    kind = ModelDamaged if path.parent.name == "models" else StoreDamaged
    name = LOG if path.name == LOG else path_in_project(path)
    return kind.of(project.project_id, f"{name} is missing")
