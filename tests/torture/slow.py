"""Hundreds of clients who send a byte now and then, or take nothing: others are answered as quickly as ever."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread

import numpy as np

from tests.support.npy import npy
from tests.torture.asker import Asker
from tests.torture.forms import FORM, form
from tests.torture.outcome import Tally
from tests.torture.processes import running
from tests.torture.sizes import Sizes

PERIOD = 1.0
"""Each of them sends a byte so often, in seconds: often enough not to be silent."""

SLOWEST = 1.0
"""Of a hundred requests of others one may take longer, in seconds."""

N_ROWS = 200_000
"""So many that the export which nobody takes does not fit the buffers on its way; to make it costs little."""


def run(sizes: Sizes, seed: int, scratch: Path) -> Tally:
    """Ask in peace, then while each kind of slow client is at it."""
    tally = Tally()
    with running(scratch / "data", scratch / "log", AQ_LOG_LEVEL="error") as service:
        asker = Asker(service.port, tally)
        make_projects(asker)
        measure(asker, "in peace", 3, tally)
        for name, beginning in SLOW.items():
            stop = Event()
            crowd = Thread(target=drip, args=(service.port, beginning, sizes.dripping, stop, tally))
            crowd.start()
            try:
                time.sleep(2 * PERIOD)
                measure(asker, name, sizes.drip_seconds, tally)
            finally:
                stop.set()
                crowd.join()
    return tally


def make_projects(asker: Asker) -> None:
    """One to be asked about, and one with many rows."""
    X = [[row % 5, row / 100] for row in range(500)]
    asker.must("POST", "/fit", {"project_id": "p", "X": X, "y": ["a", "b", *[None] * 498]}, allow=[201])
    many = form({"project_id": "many"}, X=npy(np.zeros((N_ROWS, 10), np.float32)))
    asker.must("POST", "/fit", many, headers=FORM, allow=[201])


def head(method: str, path: str, *headers: str) -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: x", *headers, "", ""]).encode()


SLOW = {
    "headers": b"GET /projects HTTP/1.1\r\nHost: x\r\nX-A: ",
    "a JSON body": head("POST", "/label", "Content-Type: application/json", "Content-Length: 100000")
    + b'{"project_id": "',
    "a chunked body": head("POST", "/query", "Content-Type: application/json", "Transfer-Encoding: chunked"),
    "a form": head("POST", "/fit", "Content-Type: multipart/form-data; boundary=b", "Content-Length: 100000")
    + b"--b\r\n",
    "replies not taken": head("GET", "/projects/many/export"),
    "nothing at all": b"",
}


def drip(port: int, begin: bytes, times: int, stop: Event, tally: Tally) -> None:
    """Be many slow clients; whoever is sent away comes again."""
    crowd: list[socket.socket] = []
    while not stop.is_set():
        crowd += [made for made in (connected(port, begin) for _ in range(times - len(crowd))) if made is not None]
        next_round = time.monotonic() + PERIOD
        alive = [client for client in crowd if sends(client, begin)]
        tally.count("slow clients sent away", len(crowd) - len(alive))
        crowd = alive
        stop.wait(max(0.0, next_round - time.monotonic()))
    for client in crowd:
        client.close()


def connected(port: int, begin: bytes) -> socket.socket | None:
    """A new slow client, None where nobody takes it."""
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


def sends(client: socket.socket, begin: bytes) -> bool:
    """Send one byte more, unless the client only waits; whether the server still listens."""
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
    """Whether the server has said something, which to a slow client can only be that it may go."""
    with suppress(BlockingIOError):
        client.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        client.close()
        return True
    return False


def measure(asker: Asker, what: str, seconds: float, tally: Tally) -> None:
    """Ask quick questions in turn, and hold how long they took against what they may."""
    took = sorted(durations(asker, seconds))
    middle, slow = took[len(took) // 2], took[min(len(took) - 1, int(len(took) * 0.99))]
    tally.figures[what] = f"p50 {middle * 1000:.0f} ms, p99 {slow * 1000:.0f} ms, of {len(took)} requests"
    tally.check(slow <= SLOWEST, f"{what}: p99 {slow:.1f} s, p50 {middle:.1f} s")


def durations(asker: Asker, seconds: float) -> Iterator[float]:
    """How long requests took, one after the other."""
    end = time.monotonic() + seconds
    requests: list[Callable[[], object]] = [
        lambda: asker.ask("GET", "/projects/p", timeout=20),
        lambda: asker.ask("POST", "/query", {"project_id": "p", "strategy": "margin"}, timeout=20),
        lambda: asker.ask("GET", "/healthz", timeout=20),
    ]
    while time.monotonic() < end:
        for request in requests:
            begin = time.monotonic()
            request()
            yield time.monotonic() - begin
