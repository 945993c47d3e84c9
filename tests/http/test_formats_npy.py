"""The .npy format from untrusted clients: valid files are read, invalid ones refused."""

import io
import itertools
import pickle
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import InvalidRequest
from service.http.body.formats.npy import MAX_HEADER_BYTES, TRANSPOSE_ROWS, MatrixSink, read_column, read_header
from service.store.staging import Staging
from tests.support.npy import npy_with_header

DTYPES = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")
COLUMN_DTYPES = (*DTYPES, "b1", "U1", "U7")


@pytest.fixture(scope="module")
def staging(tmp_path_factory):
    """One directory for all tests of this file; staged files have unique names."""
    return Staging(tmp_path_factory.mktemp("staging"))


def npy(array, version=(1, 0)):
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version, allow_pickle=True)
    return file.getvalue()


def header(descr="'<f8'", shape="(2, 2)", order="False"):
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}"


def sink(staging, data, chunk=2**16, max_cells=10**9):
    """Send bytes in pieces, and return the matrix in the staged file."""
    sink = MatrixSink("/X", staging, max_cells)
    try:
        for begin in range(0, len(data), chunk):
            sink.write(data[begin : begin + chunk])
        return sink.close().open()
    finally:
        sink.abandon()


def column(staging, data):
    path = staging.new_path()
    path.write_bytes(data)
    return read_column(path)


def refused(staging, data, chunk=2**16, **options):
    """Send a bad file, and return the pointer and detail of its error."""
    with pytest.raises(InvalidRequest) as caught:
        sink(staging, data, chunk, **options)
    (error,) = caught.value.errors
    return error.pointer, error.detail


def numbers(dtype, n_rows, n_columns):
    """A matrix with the ends of the dtype's range in it."""
    ends = np.finfo(dtype) if np.dtype(dtype).kind == "f" else np.iinfo(dtype)
    matrix = np.random.default_rng(7).integers(0, 100, (n_rows, n_columns)).astype(dtype)
    matrix[0, 0], matrix[-1, -1] = ends.min, ends.max
    return matrix


# Right archives.


