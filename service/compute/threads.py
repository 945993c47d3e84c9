"""One thread for each computation, and a pool of as many threads as there are cores for work that falls into parts.

Requests run side by side, and pools of threads of their own, such as those of BLAS, would starve one another.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from threading import Lock
from typing import TypeVar

from threadpoolctl import ThreadpoolController

from service.compute.deadline import DEADLINE

Item = TypeVar("Item")


def use_one_thread() -> None:
    """Make BLAS and OpenMP compute in the calling thread alone, from now on.

    A sum split over threads rounds differently, and the answer must not depend on the number of cores. The limit is
    never lifted: OpenBLAS has one for the whole process, so lifting it would hand more threads to a request at work in
    another thread; threadpoolctl lets one thread at a time change it, which is no matter while all of them want 1.
    OpenMP has one a thread, so it is set before every computation and not once.
    """
    thread_pools().limit(limits=1)


@cache
def thread_pools() -> ThreadpoolController:
    """Find the BLAS and OpenMP libraries of the process: a search that takes milliseconds, so it is done once."""
    return ThreadpoolController()


def run_in_threads(work: Callable[[Item], None], items: Sequence[Item]) -> None:
    """Do the work for each item, in any order: in the calling thread, and in as many others as there are cores free.

    Whoever has much to do keeps nobody waiting who has little. The first error ends it, and so does the end of the
    caller's time, with OutOfTime.
    """
    waiting, turn, deadline = iter(items), Lock(), DEADLINE.get()

    def work_off() -> None:
        while True:
            with turn:
                item = next(waiting, None)
            if item is None:
                return
            try:
                deadline.check()
                work(item)
            except BaseException:
                with turn:
                    deque(waiting, maxlen=0)  # nobody takes another
                raise

    helpers = [shared_threads().submit(work_off) for _ in range(min(n_cores(), len(items)) - 1)]
    try:
        work_off()
    finally:
        begun = [helper for helper in helpers if not helper.cancel()]
        wait(begun)
    for helper in begun:
        helper.result()


@cache
def shared_threads() -> ThreadPoolExecutor:
    """Start the process's own threads, one for each core that it may use; made when first needed, after any fork."""
    return ThreadPoolExecutor(n_cores(), thread_name_prefix="core")


@cache
def n_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))
