"""Work in a process of its own: its result, its errors, its time limit and its end."""

from __future__ import annotations

import operator
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from service.compute.child_process import run_in_process
from tests.support.serving import wait_until


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    return [int(child) for task in Path(f"/proc/{pid}/task").glob("*/children") for child in task.read_text().split()]


def test_the_result_comes_back_whatever_the_work_prints() -> None:
    assert run_in_process(print, "to the log", seconds=60) is None
    numbers = np.arange(200_000.0)
    assert np.array_equal(run_in_process(operator.neg, numbers, seconds=60), -numbers)


def test_an_error_of_the_work_is_raised() -> None:
    with pytest.raises(ValueError, match="invalid literal for int"):
        run_in_process(int, "x", seconds=60)


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGKILL, MemoryError), (signal.SIGSEGV, ChildProcessError)], ids=["killed", "crashed"]
)
def test_the_end_of_the_process_is_an_error(number: signal.Signals, error: type[Exception]) -> None:
    with pytest.raises(error):
        run_in_process(signal.raise_signal, number, seconds=60)


def test_no_process_is_left_at_the_time_limit() -> None:
    before = children(os.getpid())
    with pytest.raises(TimeoutError):
        run_in_process(time.sleep, 600, seconds=0.2)
    assert children(os.getpid()) == before


@pytest.mark.parametrize("n_bytes", [0, 10])
def test_a_process_whose_worker_dies_while_it_starts_writes_no_traceback(n_bytes: int) -> None:
    given = pickle.dumps((0, time.sleep, (600,)))[:n_bytes]
    process = subprocess.run(
        [sys.executable, "-m", "service.compute.child_process"], input=given, capture_output=True, check=False
    )
    assert (process.returncode, process.stdout, process.stderr) == (1, b"", b"")


@pytest.mark.slow
def test_the_process_ends_with_its_worker() -> None:
    code = (
        "import time; from service.compute.child_process import run_in_process; "
        "run_in_process(time.sleep, 600, seconds=600)"
    )
    worker = subprocess.Popen([sys.executable, "-c", code])
    wait_until(lambda: children(worker.pid))
    (child,) = children(worker.pid)
    time.sleep(2)  # until it sleeps
    worker.kill()
    worker.wait()
    wait_until(lambda: not Path(f"/proc/{child}").exists() or "zombie" in Path(f"/proc/{child}/status").read_text())
