"""The parts of gunicorn that the adapter relies on have not changed since the supported releases."""

from __future__ import annotations

import inspect
import re
import socket
import tomllib
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from gunicorn import glogging, util
from gunicorn.config import Config
from gunicorn.http import errors
from gunicorn.http.body import Body, ChunkedReader, LengthReader
from gunicorn.http.unreader import IterUnreader, Unreader
from gunicorn.workers.gthread import TConn, ThreadWorker

from service.server import gunicorn_adapter
from service.server.gunicorn_adapter import STATUS_OF_ERROR, BodyStream

ROOT = Path(__file__).parents[2]


def changed(what: str) -> str:
    """The message of a failing test."""
    return f"gunicorn {version('gunicorn')} breaks service/server/gunicorn_adapter.py: {what}"


@pytest.mark.parametrize(
    ("function", "parameters"),
    [
        (ThreadWorker.get_thread_pool, "self"),
        (ThreadWorker.load_wsgi, "self"),
        (ThreadWorker.handle_exit, "self, sig, frame"),
        (ThreadWorker.accept, "self, listener"),
        (ThreadWorker.enqueue_req, "self, conn"),
        (ThreadWorker.handle, "self, conn"),
        (ThreadWorker.handle_error, "self, req, client, addr, exc"),
        (TConn.__init__, "self, cfg, sock, client, server"),
        (TConn.close, "self, graceful=False"),
        (Unreader.read, "self, size=None, read_ahead=None"),
        (Unreader.unread, "self, data"),
        (Body.read, "self, size=None"),
        (glogging.Logger.setup, "self, cfg"),
        (util.close, "sock"),
        (util.close_graceful, "sock, timeout=2.0, max_drain=65536"),
    ],
    ids=lambda value: getattr(value, "__qualname__", ""),
)
def test_gunicorns_methods_have_the_parameters_that_the_adapter_passes(function: Any, parameters: str) -> None:
    now = str(inspect.signature(function)).strip("()")
    assert now == parameters, changed(f"{function.__qualname__} takes ({now}) and not ({parameters})")


@pytest.fixture
def connection() -> Iterator[TConn]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield TConn(Config(), ours, ("", 0), ("", 0))


def worker() -> ThreadWorker:
    made = ThreadWorker(0, 0, [], None, 30, Config(), None)
    made.tmp.close()
    return made


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (worker, ["cfg", "log", "tpool", "worker_connections", "max_keepalived"]),
        (lambda: LengthReader(IterUnreader([b""]), 3), ["unreader", "length"]),
        (lambda: Body(None), ["reader"]),
        (Config, ["threads", "worker_connections"]),
    ],
    ids=["ThreadWorker", "LengthReader", "Body", "Config"],
)
def test_gunicorns_objects_have_the_attributes_that_the_adapter_uses(make: Callable[[], Any], names: list[str]) -> None:
    found = make()
    for name in names:
        assert hasattr(found, name), changed(f"{type(found).__name__} has no attribute {name!r}")


def test_a_connection_of_gunicorn_has_the_attributes_that_the_adapter_uses(connection: TConn) -> None:
    for name in ("cfg", "sock", "client", "server", "data_ready"):
        assert hasattr(connection, name), changed(f"TConn has no attribute {name!r}")


def test_each_error_of_a_request_has_a_status() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    for kind in kinds:
        known = kind is errors.NoMoreData or any(parent in STATUS_OF_ERROR for parent in kind.__mro__)
        assert known, changed(f"{kind.__name__} has no status")


def test_only_releases_that_were_tried_may_be_installed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (allowed,) = [each for each in project["dependencies"] if each.startswith("gunicorn")]
    (tried,) = re.findall(r"Tried with gunicorn (\S+)\.\n", str(gunicorn_adapter.__doc__))
    (locked,) = re.findall(r"^gunicorn==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    major, minor, _ = tried.split(".")
    assert allowed == f"gunicorn>={tried},<{major}.{int(minor) + 1}"
    assert locked == tried


def length_body(*pieces: bytes, length: int) -> Body:
    return Body(LengthReader(IterUnreader(pieces), length))


def test_a_body_is_read_as_it_arrives_and_the_next_request_is_left_alone() -> None:
    body = length_body(b"ab", b"cdeGET /", length=5)
    stream = BodyStream(body)
    assert [stream.read(9), stream.read(9), stream.read(9)] == [b"ab", b"cde", b""]
    assert body.reader.unreader.read() == b"GET /"


def test_a_body_can_be_read_whole_or_by_lines() -> None:
    assert BodyStream(length_body(b"a\nb", b"c", length=4)).read() == b"a\nbc"
    assert list(BodyStream(length_body(b"a\nb", b"c", length=4))) == [b"a\n", b"bc"]


def test_a_broken_chunk_is_an_error_of_the_connection() -> None:
    stream = BodyStream(Body(ChunkedReader(None, IterUnreader([b"not a size\r\n"]))))
    with pytest.raises(OSError, match="the body is malformed"):
        stream.read(9)


def test_a_body_that_is_read_to_its_end_does_not_wait_for_the_next_request() -> None:
    received = iter([b"body of ", b"the first"])

    def next_bytes() -> Iterator[bytes]:
        yield from received
        raise AssertionError("read beyond the body")

    reader = LengthReader(IterUnreader(next_bytes()), len("body of the first"))
    stream = BodyStream(Body(reader))
    assert stream.read() == b"body of the first"
    assert stream.read(10) == b""
