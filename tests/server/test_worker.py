"""The worker in a real gunicorn: slow clients delay no others, and its own errors are problem documents."""

from __future__ import annotations

import http.client
import json
import re
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.calls import line_pool
from tests.support.serving import Reply, Service, wait_until

N_CONNECTIONS = 40
N_LABELED = 20_000
QUESTION = {"project_id": "small", "strategy": "margin"}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One worker of two threads for all tests, with a small project and one with many labels."""
    directory = tmp_path_factory.mktemp("worker")
    few = {"AQ_WORKERS": "1", "AQ_THREADS": "2", "GUNICORN_CMD_ARGS": f"--worker-connections={N_CONNECTIONS}"}
    service = Service(directory / "data", directory / "log", AQ_LOG_LEVEL="warning", **few)
    service.start()
    service.post(
        "/fit",
        {"project_id": "small", "estimator": "logistic_regression", "X": line_pool(), "y": [0, *[None] * 18, 1]},
        expect=201,
    )
    many = {"project_id": "many", "X": [[0.0]] * N_LABELED, "y": [0] * N_LABELED}
    service.post("/fit", many, expect=201)
    yield service
    service.kill()


# Slow clients.

JSON_HEAD = b"POST /label HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
FORM_HEAD = (
    b"POST /fit HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: 9999\r\n\r\n"
)
PART_HEAD = b'--b\r\nContent-Disposition: form-data; name="X"\r\nContent-Type: application/x-npy\r\n\r\n'

SLOW = {
    "silent": (b"", b""),
    "head": (b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ", b"s"),
    "json": (JSON_HEAD + b"Content-Length: 9999\r\n\r\n{", b" "),
    "chunked": (JSON_HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "form": (FORM_HEAD + PART_HEAD, b"\x93"),
    "unread body": (b"POST /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\n\r\n", b"s"),
    "reply not taken": (b"GET /projects/many/labels HTTP/1.1\r\nHost: x\r\n\r\n", b""),
    "connection not closed": (b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b""),
}
"""Kinds of slow clients: the bytes they send first, and the bytes they repeat."""


@pytest.mark.parametrize("kind", SLOW)
def test_slow_clients_delay_no_others(service: Service, kind: str) -> None:
    begin, drip = SLOW[kind]
    with ExitStack() as connections:
        clients = [connections.enter_context(few_bytes_at_a_time(service.port)) for _ in range(12)]
        for client in clients:
            client.sendall(begin)
        waits = []
        for _ in range(10):
            for client in clients:
                client.sendall(drip)
            began = time.monotonic()
            service.post("/query", QUESTION)
            waits.append(time.monotonic() - began)
        assert sorted(waits)[-2] < 5  # a slow client has 20 seconds


def few_bytes_at_a_time(port: int) -> socket.socket:
    """A connection with a tiny receive buffer."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    client.connect(("127.0.0.1", port))
    return client


def test_silent_clients_do_not_use_up_the_connections(service: Service) -> None:
    with ExitStack() as connections:
        for _ in range(N_CONNECTIONS + 10):
            connections.enter_context(few_bytes_at_a_time(service.port))
        assert service.call("GET", "/healthz", timeout=5).status == 200


def test_a_worker_survives_running_out_of_file_descriptors(service: Service) -> None:
    (worker,) = service.workers()
    n_open = len(list(Path(f"/proc/{worker}/fd").iterdir()))
    limits = resource.prlimit(worker, resource.RLIMIT_NOFILE)
    resource.prlimit(worker, resource.RLIMIT_NOFILE, (n_open + 5, limits[1]))
    try:
        with ExitStack() as connections:
            for _ in range(10):
                connections.enter_context(few_bytes_at_a_time(service.port))
            time.sleep(0.2)
    finally:
        resource.prlimit(worker, resource.RLIMIT_NOFILE, limits)
    service.post("/query", QUESTION)
    assert service.workers() == [worker]


def test_uploads_over_slow_connections_succeed(service: Service) -> None:
    body = json.dumps({"project_id": "small", "labels": [{"index": 3, "label": 0}], "refit": "never"}).encode()
    head = JSON_HEAD + b"Content-Length: %d\r\n\r\n" % len(body)
    with ExitStack() as connections:
        clients = [connections.enter_context(few_bytes_at_a_time(service.port)) for _ in range(16)]
        for piece in (head[:30], head[30:], body[:5], body[5:30], body[30:]):
            for client in clients:
                client.sendall(piece)
            time.sleep(0.05)
        for client in clients:
            assert client.recv(15) == b"HTTP/1.1 200 OK"


def test_a_large_reply_read_slowly_is_complete(service: Service) -> None:
    with few_bytes_at_a_time(service.port) as client:
        client.sendall(SLOW["reply not taken"][0])
        time.sleep(0.2)
        response = http.client.HTTPResponse(client)
        response.begin()
        assert len(json.loads(response.read())["labels"]) == N_LABELED


def test_disconnected_clients_leave_no_files(service: Service) -> None:
    for begin, drip in SLOW.values():
        with few_bytes_at_a_time(service.port) as client:
            client.sendall(begin + drip)
    staging = Path(service.environment["AQ_DATA_DIR"], "staging")
    wait_until(lambda: [path.name for path in staging.iterdir()] == ["lock"])
    service.post("/query", QUESTION)


# Errors of gunicorn's parser.

START = b"GET /healthz HTTP/1.1\r\n"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /" + 5000 * b"x" + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (START + b"X-Long: " + 9000 * b"x" + b"\r\n\r\n", 431),
        (START + 101 * b"X-Many: 1\r\n" + b"\r\n", 431),
        (b"nonsense\r\n\r\n", 400),
        (b"GET /healthz HTTP/9.9\r\n\r\n", 400),
        (START + b"no header\r\n\r\n", 400),
        (START + b"Host: one\r\nHost: two\r\n\r\n", 400),
        (START + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (START + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (START + b"Content-Length: -1\r\n\r\n", 400),
        (START + b"Content-Length: 1e3\r\n\r\n", 400),
        (START + b"Transfer-Encoding: gzip\r\n\r\n", 400),
        (START + b"Transfer-Encoding: sideways\r\n\r\n", 501),
        (START + b"Expect: the-unexpected\r\n\r\n", 417),
    ],
)
def test_a_malformed_request_gets_a_problem_document(service: Service, request_: bytes, status: int) -> None:
    reply = sent(service, request_)
    assert (reply.status, reply.json["status"]) == (status, status)
    assert reply.headers["Content-Type"] == "application/problem+json"
    assert reply.headers["X-Content-Type-Options"] == "nosniff"
    assert re.fullmatch("[0-9a-f]{32}", reply.json["request_id"])
    assert reply.headers["X-Request-ID"] == reply.json["request_id"]


def test_a_malformed_request_is_logged_with_its_request_id(service: Service) -> None:
    reply = sent(service, b"nonsense\r\n\r\n")
    told = [json.loads(line) for line in service.log.read_text().splitlines()]
    (line_of_it,) = [each for each in told if each["request_id"] == reply.json["request_id"]]
    assert {
        "level": "warning",
        "message": "answered 400: InvalidRequestLine",
        "status": 400,
    }.items() <= line_of_it.items()


def test_the_header_script_name_is_ignored(service: Service) -> None:
    assert sent(service, START + b"SCRIPT_NAME: /elsewhere\r\n\r\n").status == 200


def sent(service: Service, request: bytes) -> Reply:
    """Send bytes and return the reply."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=30) as client:
        client.sendall(request)
        response = http.client.HTTPResponse(client)
        response.begin()
        return Reply(response.status, response.headers, response.read())
