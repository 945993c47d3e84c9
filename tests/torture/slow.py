"""Hundreds of clients that send a byte per second, or read nothing: other requests stay fast."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread

import numpy as np

from tests.support.npy import npy
from tests.torture.checked_client import CheckedClient
from tests.torture.forms import FORM, form
from tests.torture.outcome import Tally
from tests.torture.processes import running
from tests.torture.sizes import Sizes

PERIOD = 1.0
"""Seconds between bytes: short enough not to count as idle."""

MAX_P99_SECONDS = 1.0
"""Bound on the 99th percentile of other requests."""

N_ROWS = 200_000
"""Enough rows that an export does not fit into socket buffers."""


def run(sizes: Sizes, seed: int, scratch: Path) -> Tally:
    """Measure other requests without slow clients, then beside each kind of them."""
    tally = Tally()
    with running(scratch / "data", scratch / "log", AQ_LOG_LEVEL="error") as service:
        client = CheckedClient(service.port, tally)
        make_projects(client)
        measure(client, "without slow clients", 3, tally)
        for name, beginning in SLOW.items():
            stop = Event()
            clients = Thread(target=drip, args=(service.port, beginning, sizes.dripping, stop, tally))
            clients.start()
            try:
                time.sleep(2 * PERIOD)
                measure(client, name, sizes.drip_seconds, tally)
            finally:
                stop.set()
                clients.join()
    return tally


def make_projects(client: CheckedClient) -> None:
    """Create a small project to query and one with many rows."""
    X = [[row % 5, row / 100] for row in range(500)]
    client.fetch(
        "POST",
        "/fit",
        {"project_id": "p", "X": X, "estimator": "logistic_regression", "y": ["a", "b", *[None] * 498]},
        allow=[201],
    )
    many = form({"project_id": "many"}, X=npy(np.zeros((N_ROWS, 10), np.float32)))
    client.fetch("POST", "/fit", many, headers=FORM, allow=[201])


def head(method: str, path: str, *headers: str) -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: x", *headers, "", ""]).encode()


SLOW = {
    "headers": b"GET /projects HTTP/1.1\r\nHost: x\r\nX-A: ",
    "a JSON body": head("POST", "/label", "Content-Type: application/json", "Content-Length: 100000")
    + b'{"project_id": "',
    "a chunked body": head("POST", "/query", "Content-Type: application/json", "Transfer-Encoding: chunked"),
    "a form": head("POST", "/fit", "Content-Type: multipart/form-data; boundary=b", "Content-Length: 100000")
    + b"--b\r\n",
    "unread replies": head("GET", "/projects/many/export"),
    "no bytes at all": b"",
}


def drip(port: int, begin: bytes, times: int, stop: Event, tally: Tally) -> None:
    """Run many slow clients; one that is disconnected connects again."""
    clients: list[socket.socket] = []
    while not stop.is_set():
        clients += [made for made in (connect(port, begin) for _ in range(times - len(clients))) if made is not None]
        next_round = time.monotonic() + PERIOD
        alive = [client for client in clients if send_byte(client, begin)]
        tally.count("slow clients disconnected", len(clients) - len(alive))
        clients = alive
        stop.wait(max(0.0, next_round - time.monotonic()))
    for client in clients:
        client.close()


def connect(port: int, begin: bytes) -> socket.socket | None:
    """Connect a slow client; return None if the connection is refused."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(0.2)
    try:
        client.connect(("127.0.0.1", port))
        client.sendall(begin)
    except OSError:
        client.close()
        return None
    return client


def send_byte(client: socket.socket, begin: bytes) -> bool:
    """Send one more byte, unless the client only waits; return whether it is still connected."""
    chunked = b"chunked" in begin
    more = b"1\r\n \r\n" if chunked else b"a"
    waits = not begin or begin.startswith(b"GET /projects/many")
    try:
        if not waits:
            client.sendall(more)
            return not is_closed(client)
    except OSError:
        client.close()
        return False
    return True


def is_closed(client: socket.socket) -> bool:
    """Whether the server has sent anything: to a slow client that can only be an error."""
    with suppress(BlockingIOError):
        client.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        client.close()
        return True
    return False


def measure(client: CheckedClient, what: str, seconds: float, tally: Tally) -> None:
    """Ask quick questions in turn, and hold how long they took against what they may."""
    took = sorted(durations(client, seconds))
    middle, slow = took[len(took) // 2], took[min(len(took) - 1, int(len(took) * 0.99))]
    tally.figures[what] = f"p50 {middle * 1000:.0f} ms, p99 {slow * 1000:.0f} ms, of {len(took)} requests"
    tally.check(slow <= MAX_P99_SECONDS, f"{what}: p99 {slow:.1f} s, p50 {middle:.1f} s")


def durations(client: CheckedClient, seconds: float) -> Iterator[float]:
    """How long requests took, one after the other."""
    end = time.monotonic() + seconds
    requests: list[Callable[[], object]] = [
        lambda: client.request("GET", "/projects/p", timeout=20),
        lambda: client.request("POST", "/query", {"project_id": "p", "strategy": "margin"}, timeout=20),
        lambda: client.request("GET", "/healthz", timeout=20),
    ]
    while time.monotonic() < end:
        for request in requests:
            begin = time.monotonic()
            request()
            yield time.monotonic() - begin
