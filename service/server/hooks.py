"""What gunicorn calls in its master process. It is given this module as its configuration."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import struct
from typing import Any

from gunicorn import glogging

from service.settings import Settings
from service.telemetry.logging import ServerLogFilter, make_formatter
from service.telemetry.multiprocess import absorb_dead_worker, shared_directory

SOCKET_TIMEOUT_SECONDS = 30
"""A client behind TLS that sends or takes nothing for so long loses its connection; others are `patience`'s."""


class Logger(glogging.Logger):
    """gunicorn's own lines in the format of all others."""

    def setup(self, cfg: Any) -> None:
        """Set up, at the start and when the configuration is read again."""
        super().setup(cfg)
        logging.raiseExceptions = False  # a line that cannot be written is not shown elsewhere instead
        for handler in self.error_log.handlers:
            handler.setFormatter(make_formatter(Settings.from_process().log_format))
            handler.addFilter(ServerLogFilter())


logger_class = Logger

forwarder_headers = ""
"""gunicorn would take its SCRIPT_NAME from a header, from whoever is on this machine or behind a proxy there."""


def when_ready(server: Any) -> None:
    """Bound how long a thread waits for a client behind TLS; connections have it from the socket that accepts them."""
    for listener in server.LISTENERS:
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            listener.sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", SOCKET_TIMEOUT_SECONDS, 0))


def child_exit(server: Any, worker: Any) -> None:
    """Keep what a worker counted that is gone."""
    directory = shared_directory()
    if directory is not None:
        absorb_dead_worker(directory, worker.pid, server.WORKERS.keys())


def on_exit(_server: Any) -> None:
    """Remove the directory of counters that `serve` made."""
    shutil.rmtree(os.environ["PROMETHEUS_MULTIPROC_DIR"], ignore_errors=True)
