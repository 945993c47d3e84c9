"""Timing in turns, and memory and CPU time of processes from /proc."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

MB = 2**20
SAMPLE_SECONDS = 0.002
TICKS = os.sysconf("SC_CLK_TCK")


def milliseconds(call: Callable[[], object]) -> float:
    """Time a call."""
    start = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - start)


def in_turns(rounds: int, *measure: Callable[[], float]) -> list[list[float]]:
    """Take `rounds` samples of each measurement in turns, so that a slow moment of the machine affects all of them.

    Every other round runs in reverse order.
    """
    samples: list[list[float]] = [[] for _ in measure]
    pairs = list(zip(measure, samples, strict=True))
    for number in range(rounds):
        for take, taken in pairs if number % 2 == 0 else reversed(pairs):
            taken.append(take())
    return samples


def own_mb(pid: int) -> float:
    """Return the anonymous memory of a process (RssAnon), which excludes a mapped pool."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024
    raise ProcessLookupError(f"process {pid} has no memory")


def cpu_milliseconds(pids: Iterable[int]) -> float:
    """Return the user and system CPU time of processes."""
    after_name = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return sum(int(ticks) for fields in after_name for ticks in fields[11:13]) * 1000 / TICKS


class PeakMemory:
    """Measures the peak growth of anonymous memory, the largest of several processes."""

    def __init__(self, pids: Iterable[int]) -> None:
        self.before = {pid: own_mb(pid) for pid in pids}
        self.peak = dict(self.before)
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.sample)

    def sample(self) -> None:
        while not self.done.wait(SAMPLE_SECONDS):
            self.peak = {pid: max(peak, own_mb(pid)) for pid, peak in self.peak.items()}

    def __enter__(self) -> PeakMemory:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.done.set()
        self.thread.join()

    @property
    def growth_mb(self) -> float:
        return max(self.peak[pid] - self.before[pid] for pid in self.before)
