"""The adapter to gunicorn, and the only module that imports it. Tried with gunicorn 27.0.1.

gunicorn documents its settings and hooks, but not the classes that are extended here, so pyproject.toml allows only the
releases that were tried. `tests/server/test_gunicorn_adapter.py` lists what the adapter relies on and names what a
release has changed.
"""

from __future__ import annotations

import errno
import io
import logging
import resource
import time
import uuid
from collections.abc import Iterable
from contextlib import suppress
from http import HTTPStatus
from threading import Timer
from typing import Any

from gunicorn import glogging, util
from gunicorn.http import errors
from gunicorn.http.body import LengthReader
from gunicorn.workers.gthread import STOP_KEEPALIVE_LINGER, TConn, ThreadWorker

from service.compute.waiting import WAIT_KEY, YIELD_SLOT
from service.http.problem_document import MEDIA_TYPE, NO_SNIFFING, REQUEST_ID_HEADER, document
from service.server.slow_clients import MAX_WAITING_CLIENTS, ClientSocket, YieldingExecutor
from service.settings import Settings
from service.telemetry.logging import ServerLogFilter, make_formatter

STATUS_OF_ERROR: dict[type[Exception], int] = {
    errors.LimitRequestLine: 414,
    errors.LimitRequestHeaders: 431,
    errors.ExpectationFailed: 417,
    errors.ForbiddenProxyRequest: 403,
    errors.UnsupportedTransferCoding: 501,
    errors.InvalidResponseHeader: 500,
    errors.InvalidResponseHeaderName: 500,
    errors.ConfigurationProblem: 500,
    errors.ParseException: 400,
}
"""Status of a request that gunicorn rejects before the application sees it, by its error or the nearest base class."""

OUT_OF_FILES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

PAUSE_SECONDS = 0.05
"""Pause in accepting connections when the worker has no file descriptor left."""


class Logger(glogging.Logger):
    """gunicorn's logger, writing the service's log format."""

    def setup(self, cfg: Any) -> None:
        """Set up the handlers, at the start and when gunicorn reloads its configuration."""
        super().setup(cfg)
        logging.raiseExceptions = False  # a record that cannot be formatted must not be printed raw
        for handler in self.error_log.handlers:
            handler.setFormatter(make_formatter(Settings.from_process().log_format))
            handler.addFilter(ServerLogFilter())


class Connection(TConn):
    """A connection closed by the thread that served it: the worker's main loop must not wait for a slow client."""

    def close(self, graceful: bool = False) -> None:
        """Close the connection at once."""
        util.close(self.sock)


class BodyStream(io.RawIOBase):
    """A request body for `wsgi.input`. Reading raises OSError if the client sends a malformed body or goes away.

    gunicorn's own stream waits until it has as many bytes as were asked for, and copies them up to three times, which
    takes longer than receiving them.
    """

    def __init__(self, body: Any) -> None:
        self._body = body
        self._reader: Any = getattr(body, "reader", None)

    def readable(self) -> bool:
        """Return True."""
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        """Return the next bytes to arrive, at most `size`; none at the end."""
        if size is None or size < 0:
            return self.readall()
        try:
            data: bytes = self._receive(size) if isinstance(self._reader, LengthReader) else self._body.read(size)
        except errors.ParseException as error:
            raise OSError("the body is malformed") from error
        return data

    def _receive(self, size: int) -> bytes:
        """Return the next bytes of a body whose length is known."""
        unreader, wanted = self._reader.unreader, min(size, self._reader.length)
        if wanted == 0:
            return b""  # the socket would wait for the next request
        data: bytes = unreader.read(None, read_ahead=wanted)
        if len(data) > wanted:  # the client has sent its next request as well
            unreader.unread(data[wanted:])
            data = data[:wanted]
        self._reader.length -= len(data)
        return data


