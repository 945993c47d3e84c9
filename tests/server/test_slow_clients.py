"""Slow clients: their threads yield the slots, and their time is limited."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from threading import Event, Lock, active_count, stack_size

import pytest
from gunicorn import util

from service.server import slow_clients
from service.server.slow_clients import ClientSocket, ClientTooSlow, YieldingExecutor
from tests.support.serving import wait_until

Pair = Callable[[YieldingExecutor], tuple[ClientSocket, socket.socket]]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Return a function that makes a connection: the service's end, and the client's."""
    made: list[socket.socket] = []

    def connect(executor: YieldingExecutor) -> tuple[ClientSocket, socket.socket]:
        ours, theirs = socket.socketpair()
        made.extend([ClientSocket(ours, executor), theirs])
        return made[-2], theirs  # type: ignore[return-value]

    yield connect
    for end in made:
        end.close()


@pytest.fixture
def short_allowance(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give a client one second, and one more for each 100 bytes."""
    monkeypatch.setattr(slow_clients, "CLIENT_IDLE_SECONDS", 1.0)
    monkeypatch.setattr(slow_clients, "BYTES_PER_SECOND", 100)


def test_no_more_work_runs_at_once_than_there_are_slots() -> None:
    executor, lock, at_work, most = YieldingExecutor(3), Lock(), 0, 0

    def work(number: int) -> int:
        nonlocal at_work, most
        with lock:
            at_work += 1
            most = max(most, at_work)
        time.sleep(0.001)
        with lock:
            at_work -= 1
        return number

    futures = [executor.submit(work, number) for number in range(60)]
    assert [future.result(30) for future in futures] == list(range(60))
    assert most == 3


def test_an_exception_is_raised_by_the_future() -> None:
    executor = YieldingExecutor(1)
    assert isinstance(executor.submit(int, "x").exception(30), ValueError)
    assert executor.submit(int, "7").result(30) == 7


def test_work_runs_even_if_no_thread_could_be_started() -> None:
    executor, before = YieldingExecutor(1), stack_size(2**46)
    try:
        first = executor.submit(int, "1")
    finally:
        stack_size(before)
    assert not first.done()
    assert (executor.submit(int, "2").result(30), first.result(30)) == (2, 1)


def test_a_slot_is_yielded_while_a_client_is_waited_for(pair: Pair) -> None:
    executor = YieldingExecutor(1)
    clients = [pair(executor) for _ in range(20)]
    waiting = [executor.submit(ours.recv, 10) for ours, _ in clients]
    assert executor.submit(int, "7").result(30) == 7
    assert not any(future.done() for future in waiting)
    for _, theirs in clients:
        theirs.send(b"here")
    assert {future.result(30) for future in waiting} == {b"here"}


def test_a_thread_that_waited_continues_before_new_work(pair: Pair) -> None:
    executor, done, release = YieldingExecutor(1), [], Event()
    ours, theirs = pair(executor)
    waiting = executor.submit(lambda: done.append(ours.recv(10)))
    executor.submit(int, "7").result(30)
    is_busy = Event()
    executor.submit(lambda: (is_busy.set(), release.wait(30)))
    assert is_busy.wait(30)
    new = executor.submit(lambda: done.append(b"new"))
    theirs.send(b"old")
    wait_until(lambda: executor._parked)
    release.set()
    wait([waiting, new], 30)
    assert done == [b"old", b"new"]


def test_surplus_threads_exit(pair: Pair) -> None:
    executor, before = YieldingExecutor(1), active_count()
    clients = [pair(executor) for _ in range(50)]
    waiting = [executor.submit(ours.recv, 10) for ours, _ in clients]
    wait_until(lambda: active_count() >= before + 50)
    for _, theirs in clients:
        theirs.close()
    wait(waiting, 30)
    wait_until(lambda: active_count() <= before + 2)


@pytest.mark.usefixtures("short_allowance")
def test_a_client_that_sends_single_bytes_is_too_slow(pair: Pair) -> None:
    executor = YieldingExecutor(1)
    ours, theirs = pair(executor)
    taken = executor.submit(lambda: [ours.recv(1) for _ in range(1000)])
    for _ in range(100):
        theirs.send(b"x")
        time.sleep(0.03)
        if taken.done():
            break
    assert isinstance(taken.exception(0), ClientTooSlow)


@pytest.mark.usefixtures("short_allowance")
@pytest.mark.parametrize("action", [lambda end: end.recv(10), lambda end: end.sendall(bytes(10**7))])
def test_a_client_that_neither_sends_nor_receives_is_too_slow(
    pair: Pair, action: Callable[[ClientSocket], object]
) -> None:
    executor = YieldingExecutor(1)
    ours, _theirs = pair(executor)
    assert isinstance(executor.submit(action, ours).exception(30), ClientTooSlow)


@pytest.mark.usefixtures("short_allowance")
def test_the_connection_of_a_slow_client_is_closed_at_once(pair: Pair) -> None:
    executor = YieldingExecutor(1)
    ours, _theirs = pair(executor)
    assert isinstance(executor.submit(ours.recv, 10).exception(30), ClientTooSlow)
    executor.submit(util.close_graceful, ours).result(30)
    assert ours.fileno() == -1


@pytest.mark.usefixtures("short_allowance")
def test_a_steady_client_may_take_as_long_as_it_needs(pair: Pair) -> None:
    executor = YieldingExecutor(1)
    ours, theirs = pair(executor)
    taken = executor.submit(lambda: [ours.recv(100) for _ in range(40)])
    for _ in range(40):
        time.sleep(0.03)
        theirs.send(bytes(10))
    assert sum(map(len, taken.result(30))) == 400


def test_the_client_with_the_least_time_left_goes_if_too_many_wait(pair: Pair) -> None:
    executor = YieldingExecutor(1, max_waiting=3)
    clients = [pair(executor) for _ in range(4)]
    waiting = [executor.submit(ours.recv, 10) for ours, _ in clients]
    assert isinstance(waiting[0].exception(30), ClientTooSlow)
    for _, theirs in clients[1:]:
        theirs.send(b"here")
    assert {future.result(30) for future in waiting[1:]} == {b"here"}


def test_the_timeout_of_the_socket_applies(pair: Pair) -> None:
    executor = YieldingExecutor(1)
    ours, _theirs = pair(executor)
    ours.settimeout(0.01)
    error = executor.submit(ours.recv, 10).exception(30)
    assert isinstance(error, TimeoutError)
    assert not isinstance(error, ClientTooSlow)
    ours.setblocking(False)
    with pytest.raises(BlockingIOError):
        ours.recv(10)
