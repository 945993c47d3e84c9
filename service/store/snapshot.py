"""Snapshots of a project: its state and the opened parts that a reader asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from enum import Enum, auto
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from service.domain.project import HeldOut, ModelRef, Project, Segment
from service.domain.sample_ids import PoolIds, SampleIds
from service.domain.text_column import PoolTexts, TextColumn
from service.errors import ModelDamaged, StoreDamaged
from service.learning.pool import Pool, Rows, count_texts
from service.learning.term_weights import DocumentCounts, TermWeights, sum_counts
from service.learning.texts import weights_of
from service.store.cache import Cache
from service.store.events import Page, read_page
from service.store.files import check_size, check_sum, load, path_in_project
from service.store.layout import (
    LOG,
    first_file,
    ids_file,
    model_file,
    newest_file,
    rows_files,
    texts_file,
    urls_file,
)
from service.store.staging import open_rows
from service.store.state_file import LogEnd


class Part(Enum):
    """The parts of a project that a reader can ask for in addition to its state."""

    POOL = auto()
    IDS = auto()
    TEXTS = auto()
    URLS = auto()
    WEIGHTS_OF_MODEL = auto()
    """Not a part: weight the terms of texts as they were weighted for the model, and not by all texts of the pool."""
    MODEL = auto()
    HELD_OUT = auto()
    EVENTS = auto()
    SUMS = auto()
    """Not a part: also verify the checksums of the pool and the held-out set."""


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """A project as of one commit, with those of the requested parts that it has.

    The pool (n, d) and the held-out set `X_test` are mapped read-only; `y_test` holds class codes. The terms of texts
    are weighted by all texts of the pool, unless the weights of the model were requested.
    """

    project: Project
    pool: Pool | None = None
    ids: PoolIds | None = None
    texts: PoolTexts | None = None
    urls: PoolTexts | None = None
    model: Any = None
    X_test: Pool | None = None
    y_test: NDArray[np.int32] | None = None
    events: Page | None = None

    @property
    def mapped_pool(self) -> Pool:
        """The pool. Raises ValueError for a snapshot that was read without it."""
        if self.pool is None:
            raise ValueError("the snapshot was read without its pool")
        return self.pool


@dataclass(frozen=True, slots=True)
class Stamp:
    """Identifies the file of a state, or of leases, among all that a project had or will have."""

    inode: int
    modified: int
    size: int

    @classmethod
    def of(cls, path: Path | str | int) -> Stamp:
        """Return the stamp of a file, given by its path or as open, or raise FileNotFoundError."""
        status = os.stat(path)  # noqa: PTH116 - called for every request, and building a Path takes longer
        return cls(status.st_ino, status.st_mtime_ns, status.st_size)

    def matches(self, path: str) -> bool:
        """Return whether a file still has this stamp."""
        try:
            return Stamp.of(path) == self
        except FileNotFoundError:
            return False


UNKNOWN = Stamp(0, 0, 0)
"""The stamp of no file: a state that has it is read again."""


@dataclass(frozen=True, slots=True)
class CachedState:
    """A cached state, and the end of the log in its file, None without one."""

    stamp: Stamp
    project: Project
    log: LogEnd | None

    @property
    def is_settled(self) -> bool:
        """Whether nothing follows that only the holder of the project's lock reads."""
        return self.log is None or self.log.is_settled


class NotCached(Exception):
    """A requested part is not cached and has to be read from disk."""


