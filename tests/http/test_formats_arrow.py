"""Arrow and Parquet from untrusted clients: valid tables are read, invalid ones refused."""

import io
import sys
import threading
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest
from werkzeug.exceptions import HTTPException

from service.errors import InvalidRequest
from service.http.body.limits import Limits
from service.http.body.reader import Part
from service.http.media_types import ARROW_FILE, ARROW_STREAM, PARQUET
from service.store.staging import Staging

LIMITS = Limits(body_bytes=2**30, json_bytes=2**20, cells=10**6)


@pytest.fixture(scope="module")
def staging(tmp_path_factory):
    """One directory for all tests of this file; staged files have unique names."""
    return Staging(tmp_path_factory.mktemp("staging"))


def stream(table, compression=None, **options):
    file = io.BytesIO()
    with pa.ipc.new_stream(file, table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_table(table, **options)
    return file.getvalue()


def file(table, **options):
    out = io.BytesIO()
    with pa.ipc.new_file(out, table.schema) as writer:
        writer.write_table(table, **options)
    return out.getvalue()


def feather(table):
    out = io.BytesIO()
    pa.feather.write_feather(table, out)
    return out.getvalue()


def parquet(table, **options):
    out = io.BytesIO()
    pa.parquet.write_table(table, out, **options)
    return out.getvalue()


WRITERS = {
    "stream": (ARROW_STREAM, stream),
    "compressed stream": (ARROW_STREAM, lambda table: stream(table, "zstd")),
    "batches": (ARROW_STREAM, lambda table: stream(table, max_chunksize=3)),
    "file": (ARROW_FILE, file),
    "file without a type": ("application/octet-stream", file),
    "feather": (ARROW_FILE, feather),
    "parquet": (PARQUET, parquet),
    "parquet without a type": ("", parquet),
    "parquet with row groups": (PARQUET, lambda table: parquet(table, row_group_size=3)),
    "parquet 2": (PARQUET, lambda table: parquet(table, data_page_version="2.0", compression="zstd")),
}
each_writer = pytest.mark.parametrize(("media_type", "write"), WRITERS.values(), ids=WRITERS)
EACH_KIND = [(ARROW_STREAM, stream), (ARROW_FILE, file), (PARQUET, parquet)]
each_kind = pytest.mark.parametrize(("media_type", "write"), EACH_KIND, ids=["stream", "file", "parquet"])


def read(staging, media_type, data, name="X", limits=LIMITS):
    part = Part(name, media_type, limits, staging)
    try:
        for begin in range(0, len(data), 10_000):
            part.write(data[begin : begin + 10_000])
        return part.close().read()
    finally:
        part.abandon()


def refused(staging, media_type, data, name="X", limits=LIMITS):
    """Read a bad part, and return the pointer and detail of its error."""
    with pytest.raises(InvalidRequest) as caught:
        read(staging, media_type, data, name, limits)
    (error,) = caught.value.errors
    return error.pointer, error.detail


def lists(rows, kind=None):
    return pa.table({"x": pa.array(list(rows), kind)})


# Right tables.

NUMBERS = np.random.default_rng(0).normal(size=(10, 3)).astype("f4")


@each_writer
@pytest.mark.parametrize("form", [None, pa.list_(pa.float32()), pa.large_list(pa.float32()), pa.list_(pa.float32(), 3)])
def test_a_matrix_arrives(staging, media_type, write, form):
    columns = pa.table({f"f{i}": NUMBERS[:, i] for i in range(3)})
    rows = read(staging, media_type, write(columns if form is None else lists(NUMBERS, form)))
    assert (rows.n_rows, rows.n_columns) == (10, 3)
    assert rows.open().dtype == np.float32
    assert np.array_equal(rows.open(), NUMBERS)


@each_kind
@pytest.mark.parametrize(
    ("dtypes", "kept"),
    [(["f4", "f4"], "f4"), (["f2", "i1"], "f2"), (["i8", "u8"], "f8"), (["i4", "f4"], "f8"), (["u1", "i2"], "i2")],
)
def test_columns_of_several_types_get_a_common_dtype(staging, media_type, write, dtypes, kept):
    table = pa.table({f"c{i}": np.array([1, 2], dtype) for i, dtype in enumerate(dtypes)})
    rows = read(staging, media_type, write(table)).open()
    assert rows.dtype == kept
    assert rows.tolist() == [[1, 1], [2, 2]]


COLUMNS = {
    "text": (pa.array(["a", None, "b"]), ["a", None, "b"]),
    "large text": (pa.array(["a", None, "b"], pa.large_string()), ["a", None, "b"]),
    "a dictionary of text": (pa.array(["a", None, "b"]).dictionary_encode(), ["a", None, "b"]),
    "a dictionary of integers": (pa.array([7, None, 9]).dictionary_encode(), [7, None, 9]),
    "booleans": (pa.array([True, False]), [True, False]),
    "booleans with nulls": (pa.array([True, None]), [True, None]),
    "integers": (pa.array([2**60 + 1, -5]), [2**60 + 1, -5]),
    "integers with nulls": (pa.array([2**60 + 1, None]), [2**60 + 1, None]),
    "nothing but nulls": (pa.nulls(3), [None, None, None]),
    "whole numbers": (pa.array([1.0, 2.0], pa.float32()), [1.0, 2.0]),
}


@each_writer
@pytest.mark.parametrize(("column", "values"), COLUMNS.values(), ids=COLUMNS)
def test_a_column_arrives(staging, media_type, write, column, values):
    got = read(staging, media_type, write(pa.table({"y": column})), "y")
    assert (got.tolist() if isinstance(got, np.ndarray) else got) == values


def test_views_of_text_arrive(staging):
    texts = ["a", None, "b" * 50, "c"] * 3_000
    data = stream(pa.table({"y": pa.array(texts, pa.string_view())}))
    assert read(staging, ARROW_STREAM, data, "y") == texts
    data = stream(pa.table({"y": pa.array([*texts, "d" * 2000], pa.string_view())}))
    assert refused(staging, ARROW_STREAM, data, "y")[0] == "/y/12000"


def in_memory(write, **options):
    out = io.BytesIO()
    write(out, **options)
    return out.getvalue()


POLARS = {
    "parquet": (PARQUET, lambda frame: in_memory(frame.write_parquet)),
    "file": (ARROW_FILE, lambda frame: in_memory(frame.write_ipc)),
    "compressed stream": (ARROW_STREAM, lambda frame: in_memory(frame.write_ipc_stream, compression="zstd")),
}
PANDAS = {
    "parquet": (PARQUET, lambda frame: in_memory(frame.to_parquet)),
    "feather": (ARROW_FILE, lambda frame: in_memory(frame.to_feather)),
}
CATEGORIES = ["ant", None, "bee", "ant"] * 3_000


@pytest.mark.parametrize(("media_type", "write"), POLARS.values(), ids=POLARS)
def test_frames_of_polars_arrive(staging, media_type, write):
    floats = NUMBERS.tolist()
    for X in (pl.DataFrame(NUMBERS), pl.DataFrame({"x": pl.Series(floats, dtype=pl.Array(pl.Float32, 3))})):
        rows = read(staging, media_type, write(X)).open()
        assert rows.dtype == np.float32
        assert np.array_equal(rows, NUMBERS)
    decimals = pl.DataFrame({"a": pl.Series([1, 2], dtype=pl.Decimal(10, 2))})
    assert read(staging, media_type, write(decimals)).open().tolist() == [[1], [2]]
    for kind in (pl.String, pl.Categorical, pl.Enum(["bee", "ant"])):
        y = pl.DataFrame({"y": pl.Series(CATEGORIES, dtype=kind)})
        assert read(staging, media_type, write(y), "y") == CATEGORIES


@pytest.mark.parametrize(("media_type", "write"), PANDAS.values(), ids=PANDAS)
def test_frames_of_pandas_arrive_without_their_index(staging, media_type, write):
    X = pd.DataFrame(NUMBERS, columns=["a", "b", "c"])
    shuffled = X.sample(frac=1, random_state=0)
    for frame in (X, shuffled, X.set_index("a"), X.set_axis([f"row {n}" for n in range(10)])):
        assert np.array_equal(read(staging, media_type, write(frame)).open(), frame.to_numpy())
    for y in (pd.Categorical(CATEGORIES), pd.Series(CATEGORIES)):
        assert read(staging, media_type, write(pd.DataFrame({"y": y})), "y") == CATEGORIES
    integers = pd.DataFrame({"y": pd.Series([1, None, 3], dtype="Int64")})
    assert read(staging, media_type, write(integers), "y") == [1, None, 3]


@pytest.mark.parametrize("version", ["V1", "V2"])
def test_parquet_of_duckdb_arrives(staging, tmp_path, version):
    path = tmp_path / "table.parquet"
    options = f"(format parquet, parquet_version {version})"
    for select, name, values in [
        ("i::FLOAT AS a, i * 0.5 AS b", "X", [[0, 0], [1, 0.5], [2, 1]]),
        ("[i, i + 1]::FLOAT[2] AS x", "X", [[0, 1], [1, 2], [2, 3]]),
        ("'class ' || i AS y", "y", ["class 0", "class 1", "class 2"]),
        ("'b'::ENUM ('a', 'b') AS y", "y", ["b"] * 3),
    ]:
        rows = f"SELECT {select} FROM range(3) t(i) ORDER BY i"  # noqa: S608 - all of it stands here
        duckdb.sql(f"COPY ({rows}) TO '{path}' {options}")
        got = read(staging, PARQUET, path.read_bytes(), name)
        assert (got.open().tolist() if name == "X" else got) == values


def test_an_extension_type_arrives_as_its_storage(staging):
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(NUMBERS)
    assert read(staging, ARROW_FILE, file(pa.table({"x": tensors}))).open().tolist() == NUMBERS.tolist()


@pytest.mark.parametrize("codec", ["none", "snappy", "gzip", "brotli", "lz4", "zstd"])
def test_every_codec_of_parquet_is_read(staging, codec):
    assert read(staging, PARQUET, parquet(SMALL, compression=codec)).n_rows == 3


def test_delta_encodings_of_parquet_are_read(staging):
    encodings = {"use_dictionary": False, "column_encoding": {"y": "DELTA_BYTE_ARRAY"}}
    assert read(staging, PARQUET, parquet(SMALL_TEXT, **encodings), "y") == ["cat", None, "dog", "cat"]


@each_kind
def test_null_among_floats_is_nan(staging, media_type, write):
    got = read(staging, media_type, write(pa.table({"y": pa.array([1.0, None])})), "y")
    assert got[0] == 1
    assert np.isnan(got[1])


@each_kind
def test_columns_longer_than_a_block_arrive(staging, media_type, write):
    table = pa.table({"y": [f"name-{n % 7000}" for n in range(20_000)]})
    assert read(staging, media_type, write(table), "ids") == table["y"].to_pylist()


@each_kind
@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (pa.array([1.5, None]), "f8"),
        (pa.array([7, None], "i1"), "f4"),
        (pa.array([True, None]), "f4"),
        (pa.array([2**40, None]), "f8"),
        (pa.array([1.5, None], pa.float16()), "f2"),
        (pa.nulls(2), "f4"),
    ],
)
def test_a_null_becomes_nan_in_columns_and_lists(staging, media_type, write, values, dtype):
    tables = [pa.table({"a": values})]
    if not pa.types.is_null(values.type):
        tables.append(pa.table({"a": pa.FixedSizeListArray.from_arrays(values, 1)}))
    for table in tables:
        rows = read(staging, media_type, write(table))
        assert (rows.missing, rows.open().dtype) == ("/X/1/0" if values[0].is_valid else "/X/0/0", dtype)
        assert np.isnan(rows.open()[:, 0]).tolist() == values.is_null().to_pylist()


