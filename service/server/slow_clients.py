"""Clients that take their time: a thread that waits for one lends its turn to others, and waits for nobody for ever.

A worker has few turns, so that no more requests compute at once, and as many threads as it takes. Whoever drips a byte
now and then, or takes a large reply as slowly, holds a thread, which costs little, and a turn only to look at the byte.
"""

from __future__ import annotations

import errno
import select
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import partial
from math import inf
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

CLIENT_IDLE_SECONDS = 20.0
"""How long a client is waited for in all, from the first byte of a request to the last of its reply."""

BYTES_PER_SECOND = 1024
"""So many bytes, sent or taken, buy a second more."""

MAX_WAITING_CLIENTS = 256
"""How many clients a worker waits for at once."""

T = TypeVar("T")
Work = Callable[[], None]


class ClientTooSlow(TimeoutError):
    """A client used up the patience with it; to gunicorn it is one that went away."""

    def __init__(self) -> None:
        super().__init__(errno.ECONNRESET, "the client was too slow")


class YieldingExecutor:
    """Threads, so many of which have a turn, and work. It has what gunicorn uses of an Executor.

    A turn goes to a thread that waited for its client before it goes to what came since.
    """

    def __init__(self, n_slots: int, max_waiting: int = MAX_WAITING_CLIENTS) -> None:
        self._n_free = n_slots
        self._max_idle = 2 * n_slots
        self._max_waiting = max_waiting
        self._parked: deque[ParkedThread] = deque()
        self._work: deque[Work] = deque()
        self._idle: list[ParkedThread] = []
        self._n_starting = 0  # threads on their way to work, which another may have done before they come
        self._waiting: dict[ClientSocket, float] = {}
        self._is_ending = False
        self._lock = Lock()

    def submit(self, function: Callable[..., T], /, *arguments: Any) -> Future[T]:
        """Have something done as soon as it has a turn."""
        future: Future[T] = Future()
        with self._lock:
            self._work.append(partial(resolve_future, future, partial(function, *arguments)))
            self._start_thread()
        return future

    def shutdown(self, *, wait: bool) -> None:
        """Let what is at work go on; no thread outlives the process."""

    def drop_silent_clients(self) -> None:
        """Wait no longer for clients that have said nothing, from now on."""
        with self._lock:
            self._is_ending = True
            for client in self._waiting:
                client.cut_off_if_silent()

    @contextmanager
    def yield_slot_until(self, client: ClientSocket, until: float) -> Iterator[None]:
        """Lend this thread's turn to others while it waits for a client, until a moment at the latest.

        Where too many are waited for, the one whose time is up first loses its connection.
        """
        with self._lock:
            self._waiting[client] = until
            if self._is_ending:
                client.cut_off_if_silent()
            if len(self._waiting) > self._max_waiting:
                # Its socket is open: nobody closes it who has not left here before.
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
        """Take a turn again."""
        with self._lock:
            self._waiting.pop(client, None)
            if self._n_free:
                self._n_free -= 1
                return
            me = ParkedThread()
            self._parked.append(me)
        me.sleep()

    def _hand_out_slots(self) -> None:
        """Give free turns to threads that waited."""
        while self._n_free and self._parked:
            self._n_free -= 1
            self._parked.popleft().wake()

    def _start_thread(self) -> None:
        """Call a thread to the work there is, unless enough are on their way."""
        if self._n_starting >= min(self._n_free, len(self._work)):
            return
        self._n_starting += 1
        if self._idle:
            self._idle.pop().wake()
            return
        try:
            Thread(target=self._run_thread, daemon=True).start()
        except RuntimeError:  # the system has none left: those there are do the work after their own
            self._n_starting -= 1

    def _run_thread(self) -> None:
        """Do what is asked for, and sleep in between."""
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
        """Return what a thread is to do that was called, or gives its turn back; None where there is nothing to do."""
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
    """A thread that sleeps until somebody wakes it."""

    is_idle = False

    def __init__(self) -> None:
        self._lock = Lock()
        self._lock.acquire()
        self.sleep, self.wake = self._lock.acquire, self._lock.release


def resolve_future(future: Future[T], function: Callable[[], T]) -> None:
    """Let a future know what a function returns or raises."""
    try:
        result = function()
    except BaseException as error:  # noqa: BLE001 - it is for whoever asks for the result
        future.set_exception(error)
    else:
        future.set_result(result)


class ClientSocket(socket.socket):
    """The connection to a client, for a thread that has a slot. Raises ClientTooSlow when the client's time is up.

    It keeps to its timeout, too. The system is never asked to wait, for that would be with the turn.
    """

    def __init__(self, accepted: socket.socket, executor: YieldingExecutor) -> None:
        super().__init__(accepted.family, accepted.type, accepted.proto, fileno=accepted.detach())
        super().settimeout(0.0)
        self._timeout: float | None = None
        self._executor = executor
        self.begin_request()

    def begin_request(self) -> None:
        """Be as patient as with a stranger: another request begins."""
        self._seconds_left = CLIENT_IDLE_SECONDS
        self._is_silent = True

    def cut_off_if_silent(self) -> None:
        """Cut the connection off unless a request has begun."""
        if self._is_silent:
            self.cut_off()

    def cut_off(self) -> None:
        """Cut the connection off, whatever it waits for."""
        self._seconds_left = 0.0
        with suppress(OSError):
            self.shutdown(socket.SHUT_RDWR)

    def settimeout(self, value: float | None, /) -> None:
        """Wait so many seconds for anything, as long as it takes without, and not at all with 0."""
        self._timeout = value

    def gettimeout(self) -> float | None:
        """Return what was set."""
        return self._timeout

    def setblocking(self, flag: bool, /) -> None:
        """Wait as long as it takes, or not at all."""
        self._timeout = None if flag else 0.0

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        """Return up to `size` bytes as soon as there are any, none at the end."""
        while True:
            try:
                data = super().recv(size, flags)
            except BlockingIOError:
                self._wait(select.POLLIN)
            else:
                self._add_time(len(data))
                return data

    def send(self, data: ReadableBuffer, flags: int = 0, /) -> int:
        """Send what can be sent, at least a byte."""
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

    def _add_time(self, n_bytes: int) -> None:
        self._is_silent = False
        self._seconds_left = min(CLIENT_IDLE_SECONDS, self._seconds_left + n_bytes / BYTES_PER_SECOND)

    def _wait(self, event: int) -> None:
        """Wait until the client sends or takes something."""
        timeout = self._timeout
        if timeout == 0:
            raise BlockingIOError(errno.EAGAIN, "the client has to be waited for")
        began = time.monotonic()
        seconds = max(
            0.0, min(self._seconds_left, inf if timeout is None else timeout)
        )  # less is for ever to the system
        poll = select.poll()
        poll.register(self, event)
        with self._executor.yield_slot_until(self, began + self._seconds_left):
            is_there = poll.poll(1000 * seconds)
            self._seconds_left -= time.monotonic() - began
        if self._seconds_left <= 0:
            raise ClientTooSlow
        if not is_there:
            raise TimeoutError("timed out")
