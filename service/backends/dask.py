"""Dask clusters. Importing this module needs the extra 'dask'."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import distributed

from service.backends.cluster import TaskResult
from service.backends.task import Task, score_task

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

    def run(self, tasks: Sequence[Task], n_at_once: int) -> Iterator[TaskResult]:
        """Run `score_task` for each task and yield results as they come."""
        waiting = iter(tasks)
        running = {}
        done = distributed.as_completed(loop=self._client.loop, with_results=True)

        def send(some: Iterator[Task]) -> None:
            for task in some:
                future = self._client.submit(score_task, task, pure=False)
                running[future.key] = task
                done.add(future)

        send(islice(waiting, n_at_once))
        for future, scores in done:
            yield running.pop(future.key), scores
            send(islice(waiting, 1))

    def close(self) -> None:
        """Disconnect from the scheduler."""
        self._client.close()
