"""Slow clients: a thread that waits for its client gives its slot to another, and no wait lasts for ever.

A worker has few slots, which limit how many requests compute at once, and as many threads as it needs. A client that
sends or reads very slowly occupies a thread, which is cheap, and a slot only while its bytes are processed.
"""

from __future__ import annotations

import errno
import select
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from math import inf
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any, TypeVar

from service.compute.waiting import CHECK_SECONDS

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

CLIENT_IDLE_SECONDS = 20.0
"""Time that a client has in all, from the first byte of a request to the last byte of its reply."""

BYTES_PER_SECOND = 1024
"""Bytes, sent or received, that extend this time by a second."""

MAX_WAITING_CLIENTS = 256
"""Maximum number of clients that a worker waits for at once."""

T = TypeVar("T")
Work = Callable[[], None]


class ClientTooSlow(TimeoutError):
    """A client used up its time; to gunicorn it looks like a reset connection."""

    def __init__(self) -> None:
        super().__init__(errno.ECONNRESET, "the client was too slow")


class YieldingExecutor:
    """An executor with a limited number of slots; a thread that waits for its client yields its slot.

    A free slot goes to a thread that has waited for its client before it goes to new work. It has the methods of
    `concurrent.futures.Executor` that gunicorn uses.
    """

    def __init__(self, n_slots: int, max_waiting: int = MAX_WAITING_CLIENTS) -> None:
        self._n_free = n_slots
        self._max_idle = 2 * n_slots
        self._max_waiting = max_waiting
        self._parked: deque[ParkedThread] = deque()
        self._work: deque[Work] = deque()
        self._idle: list[ParkedThread] = []
        self._n_starting = 0  # threads that were started or woken for work and have not begun
        self._waiting: dict[ClientSocket, float] = {}
        self._is_ending = False
        self._lock = Lock()

    def submit(self, function: Callable[..., T], /, *arguments: Any) -> Future[T]:
        """Call a function as soon as a slot is free."""
        future: Future[T] = Future()
        with self._lock:
            self._work.append(partial(resolve_future, future, partial(function, *arguments)))
            self._start_thread()
        return future

    def shutdown(self, *, wait: bool) -> None:
        """Return at once: running work continues, and daemon threads end with the process."""

    def drop_silent_clients(self) -> None:
        """Disconnect clients that have sent nothing, now and from now on."""
        with self._lock:
            self._is_ending = True
            for client in self._waiting:
                client.cut_off_if_silent()

    @contextmanager
    def yield_slot_until(self, client: ClientSocket, until: float) -> Iterator[None]:
        """Yield this thread's slot while it waits for a client, at the latest until `until` (monotonic time).

        If too many clients are waited for, the one with the least time left is disconnected.
        """
        with self._lock:
            self._waiting[client] = until
            if self._is_ending:
                client.cut_off_if_silent()
            if len(self._waiting) > self._max_waiting:
                # Its socket is open: a thread closes it only after it has returned from here.
                first = min(self._waiting, key=self._waiting.__getitem__)
                del self._waiting[first]
                first.cut_off()
            self._n_free += 1
            self._hand_out_slots()
            self._start_thread()
        try:
            yield
        finally:
            self._take_slot_back(client)

    def _take_slot_back(self, client: ClientSocket) -> None:
        """Take a slot again, and wait for one if necessary."""
        with self._lock:
            self._waiting.pop(client, None)
            if self._n_free:
                self._n_free -= 1
                return
            me = ParkedThread()
            self._parked.append(me)
        me.sleep()

    def _hand_out_slots(self) -> None:
        """Give free slots to parked threads."""
        while self._n_free and self._parked:
            self._n_free -= 1
            self._parked.popleft().wake()

    def _start_thread(self) -> None:
        """Start or wake a thread for pending work, unless enough are starting."""
        if self._n_starting >= min(self._n_free, len(self._work)):
            return
        self._n_starting += 1
        if self._idle:
            self._idle.pop().wake()
            return
        try:
            Thread(target=self._run_thread, daemon=True).start()
        except RuntimeError:  # out of threads: the running ones take the work
            self._n_starting -= 1

    def _run_thread(self) -> None:
        """Take work until there is none, and sleep in between."""
        me = ParkedThread()
        while True:
            work = self._next_work(me, n_started=1)
            while work is not None:
                work()
                work = self._next_work(me, n_free=1)
            if not me.is_idle:
                return
            me.sleep()

    def _next_work(self, me: ParkedThread, *, n_started: int = 0, n_free: int = 0) -> Work | None:
        """Return the next work for a thread that has started or frees its slot, None if there is none."""
        with self._lock:
            self._n_starting -= n_started
            self._n_free += n_free
            self._hand_out_slots()
            if self._n_free and self._work:
                self._n_free -= 1
                return self._work.popleft()
            me.is_idle = len(self._idle) < self._max_idle
            if me.is_idle:
                self._idle.append(me)
            return None


