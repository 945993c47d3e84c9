"""Compressed bodies are decoded in pieces, within limits on both sides, and must be complete."""

import gzip
import io
import json
import os
import tracemalloc
import zlib

import numpy as np
import pytest
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge

from service.app import create_app
from service.http.body.encodings import MAX_MEMBERS, PIECE_BYTES, ZSTD_WINDOW_LOG, decode_body, zstd
from service.settings import Settings

ENCODE = {"gzip": gzip.compress, "x-gzip": gzip.compress, "zstd": zstd.compress}
each_coding = pytest.mark.parametrize("coding", ["gzip", "zstd"])
LIMIT = 200_000
POOL = {"project_id": "cats", "estimator": "logistic_regression", "X": [[0, 1], [2, 3], [4, 5]], "y": ["a", "b", None]}


def in_pieces(data, size):
    return (data[at : at + size] for at in range(0, len(data), size))


def decode(coding, data, size=2**16, limit=10**9):
    return b"".join(decode_body(coding, in_pieces(data, size), limit))


# Valid bodies.


@each_coding
@pytest.mark.parametrize("size", [1, 7, 1000, 2**20])
@pytest.mark.parametrize("data", [b"a", os.urandom(20_000), bytes(3 * PIECE_BYTES), bytes(PIECE_BYTES) + b"\x01"])
def test_an_encoded_body_is_decoded(coding, size, data):
    assert decode(coding, ENCODE[coding](data), size) == data


@each_coding
@pytest.mark.parametrize("size", [1, 7, 2**20])
def test_consecutive_members_are_one_body(coding, size):
    data = b"".join(ENCODE[coding](part) for part in (b"one, ", b"", b"two"))
    assert decode(coding, data, size) == b"one, two"


def test_the_window_of_a_frame_is_limited_as_in_rfc_9659():
    def frame(log):
        options = {zstd.CompressionParameter.window_log: log, zstd.CompressionParameter.content_size_flag: 0}
        encoder = zstd.ZstdCompressor(options=options)
        return encoder.compress(b"a" * 100_000) + encoder.flush()

    assert len(decode("zstd", frame(ZSTD_WINDOW_LOG))) == 100_000
    with pytest.raises(BadRequest, match="too much memory"):
        decode("zstd", frame(ZSTD_WINDOW_LOG + 1))


# Truncated and invalid bodies.


@each_coding
@pytest.mark.parametrize("size", [1, 2**20])
def test_truncated_data_is_refused(coding, size):
    data = ENCODE[coding](b"hello, hello, hello")
    for length in range(len(data)):
        with pytest.raises(BadRequest):
            decode(coding, data[:length], size)


@each_coding
@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data + b"x",
        lambda data: data + bytes(8),
        lambda data: data + data[:-1],
        lambda data: b"x" + data,
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),
        lambda data: b"plain text",
    ],
)
def test_damaged_data_is_refused(coding, damage):
    options = {zstd.CompressionParameter.checksum_flag: 1}
    data = zstd.compress(b"hello", options=options) if coding == "zstd" else gzip.compress(b"hello")
    with pytest.raises(BadRequest, match="Content-Encoding"):
        decode(coding, damage(data))


def test_zlib_without_a_gzip_header_is_refused():
    with pytest.raises(BadRequest):
        decode("gzip", zlib.compress(b"hello"))


@each_coding
def test_empty_members_without_end_are_refused(coding):
    with pytest.raises(BadRequest, match="members or frames"):
        decode(coding, ENCODE[coding](b"") * (MAX_MEMBERS + 1))


@each_coding
def test_the_limit_applies_to_decoded_bytes(coding):
    data = ENCODE[coding](bytes(1000))
    assert len(decode(coding, data, limit=1000)) == 1000
    with pytest.raises(RequestEntityTooLarge, match="when it is decoded"):
        decode(coding, data, limit=999)


@each_coding
def test_a_decompression_bomb_is_decoded_in_pieces(coding):
    data = ENCODE[coding](bytes(2**27))
    assert len(data) < 140_000
    tracemalloc.start()
    assert sum(map(len, decode_body(coding, iter([data]), 10**9))) == 2**27
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**21


# In requests.


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    small = Settings(
        data_dir=tmp_path_factory.mktemp("data"), log_level="error", max_json_bytes=LIMIT, max_body_bytes=2 * LIMIT
    )
    client = create_app(small).test_client()
    assert client.post("/fit", json=POOL).status_code == 201
    return client


def send(client, path, body, coding, media_type="application/json"):
    return client.post(path, data=body, content_type=media_type, headers={"Content-Encoding": coding})


@pytest.mark.parametrize("coding", [*ENCODE, "GZIP", " zstd ", "identity", ""])
def test_json_may_be_encoded(client, coding):
    body = ENCODE.get(coding.strip().lower(), bytes)(json.dumps({"project_id": "cats"}).encode())
    assert send(client, "/query", body, coding).status_code == 200


@each_coding
def test_a_form_may_be_encoded(client, coding):
    file = io.BytesIO()
    np.save(file, np.arange(40_000.0).reshape(-1, 4))
    parts = [(b"config", json.dumps({"project_id": coding}).encode()), (b"X", file.getvalue())]
    form = b"".join(b'--b\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n' % part for part in parts)
    reply = send(client, "/fit", ENCODE[coding](form + b"--b--\r\n"), coding, "multipart/form-data; boundary=b")
    assert reply.status_code == 201
    assert reply.json["n_samples"] == 10_000


@pytest.mark.parametrize("coding", ["br", "deflate", "gzip, zstd", "gzip,gzip", "identity, gzip", "*", "x" * 1000])
def test_an_unknown_encoding_gets_a_list_of_those_supported(client, coding):
    reply = send(client, "/query", b"{}", coding)
    assert reply.status_code == 415
    assert reply.headers["Accept-Encoding"] == "gzip, zstd"
    assert len(reply.data) < 1000


@each_coding
@pytest.mark.parametrize(("size", "status"), [(LIMIT, 200), (LIMIT + 1, 413), (2**27, 413)])
def test_the_json_limit_applies_to_decoded_bytes(client, coding, size, status):
    body = b'{"project_id": "cats"}'.ljust(size)
    assert send(client, "/query", ENCODE[coding](body), coding).status_code == status


@each_coding
def test_the_json_limit_applies_to_sent_bytes(client, coding):
    assert send(client, "/query", ENCODE[coding](os.urandom(LIMIT)), coding).status_code == 413


@each_coding
def test_a_body_that_does_not_match_its_encoding_is_refused(client, coding):
    assert send(client, "/query", b'{"project_id": "cats"}', coding).status_code == 400
    assert send(client, "/query", ENCODE[coding](b"{}")[:-1], coding).status_code == 400
