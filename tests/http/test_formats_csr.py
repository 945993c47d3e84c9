"""scipy's .npz from untrusted clients: valid archives are read, invalid ones refused."""

import io
import tracemalloc
import zipfile

import numpy as np
import pytest
from scipy import sparse

from service.errors import InvalidRequest
from service.http.body.formats import csr
from service.http.body.formats.spool import FileSink
from service.store.staging import Staging
from tests.support.npy import npy

MATRIX = sparse.csr_array(np.array([[0, 1.5, 0], [0, 0, 0], [-2, 0, 3]]))


@pytest.fixture(scope="module")
def staging(tmp_path_factory):
    """One directory for all tests of this file; staged files have unique names."""
    return Staging(tmp_path_factory.mktemp("staging"))


def npz(matrix, **options):
    file = io.BytesIO()
    sparse.save_npz(file, matrix, **options)
    return file.getvalue()


ARRAYS = {
    "format": np.array(b"csr"),
    "shape": np.array([3, 3]),
    "data": np.array([1.5, -2, 3]),
    "indices": np.array([1, 0, 2], np.int32),
    "indptr": np.array([0, 1, 1, 3], np.int32),
}


def archive(compression=zipfile.ZIP_DEFLATED, extra=(), **changes):
    """An archive of the arrays of MATRIX with some of them changed: an array, bytes, or None to leave it out."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as zipped:
        for name, value in [*(ARRAYS | changes).items(), *extra]:
            if value is not None:
                zipped.writestr(f"{name}.npy", value if isinstance(value, bytes) else npy(value))
    return file.getvalue()


def read(staging, data, max_cells=10**6):
    def reader(path):
        return csr.read_csr(path, "/X", staging, max_cells)

    sink = FileSink("/X", staging.new_path(), reader)
    sink.write(data)
    return sink.close()


def refused(staging, data, **options):
    """Read a bad archive, and return the pointer and detail of its error."""
    with pytest.raises(InvalidRequest) as caught:
        read(staging, data, **options)
    (error,) = caught.value.errors
    return error.pointer, error.detail


# Right archives.


def as_scipy(staged):
    rows = staged.open()
    return rows.part(slice(None))


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("kind", [sparse.csr_array, sparse.csr_matrix])
@pytest.mark.parametrize("dtype", ["f4", "f8", "i1", "i4", "u8"])
def test_a_saved_matrix_is_read(staging, kind, compressed, dtype):
    matrix = kind(sparse.random_array((500, 40), density=0.1, rng=np.random.default_rng(0)) * 100).astype(dtype)
    staged = read(staging, npz(matrix, compressed=compressed))
    assert staged.is_sparse
    assert (staged.n_rows, staged.n_columns) == (500, 40)
    kept = as_scipy(staged)
    assert kept.dtype == dtype
    assert np.array_equal(kept.toarray(), matrix.toarray())


@pytest.mark.parametrize(
    ("dtype", "kept"), [("f2", "f4"), ("?", "u1"), ("f4", "f4"), ("i8", "i8"), (">f8", "f8"), (">i2", "i2")]
)
def test_a_type_that_scipy_cannot_compute_with_is_widened(staging, dtype, kept):
    staged = read(staging, archive(data=np.array([1, 0, 1], dtype)))
    assert staged.open().dtype == kept
    assert as_scipy(staged).toarray().tolist() == [[0, 1, 0], [0, 0, 0], [0, 0, 1]]


def test_columns_are_sorted_and_repeated_ones_summed(staging):
    arrays = {
        "data": np.array([1.0, 2, 4, 8, 16, 32]),
        "indices": np.array([2, 0, 2, 1, 1, 0]),
        "indptr": np.array([0, 3, 3, 6]),
    }
    rows = read(staging, archive(**arrays)).open()
    assert rows.indices.tolist() == [0, 2, 0, 1]
    assert rows.data.tolist() == [2, 5, 32, 24]
    assert rows.indptr.tolist() == [0, 2, 2, 4]
    assert rows.indices.dtype == rows.indptr.dtype == np.int32


def test_a_matrix_without_values_is_read(staging):
    rows = read(staging, npz(sparse.csr_array((5, 3)))).open()
    assert rows.part(slice(1, 4)).toarray().tolist() == [[0, 0, 0]] * 3
    assert rows.take(np.array([4, 0])).nnz == 0


@pytest.mark.parametrize("order", ["sorted", "shuffled"])
def test_rows_over_several_blocks_are_read(staging, order):
    rng = np.random.default_rng(1)
    matrix = sparse.csr_array(sparse.random_array((3 * csr.BLOCK_ROWS + 7, 500), density=0.08, rng=rng))
    if order == "shuffled":
        for i in range(len(matrix.indptr) - 1):
            part = slice(matrix.indptr[i], matrix.indptr[i + 1])
            matrix.indices[part], matrix.data[part] = matrix.indices[part][::-1].copy(), matrix.data[part][::-1].copy()
    assert matrix.nnz > 3 * csr.BLOCK_VALUES
    kept = as_scipy(read(staging, npz(matrix), max_cells=10**7))
    assert (kept != matrix).nnz == 0
    assert (np.diff(kept.indices)[np.diff(np.repeat(np.arange(kept.shape[0]), np.diff(kept.indptr))) == 0] > 0).all()


def test_a_row_may_be_longer_than_a_block(staging):
    matrix = sparse.csr_array(np.arange(1, 2 * csr.BLOCK_VALUES + 1, dtype=np.float64)[None])
    assert np.array_equal(as_scipy(read(staging, npz(matrix))).toarray(), matrix.toarray())


@pytest.mark.parametrize("n_values", [4, csr.BLOCK_VALUES + 3, 3 * csr.BLOCK_VALUES])
def test_a_row_with_repeated_columns_may_have_more_entries_than_columns(staging, n_values):
    columns = np.random.default_rng(4).integers(0, 3, n_values)
    arrays = {
        "data": np.r_[7, np.ones(n_values, int), 9],
        "indices": np.r_[1, columns, 2],
        "indptr": np.array([0, 1, n_values + 1, n_values + 2]),
    }
    kept = as_scipy(read(staging, archive(**arrays))).toarray()
    assert kept.tolist() == [[0, 7, 0], np.bincount(columns, minlength=3).tolist(), [0, 0, 9]]
    assert "AQ_MAX_POOL_CELLS" in refused(staging, archive(**arrays), max_cells=n_values + 4)[1]


# Wrong archives.

WRONG = [
    (archive(format=np.array(b"csc")), "/X", "send .tocsr()"),
    (npz(MATRIX.tocsc()), "/X", "send .tocsr()"),
    (npz(MATRIX.tocoo()), "/X", "send .tocsr()"),
    (npz(MATRIX.tobsr()), "/X", "send .tocsr()"),
    (npz(MATRIX.todia()), "/X", "send .tocsr()"),
    (archive(format=npy(np.array({}, object))), "/X", "nothing is unpickled"),
    (archive(format=np.array(1)), "/X", "format.npy"),
    (archive(format=np.array("x" * 10_000)), "/X", "format.npy"),
    (archive(format=None), "/X", "scipy.sparse.save_npz"),
    (archive(data=None), "/X", "'data.npy' is missing"),
    (archive(extra=[("other", np.zeros(1))]), "/X", "'other.npy' is missing or unknown"),
    (archive(compression=zipfile.ZIP_BZIP2), "/X", "is compressed"),
    (archive(compression=zipfile.ZIP_LZMA), "/X", "is compressed"),
    (archive(shape=np.array([3, 3, 3])), "/X", "shape.npy"),
    (archive(shape=np.array([3.0, 3.0])), "/X", "shape.npy"),
    (archive(shape=np.array([0, 3])), "/X", "must have rows and columns"),
    (archive(shape=np.array([3, -1])), "/X", "must have rows and columns"),
    (archive(shape=np.array([3, csr.MAX_COLUMNS + 1])), "/X", "are allowed"),
    (archive(shape=np.array([2, 3])), "/X", "lengths"),
    (archive(shape=np.array([2**40, 3])), "/X", "lengths"),
    (archive(shape=np.array([3, 2])), "/X", "has column 2 in row 2"),
    (archive(indices=np.array([1, -1, 2])), "/X", "has column -1 in row 2"),
    (archive(indices=np.array([1, 0, 2**40])), "/X", "has column 1099511627776 in row 2"),
    (archive(indices=np.array([1, 0])), "/X", "lengths"),
    (archive(indices=np.array([1.0, 0, 2])), "/X", "indices.npy holds float64"),
    (archive(indices=np.array([[1, 0, 2]])), "/X", "dimensions"),
    (archive(indptr=np.array([1, 1, 1, 3])), "/X", "start at 0"),
    (archive(indptr=np.array([0, 2, 1, 3])), "/X", "at row 1 decreases"),
    (archive(indptr=np.array([0, 1, 1, 2])), "/X", "lengths"),
    (archive(indptr=np.array([0, 1, 1, 4])), "/X", "lengths"),
    (archive(indptr=np.array([0, -(2**63), 1, 3])), "/X", "decreases"),
    (archive(indptr=np.array([0, 2**62, 2**63 - 1, 3])), "/X", "decreases"),
    (archive(data=np.array(["a", "b", "c"])), "/X", "data.npy holds"),
    (archive(data=np.array([1, 2, 3j])), "/X", "data.npy: holds"),
    (archive(data=np.array([1, 2, 3], "g")), "/X", "data.npy: holds"),
    (archive(data=np.array([1, np.nan, np.inf])), "/X/2/2", "finite"),
    (archive(data=np.array([1, 2, -np.inf], "f2")), "/X/2/2", "finite"),
    (archive(data=npy(ARRAYS["data"])[:-1]), "/X", "fewer bytes"),
    (archive(data=npy(ARRAYS["data"]) + b"\0"), "/X", "more bytes"),
    (archive(data=b""), "/X", "ends within its .npy header"),
    (archive(data=b"no array"), "/X", "magic"),
    (b"PK\x03\x04", "/X", "not a readable archive"),
    (b"PK\x05\x06" + bytes(18), "/X", "save_npz"),
    (b"", "/X", "not a readable archive"),
]


@pytest.mark.parametrize(("data", "pointer", "excerpt"), WRONG)
def test_a_wrong_archive_is_refused(staging, data, pointer, excerpt):
    where, detail = refused(staging, data)
    assert where == pointer
    assert excerpt in detail


@pytest.mark.parametrize(
    "duplicates",
    [np.array([200, 100, 1], "u1"), np.array([-(2**62), -(2**62) - 9, -(2**62)]), np.array([3e38, 3e38, 1], "f4")],
)
def test_values_of_one_cell_whose_sum_overflows_are_refused(staging, duplicates):
    arrays = {"data": duplicates, "indices": np.array([1, 1, 1]), "indptr": np.array([0, 0, 3, 3])}
    pointer, detail = refused(staging, archive(**arrays))
    assert (pointer, detail) == ("/X/1/1", "must be a finite number") or "whose sum" in detail


def test_a_matrix_of_too_many_values_or_rows_is_refused(staging):
    assert read(staging, archive(), max_cells=6).n_rows == 3
    assert "AQ_MAX_POOL_CELLS allows 5" in refused(staging, archive(), max_cells=5)[1]


@pytest.mark.parametrize("compressed", [True, False])
def test_a_truncated_archive_is_refused(staging, compressed):
    data = npz(MATRIX, compressed=compressed)
    for length in range(len(data)):
        assert refused(staging, data[:length])[0] == "/X"


def test_mutated_archives_are_read_or_refused(staging):
    rng = np.random.default_rng(2)
    sources = [np.frombuffer(npz(MATRIX, compressed=compressed), np.uint8) for compressed in (True, False)]
    n_refused = 0
    for n in range(2_000):
        data = sources[n % 2].copy()
        at = rng.integers(0, len(data), rng.integers(1, 6))
        data[at] = rng.integers(0, 256, len(at))
        try:
            read(staging, data.tobytes())
        except InvalidRequest:
            n_refused += 1
    assert n_refused > 1_000


@pytest.mark.slow
def test_a_member_longer_than_its_header_says_takes_little_memory(staging):
    bomb = archive(data=npy(ARRAYS["data"]) + bytes(2**27), indices=npy(ARRAYS["indices"]) + bytes(2**27))
    one_cell = archive(data=npy(np.zeros(2**23)), indices=npy(np.zeros(2**23, "i4")), indptr=np.array([0, 1, 1, 2**23]))
    assert len(bomb) < 300_000
    tracemalloc.start()
    assert "more bytes" in refused(staging, bomb)[1]
    assert read(staging, one_cell, max_cells=10**9).open().indptr[-1] == 2
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**24


def test_a_list_of_a_million_members_is_not_read(staging):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as zipped:
        for n in range(5_000):
            zipped.writestr(f"{n}.npy", b"")
    assert "list of members is too long" in refused(staging, file.getvalue())[1]


@pytest.mark.slow
def test_a_large_matrix_takes_little_memory(staging):
    matrix = sparse.random_array((200_000, 1_000), density=0.01, format="csr", rng=np.random.default_rng(3))
    data = npz(matrix)
    tracemalloc.start()
    assert read(staging, data, max_cells=10**7).n_rows == 200_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**24
