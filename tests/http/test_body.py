"""Request bodies: over a real gunicorn if its parsing matters, otherwise in this process."""

import gzip
import http.client
import io
import json
import os
import re
import socket
from contextlib import suppress
from pathlib import Path

import joblib
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet
import pytest
from flask import Flask, request
from hypothesis import given, settings
from hypothesis import strategies as st
from werkzeug.exceptions import NotAcceptable

from service.app import create_app
from service.errors import StoreFull
from service.http.body.formats.npy import MatrixSink
from service.http.body.stream import MAX_IN_MEMORY_BYTES, whole_body
from service.http.responses import choose_media_type
from service.settings import Settings
from service.store.spool import SpoolFile
from service.store.staging import Staging
from tests.support.npy import npy
from tests.support.serving import Reply, Service

LIMIT = 4_000_000
MULTIPART = "multipart/form-data; boundary=boundary"
QUESTION = b'{"project_id": "cats"}'
POOL = {"project_id": "cats", "estimator": "logistic_regression", "X": [[0, 1], [2, 3], [4, 5]], "y": ["a", "b", None]}
KEYS = {"type", "title", "status", "detail", "request_id"}


def form(**parts):
    lines = [
        f'--boundary\r\nContent-Disposition: form-data; name="{name}"; filename="f"\r\n\r\n'.encode() + value + b"\r\n"
        for name, value in parts.items()
    ]
    return b"".join(lines) + b"--boundary--\r\n"


# Over a real gunicorn.


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """One gunicorn of one worker for all tests here, with a project."""
    directory = tmp_path_factory.mktemp("wire")
    small = {"AQ_WORKERS": "1", "AQ_THREADS": "4", "AQ_MAX_BODY_BYTES": str(LIMIT), "AQ_LOG_LEVEL": "error"}
    service = Service(directory / "data", directory / "log", **small).start()
    try:
        service.post("/fit", POOL, expect=201)
        yield service
    finally:
        service.stop()


@pytest.fixture(autouse=True)
def still_well(request):
    """After each test with gunicorn, check that the worker is the same, the project unchanged and no file left."""
    if "service" not in request.fixturenames:
        yield
        return
    service = request.getfixturevalue("service")
    workers = service.workers()
    yield
    assert service.call("GET", "/projects/cats").json["version"] == 1
    assert service.workers() == workers
    staging = Path(service.environment["AQ_DATA_DIR"]) / "staging"
    assert [path.name for path in staging.iterdir() if path.name != "lock"] == []


def head(path="/query", content_type="application/json", **headers):
    """The head of a request."""
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Type: {content_type}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


def chunked(*chunks, end=b"0\r\n\r\n"):
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + end