@each_kind
def test_integers_become_floats_at_a_null_after_the_first_batch(staging, media_type, write):
    values = pa.array([*range(300_000), None, 1])
    rows = read(staging, media_type, write(pa.table({"a": values})))
    assert (rows.missing, rows.open().dtype) == ("/X/300000/0", np.float64)
    assert np.array_equal(rows.open()[:, 0], [*range(300_000), np.nan, 1], equal_nan=True)


# Wrong tables.

WRONG_MATRICES = [
    (pa.table({}), "/X", "has no columns"),
    (pa.table({"a": pa.array([], "f4")}), "/X", "has no rows"),
    (pa.table({"a": [1.0, 2], "b": [3, np.inf]}), "/X/1/1", "finite"),
    (pa.table({"a": ["1", "2"]}), "/X", "of string"),
    (pa.table({"a": pa.array([1], pa.timestamp("s"))}), "/X", "of timestamp"),
    (pa.table({"a": pa.array([{"b": 1}])}), "/X", "of struct"),
    (lists([[1.0], [1.0, 2.0]]), "/X/1", "has 2 numbers, but row 0 has 1"),
    (lists([[1.0], None]), "/X/1", "not null"),
    (lists([[1.0, 2.0], [np.inf, 1.0]]), "/X/1/0", "finite"),
    (lists([[], []], pa.list_(pa.float32())), "/X/0", "not be empty"),
    (lists([["a"]]), "/X", "of string"),
    (lists([[[1.0]]]), "/X", "of list"),
    (pa.table({"a": lists([[1.0]])["x"], "b": [1.0]}), "/X", "one column of lists"),
    (pa.table({f"c{i}": np.zeros(1001) for i in range(1000)}), "/X", "AQ_MAX_POOL_CELLS"),
    (lists(np.zeros((1001, 1000), "f4")), "/X", "AQ_MAX_POOL_CELLS"),
]
WRONG_COLUMNS = [
    (pa.table({"a": [1], "b": [2]}), "/y", "has 2 columns; it must have one"),
    (lists([[[1]]]), "/y", "holds list"),
    (pa.table({"a": [b"a"]}), "/y", "holds binary"),
    (pa.table({"a": pa.array([1], pa.timestamp("s"))}), "/y", "holds timestamp"),
    (pa.table({"a": ["a", "b" * 1025]}), "/y/1", "256 characters"),
    (pa.table({"a": pa.array(["a", "b" * 1025]).dictionary_encode()}), None, "256 characters"),
]


