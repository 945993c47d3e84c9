"""The real thing for tests: `active-query serve` on a free loopback port, and calls to it."""

from __future__ import annotations

import http.client
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Reply:
    """What came back; `json` parses it."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Upload:
    """A form for /fit with one pool, whose rows are sent as they are made: nothing large is held by the sender."""

    boundary = "----pool"
    content_type = f"multipart/form-data; boundary={boundary}"

    def __init__(self, config: dict[str, Any], dtype: str, shape: tuple[int, int], rows: Iterable[bytes]) -> None:
        header = io.BytesIO()
        description = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(header, description)
        self.rows = rows
        self.head = self.part("config", "application/json", json.dumps(config).encode()) + b"\r\n"
        self.head += self.part("X", "application/x-npy", header.getvalue())
        self.tail = f"\r\n--{self.boundary}--\r\n".encode()
        self.length = len(self.head) + shape[0] * shape[1] * np.dtype(dtype).itemsize + len(self.tail)

    def part(self, name: str, media_type: str, data: bytes) -> bytes:
        filename = '; filename="X.npy"' if name == "X" else ""
        disposition = f'Content-Disposition: form-data; name="{name}"{filename}'
        return f"--{self.boundary}\r\n{disposition}\r\nContent-Type: {media_type}\r\n\r\n".encode() + data

    def __iter__(self) -> Iterator[bytes]:
        yield self.head
        yield from self.rows
        yield self.tail


class HTTPClient:
    """Somebody who calls a service on its port of loopback."""

    def __init__(self, port: int) -> None:
        self.port = port

    def call(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None, timeout: float = 60
    ) -> Reply:
        """Send one request on a connection of its own; `body` is sent as JSON unless it is bytes or an Upload."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            headers = dict(headers or {})
            if body is not None and not isinstance(body, bytes | Upload):
                body = json.dumps(body).encode()
                headers.setdefault("Content-Type", "application/json")
            if isinstance(body, Upload):
                headers |= {"Content-Type": body.content_type, "Content-Length": str(body.length)}
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return Reply(response.status, response.headers, response.read())
        finally:
            connection.close()

    def post(self, path: str, body: Any, expect: int = 200) -> Any:
        """POST JSON and return the parsed reply, whose status must be the one expected."""
        reply = self.call("POST", path, body)
        assert reply.status == expect, reply.body
        return reply.json


class Service(HTTPClient):
    """A gunicorn of some workers over a data directory; it can be stopped, killed and started again on its port."""

    def __init__(self, data_dir: Path, log: Path, **settings: str) -> None:
        # Bound as long as this object lives: nobody else is given the port while gunicorn does not listen on it.
        door = socket.socket()
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        door.bind(("127.0.0.1", 0))
        weakref.finalize(self, door.close)
        super().__init__(door.getsockname()[1])
        self.data_dir, self.log = data_dir, log
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("AQ_")},
            "AQ_DATA_DIR": str(data_dir),
            "AQ_PORT": str(self.port),
            **settings,
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Service:
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "service", "serve"]
            self.process = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)
        self.wait_until_ready()
        return self

    def wait_until_ready(self, seconds: float = 90) -> None:
        assert self.process is not None
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if self.call("GET", "/healthz").status == 200:
                    return
            except OSError:
                time.sleep(0.05)
        raise TimeoutError(f"the service does not answer: {self.log.read_text()[-2000:]}")

    def workers(self) -> list[int]:
        """The process ids of gunicorn's workers."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in children.split()]

    def counters(self) -> Path | None:
        """The directory that `serve` made for the workers' counters; None before it did."""
        assert self.process is not None
        items = Path(f"/proc/{self.process.pid}/environ").read_text().split("\0")
        made = [item.partition("=")[2] for item in items if item.startswith("PROMETHEUS_MULTIPROC_DIR=")]
        return Path(made[0]) if made else None

    def stop(self) -> int:
        """Stop it as an operator would, and return its exit status."""
        return self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill master and workers at once: nothing gets to say goodbye."""
        assert self.process is not None
        master = self.process.pid
        os.kill(master, signal.SIGSTOP)  # from now on it starts no other worker
        pids, counters = [master, *self.workers()], self.counters()
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(30)
        while any(is_alive(pid) for pid in pids):
            time.sleep(0.001)
        if counters is not None:
            shutil.rmtree(counters, ignore_errors=True)  # as a master does that can say goodbye

    def _end(self, how: signal.Signals) -> int:
        assert self.process is not None
        self.process.send_signal(how)
        return self.process.wait(40)


def wait_until(holds: Callable[[], Any], what: Callable[[], Any] = lambda: "it never came to that") -> None:
    """Return as soon as something holds; `what` tells how things are where that does not come within 30 seconds."""
    deadline = time.monotonic() + 90
    while not holds():
        assert time.monotonic() < deadline, what()
        time.sleep(0.005)


def is_alive(pid: int) -> bool:
    """Whether a process still runs, and so holds what it held; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def free_port() -> int:
    """A port of loopback that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
