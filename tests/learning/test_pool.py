"""The pool: fixed edges of chunks, and the same rows in any storage format."""

import gc
import weakref
from itertools import pairwise

import numpy as np
import pytest
from scipy import sparse

from service.learning.pool import CHUNK_CELLS, MIN_CHUNK_ROWS, Pool, SparseRows

X = np.random.default_rng(0).integers(0, 3, (1000, 5)) * np.random.default_rng(1).integers(0, 2, (1000, 5)) * 1.5


def compressed(rows, index_type=np.int32):
    csr = sparse.csr_array(rows)
    return SparseRows(csr.data, csr.indices.astype(index_type), csr.indptr.astype(index_type), csr.shape[1])


KINDS = {"dense": lambda rows: rows, "sparse": compressed, "wide indices": lambda rows: compressed(rows, np.int64)}


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


@pytest.fixture(params=[[1000], [300, 700], [1, 998, 1]], ids=str)
def pool(request, kind):
    edges = np.cumsum([0, *request.param])
    return Pool(tuple(kind(X[a:b]) for a, b in pairwise(edges)))


def dense(rows):
    return rows.toarray() if sparse.issparse(rows) else rows


@pytest.mark.parametrize(
    ("n_rows", "n_columns", "n_outputs", "edges"),
    [
        (1, 64, 2, [(0, 1)]),
        (8192, 64, 2, [(0, 8192)]),
        (8193, 64, 2, [(0, 8192), (8192, 8193)]),
        (600, CHUNK_CELLS, 2, [(0, 256), (256, 512), (512, 600)]),
        (600, 1, CHUNK_CELLS, [(0, 256), (256, 512), (512, 600)]),
        (600_000, 1, 1, [(0, 524_288), (524_288, 600_000)]),
    ],
)
def test_chunks_have_fixed_edges(n_rows, n_columns, n_outputs, edges):
    pool = Pool.of(np.broadcast_to(np.float32(0), (n_rows, n_columns)))
    assert [(chunk.rows.start, chunk.rows.stop) for chunk in pool.chunks(n_outputs)] == edges


def test_chunks_cover_every_row_once_and_cross_no_segment(pool, monkeypatch):
    monkeypatch.setattr("service.learning.pool.CHUNK_CELLS", 5 * MIN_CHUNK_ROWS)
    chunks = list(pool.chunks(1))
    assert [row for chunk in chunks for row in range(1000)[chunk.rows]] == list(range(1000))
    assert np.array_equal(np.concatenate([dense(pool.read(chunk)) for chunk in chunks]), X)
    assert all(chunk.within.stop <= len(pool.segments[chunk.segment]) for chunk in chunks)


@pytest.mark.parametrize(
    "positions", [[0], [999, 0], [5, 5, 5], [299, 300, 301, 0, 999], [], list(range(1000))[::-7]], ids=len
)
def test_take_returns_any_rows_in_any_order(pool, positions):
    take_rows = pool.take(np.array(positions, np.int64))
    assert np.array_equal(dense(take_rows), X[positions])
    assert sparse.issparse(take_rows) == pool.is_sparse


def test_take_returns_a_copy(pool):
    rows = pool.take(np.arange(10))
    values = rows.data if pool.is_sparse else rows
    values[:] = 9
    assert np.array_equal(dense(pool.take(np.arange(10))), X[:10])


def test_segments_of_several_types_are_read_in_their_common_type():
    pool = Pool((np.array([[1]], np.int32), np.array([[0.5]], np.float32)))
    assert pool.dtype == np.float64
    assert pool.take(np.array([1, 0])).tolist() == [[0.5], [1]]


def test_a_dense_chunk_is_not_copied():
    pool = Pool((X[:300], X[300:]))
    assert all(np.shares_memory(pool.read(chunk), X) for chunk in pool.chunks(1))


def test_empty_sparse_rows_are_read():
    rows = compressed(np.zeros((4, 3)))
    assert rows.part(slice(1, 3)).toarray().tolist() == [[0] * 3] * 2
    assert rows.take(np.array([3, 0])).toarray().tolist() == [[0] * 3] * 2


def skewed():
    """Rows of which a few hold most of the values."""
    lengths = np.where(np.arange(3000) % 1000 == 500, 100_000, 3)
    starts = np.cumsum([0, *lengths]).astype(np.int32)
    columns = np.concatenate([np.arange(length, dtype=np.int32) for length in lengths])
    return SparseRows(np.ones(len(columns)), columns, starts, 100_000)


def test_chunks_of_uneven_sparse_rows_hold_similar_numbers_of_values(monkeypatch):
    monkeypatch.setattr("service.learning.pool.CHUNK_CELLS", 2**14)
    pool = Pool.of(skewed())
    chunks = list(pool.chunks(2))
    assert [row for chunk in chunks for row in range(3000)[chunk.rows]] == list(range(3000))
    held = [pool.read(chunk).nnz for chunk in chunks]
    assert sorted(held)[-3:] == [100_000] * 3  # a row is not cut
    assert max(sorted(held)[:-3]) <= 2**14


def test_cells_per_row_weight_long_rows():
    assert Pool.of(skewed()).cells_per_row > 3000
    assert Pool.of(compressed(np.ones((10, 4)))).cells_per_row == 4
    assert Pool.of(compressed(np.zeros((10, 4)))).cells_per_row == 1
    assert Pool.of(np.ones((10, 4))).cells_per_row == 4


@pytest.mark.parametrize("allows_missing", [False, True])
def test_a_pool_is_unmapped_without_garbage_collection(allows_missing):
    pool = Pool.of(X.astype(float), allows_missing=allows_missing)
    assert pool.imputed.shape == X.shape
    is_alive = weakref.ref(pool)
    gc.disable()
    try:
        del pool
        assert is_alive() is None
    finally:
        gc.enable()