def exchange(service, *pieces, hang_up=False):
    """Send bytes, close our side if asked to, and return the first reply."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as connection:
        with suppress(BrokenPipeError, ConnectionResetError):  # refused before all was sent
            for piece in pieces:
                connection.sendall(piece)
            if hang_up:
                connection.shutdown(socket.SHUT_WR)
        return next_reply(connection)


def next_reply(connection):
    response = http.client.HTTPResponse(connection)  # passes over "100 Continue"
    response.begin()
    return Reply(response.status, response.headers, response.read())


def assert_problem(reply, status):
    assert reply.status == status, reply.body
    assert reply.headers["Content-Type"] == "application/problem+json"
    assert reply.json.keys() - {"errors"} == KEYS
    assert reply.json["request_id"] == reply.headers["X-Request-ID"]
    assert len(reply.body) < 10_000


FORM = form(config=b'{"project_id": "new"}', X=npy(np.zeros((2, 2))))

ZIPPED = gzip.compress(QUESTION)

SHORT = [
    pytest.param(head(Content_Length=100), QUESTION, id="a body that breaks off"),
    pytest.param(head(Content_Length=len(QUESTION) + 1), QUESTION, id="a whole document, a byte short"),
    pytest.param(head(Content_Length=1), b"", id="no body"),
    pytest.param(head(Content_Length=LIMIT), b" " * 100_000, id="a large body that breaks off"),
    pytest.param(head("/fit", MULTIPART, Content_Length=len(FORM) + 1), FORM, id="a whole form, a byte short"),
    pytest.param(
        head("/fit", MULTIPART, Content_Length=len(FORM)), FORM[:-60], id="a form that breaks off in a matrix"
    ),
    pytest.param(head(Transfer_Encoding="chunked"), chunked(QUESTION, end=b""), id="chunks without an end"),
    pytest.param(head(Transfer_Encoding="chunked"), chunked(QUESTION)[:10], id="a chunk that breaks off"),
    pytest.param(head(Transfer_Encoding="chunked"), b"", id="no chunks"),
    pytest.param(
        head(Content_Length=len(ZIPPED) + 1, Content_Encoding="gzip"), ZIPPED, id="a whole gzip member, a byte short"
    ),
    pytest.param(head(Content_Length=len(ZIPPED), Content_Encoding="gzip"), ZIPPED[:-9], id="gzip that breaks off"),
]


@pytest.mark.parametrize(("before", "body"), SHORT)
def test_a_body_shorter_than_its_content_length_is_refused(service, before, body):
    assert_problem(exchange(service, before, body, hang_up=True), 400)


@pytest.mark.parametrize("body", [b"zz\r\n", b"-1\r\n\r\n", b"5\r\nabcdefgh\r\n0\r\n\r\n", b"\r\n\r\n", b"\xff" * 50])
def test_broken_chunks_are_refused(service, body):
    assert exchange(service, head(Transfer_Encoding="chunked"), body, hang_up=True).status == 400


def test_chunks_within_the_limit_are_read(service):
    pieces = [bytes([byte]) for byte in QUESTION]
    assert exchange(service, head(Transfer_Encoding="chunked"), chunked(*pieces)).status == 200


def test_chunks_may_be_pieces_of_gzip(service):
    pieces = [bytes([byte]) for byte in ZIPPED]
    before = head(Transfer_Encoding="chunked", Content_Encoding="gzip")
    assert exchange(service, before, chunked(*pieces)).status == 200
    assert_problem(exchange(service, before, chunked(*pieces[:-1])), 400)


def test_a_form_in_chunks_is_read(service):
    data = form(config=b'{"project_id": "cats"}', X_test=npy(np.zeros((2, 3))), y_test=b'["a", "b"]')
    reply = exchange(service, head("/fit", MULTIPART, Transfer_Encoding="chunked"), chunked(data[:99], data[99:]))
    assert_problem(reply, 422)
    assert reply.json["errors"] == [{"pointer": "/X_test", "detail": "has 3 columns, but the pool has 2"}]


@pytest.mark.parametrize("media_type", ["application/json", MULTIPART])
def test_chunks_past_the_limit_are_refused_and_not_cut(service, media_type):
    space = b" " * 100_000  # whatever is cut off, what is left is still a document
    pieces = [chunked(QUESTION, end=b"")] + [chunked(space, end=b"")] * (2 * LIMIT // len(space))
    assert_problem(exchange(service, head("/fit", media_type, Transfer_Encoding="chunked"), *pieces), 413)


def test_chunks_up_to_the_limit_are_taken(service):
    space = b" " * (LIMIT - len(QUESTION))
    assert exchange(service, head(Transfer_Encoding="chunked"), chunked(QUESTION, space)).status == 200
    reply = exchange(service, head(Transfer_Encoding="chunked"), chunked(QUESTION, space, b" "))
    assert_problem(reply, 413)


@pytest.mark.parametrize("length", [LIMIT + 1, 10**12, 10**30])
def test_a_body_too_large_is_refused_before_it_is_sent(service, length):
    assert_problem(exchange(service, head(Content_Length=length)), 413)


def test_expect_100_continue_is_answered_with_413_for_a_body_too_large(service):
    assert_problem(exchange(service, head(Content_Length=LIMIT + 1, Expect="100-continue")), 413)


def test_expect_100_continue_is_answered_with_100(service):
    before = head(Content_Length=len(QUESTION), Expect="100-continue")
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as connection:
        connection.sendall(before)
        assert connection.recv(100).startswith(b"HTTP/1.1 100 Continue")
        connection.sendall(QUESTION)
        assert next_reply(connection).status == 200


@pytest.mark.parametrize("path", ["/fit", "/query", "/label"])
def test_a_body_of_unknown_length_is_refused(service, path):
    assert_problem(exchange(service, head(path)), 411)


@pytest.mark.parametrize(
    "headers",
    [
        {"Content_Length": "abc"},
        {"Content_Length": "-1"},
        {"Content_Length": "1, 2"},
        {"Content_Length": "+22"},
        {"Content_Length": "22", "Transfer_Encoding": "chunked"},
        {"Transfer_Encoding": "chunked, gzip"},
        {"Transfer_Encoding": "xchunked"},
        {"Transfer_Encoding": "gzip, chunked"},
    ],
    ids=str,
)
def test_an_ambiguous_content_length_is_refused(service, headers):
    assert exchange(service, head(**headers), chunked(QUESTION), hang_up=True).status in (400, 411, 501)


@pytest.mark.parametrize("document", [b"[" * 10**6, b'{"params":' * 10**5, b"[" * 10**6 + b"]" * 10**6])
def test_deep_nesting_is_refused(service, document):
    assert_problem(exchange(service, head(Content_Length=len(document)), document), 400)


@pytest.mark.parametrize(
    ("path", "before", "item", "after"),
    [
        ("/fit", b'{"project_id": "new", "X": [', b"[]", b"]}"),
        ("/fit", b'{"project_id": "new", "X": [[', b'""', b"]]}"),
        ("/fit", b'{"project_id": "new", "X": [[1]], "y": [', b"{}", b"]}"),
        ("/fit", b'{"project_id": "new", "X": [[1]], "ids": [', b"1", b"]}"),
        ("/query", b'{"project_id": "cats", "exclude": [', b"-1", b"]}"),
        ("/query", b'{"project_id": "cats", "candidates": [', b"9", b"]}"),
        ("/label", b'{"project_id": "cats", "labels": [', b"{}", b"]}"),
    ],
)
def test_a_million_wrong_values_get_a_short_reply(service, path, before, item, after):
    document = before + b",".join([item] * 1_000_000) + after
    assert_problem(exchange(service, head(path, Content_Length=len(document)), document), 422)


def test_a_million_unknown_fields_get_a_short_reply(service):
    document = ("{" + ",".join(f'"{i}":1' for i in range(300_000)) + "}").encode()
    assert_problem(exchange(service, head(Content_Length=len(document)), document), 422)


@pytest.mark.parametrize("media_type", ["text/plain", MULTIPART])
def test_an_unread_body_is_not_parsed_as_the_next_request(service, media_type):
    inner = b"DELETE /projects/cats HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as connection:
        connection.sendall(head("/label", media_type, Content_Length=len(inner)) + inner)
        assert_problem(next_reply(connection), 415)
        with suppress(ConnectionError):  # or the connection is closed, which is as good
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert next_reply(connection).json["status"] == "ok"


def test_pipelined_requests_are_answered_in_order(service):
    wrong = b'{"project_id": "dogs"}'
    requests = [head(Content_Length=len(body)) + body for body in (QUESTION, wrong, QUESTION)]
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as connection:
        connection.sendall(b"".join(requests))
        data = b""
        while len(found := re.findall(rb"HTTP/1.1 (\d+)", data)) < len(requests):
            data += (more := connection.recv(2**16))
            assert more
    assert found == [b"200", b"404", b"200"]


@pytest.mark.parametrize("name", ["a" * 5_000, "a b", "ä"])
def test_an_invalid_request_id_is_replaced(service, name):
    reply = exchange(service, head(X_Request_ID=name, Content_Length=2), b"{}")
    assert_problem(reply, 422)
    assert len(reply.json["request_id"]) == 32


def test_a_request_id_cannot_inject_a_header(service):
    reply = exchange(service, head(X_Request_ID="a\r\n X-Evil: 1", Content_Length=2), b"{}")
    assert "X-Evil" not in reply.headers


# In this process.


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    small = Settings(data_dir=tmp_path_factory.mktemp("data"), log_level="error", max_pool_cells=10**6)
    client = create_app(small).test_client()
    assert client.post("/fit", json=POOL).status_code == 201
    return client


def send(client, **parts):
    return client.post("/fit", data=form(**parts), content_type=MULTIPART)


@pytest.mark.parametrize("dtype", ["f2", ">f4", "f8", "i1", ">u8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_form_creates_the_same_project_as_json(tmp_path, dtype, order):
    client = create_app(Settings(data_dir=tmp_path, log_level="error")).test_client()
    pool = np.arange(40).reshape(10, 4)
    y, ids = ["a", "b"] * 4 + [None, None], [f"s{i}" for i in range(10)]
    fields = {"X": pool.tolist(), "y": y, "ids": ids, "X_test": pool[:4].tolist(), "y_test": y[:4]}
    assert (
        client.post("/fit", json={"project_id": "json", "estimator": "logistic_regression"} | fields).status_code == 201
    )
    parts = {
        "y": npy(np.array([label or "" for label in y])),
        "ids": npy(np.array(ids)),
        "X": npy(np.asarray(pool.astype(dtype), order=order)),
        "y_test": json.dumps(y[:4]).encode(),
        "X_test": npy(np.asarray(pool[:4].astype(dtype), order=order)),
        "config": b'{"project_id": "form", "estimator": "logistic_regression", "missing_label": ""}',
    }
    assert send(client, **parts).status_code == 201
    one, other = (client.get(f"/projects/{name}").json for name in ("json", "form"))
    for name in ("n_samples", "n_features", "n_labeled", "classes", "class_counts", "model_version"):
        assert one[name] == other[name]
    assert other["test_score"]["log_loss"] == pytest.approx(one["test_score"]["log_loss"], rel=1e-3)
    asked = [client.post("/query", json={"project_id": name, "random_state": 1}).json for name in ("json", "form")]
    assert asked[0]["ids"] == asked[1]["ids"]


def table(write, values):
    """Values as an Arrow table with a list of numbers or a value in each row."""
    file = io.BytesIO()
    write(pa.table({"column": values}), file)
    return file.getvalue()


def write_stream(rows, file):
    with pa.ipc.new_stream(file, rows.schema) as writer:
        writer.write_table(rows)


WAYS = {
    "application/vnd.apache.arrow.stream": lambda values: table(write_stream, values),
    "application/vnd.apache.parquet": lambda values: table(pa.parquet.write_table, values),
    "application/x-ndjson": lambda values: b"".join(orjson.dumps(value) + b"\n" for value in values),
}


@pytest.mark.parametrize(("media_type", "encode"), WAYS.items(), ids=WAYS)
@pytest.mark.parametrize("y", [["a", None, "b", "a"], [1, None, 0, 1], [True, False, True, False]], ids=str)
def test_every_format_creates_the_same_project_as_json(tmp_path, media_type, encode, y):
    client = create_app(Settings(data_dir=tmp_path, log_level="error")).test_client()
    test = [y[0], y[2], y[3]]
    fields = {"X": [[0, 1], [2, 3], [4, 5], [6, 7]], "y": y, "X_test": [[0, 1], [4, 5], [6, 7]], "y_test": test}
    fields["ids"] = ["p", "q", "r", "s"]
    assert (
        client.post("/fit", json={"project_id": "json", "estimator": "logistic_regression"} | fields).status_code == 201
    )
    parts = form(
        config=b'{"project_id": "form", "estimator": "logistic_regression"}',
        **{name: encode(values) for name, values in fields.items()},
    )
    typed = parts.replace(b'"; filename="f"\r\n', f'"; filename="f"\r\nContent-Type: {media_type}\r\n'.encode())
    typed = typed.replace(media_type.encode(), b"application/json", 1)
    assert client.post("/fit", data=typed, content_type=MULTIPART).status_code == 201
    one, other = (client.get(f"/projects/{name}").json for name in ("json", "form"))
    changing = {"project_id", "created_at", "updated_at"}
    assert {name: one[name] for name in one.keys() - changing} == {
        name: other[name] for name in other.keys() - changing
    }


@pytest.mark.parametrize("header", ["Application/JSON", "application/json; charset=utf-8", "APPLICATION/JSON;a=b"])
def test_a_media_type_is_parsed_as_in_rfc_9110(client, header):
    assert client.post("/query", data=QUESTION, content_type=header).status_code == 200


@pytest.mark.parametrize("header", ["Application/X-NPY", "application/octet-stream", "application/x-npy; version=1"])
def test_a_parts_media_type_is_parsed_as_in_rfc_9110(client, header):
    data = form(config=b'{"project_id": "cats"}', X_test=npy(np.zeros((2, 3))), y_test=b'["a", "b"]')
    data = data.replace(b'"X_test"; filename="f"', b'"X_test"; filename="f"\r\nContent-Type: ' + header.encode())
    data = data.replace(b'"config"; filename="f"', b'"config"\r\nContent-Type: Application/JSON;charset=utf-8')
    reply = client.post("/fit", data=data, content_type=MULTIPART)
    assert [error["pointer"] for error in reply.json["errors"]] == ["/X_test"]
    assert "has 3 columns" in reply.json["detail"]


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        (None, "application/json"),
        ("", "application/json"),
        ("*/*", "application/json"),
        ("text/csv", "text/csv"),
        ("text/*", "text/csv"),
        ("text/csv, application/json", "application/json"),
        ("text/csv, application/json;q=0.5", "text/csv"),
        ("text/csv;q=0.5, */*;q=0.1", "text/csv"),
        ("image/png", None),
        ("text/csv;q=0", None),
        ("nonsense", None),
    ],
)
def test_the_accept_header_chooses_the_media_type(accept, chosen):
    headers = {} if accept is None else {"Accept": accept}
    with Flask(__name__).test_request_context(headers=headers):
        if chosen:
            assert choose_media_type(request, "application/json", "text/csv") == chosen
            return
        with pytest.raises(NotAcceptable, match="application/json or text/csv"):
            choose_media_type(request, "application/json", "text/csv")


def test_a_full_disk_while_writing_a_part_is_store_full(tmp_path):
    spool = SpoolFile(tmp_path / "part")
    os.dup2(os.open("/dev/full", os.O_WRONLY), spool._file.fileno())
    with pytest.raises(StoreFull):
        spool.write(bytes(10**6))
    spool.abandon()


def test_a_full_disk_while_writing_a_matrix_is_store_full(tmp_path):
    sink = MatrixSink("/X", Staging(tmp_path), 10**9)
    sink.write(npy(np.zeros((10**4, 10)))[:1000])
    os.dup2(os.open("/dev/full", os.O_WRONLY), sink._body.writer._file._file.fileno())
    with pytest.raises(StoreFull):
        sink.write(bytes(500_000))
    sink.abandon()


@pytest.mark.parametrize("size", [2**18 - 1, 2**18, 2**18 + 1, 2**20 + 7])
def test_a_part_split_over_pieces_of_the_body_is_complete(tmp_path, size):
    """The decoder holds back what may be the beginning of a boundary: a pool full of line breaks and dashes."""
    client = create_app(Settings(data_dir=tmp_path, log_level="error")).test_client()
    pool = np.resize(np.frombuffer(b"\r\n--boundarx\r\n--bound\r\r\n\n-", np.uint8), (size // 8, 8))
    assert send(client, config=b'{"project_id": "cats"}', X=npy(pool)).status_code == 201
    kept = joblib.load(tmp_path / "projects/cats/pool/000001.joblib")
    assert kept.dtype == np.uint8
    assert np.array_equal(kept, pool)


# Any body gets a success or a client error, and never a 500.

VALID = form(
    config=b'{"project_id": "cats", "missing_label": ""}',
    X=npy(np.zeros((3, 2))),
    y=npy(np.array(["a", "", "b"])),
    ids=b'["a", "b", "c"]',
)


@st.composite
def mutations(draw):
    """A valid form with some bytes replaced, removed or doubled."""
    data = bytearray(VALID)
    for _ in range(draw(st.integers(1, 4))):
        begin = draw(st.integers(0, len(data)))
        end = draw(st.integers(begin, min(begin + 20, len(data))))
        words = st.sampled_from([b"\r\n", b"--boundary", b"--boundary--", b'"', b";", b"name*=utf-8''%ed%a0%80", b"="])
        data[begin:end] = draw(st.one_of(st.binary(max_size=8), words, st.just(data[begin:end] * 2)))
    return bytes(data)


@settings(max_examples=300)
@given(mutations())
def test_a_mutated_form_is_never_a_500(client, data):
    reply = client.post("/fit", data=data or b" ", content_type=MULTIPART)
    assert reply.status_code in (200, 201, 400, 409, 413, 422), reply.text


@settings(max_examples=100)
@given(st.text(max_size=50), st.binary(max_size=50))
def test_a_strange_part_head_is_never_a_500(client, text, data):
    head = f"--boundary\r\nContent-Disposition: form-data; {text}\r\nContent-Type: {text}\r\n\r\n"
    reply = client.post("/fit", data=head.encode() + data + b"\r\n--boundary--\r\n", content_type=MULTIPART)
    assert reply.status_code in (400, 422), reply.text


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
scalars = st.one_of(st.none(), st.booleans(), st.integers(-3, 3), st.integers(-(2**63), 2**64 - 1), texts)
scalars |= st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from(["a", "b", "margin", "k_means", "svc"])
values = st.one_of(
    scalars,
    st.lists(st.integers(-1, 3), max_size=4),
    st.lists(st.lists(st.one_of(st.integers(-9, 9), scalars), min_size=2, max_size=2), max_size=4),
    st.lists(st.sampled_from(["a", "b", None, 1, True]), min_size=3, max_size=3),
    st.dictionaries(st.sampled_from(["name", "params", "sample", "C"]), scalars),
    st.lists(st.dictionaries(st.sampled_from(["index", "id", "label", "skip", "annotator"]), scalars), max_size=3),
    st.recursive(scalars, lambda below: st.one_of(st.lists(below), st.dictionaries(texts, below)), max_leaves=6),
)
FIELDS = {
    "/fit": ["X", "y", "ids", "X_test", "y_test", "classes", "estimator", "random_state", "replace"],
    "/query": ["batch_size", "strategy", "params", "exclude", "candidates", "random_state", "annotator"],
    "/label": ["labels", "refit"],
}


@pytest.mark.parametrize("path", FIELDS)
@settings(max_examples=150)
@given(data=st.data())
def test_a_strange_document_is_never_a_500(client, path, data):
    document = data.draw(st.dictionaries(st.sampled_from(FIELDS[path]), values, max_size=4))
    document = orjson.dumps({"project_id": "cats"} | document)
    reply = client.post(path, data=document, content_type="application/json")
    assert reply.status_code in (200, 409, 422), reply.text


@pytest.mark.parametrize(("limit", "status"), [(2000, 413), (3000, 201)])
def test_all_json_parts_of_a_form_share_one_limit(tmp_path, limit, status):
    small = Settings(data_dir=tmp_path, log_level="error", max_json_bytes=limit)
    rows = json.dumps([[0.25] * 40] * 5).encode()  # 1,200 bytes
    parts = {"config": b'{"project_id": "p"}', "X": rows, "X_test": rows, "y_test": b"[1, 1, 1, 1, 2]"}
    reply = send(create_app(small).test_client(), **parts)
    assert reply.status_code == status
    if status == 413:
        assert "bytes that AQ_MAX_JSON_BYTES leaves for it" in reply.json["detail"]


class Input(io.BytesIO):
    """A body that raises an error at its end."""

    def __init__(self, data, error):
        super().__init__(data)
        self.error = error

    def read(self, size=-1):
        data = super().read(size)
        if not data:
            raise self.error
        return data


@pytest.mark.parametrize(
    ("error", "status"), [(TimeoutError(), 408), (ConnectionResetError(), 400)], ids=["slow", "gone"]
)
def test_a_slow_or_disconnected_client_gets_a_4xx(client, error, status):
    stream = Input(b'{"project_id"', error)
    length = {"CONTENT_LENGTH": "99"}
    reply = client.post("/fit", input_stream=stream, content_type="application/json", environ_overrides=length)
    assert (reply.status_code, reply.json["status"]) == (status, status)
    assert "the body" in reply.json["detail"]


@pytest.mark.parametrize("more", [-1, 0, 1, 2**20])
def test_a_long_document_is_buffered_in_a_file(tmp_path, more):
    data = os.urandom(MAX_IN_MEMORY_BYTES + more)
    pieces = iter([data[:10], data[10:MAX_IN_MEMORY_BYTES], data[MAX_IN_MEMORY_BYTES:]])
    assert whole_body(pieces, tmp_path) == data
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_while_buffering_a_document_is_store_full(tmp_path):
    def chunks():
        yield bytes(MAX_IN_MEMORY_BYTES + 1)
        links = list(Path("/proc/self/fd").iterdir())
        (found,) = [int(link.name) for link in links if os.path.realpath(link).startswith(str(tmp_path))]
        os.dup2(os.open("/dev/full", os.O_WRONLY), found)
        yield bytes(2**20)

    with pytest.raises(StoreFull):
        whole_body(chunks(), tmp_path)