class ParkedThread:
    """A thread that sleeps until another wakes it."""

    is_idle = False

    def __init__(self) -> None:
        self._lock = Lock()
        self._lock.acquire()
        self.sleep, self.wake = self._lock.acquire, self._lock.release


def resolve_future(future: Future[T], function: Callable[[], T]) -> None:
    """Set a future to the result or the exception of a function."""
    try:
        result = function()
    except BaseException as error:  # noqa: BLE001 - raised to the caller of result()
        future.set_exception(error)
    else:
        future.set_result(result)


class ClientSocket(socket.socket):
    """A client's connection, for threads that hold a slot. Raises ClientTooSlow when the client's time is up.

    The socket's own timeout counts as well. The underlying socket never blocks, since that would keep the slot.
    """

    def __init__(self, accepted: socket.socket, executor: YieldingExecutor) -> None:
        super().__init__(accepted.family, accepted.type, accepted.proto, fileno=accepted.detach())
        super().settimeout(0.0)
        self._timeout: float | None = None
        self._executor = executor
        self.begin_request()

    def begin_request(self) -> None:
        """Give the client its full time again for another request."""
        self._seconds_left = CLIENT_IDLE_SECONDS
        self._is_silent = True

    def cut_off_if_silent(self) -> None:
        """Shut the connection down unless a request has begun."""
        if self._is_silent:
            self.cut_off()

    def cut_off(self) -> None:
        """Shut the connection down."""
        self._seconds_left = 0.0
        with suppress(OSError):
            self.shutdown(socket.SHUT_RDWR)

    def settimeout(self, value: float | None, /) -> None:
        """Set the timeout in seconds; None = no timeout, 0 = do not wait."""
        self._timeout = value

    def gettimeout(self) -> float | None:
        """Return the timeout."""
        return self._timeout

    def setblocking(self, flag: bool, /) -> None:
        """Wait without a timeout, or not at all."""
        self._timeout = None if flag else 0.0

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        """Return up to `size` bytes as soon as any arrive; none at the end."""
        while True:
            try:
                data = super().recv(size, flags)
            except BlockingIOError:
                self._wait(select.POLLIN)
            else:
                self._add_time(len(data))
                return data

    def send(self, data: ReadableBuffer, flags: int = 0, /) -> int:
        """Send at least one byte and return how many were sent."""
        while True:
            try:
                n_bytes = super().send(data, flags)
            except BlockingIOError:
                self._wait(select.POLLOUT)
            else:
                self._add_time(n_bytes)
                return n_bytes

    def sendall(self, data: ReadableBuffer, flags: int = 0, /) -> None:
        """Send all bytes."""
        rest = memoryview(data)
        while rest:
            rest = rest[self.send(rest, flags) :]

    def wait_for(self, is_ready: Callable[[], bool], seconds: float) -> None:
        """Return once `is_ready`, after some seconds, or when the client has gone; others have the slot meanwhile."""
        until = time.monotonic() + seconds
        poll = select.poll()
        poll.register(self, select.POLLRDHUP)
        with self._executor.yield_slot_until(self, until):
            while time.monotonic() < until and not is_ready():
                if poll.poll(1000 * CHECK_SECONDS):
                    return

    def yield_slot(self, seconds: float) -> AbstractContextManager[None]:
        """Yield this thread's slot during a block that waits, `seconds` at most."""
        return self._executor.yield_slot_until(self, time.monotonic() + seconds)

    def _add_time(self, n_bytes: int) -> None:
        self._is_silent = False
        self._seconds_left = min(CLIENT_IDLE_SECONDS, self._seconds_left + n_bytes / BYTES_PER_SECOND)

    def _wait(self, event: int) -> None:
        """Wait until the client sends or receives bytes."""
        timeout = self._timeout
        if timeout == 0:
            raise BlockingIOError(errno.EAGAIN, "the client is not ready")
        began = time.monotonic()
        seconds = max(
            0.0, min(self._seconds_left, inf if timeout is None else timeout)
        )  # a negative timeout means forever
        poll = select.poll()
        poll.register(self, event)
        with self._executor.yield_slot_until(self, began + self._seconds_left):
            is_there = poll.poll(1000 * seconds)
            self._seconds_left -= time.monotonic() - began
        if self._seconds_left <= 0:
            raise ClientTooSlow
        if not is_there:
            raise TimeoutError("timed out")
