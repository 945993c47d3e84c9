"""Ray clusters, through Ray Client. Importing this module needs the extra 'ray'.

Any other Ray driver needs a node of the cluster on its machine, and ends its process, here a gunicorn worker, a minute
after the head node has gone.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from itertools import islice
from urllib.parse import urlsplit

import ray

from service.backends.cluster import AnyTask, Result, Work

CONNECT_SECONDS = 3


class RayConnection:
    """A client of the Ray Client server of a head node. Thread-safe."""

    def __init__(self, address: str) -> None:
        url = urlsplit(address)
        # Ray takes half a minute to notice that nothing listens.
        with socket.create_connection((url.hostname, url.port), CONNECT_SECONDS):
            self._context = ray.init(address, log_to_driver=False)

    def n_cores(self) -> int:
        """Return the number of CPUs of all nodes."""
        return int(ray.cluster_resources().get("CPU", 0))

    def run(
        self, work: Work[AnyTask, Result], tasks: Sequence[AnyTask], n_at_once: int
    ) -> Iterator[tuple[AnyTask, Result]]:
        """Do `work` for each task and yield results as they come."""
        remote, waiting = ray.remote(work), iter(tasks)
        running = {remote.remote(task): task for task in islice(waiting, n_at_once)}
        while running:
            [done], _ = ray.wait(list(running))
            yield running.pop(done), ray.get(done)
            running |= {remote.remote(task): task for task in islice(waiting, 1)}

    def close(self) -> None:
        """Disconnect from the cluster."""
        self._context.disconnect()