@each_kind
@pytest.mark.parametrize(("table", "pointer", "excerpt"), WRONG_MATRICES)
def test_a_wrong_matrix_is_refused(staging, media_type, write, table, pointer, excerpt):
    where, detail = refused(staging, media_type, write(table))
    assert where == pointer
    assert excerpt in detail


@each_kind
@pytest.mark.parametrize(("table", "pointer", "excerpt"), WRONG_COLUMNS)
def test_a_wrong_column_is_refused(staging, media_type, write, table, pointer, excerpt):
    where, detail = refused(staging, media_type, write(table), "y")
    assert where == pointer or pointer is None
    assert excerpt in detail


@each_kind
def test_a_wrong_cell_after_the_first_batch_is_found(staging, media_type, write):
    column = np.zeros(300_000)
    column[299_998] = -np.inf
    assert refused(staging, media_type, write(pa.table({"a": column})))[0] == "/X/299998/0"
    table = lists([[1.0]] * 9_000 + [[1.0, 2.0]])
    assert refused(staging, media_type, write(table))[0] == "/X/9000"


@pytest.mark.parametrize("media_type", [ARROW_STREAM, ARROW_FILE, PARQUET])
@pytest.mark.parametrize("data", [b"", b"ARROW1", b"PAR1", b"PAR1PAR1", bytes(100), b"\xff" * 100, b"PAR1" * 10])
def test_garbage_is_refused(staging, media_type, data):
    assert refused(staging, media_type, data)[0] == "/X"


