"""The pool: rows of features in segments, dense or sparse, mapped from disk and read a chunk at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, chain, pairwise
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from service.learning.missing_values import Medians, column_medians, fill_missing
from service.learning.term_weights import DocumentCounts, TermWeights

Matrix = NDArray[Any]
Features = Any
"""Input of estimators: a dense matrix (n, d), or scipy's csr_array."""

CHUNK_CELLS = 2**19
"""Cells of a chunk, 2 MB of float32: a chunk and the results computed from it fit a core's cache."""

MIN_CHUNK_ROWS = 256

MEDIAN_ROWS = 10_000
MEDIAN_CELLS = 2**21
"""Largest number of rows, and of their cells, that the medians are computed from."""


@dataclass(frozen=True, slots=True, eq=False)
class SparseRows:
    """n sparse rows of d features in CSR format.

    Row i has the columns `indices[indptr[i]:indptr[i + 1]]`, in order and without duplicates. The arrays may be mapped
    from disk: they are never read as a whole, as scipy's constructor would. Rows of texts hold the frequencies of
    terms, which are multiplied by `weights` when rows are read.
    """

    data: Matrix
    indices: NDArray[np.integer[Any]]
    indptr: NDArray[np.integer[Any]]
    n_columns: int
    weights: TermWeights | None = None

    def __len__(self) -> int:
        return len(self.indptr) - 1

    @property
    def shape(self) -> tuple[int, int]:
        """The number of rows and columns."""
        return len(self), self.n_columns

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the values."""
        return self.data.dtype

    def part(self, rows: slice) -> Any:
        """Return a run of rows as a csr_array."""
        start, stop, _ = rows.indices(len(self))
        first, last = int(self.indptr[start]), int(self.indptr[stop])
        starts = np.asarray(self.indptr[start : stop + 1]) - first
        values, columns = np.asarray(self.data[first:last]), np.asarray(self.indices[first:last])
        parts = (values, columns, starts.astype(columns.dtype))
        return self._weighted(sparse.csr_array(parts, shape=(stop - start, self.n_columns)))

    def take(self, rows: NDArray[np.integer[Any]]) -> Any:
        """Return a copy of some rows as a csr_array, in the given order."""
        begin = np.asarray(self.indptr[rows], np.int64)
        lengths = np.asarray(self.indptr[rows + 1], np.int64) - begin
        starts = np.zeros(len(rows) + 1, np.int64)
        np.cumsum(lengths, out=starts[1:])
        at = np.repeat(begin - starts[:-1], lengths) + np.arange(starts[-1])
        columns = np.asarray(self.indices[at])
        parts = (np.asarray(self.data[at]), columns, starts.astype(columns.dtype))
        return self._weighted(sparse.csr_array(parts, shape=(len(rows), self.n_columns)))

    def _weighted(self, rows: Any) -> Any:
        return rows if self.weights is None else self.weights.apply(rows)


Rows = Matrix | SparseRows
"""A run of the pool's rows as stored on disk."""


@runtime_checkable
class StagedMatrix(Protocol):
    """A matrix, or one matrix per committee member, validated and written to disk."""

    def open(self) -> Rows:
        """Return the memory-mapped rows."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some rows of one segment: `rows` is their slice of the pool, `within` that of the segment."""

    segment: int
    rows: slice
    within: slice


