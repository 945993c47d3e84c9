"""Samples sent to a pool that has some of their ids already: refuse them, leave them out, or replace the old ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from service.domain.project import Project, Segment
from service.domain.sample_ids import PoolIds, SampleId
from service.domain.text_column import PoolTexts, TextColumn
from service.errors import MAX_ERRORS, FieldError, InvalidRequest
from service.learning.pool import Pool, Rows, SparseRows, common_dtype, copy_rows
from service.store import Snapshot
from service.store.files import StagedFile
from service.store.layout import ids_file, rows_files, texts_file, urls_file
from service.store.staging import Staging
from service.usecases.texts import stage_column
from service.usecases.uploads import target_files

IfKnown = Literal["refuse", "ignore", "replace"]
"""What happens to samples whose id the pool has."""


@dataclass(frozen=True, slots=True, eq=False)
class Arrivals:
    """The place of n samples sent: `index` (n,) in the pool with them, and which of them are new (n,)."""

    index: NDArray[np.int64]
    is_new: NDArray[np.bool_]

    @property
    def n_known(self) -> int:
        """The number of samples that the pool has."""
        return len(self.is_new) - int(np.count_nonzero(self.is_new))


@dataclass(frozen=True, slots=True, eq=False)
class SentColumns:
    """Some samples with all that is stored of them but their ids; None where the project has no such column."""

    rows: Rows
    texts: Sequence[str] | None
    urls: Sequence[str] | None

    def take(self, positions: NDArray[np.int64]) -> SentColumns:
        """Return a copy of some of the samples, in the given order."""
        texts, urls = (
            None if column is None else [column[position] for position in positions.tolist()]
            for column in (self.texts, self.urls)
        )
        return SentColumns(copy_rows(self.rows, positions), texts, urls)


def place_samples(snapshot: Snapshot, names: Sequence[SampleId] | None, n_rows: int, if_known: IfKnown) -> Arrivals:
    """Return the places of samples sent to a pool. Raises InvalidRequest for known ones, unless `if_known` allows."""
    index = np.full(n_rows, -1, np.int64)
    if names is not None and snapshot.ids is not None:
        known = snapshot.ids.find_known(names)
        if if_known == "refuse":
            refuse_known([position for position, _ in islice(known, MAX_ERRORS + 1)])
        for position, found in known:
            index[position] = found
    is_new = index < 0
    index[is_new] = snapshot.project.n_samples + np.arange(np.count_nonzero(is_new))
    return Arrivals(index, is_new)


def refuse_known(known: Sequence[int]) -> None:
    """Raise InvalidRequest if there are positions of known ids."""
    problem = 'is in the pool already; "if_known": "ignore" leaves it out, "replace" replaces its features'
    if known:
        raise InvalidRequest(FieldError(f"/ids/{position}", problem) for position in known)


def with_replaced_samples(
    snapshot: Snapshot, index: NDArray[np.int64], given: SentColumns, staging: Staging
) -> tuple[Snapshot, dict[str, StagedFile]]:
    """Return the snapshot with the features, texts and addresses of some samples replaced, and its new files.

    Each segment that has one of them is written again, under a new number: files never change, and a reader has all
    the old ones or all the new ones. Raises InvalidRequest.
    """
    pool, project = snapshot.mapped_pool, snapshot.project
    order = np.argsort(index)
    index, given = index[order], given.take(order)
    homes = np.searchsorted(pool.starts, index, side="right") - 1
    files: dict[str, StagedFile] = {}
    segments, rows = list(project.segments), list(pool.segments)
    parts = {name: list(column.parts) for name, column in columns_of(snapshot).items()}
    for number in np.unique(homes).tolist():
        there = np.flatnonzero(homes == number)
        positions, others = index[there] - pool.starts[number], given.take(there)
        staged = staging.with_rows(rows[number], positions, others.rows, dtype_of_both(rows[number], others.rows))
        project = replace(project, last_file=project.last_file + 1)
        segment = segments[number] = replace(segments[number], number=project.last_file)
        rows[number] = staged.open()
        for name, given_texts in (("texts", others.texts), ("urls", others.urls)):
            if given_texts is not None:
                parts[name][number] = parts[name][number].with_texts(positions, TextColumn.build(given_texts))
        ids = None if snapshot.ids is None else snapshot.ids.parts[number]
        files |= target_files(rows_files(segment), staged)
        files |= {} if ids is None else {ids_file(segment): staging.ids(ids)}
        files |= staged_texts(segment, {name: column[number] for name, column in parts.items()}, staging)
    project = replace(project, segments=tuple(segments)).with_new_features(index)
    texts, urls = (PoolTexts(tuple(parts[name])) if name in parts else None for name in ("texts", "urls"))
    changed = Snapshot(project, Pool(tuple(rows), pool.allows_missing), snapshot.ids, texts, urls)
    return changed, files


def columns_of(snapshot: Snapshot) -> dict[str, PoolTexts]:
    """Return the texts and addresses of a snapshot that it has."""
    columns = {"texts": snapshot.texts, "urls": snapshot.urls}
    return {name: column for name, column in columns.items() if column is not None}


def staged_texts(segment: Segment, columns: dict[str, TextColumn], staging: Staging) -> dict[str, StagedFile]:
    """Write the texts and addresses of a segment to staged files."""
    file_of = {"texts": texts_file, "urls": urls_file}
    staged = {file_of[name](segment): stage_column(column, staging) for name, column in columns.items()}
    return {name: file for name, file in staged.items() if file is not None}


def dtype_of_both(rows: Rows, others: Rows) -> np.dtype[np.generic]:
    """Return the dtype for a segment with other rows: its own if that holds them exactly, else the common one.

    Raises InvalidRequest if there is none.
    """
    values = others.data if isinstance(others, SparseRows) else others
    with np.errstate(all="ignore"):
        if np.array_equal(values.astype(rows.dtype), values, equal_nan=values.dtype.kind == "f"):
            return rows.dtype
    dtype = common_dtype(rows.dtype, others.dtype)
    if dtype is None:
        problem = f"are {others.dtype} and cannot replace rows of {rows.dtype}: no dtype holds both exactly"
        raise InvalidRequest.at("/X", problem)
    return dtype


def refuse_without_ids(project: Project, if_known: IfKnown | None) -> None:
    """Raise InvalidRequest if known samples are to be recognized in a project without ids."""
    if if_known in ("ignore", "replace") and not project.has_ids:
        raise InvalidRequest.at("/if_known", "must be left out: this project was made without ids")


def find_all(ids: PoolIds | None, names: Sequence[SampleId]) -> NDArray[np.int64] | None:
    """Return the indices of samples by their ids (n,), None if one is unknown."""
    found = [None if ids is None else ids.find(name) for name in names]
    return None if None in found else np.array(found, np.int64)