@pytest.mark.parametrize("version", [(1, 0), (2, 0)], ids=["1.0", "2.0"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_matrix_arrives_as_it_was_saved(staging, dtype, endian, order, version):
    saved = numbers(dtype, 5, 3)
    data = npy(np.asarray(saved, endian + dtype, order=order), version)
    for chunk in (1, 7, 2**16):
        matrix = sink(staging, data, chunk)
        assert matrix.dtype == np.dtype(dtype)
        assert matrix.dtype.isnative
        assert matrix.flags.c_contiguous
        np.testing.assert_array_equal(matrix, saved)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("n_rows", [1, TRANSPOSE_ROWS - 1, TRANSPOSE_ROWS, TRANSPOSE_ROWS + 1, 3 * TRANSPOSE_ROWS])
def test_a_matrix_of_many_rows_arrives(staging, n_rows, order):
    saved = numbers(">f4", n_rows, 3)
    np.testing.assert_array_equal(sink(staging, npy(np.asarray(saved, order=order)), 10_007), saved)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_matrix_of_one_row_or_column_arrives(staging, shape, order):
    saved = numbers("f8", *shape)
    np.testing.assert_array_equal(sink(staging, npy(np.asarray(saved, order=order)), 5), saved)


@pytest.mark.parametrize("array", [np.zeros((2, 2)), np.zeros((2, 2), "i1"), np.zeros((2, 2), order="F")], ids=str)
def test_a_transposed_matrix_leaves_one_file(tmp_path, array):
    sink(Staging(tmp_path), npy(array))
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("version", [(1, 0), (2, 0)], ids=["1.0", "2.0"])
@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize("dtype", COLUMN_DTYPES)
def test_a_column_arrives_as_it_was_saved(staging, dtype, endian, version):
    saved = np.array(["", "a", "äöü€😀"] if "U" in dtype else [0, 1, 1]).astype(endian + dtype)
    read = column(staging, npy(saved, version))
    assert read.dtype == saved.dtype
    np.testing.assert_array_equal(read, saved)


@pytest.mark.parametrize(
    "text",
    [
        "{'descr': '<f8', 'fortran_order': False, 'shape': (2, 2), }",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (2, 2)}",
        "{'descr':'<f8','fortran_order':False,'shape':(2,2)}\n",
        '{"descr": "<f8", "fortran_order": False, "shape": (2, 2)}',
        "{'shape': (2, 2,), 'fortran_order': False, 'descr': '<f8'}",
        "{ 'fortran_order' : False , 'descr' : 'f8' , 'shape' : ( 2 , 2 ) , }   \n",
        "{'descr': '=f8', 'fortran_order': False, 'shape': (2L, 2L), }",
    ],
)
def test_headers_of_other_writers_are_read(staging, text):
    """Of numpy, of cnpy, of NPZ.jl, of Python 2: they differ in spaces, quotes, order and the last comma."""
    np.testing.assert_array_equal(sink(staging, npy_with_header(text, np.arange(4.0).tobytes())), [[0, 1], [2, 3]])


# Wrong archives.

BAD_HEADERS = [
    pytest.param("", id="empty"),
    pytest.param("\0" * 100, id="NULs"),
    pytest.param("\xff" * 100, id="bytes beyond ASCII"),
    pytest.param("None", id="None"),
    pytest.param("[]", id="a list"),
    pytest.param("{}", id="no members"),
    pytest.param("{'descr': '<f8', 'shape': (2, 2)}", id="a member too few"),
    pytest.param(header()[:-3] + ", 'a': 1}", id="a member too many"),
    pytest.param(header().replace("shape", "shapes"), id="an unknown member"),
    pytest.param("{'descr': '<f8', 'descr': '<f8', 'shape': (2, 2)}", id="a member twice"),
    pytest.param(header() + "#", id="something behind"),
    pytest.param("(" * 3, id="open brackets, TokenError"),
    pytest.param(header(shape="(2, 2"), id="an open bracket, TokenError"),
    pytest.param("'''", id="an open string, TokenError"),
    pytest.param("(" * 9_000, id="deep brackets, MemoryError"),
    pytest.param("(" * 90 + ")" * 90, id="brackets, deep but balanced"),
    pytest.param("[" * 5_000 + "]" * 5_000, id="lists, deep but balanced"),
    pytest.param("-" * 9_000 + "1", id="signs, RecursionError"),
    pytest.param("1" + "+1" * 4_900, id="sums, RecursionError"),
    pytest.param("{{}: 1}", id="an unhashable key, TypeError"),
    pytest.param("__import__('os').system('true')", id="a call"),
    pytest.param("'\\d'", id="a warning"),
    pytest.param(header(shape="(-2, 2)"), id="a negative shape"),
    pytest.param(header(shape="(2.0, 2)"), id="a shape of a fraction"),
    pytest.param(header(shape="('2', 2)"), id="a shape of a string"),
    pytest.param(header(shape="(True, 2)"), id="a shape of true"),
    pytest.param(header(shape="(None, 2)"), id="a shape of None"),
    pytest.param(header(shape="((2,), 2)"), id="a shape of a tuple"),
    pytest.param(header(shape="(2 2)"), id="a shape without commas"),
    pytest.param(header(shape="(,)"), id="a shape of a comma"),
    pytest.param(header(shape="[2, 2]"), id="a list for a shape"),
    pytest.param(header(shape="4"), id="a number for a shape"),
    pytest.param(header(shape="'(2, 2)'"), id="a string for a shape"),
    pytest.param(header(shape=f"(0x{'f' * 8_000}, 1)"), id="a shape of 32,000 bits"),
    pytest.param(header(shape=f"({'9' * 4_000}, 1)"), id="a shape of 4,000 digits"),
    pytest.param(header(shape=f"({'1' * 30}x, 1)"), id="a shape that could be read in many ways"),
    pytest.param(header(shape=" " * 9_000 + "(2, 2)" + " " * 500 + "x"), id="spaces"),
    pytest.param(header(order="0"), id="0 for the order"),
    pytest.param(header(order="'False'"), id="a string for the order"),
    pytest.param(header(order="None"), id="None for the order"),
    pytest.param(header(descr="None"), id="None for the type"),
    pytest.param(header(descr="8"), id="a number for the type"),
    pytest.param(header(descr="('<f8', (2,))"), id="a tuple for the type"),
    pytest.param("{" + "'a':[]," * 1_400, id="members without end"),
    pytest.param("{" + "'a':''," * 1_400 + "}", id="members without end in quotes"),
    pytest.param("{'shape':(" + "1," * 4_900, id="a shape without end"),
    pytest.param("{" + " " * 9_000, id="spaces without end"),
    pytest.param(header() + " " * 9_000 + "x", id="spaces, and something behind"),
    pytest.param("{'descr':" + "[" * 9_000, id="a type without end"),
]

BAD_DTYPES = [
    *("O", "|O", "|O8", "<O", ">O8"),
    *("c8", "<c16", "f16", "<f16", "<f12", "m8", "<M8[s]", "|V8", "a5", "T", "?", "p", "g"),
    *("<i3", "<f3", "f", "float64", "int", "<f8,<f8", "(2,)<f8", "(0,)<f8", "(1000000000,)<f8", "2f8", "1f4"),
    *("<U0", "|S0", "|V0", "<U99999999999", "<Ux", "<f8 ", "<<f8", "", "\n", "٣", "f٨"),
]


@pytest.mark.parametrize("text", BAD_HEADERS)
@pytest.mark.parametrize("version", [(1, 0), (2, 0)], ids=["1.0", "2.0"])
def test_a_bad_header_is_refused(staging, text, version):
    data = npy_with_header(text, bytes(32), version)
    assert refused(staging, data) == ("/X", "has a .npy header that cannot be read")
    with pytest.raises(ValueError, match="header that cannot be read"):
        column(staging, data)


@pytest.mark.parametrize("descr", BAD_DTYPES)
def test_a_type_that_is_not_plain_is_refused(staging, descr):
    data = npy_with_header(header(repr(descr).encode("ascii", "replace").decode()), bytes(32))
    pointer, detail = refused(staging, data)
    assert pointer == "/X"
    assert detail.startswith(("holds ", "has a .npy header"))
    with pytest.raises(ValueError, match=r"^(holds |has a .npy header)"):
        column(staging, data)


@pytest.mark.parametrize("dtype", ["S3", "U3"])
def test_a_matrix_must_hold_numbers(staging, dtype):
    detail = f"holds {np.dtype(dtype)}; float16, float32, float64, integers and booleans are taken"
    assert refused(staging, npy(np.zeros((2, 2), dtype))) == ("/X", detail)


@pytest.mark.parametrize(
    "array", [np.array([[{}]], object), np.array([("a", None)], [("a", "O"), ("b", "O")])], ids=str
)
def test_objects_are_never_unpickled(staging, array):
    _, detail = refused(staging, npy(array))
    assert "nothing is unpickled" in detail or "are supported" in detail


def test_a_pickle_is_never_unpickled(staging):
    class Bomb:
        def __reduce__(self):
            return pytest.fail, ("it went off",)

    for data in (pickle.dumps(Bomb()), npy_with_header(header("'|O'"), pickle.dumps(Bomb()))):
        refused(staging, data)
        with pytest.raises(ValueError, match=r"magic|unpickled"):
            column(staging, data)


@pytest.mark.parametrize(
    ("shape", "detail"),
    [
        ("()", "has 0 dimensions"),
        ("(4,)", "has 1 dimensions"),
        ("(1, 2, 2)", "has 3 dimensions"),
        ("(" + "1, " * 3_000 + ")", "has 3000 dimensions"),
        ("(0, 2)", "has shape (0, 2)"),
        ("(2, 0)", "has shape (2, 0)"),
        (f"({10**6}, {10**6})", "has 1000000 x 1000000 cells"),
        (f"({'9' * 18}, {'9' * 18})", "cells; AQ_MAX_POOL_CELLS allows 1000000000"),
    ],
)
def test_an_unsupported_shape_is_refused(staging, shape, detail):
    pointer, found = refused(staging, npy_with_header(header(shape=shape), bytes(32)))
    assert pointer == "/X"
    assert detail in found
    assert len(found) < 200


def test_the_largest_allowed_matrix_is_read(staging):
    assert sink(staging, npy(np.zeros((5, 2))), max_cells=10).shape == (5, 2)
    assert refused(staging, npy(np.zeros((11, 1))), max_cells=10)[0] == "/X"


@pytest.mark.parametrize("length", [MAX_HEADER_BYTES + 1, 2**16 - 1, 2**32 - 1])
def test_a_huge_header_is_refused_at_once(staging, length):
    version = (1, 0) if length < 2**16 else (2, 0)
    data = npy_with_header("", version=version, length=length)
    assert f"has a .npy header of {length} bytes" in refused(staging, data)[1]


@pytest.mark.parametrize("version", [(0, 0), (1, 1), (3, 0), (255, 255)], ids=str)
def test_an_unsupported_version_is_refused(staging, version):
    assert "1.0 and 2.0 are supported" in refused(staging, npy_with_header(header(), version=version))[1]


def test_no_memory_is_allocated_for_an_announced_shape(staging):
    data = npy_with_header(header(shape=f"({10**8}, 10)"))
    tracemalloc.start()
    try:
        refused(staging, data)
        with pytest.raises(ValueError, match="fewer bytes"):
            column(staging, npy_with_header(header(shape=f"({10**12},)")))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**20


@pytest.mark.parametrize("chunk", [1, 7, 2**16])
def test_a_file_of_another_length_is_refused(staging, chunk):
    whole = npy(np.zeros((2, 2)))
    for n_bytes in (0, 1, 5, 6, 7, 8, 9, 10, 11, 60, len(whole) - 33):
        assert refused(staging, whole[:n_bytes], chunk) == ("/X", "ends within its .npy header"), n_bytes
    for n_bytes in (32, 31, 9, 8, 1):
        assert "has fewer bytes than its header says" in refused(staging, whole[:-n_bytes], chunk)[1]
    assert "has more bytes than its header says" in refused(staging, whole + b"\0", chunk)[1]
    assert "does not begin with the magic string" in refused(staging, b"\x93NUMPX", chunk)[1]


def test_a_column_of_another_length_is_refused(staging):
    whole = npy(np.zeros(4))
    for n_bytes in range(len(whole)):
        with pytest.raises(ValueError, match=r"ends within|fewer bytes"):
            column(staging, whole[:n_bytes])
    with pytest.raises(ValueError, match="more bytes"):
        column(staging, whole + b"\0")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f2", ">f4", "<f8"])
def test_the_error_points_to_the_first_infinite_number_and_nan_is_kept(staging, dtype, order, bad):
    for (row, cell), chunk in itertools.product([(0, 0), (0, 2), (1, 0), (3, 1), (4, 2)], (1, 7, 2**16)):
        matrix = np.zeros((5, 3), dtype, order)
        matrix[row, cell] = bad
        if np.isnan(bad):
            assert np.array_equal(sink(staging, npy(matrix), chunk), matrix, equal_nan=True)
        else:
            assert refused(staging, npy(matrix), chunk) == (f"/X/{row}/{cell}", "must be a finite number")


def test_of_two_numbers_that_are_not_finite_the_first_in_the_file_is_named(staging):
    matrix = np.zeros((5, 3))
    matrix[0, 2] = matrix[4, 0] = np.inf
    assert refused(staging, npy(matrix))[0] == "/X/0/2"
    assert refused(staging, npy(np.asfortranarray(matrix)))[0] == "/X/4/0"


@pytest.mark.parametrize("shape", ["()", "(2, 1)", "(1, 2, 2)"])
def test_a_column_must_have_one_dimension(staging, shape):
    with pytest.raises(ValueError, match="it must have one"):
        column(staging, npy_with_header(header(shape=shape), bytes(32)))


# Any bytes are read, or refused with a clear error.

VALID = [npy(np.zeros((3, 2), dtype)) for dtype in ("<f8", ">f4", "<i2", "|u1", "<U2")]
VALID += [npy(np.zeros((3, 2), order="F"), (2, 0)), npy(np.zeros(3)), npy(np.array(["a", "bc"]))]


@st.composite
def mutations(draw):
    """A valid .npy file with some bytes replaced, removed or doubled."""
    data = bytearray(draw(st.sampled_from(VALID)))
    for _ in range(draw(st.integers(1, 4))):
        begin = draw(st.integers(0, len(data)))
        end = draw(st.integers(begin, min(begin + 8, len(data))))
        data[begin:end] = draw(st.one_of(st.binary(max_size=8), st.just(data[begin:end] * 2)))
    return bytes(data)


headers = st.text(st.sampled_from("{}()[]'\",: -+*\\\n0123456789LTrueFalsdcptonhOUfiubMV<>|="), max_size=80)
members = st.builds(header, headers.map(repr), headers, headers)
hostile = st.one_of(
    st.binary(max_size=200),
    st.binary(max_size=200).map(b"\x93NUMPY\x01\x00".__add__),
    mutations(),
    st.builds(npy_with_header, st.one_of(headers, members), st.binary(max_size=64), st.sampled_from([(1, 0), (2, 0)])),
)


@settings(max_examples=400)
@given(hostile, st.sampled_from([1, 7, 2**16]))
def test_random_bytes_for_a_matrix_are_read_or_refused(staging, data, chunk):
    try:
        matrix = sink(staging, data, chunk)
    except InvalidRequest as error:
        assert all(found.pointer.startswith("/X") and len(found.detail) < 500 for found in error.errors)
    else:
        assert np.isfinite(matrix).all()


@settings(max_examples=400)
@given(hostile)
def test_random_bytes_for_a_column_are_read_or_refused(staging, data):
    try:
        read = column(staging, data)
    except ValueError as error:
        assert 0 < len(str(error)) < 500
    else:
        assert read.ndim == 1
        assert read.dtype.kind in "fiubU"


@settings(max_examples=400)
@given(hostile)
def test_a_header_is_read_from_its_bytes_alone(data):
    """For any prefix, the result is that of all bytes, or not known yet."""
    whole = header_of(data)
    for n_bytes in range(0, len(data), 13):
        assert header_of(data[:n_bytes]) in (None, whole)


def header_of(data):
    try:
        return read_header(data)
    except ValueError as error:
        return str(error)