SMALL = pa.table({"a": [1.0, 2.0, 3.0], "b": pa.array([1, 2, 3], "i2")})
SMALL_LISTS = lists([[1.0, 2.0], [3.0, 4.0]])
SMALL_TEXT = pa.table({"y": pa.array(["cat", None, "dog", "cat"])})
SMALL_DICTIONARY = pa.table({"y": pa.array(["cat", None, "dog", "cat"]).dictionary_encode()})
SOURCES = [
    (media_type, write(table), name)
    for media_type, write in WRITERS.values()
    for table, name in [(SMALL, "X"), (SMALL_LISTS, "X"), (SMALL_TEXT, "y"), (SMALL_DICTIONARY, "y")]
    if media_type.startswith("application/vnd")
]


@pytest.mark.parametrize(("media_type", "data", "name"), SOURCES)
def test_truncated_data_is_refused(staging, media_type, data, name):
    for length in [*range(0, len(data), 29), len(data) - 1]:
        assert refused(staging, media_type, data[:length], name)[0] == f"/{name}"


def test_mutated_files_are_read_or_refused(staging):
    rng = np.random.default_rng(0)
    n_refused = 0
    for n in range(2_000):
        media_type, data, name = SOURCES[n % len(SOURCES)]
        data = np.frombuffer(data, np.uint8).copy()
        at = rng.integers(0, len(data), rng.integers(1, 6))
        data[at] = rng.choice([rng.integers(0, 256, len(at)), np.full(len(at), 255), np.zeros(len(at), int)])
        try:
            read(staging, media_type, data.tobytes(), name)
        except (InvalidRequest, HTTPException):
            n_refused += 1
    assert n_refused > 500


