"""Threads: one for each BLAS or OpenMP computation, and one pool, of a thread per core, for work in parts.

Requests run side by side, and a thread pool for each of them, as in BLAS, would starve the others.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import cache
from threading import Lock
from typing import TypeVar

import joblib
from threadpoolctl import ThreadpoolController

from service.compute.deadline import DEADLINE

Item = TypeVar("Item")

FITTING = Lock()
"""Held by the fit that uses all cores."""


def use_one_thread() -> None:
    """Make BLAS and OpenMP compute in the calling thread only.

    A sum split over threads rounds differently, and results must not depend on the number of cores. The limit is never
    lifted: OpenBLAS has one limit per process, so lifting it would affect requests in other threads. OpenMP has one per
    thread, so it is set before every computation.
    """
    thread_pools().limit(limits=1)


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

    helpers = [shared_threads().submit(take_items) for _ in range(min(n_cores(), len(items)) - 1)]
    try:
        take_items()
    finally:
        begun = [helper for helper in helpers if not helper.cancel()]
        wait(begun)
    for helper in begun:
        helper.result()


@contextmanager
def threads_for_fit() -> Iterator[None]:
    """Let scikit-learn fit independent parts, such as the trees of a forest, on all cores.

    Only one fit of this process does at a time; others meanwhile have one thread. The parts of an ensemble have their
    seeds before they are fitted, so the model does not depend on the number of threads.
    """
    if n_cores() == 1 or not FITTING.acquire(blocking=False):
        yield
        return
    try:
        with joblib.parallel_config(backend="threading", n_jobs=n_cores()):
            yield
    finally:
        FITTING.release()


@cache
def shared_threads() -> ThreadPoolExecutor:
    """Return the process's thread pool, one thread per core; it is made when first needed, after any fork."""
    return ThreadPoolExecutor(n_cores(), thread_name_prefix="core")


@cache
def n_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0))
