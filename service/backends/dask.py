"""Dask clusters. Importing this module needs the extra 'dask'."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import distributed

from service.backends.cluster import AnyTask, Result, Work

CONNECT_SECONDS = 3


class DaskConnection:
    """A client of a Dask scheduler. Thread-safe."""

    def __init__(self, address: str) -> None:
        self._client = distributed.Client(address, timeout=CONNECT_SECONDS, set_as_default=False)

    def n_cores(self) -> int:
        """Return the number of threads of all workers."""
        if self._client.status != "running":
            # Dask would wait for the scheduler to come back.
            raise ConnectionError("the scheduler is gone")
        return sum(self._client.nthreads().values())

    def run(
        self, work: Work[AnyTask, Result], tasks: Sequence[AnyTask], n_at_once: int
    ) -> Iterator[tuple[AnyTask, Result]]:
        """Do `work` for each task and yield results as they come."""
        waiting = iter(tasks)
        running = {}
        done = distributed.as_completed(loop=self._client.loop, with_results=True)

        def send(some: Iterator[AnyTask]) -> None:
            for task in some:
                future = self._client.submit(work, task, pure=False)
                running[future.key] = task
                done.add(future)

        send(islice(waiting, n_at_once))
        for future, result in done:
            yield running.pop(future.key), result
            send(islice(waiting, 1))

    def close(self) -> None:
        """Disconnect from the scheduler."""
        self._client.close()