@dataclass(frozen=True, slots=True)
class PartLoader:
    """Opens the files that a state names, unless they are cached: within a pool id, a file never changes.

    Without a directory no file is opened, and a file that is not cached raises NotCached.
    """

    cache: Cache
    directory: Path | None
    project: Project

    def pool(self, n_texts: int | None) -> Pool:
        """Map the pool; terms of texts are weighted by the first `n_texts` texts, None for a pool of numbers."""
        allows_missing = self.project.allows_missing

        def make() -> Pool:
            segments = tuple(map(self._rows, self.project.segments))
            return Pool(segments, allows_missing).weighted(self.weights(n_texts))

        pool: Pool = self._of_all_segments("pool", make, n_texts, allows_missing)
        return pool

    def held_out(self, held_out: HeldOut, n_texts: int | None) -> Pool:
        """Map the held-out set; `n_texts` as for the pool."""
        return Pool.of(self._rows(held_out)).weighted(self.weights(n_texts))

    def ids(self) -> PoolIds:
        """Map the samples' ids."""
        ids: PoolIds = self._of_all_segments("ids", lambda: PoolIds(tuple(map(self._names, self.project.segments))))
        return ids

    def texts(self) -> PoolTexts:
        """Map the samples' texts."""
        return self._texts("texts", texts_file)

    def urls(self) -> PoolTexts:
        """Map the samples' addresses."""
        return self._texts("urls", urls_file)

    def weights(self, n_texts: int | None) -> TermWeights | None:
        """Return the weights of terms that follow from the first `n_texts` texts; None for a pool of numbers."""
        project = self.project
        if n_texts is None or project.text is None:
            return None
        text, n_columns = project.text, project.n_features

        def make() -> tuple[TermWeights, int]:
            counts, n_left = [], n_texts
            for segment in project.segments:
                counts.append(self._term_counts(segment, min(n_left, segment.n_rows)))
                n_left -= min(n_left, segment.n_rows)
            return weights_of(sum_counts(counts), text, n_columns), 4 * n_columns

        numbers = (segment.number for segment in project.segments)
        weights: TermWeights = self._cached("terms", make, "segment", n_texts, *numbers)
        return weights

    def _term_counts(self, segment: Segment, n_rows: int) -> DocumentCounts:
        def make() -> tuple[DocumentCounts, int]:
            counts = count_texts(self._rows(segment), n_rows)
            return counts, counts.n_bytes

        counts: DocumentCounts = self._cached(first_file(segment), make, "segment", n_rows)
        return counts

    def model(self, model: ModelRef) -> Any:
        """Load the model. Raises ModelDamaged if it is damaged, FileNotFoundError if it is missing."""
        try:
            return self.whole(model_file(model.version))
        except StoreDamaged as error:
            raise ModelDamaged(str(error)) from error

    def events(self) -> Page:
        """Map all events."""
        return read_page(self._path(""), self.project, -1, self.project.version + 2)

    def whole(self, file: str) -> Any:
        """Load a file into memory, where it is about as large as on disk."""

        def read() -> tuple[Any, int]:
            path = self._path(file)
            check_sum(path, self.project.checksums.get(file))
            return load(path), path.stat().st_size

        return self._cached(file, read, "model" if file.startswith("models/") else "held_out")

    def check_rows(self) -> None:
        """Raise StoreDamaged if a checksum of the pool, its texts and addresses, or the held-out set is wrong."""
        project = self.project
        files = [file for rows in (*project.segments, project.held_out) if rows for file in rows_files(rows).values()]
        files += [texts_file(segment) for segment in project.segments if project.has_texts]
        files += [urls_file(segment) for segment in project.segments if project.has_urls]
        for file in files:
            check_sum(self._path(file), project.checksums.get(file))

    def _rows(self, rows: Segment | HeldOut) -> Rows:
        files = rows_files(rows)

        def map_rows() -> tuple[Rows, int]:
            paths = {name: self._path(file) for name, file in files.items()}
            # Only `active-query check` reads all bytes of a large pool.
            for name, file in files.items():
                check_size(paths[name], self.project.checksums.get(file))
            mapped = open_rows(paths, self.project.n_features)
            if mapped.shape != (rows.n_rows, self.project.n_features):
                raise StoreDamaged(f"{first_file(rows)} has shape {mapped.shape} and not {rows.n_rows} rows")
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

    def _texts(self, what: Literal["texts", "urls"], file_of: Callable[[Segment], str]) -> PoolTexts:
        def map_texts(segment: Segment) -> TextColumn:
            file = file_of(segment)

            def read() -> tuple[TextColumn, int]:
                path = self._path(file)
                # Only `active-query check` and an export read all texts.
                check_size(path, self.project.checksums.get(file))
                return TextColumn.unpack(load(path, mapped=True)), self.cache.n_bytes_of_mapping

            column: TextColumn = self._cached(file, read, "segment")
            return column

        texts: PoolTexts = self._of_all_segments(what, lambda: PoolTexts(tuple(map(map_texts, self.project.segments))))
        return texts

    def _of_all_segments(
        self,
        what: Literal["pool", "ids", "texts", "urls"],
        make: Callable[[], Pool | PoolIds | PoolTexts],
        *more: Hashable,
    ) -> Any:
        """Return a cached object over all segments; the newest segment, `what` and `more` identify it."""

        def make_with_size() -> tuple[Any, int]:
            # It keeps its segments mapped even after each was dropped from the cache.
            size = self.cache.n_bytes_of_mapping * len(self.project.segments)
            if self.project.allows_missing:
                size += 8 * self.project.n_features  # its medians
            return make(), size

        key = (self.project.pool_id, newest_file(self.project), what, *more)
        return self.cache.get_or_make(key, make_with_size, what)

    def _path(self, file: str) -> Path:
        if self.directory is None:
            raise NotCached
        return self.directory / file

    def _cached(self, file: str, make: Callable[[], tuple[Any, int]], kind: str, *more: int) -> Any:
        return self.cache.get_or_make((self.project.pool_id, file, *more), make, kind)


FILE_NAMING = attrgetter("pool_id", "segments", "has_ids", "has_texts", "has_urls", "held_out", "model")
"""Returns the fields of a project from which the names of its files follow."""


def same_files(one: Project, other: Project) -> bool:
    """Return whether two states of a project name the same files."""
    return bool(FILE_NAMING(one) == FILE_NAMING(other))


def in_project(error: StoreDamaged, project: Project) -> StoreDamaged:
    """Return an error with the name of its project."""
    return type(error).of(project.project_id, str(error))


def missing_file_error(project: Project, error: FileNotFoundError) -> StoreDamaged:
    """Return the error for a state that names a missing file."""
    path = Path(error.filename)
    kind = ModelDamaged if path.parent.name == "models" else StoreDamaged
    name = LOG if path.name == LOG else path_in_project(path)
    return kind.of(project.project_id, f"{name} is missing")
