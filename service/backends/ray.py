"""A cluster of Ray, by way of Ray Client. Importing this module needs the extra 'ray'.

A driver of Ray that is no such client ends its whole process, here a worker of gunicorn, a minute after the cluster's
head is gone; and there must be a node of the cluster on its machine.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from itertools import islice
from urllib.parse import urlsplit

import ray

from service.backends.cluster import TaskResult
from service.backends.task import Task, score_task

CONNECT_SECONDS = 3


class RayConnection:
    """A client of the server beside a cluster's head; it may be used from many threads."""

    def __init__(self, address: str) -> None:
        url = urlsplit(address)
        # Ray itself takes half a minute to find out that nobody listens.
        with socket.create_connection((url.hostname, url.port), CONNECT_SECONDS):
            self._context = ray.init(address, log_to_driver=False)
        self._work = ray.remote(score_task)

    def n_cores(self) -> int:
        """Return how many processors all nodes offer."""
        return int(ray.cluster_resources().get("CPU", 0))

    def run(self, tasks: Sequence[Task], n_at_once: int) -> Iterator[TaskResult]:
        """Have `work` done on each task and yield the answers as they come."""
        waiting = iter(tasks)
        running = {self._work.remote(task): task for task in islice(waiting, n_at_once)}
        while running:
            [done], _ = ray.wait(list(running))
            yield running.pop(done), ray.get(done)
            running |= {self._work.remote(task): task for task in islice(waiting, 1)}

    def close(self) -> None:
        """Leave the cluster."""
        self._context.disconnect()
