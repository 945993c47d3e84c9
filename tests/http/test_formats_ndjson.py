"""NDJSON, as parts of a form and as a body of samples."""

import gzip
import json
import tracemalloc

import numpy as np
import pytest
from flask import Flask, request
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge, UnsupportedMediaType

from service.errors import InvalidRequest
from service.http.body.formats.ndjson import KEPT_BYTES, Lines, Records
from service.http.body.limits import Limits
from service.http.body.reader import Part, read_samples
from service.http.media_types import NDJSON
from service.store.staging import Staging

LIMITS = Limits(body_bytes=2**30, json_bytes=1000, cells=100)


@pytest.fixture(scope="module")
def staging(tmp_path_factory):
    """One directory for all tests of this file; staged files have unique names."""
    return Staging(tmp_path_factory.mktemp("staging"))


def lines(*values):
    return "".join(json.dumps(value) + "\n" for value in values).encode()


def take(sink, data, size=2**16):
    try:
        for at in range(0, len(data), size):
            sink.write(data[at : at + size])
        return sink.close()
    finally:
        sink.abandon()


def read_part(staging, name, data, size=2**16, media_type=NDJSON, limits=LIMITS):
    return take(Part(name, media_type, limits, staging), data, size)


def read_records(staging, data, size=2**16, limits=LIMITS):
    return take(Records(staging, limits.cells, limits.json_bytes, limits.json_bytes), data, size)


def refusal(read, *args, **options):
    with pytest.raises(InvalidRequest) as caught:
        read(*args, **options)
    return [error.pointer for error in caught.value.errors]


# Parts of a form.


@pytest.mark.parametrize("size", [1, 2, 7, 100])
@pytest.mark.parametrize("media_type", [NDJSON, "application/jsonl", "application/ndjson"])
@pytest.mark.parametrize("end", [b"\n", b"", b"\r\n"])
def test_a_matrix_of_lines_arrives(staging, size, media_type, end):
    data = lines([1, 2.5], [-3, 1e3], [2**63, 0]).removesuffix(b"\n") + end
    rows = read_part(staging, "X", data, size, media_type)
    assert (rows.n_rows, rows.n_columns) == (3, 2)
    assert rows.open().dtype == np.float64
    assert rows.open().tolist() == [[1, 2.5], [-3, 1000], [2.0**63, 0]]


def test_a_column_of_lines_arrives(staging):
    assert read_part(staging, "y", lines("a", None, "b")) == ["a", None, "b"]
    assert read_part(staging, "ids", lines("a", "b").rstrip()) == ["a", "b"]


@pytest.mark.parametrize(
    ("rows", "pointers"),
    [
        ([[1, 2], [3]], ["/X/1"]),
        ([[1], [1, 2], [3], []], ["/X/1", "/X/3"]),
        ([[]], ["/X/0"]),
        ([1, [1]], ["/X/0", "/X/1"]),
        ([[1, "a"], [{}, 2]], ["/X/0/1", "/X/1/0"]),
        ([[1], ["1"], [[1]]], ["/X/1/0", "/X/2/0"]),
        ([[1], {"x": 1}, None], ["/X/1", "/X/2"]),
        ([[1] * 11] * 10, ["/X"]),
        ([], ["/X"]),
    ],
)
@pytest.mark.parametrize("size", [1, 1000])
def test_a_wrong_line_of_a_matrix_is_named(staging, rows, pointers, size):
    found = refusal(read_part, staging, "X", lines(*rows), size)
    assert found == pointers[: len(found)]
    assert size == 1 or found == pointers


@pytest.mark.parametrize(
    "data",
    [
        b"[1]\n\n[2]\n",
        b"[NaN]",
        b"[Infinity]",
        b"[1e999]",
        b"[1],[2]\n",
        b"[1\n2]\n",
        b"[1] [2]",
        b"\n",
        b"[1",
        b"\xff",
    ],
)
@pytest.mark.parametrize("name", ["X", "y"])
def test_a_line_that_is_not_json_is_refused(staging, data, name):
    with pytest.raises(BadRequest, match=r"line \d"):
        read_part(staging, name, data)


@pytest.mark.parametrize("name", ["X", "y"])
@pytest.mark.parametrize("size", [10, 5000])
def test_a_line_that_is_too_long_is_refused(staging, name, size):
    with pytest.raises(RequestEntityTooLarge):
        read_part(staging, name, b"[1" + b" " * 1000 + b"]\n", size)


def test_a_million_wrong_lines_are_not_collected(staging):
    assert len(refusal(read_part, staging, "X", b"0\n" * 10**6, 2**20)) < 100


# Samples.


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize(
    ("records", "document"),
    [
        ([{"x": [1, 2]}, {"x": [3, 4]}], {}),
        ([{"x": [1, 2], "id": "a"}, {"id": "b", "x": [3, 4]}], {"ids": ["a", "b"]}),
        ([{"x": [1, 2]}, {"x": [3, 4], "y": "cat"}], {"y": [None, "cat"]}),
        ([{"x": [1, 2], "y": 0}, {"x": [3, 4], "y": None}], {"y": [0, None]}),
        ([{"x": [1, 2], "y": None}, {"x": [3, 4]}], {}),
        ([{"x": [1, 2], "id": "a", "y": True}, {"x": [3, 4], "id": "b"}], {"ids": ["a", "b"], "y": [True, None]}),
    ],
)
def test_samples_arrive(staging, records, document, size):
    found = read_records(staging, lines(*records), size)
    assert found.pop("X").open().tolist() == [[1, 2], [3, 4]]
    assert found == document


