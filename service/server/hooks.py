"""gunicorn's configuration module: the hooks that it calls in its master process."""

from __future__ import annotations

import shutil
import socket
import struct
from typing import Any

from service import __version__
from service.server.gunicorn_adapter import Logger
from service.server.sweeps import SWEPT_BY
from service.telemetry.multiprocess import begin_worker, end_worker, free_number, shared_directory

SOCKET_TIMEOUT_SECONDS = 30
"""Timeout of one read or write on a TLS connection; `slow_clients` handles all other connections."""

logger_class = Logger

forwarder_headers = ""
"""Headers from which gunicorn takes the path prefix SCRIPT_NAME: none, since any client could send them."""


def on_starting(server: Any) -> None:
    """Log the version."""
    server.log.info("active-query %s", __version__)


def when_ready(server: Any) -> None:
    """Set the timeout on the listening sockets; the connections that they accept inherit it."""
    for listener in server.LISTENERS:
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            listener.sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", SOCKET_TIMEOUT_SECONDS, 0))


def pre_fork(server: Any, worker: Any) -> None:
    """Number a new worker."""
    worker.number = free_number({running.number for running in server.WORKERS.values()})


def post_fork(_server: Any, worker: Any) -> None:
    """Begin to count in the worker."""
    begin_worker(shared_directory(), worker.number)


def child_exit(_server: Any, worker: Any) -> None:
    """Keep the counts of a worker that has exited, and nothing else of it; the next one removes what it left."""
    SWEPT_BY.clear()
    end_worker(shared_directory(), worker.number, worker.pid)


def on_exit(_server: Any) -> None:
    """Remove the directory of counters."""
    shutil.rmtree(shared_directory(), ignore_errors=True)
