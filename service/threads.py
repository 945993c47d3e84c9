"""One thread for each computation: requests run side by side, and their pools of threads would starve one another."""

from __future__ import annotations

from functools import cache

from threadpoolctl import ThreadpoolController


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
