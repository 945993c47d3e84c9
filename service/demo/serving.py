"""The service that the demo starts for itself."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service.client import Client, ServiceError

START_SECONDS = 30.0
STOP_SECONDS = 40.0


@contextmanager
def run_service() -> Iterator[str]:
    """Serve on a free loopback port with a temporary data directory, and yield the URL.

    A ServiceError in the block is raised with the end of the service's log.
    """
    with tempfile.TemporaryDirectory(prefix="aq-demo-") as directory:
        log = Path(directory, "log")
        port = free_port()
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "service", "serve"],
                cwd=Path(__file__).parents[2],  # the caller's directory may hold another package `service`
                env={
                    **{name: value for name, value in os.environ.items() if not name.startswith("AQ_")},
                    "AQ_PORT": str(port),
                    "AQ_DATA_DIR": str(Path(directory, "data")),
                },
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the demo, which deletes its projects first
            )
        try:
            url = f"http://127.0.0.1:{port}"
            wait_until_ready(Client(url, retries=0), process)
            yield url
        except ServiceError as error:
            tail = log.read_text(errors="replace")[-2000:].strip()
            raise ServiceError(f"{error}\nThe end of the service's log:\n{tail}") from error
        finally:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_until_ready(client: Client, process: subprocess.Popen[bytes]) -> None:
    """Wait until the service responds. Raises ServiceError if it exits or takes too long."""
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None:
        try:
            client.send("GET", "/healthz")
            return
        except ServiceError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
    raise ServiceError(f"the service exited with status {process.returncode} instead of starting")


def free_port() -> int:
    """Return a free loopback port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
