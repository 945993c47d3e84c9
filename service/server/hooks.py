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
from service.telemetry.logging import OfServer, formatter_of
from service.telemetry.multiprocess import bury, shared_directory

STALLED_SECONDS = 30
"""A client behind TLS that sends or takes nothing for so long loses its connection; others are `patience`'s."""


class Logger(glogging.Logger):
    """gunicorn's own lines in the format of all others."""

    def setup(self, cfg: Any) -> None:
        """Set up, at the start and when the configuration is read again."""
        super().setup(cfg)
        logging.raiseExceptions = False  # a line that cannot be written is not shown elsewhere instead
        for handler in self.error_log.handlers:
            handler.setFormatter(formatter_of(Settings.from_process().log_format))
            handler.addFilter(OfServer())


logger_class = Logger

forwarder_headers = ""
"""gunicorn would take its SCRIPT_NAME from a header, from whoever is on this machine or behind a proxy there."""


def when_ready(server: Any) -> None:
    """Bound how long a thread waits for a client behind TLS; connections have it from the socket that accepts them."""
    for listener in server.LISTENERS:
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            listener.sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", STALLED_SECONDS, 0))


def child_exit(server: Any, worker: Any) -> None:
    """Keep what a worker counted that is gone."""
    directory = shared_directory()
    if directory is not None:
        bury(directory, worker.pid, server.WORKERS.keys())


def on_exit(_server: Any) -> None:
    """Remove the directory of counters that `serve` made."""
    shutil.rmtree(os.environ["PROMETHEUS_MULTIPROC_DIR"], ignore_errors=True)