class Worker(ThreadWorker):
    """A gthread worker in which `--threads` requests run at once, not counting those that wait for their clients."""

    wsgi: Any

    def get_thread_pool(self) -> YieldingExecutor:
        """Create the executor and divide the connections between active, waiting and idle clients."""
        n_connections: int = self.cfg.worker_connections
        max_files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if max_files != resource.RLIM_INFINITY:
            # Half of the files are left to the store's mapped arrays; a request opens a few, too.
            n_connections = min(n_connections, max(2, max_files // 4))
        max_waiting = min(MAX_WAITING_CLIENTS, n_connections // 2)
        self.max_keepalived = max(1, n_connections - self.cfg.threads - max_waiting)
        self.worker_connections = n_connections
        return YieldingExecutor(self.cfg.threads, max_waiting)

    def load_wsgi(self) -> None:
        """Load the application, and give each request a BodyStream and a way to wait without a slot."""
        super().load_wsgi()
        application = self.wsgi

        def application_with_stream(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            environ["wsgi.input"] = BodyStream(environ["wsgi.input"])
            client = environ["gunicorn.socket"]
            environ[WAIT_KEY] = client.wait_for
            token = YIELD_SLOT.set(client.yield_slot)
            try:
                reply: Iterable[bytes] = application(environ, start_response)
            finally:
                YIELD_SLOT.reset(token)
            return reply

        self.wsgi = application_with_stream

    def handle_exit(self, sig: Any, frame: Any) -> None:
        """Begin a graceful shutdown; new clients that say nothing have as long as idle ones."""
        super().handle_exit(sig, frame)
        timer = Timer(STOP_KEEPALIVE_LINGER, self.tpool.drop_silent_clients)
        timer.daemon = True
        with suppress(RuntimeError):  # out of threads: these clients are waited for like all others
            timer.start()

    def accept(self, listener: Any) -> None:
        """Accept a connection, or leave it in the system's queue while the worker is out of file descriptors."""
        try:
            super().accept(listener)
        except OSError as error:
            if error.errno not in OUT_OF_FILES:
                raise
            self.log.warning("cannot accept a connection: %s", error)
            time.sleep(PAUSE_SECONDS)

    def enqueue_req(self, conn: TConn) -> None:
        """Submit a connection that is new or has data to read to the executor."""
        if not isinstance(conn, Connection):
            conn = Connection(conn.cfg, ClientSocket(conn.sock, self.tpool), conn.client, conn.server)
            # Otherwise gunicorn waits for the first bytes and keeps the thread's slot meanwhile.
            conn.data_ready = True
        conn.sock.begin_request()
        super().enqueue_req(conn)

    def handle(self, conn: Connection) -> Any:
        """Serve one request and return whether the connection stays open."""
        stays_open = super().handle(conn)
        if not stays_open:
            util.close_graceful(conn.sock)
        return stays_open

    def handle_error(self, req: Any, client: ClientSocket, addr: Any, exc: Exception) -> None:
        """Reply to a request that could not be parsed, or whose reply failed."""
        status = next((STATUS_OF_ERROR[kind] for kind in type(exc).__mro__ if kind in STATUS_OF_ERROR), 500)
        request_id = uuid.uuid4().hex
        extra = {"fields": {"request_id": request_id, "status": status}}
        if status == 500:
            self.log.exception("failed", extra=extra)
            detail = "internal error; the log of the service has more under this request id"
        else:
            detail = f"the request cannot be parsed: {exc}"[:500]
            # The text of the error may quote the request, which the log must not hold.
            self.log.warning("answered %d: %s", status, type(exc).__name__, extra=extra)
        with suppress(OSError):
            client.sendall(problem_reply(status, detail, request_id))


def problem_reply(status: int, detail: str, request_id: str) -> bytes:
    """Return an HTTP response with a problem document that closes its connection."""
    body = document(status, detail, request_id)
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
        "Connection: close\r\n"
        f"Content-Type: {MEDIA_TYPE}\r\n"
        f"Content-Length: {len(body)}\r\n"
        f"{REQUEST_ID_HEADER}: {request_id}\r\n"
        f"{': '.join(NO_SNIFFING)}\r\n"
        "\r\n"
    )
    return head.encode() + body
