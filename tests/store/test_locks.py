"""Locks: one holder at a time, every waiter gets its turn, and no files are left."""

from __future__ import annotations

import errno
import fcntl
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from pathlib import Path

import pytest

from service.errors import ProjectNotFound, StoreBusy
from service.store import locks
from service.store.locks import GATES, KEPT, Gates, acquire_lock, locked, try_lock


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


@pytest.mark.parametrize("is_made_again", [False, True])
def test_a_kept_lock_of_a_directory_that_was_deleted_is_not_taken(tmp_path, is_made_again):
    path = tmp_path / "p" / "lock"
    path.parent.mkdir()
    with locked(path, "it"):
        pass
    assert path in KEPT
    path.parent.rename(tmp_path / "gone")
    if is_made_again:
        path.parent.mkdir()
        with locked(path, "it"), try_lock(tmp_path / "gone" / "lock") as is_free, try_lock(path) as is_mine:
            assert (is_free, is_mine) == (True, False)
    else:
        with pytest.raises(ProjectNotFound), locked(path, "it"):
            pass
        assert path not in KEPT


def test_a_lock_whose_file_was_moved_away_is_closed(tmp_path):
    path = tmp_path / "p" / "lock"
    path.parent.mkdir()
    with locked(path, "it"):
        path.parent.rename(tmp_path / "gone")
    assert path not in KEPT


def test_few_lock_files_stay_open(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "MAX_KEPT", 3)
    for name in "abcdefgh":
        with locked(tmp_path / name, "it"):
            pass
        assert 1 <= len(KEPT) <= 3
    with locked(tmp_path / "h", "it"), locked(tmp_path / "a", "it"), try_lock(tmp_path / "h") as is_free:
        assert not is_free


def test_a_forked_process_neither_shares_a_kept_lock_nor_keeps_it(tmp_path):
    path = tmp_path / "lock"
    with locked(path, "it"):
        pass
    for is_held in (False, True):
        child_waits, parent_waits = os.pipe(), os.pipe()
        with locked(path, "it") if is_held else nullcontext():
            if (child := os.fork()) == 0:
                answer = b"x"
                with suppress(BaseException), try_lock(path) as is_free:
                    answer = b"%d" % is_free
                os.write(parent_waits[1], answer)
                os.read(child_waits[0], 1)
                os._exit(0)
            assert os.read(parent_waits[0], 1) == b"%d" % (not is_held)
        with locked(path, "it", 0):
            pass
        os.write(child_waits[1], b"x")
        os.waitpid(child, 0)
        for file in (*child_waits, *parent_waits):
            os.close(file)


def test_a_file_system_that_locks_only_files_open_for_writing_is_supported(tmp_path, monkeypatch):
    flock = fcntl.flock

    def flock_of_nfs(descriptor, operation):
        if operation & fcntl.LOCK_EX and fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock_of_nfs)
    for _ in range(2):
        with locked(tmp_path / "lock", "it"), try_lock(tmp_path / "lock") as is_free:
            assert not is_free


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
