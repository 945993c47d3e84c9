"""Threads: one for each BLAS or OpenMP computation, and one pool, of a thread per core, for work in parts.

Requests run side by side, and a thread pool for each of them, as in BLAS, would starve the others.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from functools import cache
from threading import Lock
from typing import TypeVar

import joblib
from threadpoolctl import ThreadpoolController

from service.compute.deadline import DEADLINE
from service.compute.places import Places
from service.compute.waiting import slot_yielded

Item = TypeVar("Item")

FIT_SECONDS = 60.0
"""How long a fit may wait for others: of many waiting clients, those that wait shorter are dropped first."""

IS_COUNTED: ContextVar[bool] = ContextVar("IS_COUNTED", default=False)
"""Whether this thread is counted among those that compute."""

CORES_OF_FIT: ContextVar[int] = ContextVar("CORES_OF_FIT", default=0)
"""The idle cores that `threads_for_fit` has taken for what this thread fits."""


def use_one_thread() -> None:
    """Make BLAS and OpenMP compute in the calling thread only.

    A sum split over threads rounds differently, and results must not depend on the number of cores. The limit is never
    lifted: OpenBLAS has one limit per process, so lifting it would affect requests in other threads. OpenMP has one per
    thread, so it is set before every computation.
    """
    # ThreadpoolController.limit would also look up all former limits, which takes five times as long.
    for library in thread_pools().lib_controllers:
        library.set_num_threads(1)


@cache
def thread_pools() -> ThreadpoolController:
    """Return the controller of the process's BLAS and OpenMP libraries; finding them takes milliseconds."""
    return ThreadpoolController()


def run_in_threads(work: Callable[[Item], None], items: Sequence[Item]) -> None:
    """Call `work` for each item, in any order, in the calling thread and on all free cores.

    A request with many items does not delay one with few. The first error ends the work; raises OutOfTime at the
    caller's deadline.
    """
    remaining, lock, deadline = iter(items), Lock(), DEADLINE.get()

    def take_items() -> None:
        while True:
            with lock:
                item = next(remaining, None)
            if item is None:
                return
            try:
                deadline.check()
                work(item)
            except BaseException:
                with lock:
                    deque(remaining, maxlen=0)  # no thread takes another
                raise

    with count_thread(), idle_cores(len(items) - 1) as n_idle:
        n_helpers = min(n_idle + CORES_OF_FIT.get(), len(items) - 1)
        helpers = [shared_threads().submit(take_items) for _ in range(n_helpers)]
        try:
            take_items()
        finally:
            begun = [helper for helper in helpers if not helper.cancel()]
            wait(begun)
    for helper in begun:
        helper.result()


@contextmanager
def threads_for_fit() -> Iterator[None]:
    """Let scikit-learn and `run_in_threads` fit independent parts, such as the trees of a forest, on all cores.

    These are the cores on which this process computes nothing else. The parts of an ensemble have their seeds before
    they are fitted, so the model does not depend on the number of threads.
    """
    with count_thread(), idle_cores(n_cores()) as n_idle, ExitStack() as threaded:
        if n_idle:
            threaded.enter_context(joblib.parallel_config(backend="threading", n_jobs=1 + n_idle))
        token = CORES_OF_FIT.set(n_idle)
        try:
            yield
        finally:
            CORES_OF_FIT.reset(token)


@contextmanager
def one_of_few_fits() -> Iterator[None]:
    """Wait until fewer fits than cores run in this process, and count as one of them."""
    if not FITS.take():
        with slot_yielded(FIT_SECONDS):
            FITS.take(-1)
    try:
        with count_thread():
            yield
    finally:
        FITS.give_back()


@contextmanager
def count_thread() -> Iterator[None]:
    """Count this thread among those that compute, unless it is."""
    if IS_COUNTED.get():
        yield
        return
    token = IS_COUNTED.set(True)
    COMPUTING.add(1)
    try:
        yield
    finally:
        COMPUTING.add(-1)
        IS_COUNTED.reset(token)


@contextmanager
def idle_cores(at_most: int) -> Iterator[int]:
    """Take the cores without a computing thread, up to `at_most`, and yield their number."""
    n_idle = COMPUTING.take_idle(at_most)
    try:
        yield n_idle
    finally:
        COMPUTING.add(-n_idle)


class ComputingThreads:
    """The number of threads of this process that compute: those of requests and fits, and their helpers."""

    def __init__(self) -> None:
        self._number = 0
        self._lock = Lock()

    def add(self, number: int) -> None:
        """Count more threads."""
        with self._lock:
            self._number += number

    def take_idle(self, at_most: int) -> int:
        """Count as many threads as there are cores left, up to `at_most`, and return their number."""
        with self._lock:
            number = max(0, min(at_most, n_cores() - self._number))
            self._number += number
            return number


@cache
def shared_threads() -> ThreadPoolExecutor:
    """Return the process's thread pool, one thread per core; it is made when first needed, after any fork."""
    return ThreadPoolExecutor(n_cores(), thread_name_prefix="core")


@cache
def n_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


COMPUTING = ComputingThreads()

SELECTIONS, FITS = Places(n_cores()), Places(n_cores())
"""Selections in large pools, and fits: of each, one for a core at a time. Neither waits for the other, as one of them
may take long."""
