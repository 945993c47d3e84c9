"""Start `active-query serve` on a free loopback port, and send requests to it."""

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
    """A response."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Upload:
    """A multipart form for /fit with one pool, whose rows are generated while sending."""

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
    """Sends requests to a loopback port."""

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
    """A service over a data directory that can be stopped, killed and restarted on the same port."""

    def __init__(self, data_dir: Path, log: Path, **settings: str) -> None:
        # Keeps the port reserved while gunicorn is not listening on it.
        reserved = socket.socket()
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        weakref.finalize(self, reserved.close)
        super().__init__(reserved.getsockname()[1])
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

    def wait_until_ready(self, seconds: float = 300) -> None:
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
        """Return the process ids of the workers."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in children.split()]

    def counters(self) -> Path | None:
        """Return the directory of the workers' metrics, or None if `serve` has not created it yet."""
        assert self.process is not None
        items = Path(f"/proc/{self.process.pid}/environ").read_text().split("\0")
        made = [item.partition("=")[2] for item in items if item.startswith("PROMETHEUS_MULTIPROC_DIR=")]
        return Path(made[0]) if made else None

    def stop(self) -> int:
        """Send SIGTERM and return the exit status."""
        return self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL to the master and all workers at once."""
        assert self.process is not None
        master = self.process.pid
        os.kill(master, signal.SIGSTOP)  # it must not start another worker
        wait_until(lambda: state_of(master) in "TZ")
        pids, counters = [master, *self.workers()], self.counters()
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(30)
        while any(is_alive(pid) for pid in pids):
            time.sleep(0.001)
        if counters is not None:
            shutil.rmtree(counters, ignore_errors=True)  # which a master that exits normally does

    def _end(self, how: signal.Signals) -> int:
        assert self.process is not None
        self.process.send_signal(how)
        return self.process.wait(40)


def wait_until(holds: Callable[[], Any], what: Callable[[], Any] = lambda: "timed out") -> None:
    """Wait until a condition holds; after 90 seconds fail with the message that `what` returns."""
    deadline = time.monotonic() + 90
    while not holds():
        assert time.monotonic() < deadline, what()
        time.sleep(0.005)


def is_alive(pid: int) -> bool:
    """Whether a process is running; a zombie is not."""
    return state_of(pid) != "Z"


def state_of(pid: int) -> str:
    """Return the letter that the kernel gives a process: T is stopped, Z has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "Z"


def free_port() -> int:
    """Return a free loopback port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