@pytest.mark.parametrize(
    ("records", "pointers"),
    [
        ([], [""]),
        ([1], ["/0"]),
        ([[1]], ["/0"]),
        ([{"x": [1]}, None], ["/1"]),
        ([{"y": 1}], ["/0/x"]),
        ([{"x": [1, 2]}, {"x": [1]}], ["/1/x"]),
        ([{"x": [1]}, {"x": ["a"]}], ["/1/x/0"]),
        ([{"x": [1, 2]}, {"x": [1, "2"]}], ["/1/x/1"]),
        ([{"x": 1}], ["/0/x"]),
        ([{"x": [1], "id": "a"}, {"x": [1]}], ["/1/id"]),
        ([{"x": [1]}, {"x": [1], "id": "a"}], ["/1/id"]),
        ([{"x": [1], "id": 1.0}], ["/0/id"]),
        ([{"x": [1], "id": ""}], ["/0/id"]),
        ([{"x": [1], "id": None}], ["/0/id"]),
        ([{"x": [1], "y": {}}, {"x": [1], "y": []}], ["/0/y"]),
        ([{"x": [1], "y": "a" * 257}], ["/0/y"]),
        ([{"x": [1], "a/b": 1}], ["/0/a~1b"]),
        ([{"x": [1] * 11}] * 10, [""]),
    ],
)
def test_a_wrong_sample_is_named(staging, records, pointers):
    assert refusal(read_records, staging, lines(*records)) == pointers


@pytest.mark.parametrize("record", [{"x": [1], "id": "abc"}, {"x": [1], "y": 1}])
def test_ids_and_labels_are_kept_up_to_a_limit(staging, record):
    most = LIMITS.json_bytes // (KEPT_BYTES + len(record.get("id", "")))
    limits = Limits(2**30, LIMITS.json_bytes, 10**6)
    assert read_records(staging, lines(record) * most, limits=limits)["X"].n_rows == most
    with pytest.raises(RequestEntityTooLarge, match="several requests"):
        read_records(staging, lines(record) * (most + 1), limits=limits)


def test_nulls_for_missing_labels_count_toward_the_limit(staging):
    limits = Limits(2**30, LIMITS.json_bytes, 10**6)
    data = lines({"x": [1], "y": 1}) + lines({"x": [1]}) * (LIMITS.json_bytes // KEPT_BYTES)
    with pytest.raises(RequestEntityTooLarge, match="several requests"):
        read_records(staging, data, limits=limits)


@pytest.mark.slow
def test_many_lines_take_little_memory(staging):
    line = lines({"x": [0.12345678] * 64})
    piece = line * (2**20 // len(line))
    records = Records(staging, 10**9, 2**20, 2**20)
    tracemalloc.start()
    for _ in range(32):
        records.write(piece)
    assert records.close()["X"].n_rows == 32 * (len(piece) // len(line))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**24


def test_a_long_line_is_not_copied_for_every_piece():
    found = Lines(2**25)
    assert found.feed(b"[") == []
    for _ in range(2**16):
        assert found.feed(b"1," * 100) == []
    assert len(found.feed(b"1]\n")[0]) == 100 * 2**16 + 1


# In requests.


def samples(staging, data, content_type, **headers):
    with Flask(__name__).test_request_context(
        "/", method="POST", data=data, content_type=content_type, headers=headers
    ):
        return read_samples(request, LIMITS, staging, {})


def form(**parts):
    lines = [
        f'--b\r\nContent-Disposition: form-data; name="{name}"\r\nContent-Type: {media_type}\r\n\r\n'.encode()
        + data
        + b"\r\n"
        for name, (media_type, data) in parts.items()
    ]
    return b"".join(lines) + b"--b--"


RECORDS = lines({"x": [1, 2], "id": "a"}, {"x": [3, 4], "id": "b"})
MULTIPART = "multipart/form-data; boundary=b"
SAME = [
    (b'{"X": [[1, 2], [3, 4]], "ids": ["a", "b"]}', "application/json", {}),
    (RECORDS, "application/x-ndjson", {}),
    (RECORDS, "application/jsonl", {}),
    (gzip.compress(RECORDS, mtime=0), "application/x-ndjson; charset=utf-8", {"Content_Encoding": "gzip"}),
    (form(X=(NDJSON, lines([1, 2], [3, 4])), ids=(NDJSON, lines("a", "b"))), MULTIPART, {}),
    (form(config=("application/json", b'{"ids": ["a", "b"]}'), X=("", b"[[1, 2], [3, 4]]")), MULTIPART, {}),
]


@pytest.mark.parametrize(("data", "content_type", "headers"), SAME)
def test_samples_are_read_from_json_forms_and_ndjson(staging, data, content_type, headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    document = samples(staging, data, content_type, **headers)
    X = document.pop("X")
    assert (X if isinstance(X, list) else X.open().tolist()) == [[1, 2], [3, 4]]
    assert document == {"ids": ["a", "b"]}


def test_samples_of_another_media_type_are_refused(staging):
    with pytest.raises(UnsupportedMediaType, match="application/x-ndjson"):
        samples(staging, b"", "text/plain")


def test_a_config_must_be_an_object(staging):
    assert refusal(samples, staging, form(config=("application/json", b"null")), MULTIPART) == ["/config"]