def own_mb():
    """Anonymous memory of this process, in MB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) / 1024


class Watch:
    """The largest increase of this process's memory, in MB."""

    def __enter__(self):
        self.before = self.most = own_mb()
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.look)
        self.thread.start()
        return self

    def look(self):
        while not self.done.wait(0.001):
            self.most = max(self.most, own_mb())

    def __exit__(self, *_):
        self.done.set()
        self.thread.join()

    @property
    def growth(self):
        return self.most - self.before


def zeros(n):
    return pa.table({"a": np.zeros(n)})


def texts():
    return pa.table({"a": pa.DictionaryArray.from_arrays(np.zeros(2**16, "i4"), pa.array(["x" * 2**20]))})


def one_list():
    return pa.table({"a": pa.ListArray.from_arrays([0, 2**26], np.zeros(2**26, "i1"))})


ONE_PAGE = {"use_dictionary": False, "data_page_size": 2**30, "compression": "zstd", "row_group_size": 2**24}
BOMBS = {
    "zeros in Parquet": (PARQUET, lambda: parquet(zeros(2**24)), "X"),
    "zeros in one page": (PARQUET, lambda: parquet(zeros(2**24), **ONE_PAGE), "X"),
    "zeros in one batch": (ARROW_STREAM, lambda: stream(zeros(2**25), "zstd"), "X"),
    "a long text many times": (PARQUET, lambda: parquet(texts(), compression="zstd"), "y"),
    "a long list": (PARQUET, lambda: parquet(one_list(), compression="zstd"), "X"),
    "a long text many times in Arrow": (ARROW_STREAM, lambda: stream(texts(), "zstd"), "y"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("media_type", "make", "name"), BOMBS.values(), ids=BOMBS)
def test_decompression_bombs_take_little_memory(staging, media_type, make, name):
    data = make()
    assert len(data) < 400_000
    pa.default_memory_pool().release_unused()  # of what was freed here, reading could take much unseen
    with Watch() as watch:
        refused(staging, media_type, data, name)
    assert watch.growth < 100


@pytest.mark.slow
def test_a_large_table_takes_little_memory(staging, tmp_path):
    table = pa.table({f"f{i}": np.random.default_rng(i).normal(size=400_000).astype("f4") for i in range(32)})
    for media_type, write in EACH_KIND:
        data = write(table)
        with Watch() as watch:
            assert read(staging, media_type, data, limits=Limits(2**30, 2**20, 10**8)).n_rows == 400_000
        assert watch.growth < 30


@each_kind
def test_without_the_extra_the_error_says_what_to_install(staging, media_type, write, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    pointer, detail = refused(staging, media_type, write(SMALL)[:100])
    assert pointer == "/X"
    assert "pip install 'active-query[arrow]'" in detail
