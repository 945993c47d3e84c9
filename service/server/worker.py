"""The worker that `serve` has gunicorn start: slow clients hold none of its turns, and its refusals are problems.

gunicorn's threads read heads and bodies and send replies themselves, so each of them waits for its client.
"""

from __future__ import annotations

import errno
import resource
import time
import uuid
from contextlib import suppress
from http import HTTPStatus
from threading import Timer
from typing import Any

from gunicorn import util
from gunicorn.http import errors
from gunicorn.workers.gthread import TConn, ThreadWorker

from service.http.problem_document import MEDIA_TYPE, REQUEST_ID_HEADER, document
from service.server.slow_clients import MAX_WAITING_CLIENTS, ClientSocket, YieldingExecutor

LINGER_SECONDS = 2.0
"""How long a worker that ends waits for somebody who said nothing: as long as gunicorn does for idle connections."""

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
"""What gunicorn refuses, before the application hears of it, by the class or the nearest of its parents."""


OUT_OF_FILES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

PAUSE_SECONDS = 0.05
"""How long nobody new is let in when no file is left for a connection."""


class Connection(TConn):  # type: ignore[misc]
    """A connection that is closed for good by the thread that served it: the main loop would wait for its client."""

    def close(self, graceful: bool = False) -> None:
        """Close the connection at once."""
        util.close(self.sock)


class Worker(ThreadWorker):  # type: ignore[misc]
    """gunicorn's worker of threads, of which `--threads` are at work at once and others wait for their clients."""

    def get_thread_pool(self) -> YieldingExecutor:
        """Return threads for the requests at work and for those whose clients are waited for."""
        n_connections: int = self.cfg.worker_connections
        most_files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if most_files != resource.RLIM_INFINITY:
            # Half of them are for what the store maps, and a request has some open, too.
            n_connections = min(n_connections, max(2, most_files // 4))
        # Whoever is waited for, or idle, must leave connections to others.
        max_waiting = min(MAX_WAITING_CLIENTS, n_connections // 2)
        self.max_keepalived = max(1, n_connections - self.cfg.threads - max_waiting)
        self.worker_connections = n_connections
        return YieldingExecutor(self.cfg.threads, max_waiting)

    def handle_exit(self, sig: Any, frame: Any) -> None:
        """Begin to end: who connected and says nothing is waited for no longer than one whose connection is idle."""
        super().handle_exit(sig, frame)
        ending = Timer(LINGER_SECONDS, self.tpool.drop_silent_clients)
        ending.daemon = True
        with suppress(RuntimeError):  # no thread is left for it: they are waited for as long as others
            ending.start()

    def accept(self, listener: Any) -> None:
        """Accept a connection; where no file is left for it, it waits in the queue of the system."""
        try:
            super().accept(listener)
        except OSError as error:
            if error.errno not in OUT_OF_FILES:
                raise
            self.log.warning("no file is left for another connection: %s", error)
            time.sleep(PAUSE_SECONDS)

    def enqueue_req(self, conn: TConn) -> None:
        """Hand a connection that has something to say, or is new, to a thread."""
        if not isinstance(conn, Connection):
            conn = Connection(conn.cfg, ClientSocket(conn.sock, self.tpool), conn.client, conn.server)
            # gunicorn would wait for its first bytes, with a turn.
            conn.data_ready = True
        conn.sock.begin_request()
        super().enqueue_req(conn)

    def handle(self, conn: Connection) -> Any:
        """Answer a request, and tell whether another may come on its connection."""
        goes_on = super().handle(conn)
        if not goes_on:
            util.close_graceful(conn.sock)
        return goes_on

    def handle_error(self, req: Any, client: ClientSocket, addr: Any, exc: Exception) -> None:
        """Answer a request that the application never saw, or whose reply could not be sent."""
        status = next((STATUS_OF_ERROR[kind] for kind in type(exc).__mro__ if kind in STATUS_OF_ERROR), 500)
        request_id = uuid.uuid4().hex
        fields = {"fields": {"request_id": request_id, "status": status}}
        if status == 500:
            self.log.exception("failed", extra=fields)
            detail = "this is a fault of the service; its log has more under the request id"
        else:
            detail = f"the request cannot be read: {exc}"[:500]
            # What cannot be read may be anything, and the log holds nothing of what was sent.
            self.log.warning("answered %d: %s", status, type(exc).__name__, extra=fields)
        with suppress(OSError):
            client.sendall(problem_reply(status, detail, request_id))


def problem_reply(status: int, detail: str, request_id: str) -> bytes:
    """Write a reply that ends its connection."""
    body = document(status, detail, request_id)
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
        "Connection: close\r\n"
        f"Content-Type: {MEDIA_TYPE}\r\n"
        f"Content-Length: {len(body)}\r\n"
        f"{REQUEST_ID_HEADER}: {request_id}\r\n"
        "\r\n"
    )
    return head.encode() + body
