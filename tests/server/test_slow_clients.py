"""Clients that take their time: what their threads do meanwhile, and when they have taken too much of it."""

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

Pair = Callable[[YieldingExecutor], tuple[ClientSocket, socket.socket]]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Make connections: the service's end, and the client's."""
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
    """Be patient for half a second, and as much longer for 50 bytes."""
    monkeypatch.setattr(slow_clients, "CLIENT_IDLE_SECONDS", 0.5)
    monkeypatch.setattr(slow_clients, "BYTES_PER_SECOND", 100)


def test_no_more_than_the_turns_are_at_work_and_all_work_is_done() -> None:
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
    assert [future.result(5) for future in futures] == list(range(60))
    assert most == 3


def test_what_work_raises_is_for_whoever_asks_for_its_result() -> None:
    executor = YieldingExecutor(1)
    assert isinstance(executor.submit(int, "x").exception(5), ValueError)
    assert executor.submit(int, "7").result(5) == 7


def test_work_is_done_although_the_system_had_no_thread_for_it() -> None:
    executor, before = YieldingExecutor(1), stack_size(2**46)
    try:
        first = executor.submit(int, "1")
    finally:
        stack_size(before)
    assert not first.done()
    assert (executor.submit(int, "2").result(5), first.result(5)) == (2, 1)


def test_a_turn_is_lent_while_a_client_is_waited_for(pair: Pair) -> None:
    executor = YieldingExecutor(1)
    clients = [pair(executor) for _ in range(20)]
    waiting = [executor.submit(ours.recv, 10) for ours, _ in clients]
    assert executor.submit(int, "7").result(5) == 7
    assert not any(future.done() for future in waiting)
    for _, theirs in clients:
        theirs.send(b"here")
    assert {future.result(5) for future in waiting} == {b"here"}


def test_whoever_waited_for_a_client_has_its_turn_again_before_new_work(pair: Pair) -> None:
    executor, done, release = YieldingExecutor(1), [], Event()
    ours, theirs = pair(executor)
    waiting = executor.submit(lambda: done.append(ours.recv(10)))
    executor.submit(int, "7").result(5)
    executor.submit(release.wait, 5)
    new = executor.submit(lambda: done.append(b"new"))
    theirs.send(b"old")
    time.sleep(0.05)
    release.set()
    wait([waiting, new], 5)
    assert done == [b"old", b"new"]


def test_threads_that_an_attack_took_are_not_kept(pair: Pair) -> None:
    executor, before = YieldingExecutor(1), active_count()
    clients = [pair(executor) for _ in range(50)]
    waiting = [executor.submit(ours.recv, 10) for ours, _ in clients]
    while active_count() < before + 50:
        time.sleep(0.001)
    for _, theirs in clients:
        theirs.close()
    wait(waiting, 5)
    deadline = time.monotonic() + 5
    while active_count() > before + 2:
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.mark.usefixtures("short_allowance")
def test_a_client_that_drips_is_waited_for_no_longer_than_one_that_is_silent(pair: Pair) -> None:
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
def test_a_client_that_neither_sends_nor_takes_anything_is_too_slow(
    pair: Pair, action: Callable[[ClientSocket], object]
) -> None:
    executor = YieldingExecutor(1)
    ours, _theirs = pair(executor)
    assert isinstance(executor.submit(action, ours).exception(5), ClientTooSlow)


@pytest.mark.usefixtures("short_allowance")
def test_a_client_that_was_too_slow_is_not_waited_for_until_it_hangs_up(pair: Pair) -> None:
    executor = YieldingExecutor(1)
    ours, _theirs = pair(executor)
    assert isinstance(executor.submit(ours.recv, 10).exception(5), ClientTooSlow)
    executor.submit(util.close_graceful, ours).result(5)
    assert ours.fileno() == -1


@pytest.mark.usefixtures("short_allowance")
def test_a_client_that_is_slow_but_steady_is_waited_for_as_long_as_it_takes(pair: Pair) -> None:
    executor = YieldingExecutor(1)
    ours, theirs = pair(executor)
    taken = executor.submit(lambda: [ours.recv(100) for _ in range(30)])
    for _ in range(30):
        time.sleep(0.03)
        theirs.send(bytes(10))
    assert sum(map(len, taken.result(5))) == 300


def test_where_too_many_are_waited_for_the_first_whose_time_is_up_is_cut_off(pair: Pair) -> None:
    executor = YieldingExecutor(1, max_waiting=3)
    clients = [pair(executor) for _ in range(4)]
    waiting = [executor.submit(ours.recv, 10) for ours, _ in clients]
    assert isinstance(waiting[0].exception(5), ClientTooSlow)
    for _, theirs in clients[1:]:
        theirs.send(b"here")
    assert {future.result(5) for future in waiting[1:]} == {b"here"}


def test_a_timeout_of_the_socket_counts_too(pair: Pair) -> None:
    executor = YieldingExecutor(1)
    ours, _theirs = pair(executor)
    ours.settimeout(0.01)
    error = executor.submit(ours.recv, 10).exception(5)
    assert isinstance(error, TimeoutError)
    assert not isinstance(error, ClientTooSlow)
    ours.setblocking(False)
    with pytest.raises(BlockingIOError):
        ours.recv(10)
