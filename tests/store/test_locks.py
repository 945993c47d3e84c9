"""Locks: one holder at a time, every waiter gets its turn, and no files are left."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from service.errors import ProjectNotFound, StoreBusy
from service.store.locks import GATES, Gates, acquire_lock, locked


@pytest.fixture
def restless():
    """Make threads switch all the time."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_threads_pass_a_gate_one_at_a_time_and_leave_nothing_behind(restless):
    gates, path, inside, most = Gates(), Path("p"), 0, 0

    def pass_through(_):
        nonlocal inside, most
        for _ in range(3000):
            assert gates.enter(path, 30)
            inside += 1
            most = max(most, inside)
            inside -= 1
            gates.open(path)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(pass_through, range(8)))
    assert most == 1
    assert gates._gates == {}


def test_a_timeout_leaves_the_gate_unchanged(tmp_path):
    with locked(tmp_path / "lock", "this"), pytest.raises(StoreBusy, match="this"):
        acquire_lock(tmp_path / "lock", "this", 0.01)
    acquire_lock(tmp_path / "lock", "this", 1).release()
    assert tmp_path / "lock" not in GATES._gates


def test_a_lock_of_a_directory_that_is_gone_leaves_the_gate_open(tmp_path):
    with pytest.raises(ProjectNotFound):
        acquire_lock(tmp_path / "gone" / "lock", "it")
    assert GATES._gates == {}


def test_a_thread_is_let_in_when_another_lets_go(tmp_path):
    held, got = acquire_lock(tmp_path / "lock", "it"), threading.Event()

    def wait_for_it():
        with locked(tmp_path / "lock", "it"):
            got.set()

    waiting = threading.Thread(target=wait_for_it)
    waiting.start()
    assert not got.wait(0.05)
    held.release()
    assert got.wait(10)
    waiting.join()