@dataclass(frozen=True, eq=False)
class Pool:
    """All rows of a project, in one or more segments of one width, all dense or all sparse.

    Where `allows_missing`, NaN is a missing value. With `fill` (d,), it is replaced in all rows that are read.
    """

    segments: tuple[Rows, ...]
    allows_missing: bool = False
    fill: Medians | None = None

    @classmethod
    def of(cls, rows: Rows, *, allows_missing: bool = False) -> Pool:
        """Return a pool of a single segment."""
        return cls((rows,), allows_missing)

    @cached_property
    def medians(self) -> Medians | None:
        """The median of each column in a sample of the rows; None for a pool without missing values.

        The same pool gives the same sample.
        """
        if not self.allows_missing:
            return None
        n_drawn = min(len(self), MEDIAN_ROWS, max(MIN_CHUNK_ROWS, MEDIAN_CELLS // self.cells_per_row))
        drawn = np.random.default_rng(len(self)).choice(len(self), n_drawn, replace=False, shuffle=False)
        return column_medians(self.take(np.sort(drawn)))

    @property
    def imputed(self) -> Pool:
        """The pool with the medians instead of missing values; itself if it has none."""
        # A pool that caches itself is not unmapped before the garbage collector finds it.
        return self._imputed if self.allows_missing else self

    @cached_property
    def _imputed(self) -> Pool:
        return replace(self, allows_missing=False, fill=self.medians)

    def __len__(self) -> int:
        return self.starts[-1]

    @cached_property
    def starts(self) -> list[int]:
        """The position of each segment's first row, followed by the number of rows."""
        return [0, *accumulate(map(len, self.segments))]

    @property
    def n_columns(self) -> int:
        """The number of features."""
        return int(self.segments[0].shape[1])

    @property
    def shape(self) -> tuple[int, int]:
        """The number of rows and columns."""
        return len(self), self.n_columns

    @property
    def is_sparse(self) -> bool:
        """Whether the rows are kept as CSR."""
        return isinstance(self.segments[0], SparseRows)

    @property
    def weights(self) -> TermWeights | None:
        """The weights of the terms of texts, None for rows of numbers."""
        first = self.segments[0]
        return first.weights if isinstance(first, SparseRows) else None

    def weighted(self, weights: TermWeights | None) -> Pool:
        """Return the pool with other weights of terms; rows of numbers have none."""
        if weights is None:
            return self
        segments = tuple(replace(r, weights=weights) if isinstance(r, SparseRows) else r for r in self.segments)
        return replace(self, segments=segments)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The common dtype of all segments."""
        return np.result_type(*(segment.dtype for segment in self.segments))

    def chunks(self, n_outputs: int) -> Iterator[Chunk]:
        """Cut the pool into chunks of about CHUNK_CELLS cells, counting the features or `n_outputs`, whichever is more.

        A thousand outputs of four features must not fill the memory. The edges depend only on the pool and `n_outputs`,
        as matrix products round differently at other edges.
        """
        return chain.from_iterable(self.chunks_of(number, n_outputs) for number in range(len(self.segments)))

    def chunks_of(self, number: int, n_outputs: int) -> Iterator[Chunk]:
        """Cut one segment into its chunks."""
        first = self.starts[number]
        for start, stop in pairwise(self._edges_of(number, n_outputs)):
            yield Chunk(number, slice(first + start, first + stop), slice(start, stop))

    def n_chunks(self, number: int, n_outputs: int) -> int:
        """Return the number of chunks of a segment."""
        return len(self._edges_of(number, n_outputs)) - 1

    def _edges_of(self, number: int, n_outputs: int) -> Sequence[int]:
        if (number, n_outputs) not in self._edges:
            self._edges[number, n_outputs] = chunk_edges(self.segments[number], n_outputs)
        return self._edges[number, n_outputs]

    @cached_property
    def _edges(self) -> dict[tuple[int, int], Sequence[int]]:
        """The cached edges of chunks by segment and number of outputs."""
        return {}

    @cached_property
    def cells_per_row(self) -> int:
        """The number of stored values per row, at least 1: the features, or the typical number of nonzeros.

        For sparse rows it is the root mean square, which weights the long rows that hold most values.
        """
        if not self.is_sparse:
            return self.n_columns
        lengths = [np.diff(rows.indptr).astype(np.float64) for rows in self.segments if isinstance(rows, SparseRows)]
        return max(1, math.ceil(math.sqrt(sum(float(of @ of) for of in lengths) / len(self))))

    def read(self, chunk: Chunk) -> Features:
        """Return the rows of a chunk; dense ones without copying them."""
        return self._filled(part(self.segments[chunk.segment], chunk.within))

    def take(self, positions: NDArray[np.integer[Any]]) -> Features:
        """Return a copy of some rows in the given order: dense (k, d), or a csr_array."""
        positions = np.asarray(positions)
        if len(self.segments) == 1 or len(positions) == 0:
            return self._filled(take_rows(self.segments[0], positions))
        home = np.searchsorted(self.starts, positions, side="right") - 1
        numbers = np.unique(home)
        parts = [take_rows(self.segments[n], positions[home == n] - self.starts[n]) for n in numbers.tolist()]
        order = np.argsort(np.argsort(home, kind="stable"), kind="stable")
        return self._filled(stack_rows(parts, self.dtype, self.n_columns)[order])

    def _filled(self, X: Features) -> Features:
        return X if self.fill is None else fill_missing(X, self.fill)


def count_texts(rows: Rows, n_rows: int) -> DocumentCounts:
    """Return how many of the first `n_rows` texts have each term."""
    if not isinstance(rows, SparseRows):
        raise TypeError("rows of texts are sparse")
    return DocumentCounts.of(rows.indices[: int(rows.indptr[n_rows])], n_rows)


def part(rows: Rows, within: slice) -> Features:
    """Return a run of rows; dense ones without copying them."""
    return rows.part(within) if isinstance(rows, SparseRows) else np.asarray(rows[within])


def take_rows(rows: Rows, positions: NDArray[np.integer[Any]]) -> Features:
    """Return a copy of some rows of a segment."""
    return rows.take(positions) if isinstance(rows, SparseRows) else np.asarray(rows[positions])


def copy_rows(rows: Rows, positions: NDArray[np.integer[Any]]) -> Rows:
    """Return a copy of some rows of a segment, kept as they are stored."""
    if not isinstance(rows, SparseRows):
        return np.asarray(rows[positions])
    taken = rows.take(positions)
    return SparseRows(taken.data, taken.indices, taken.indptr, rows.n_columns)


def stack_rows(parts: Sequence[Features], dtype: np.dtype[Any], n_columns: int) -> Features:
    """Return matrices of one kind, stacked vertically."""
    if not parts:
        return np.empty((0, n_columns), dtype)
    if sparse.issparse(parts[0]):
        return sparse.vstack(parts, format="csr", dtype=dtype)
    return np.concatenate(parts, dtype=dtype)


def chunk_edges(rows: Rows, n_outputs: int) -> Sequence[int]:
    """Return the first row of each chunk of a segment, followed by its number of rows.

    Sparse rows may differ widely in length, so their nonzeros are counted.
    """
    n_rows, most = len(rows), max(MIN_CHUNK_ROWS, CHUNK_CELLS // max(n_outputs, 1))
    if not isinstance(rows, SparseRows):
        step = min(most, max(MIN_CHUNK_ROWS, CHUNK_CELLS // max(int(rows.shape[1]), 1)))
        return [*range(0, n_rows, step), n_rows]
    edges = [0]
    while edges[-1] < n_rows:
        start = edges[-1]
        full = int(np.searchsorted(rows.indptr, rows.indptr[start] + CHUNK_CELLS, side="right")) - 1
        edges.append(min(max(full, start + 1), start + most, n_rows))
    return edges


def count_cells(rows: Rows) -> int:
    """Return the number of stored values, plus one for each sparse row."""
    return len(rows.data) + len(rows) if isinstance(rows, SparseRows) else len(rows) * int(rows.shape[1])


def common_dtype(one: np.dtype[Any], other: np.dtype[Any]) -> np.dtype[Any] | None:
    """Return the dtype of up to 64 bits that holds the numbers of both exactly, or None."""
    common = np.result_type(one, other)
    # numpy's "safe" cast to float64 rounds integers beyond 2**53.
    is_exact = common.kind in (one.kind, other.kind) and not (
        common.kind == "f" and any(dtype.kind in "iu" and dtype.itemsize == 8 for dtype in (one, other))
    )
    return common if is_exact else None


def concatenate_rows(upper: Rows, lower: Rows) -> Rows:
    """Return a copy of two runs of rows of one kind, stacked vertically in their common dtype."""
    if isinstance(upper, SparseRows) and isinstance(lower, SparseRows):
        starts = np.concatenate([upper.indptr, lower.indptr[1:] + upper.indptr[-1]])
        index_type = np.result_type(upper.indices, lower.indices)
        return SparseRows(
            np.concatenate([upper.data, lower.data]),
            np.concatenate([upper.indices, lower.indices]).astype(index_type, copy=False),
            starts.astype(index_type, copy=False),
            upper.n_columns,
        )
    return np.concatenate([upper, lower])
