"""People and clients who work at the same time: latency and errors of their queries, and requests per second."""

from __future__ import annotations

import http.client
import json
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from tests.benchmarks.measure import in_turns
from tests.benchmarks.pools import create, form, label, served
from tests.benchmarks.rows import Row, at_most, times
from tests.benchmarks.sizes import N_CLASSES, WIDTH, Sizes
from tests.support.serving import Service

PEOPLE, POOLS, MOST_CLIENTS = 3, 6, 16
N_LABELS, SMALL_BATCH, LEASE_SECONDS = 500, 10, 60
IN_ANOTHER_POOL = 0.2
"""Share of a client's requests that are not about its own pool."""

BUSY = 503
PERCENT = 100


@dataclass
class Traffic:
    """The requests of some clients: seconds of each query, the number of all, and of those answered 503."""

    clients: int
    queries: list[float] = field(default_factory=list)
    n_requests: int = 0
    n_busy: int = 0
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.n_requests / self.seconds

    @property
    def p99(self) -> float:
        """Milliseconds within which 99 % of the queries are answered."""
        return 1000 * float(np.quantile(self.queries, 0.99))


class Client:
    """Sends queries and labels on one connection."""

    def __init__(self, port: int, traffic: Traffic) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
        self.traffic = traffic

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """Return the reply, None if the service is busy."""
        self.connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        response = self.connection.getresponse()
        reply = json.loads(response.read())
        self.traffic.n_requests += 1
        self.traffic.n_busy += response.status == BUSY
        if response.status not in (200, BUSY):
            raise RuntimeError(f"{path}: {response.status} {reply}")
        return reply if response.status == 200 else None

    def query(self, project_id: str, strategy: str, annotator: str | None) -> list[int]:
        """Time a query, and return the samples."""
        body = {"project_id": project_id, "strategy": strategy, "batch_size": SMALL_BATCH}
        if annotator is not None:
            body |= {"annotator": annotator, "lease_seconds": LEASE_SECONDS}
        start = time.perf_counter()
        reply = self.post("/query", body)
        self.traffic.queries.append(time.perf_counter() - start)
        return reply["indices"] if reply else []

    def label(self, project_id: str, indices: list[int], annotator: str) -> None:
        """Label samples; the model follows in the background."""
        labels = [{"index": index, "label": index % N_CLASSES, "annotator": annotator} for index in indices]
        if labels:
            self.post("/label", {"project_id": project_id, "labels": labels, "refit": "background"})


def measure_people(sizes: Sizes, directory: Path) -> list[Row]:
    """Row 11: the queries of three people who lease and label samples of a pool, in turns with those of one."""
    with served(directory) as service:
        for n_people in (1, PEOPLE):
            create(service, f"of-{n_people}", form(f"of-{n_people}", sizes.pool_of_people, 8 * WIDTH))
            label(service, f"of-{n_people}", N_LABELS)
        measures = [partial(median_of, service, n_people, sizes.load_rounds) for n_people in (1, PEOPLE)]
        alone, together = in_turns(sizes.load_rounds, *measures)
    work = f"/query auto, {SMALL_BATCH} leased samples, {sizes.pool_of_people:,} x {8 * WIDTH}"
    return [times(11, f"{work}, {PEOPLE} people", together, "ms", "one person", alone, at_most=1.3)]


def median_of(service: Service, n_people: int, n_batches: int) -> float:
    """Return the median milliseconds of the queries of some people, each for so many batches."""

    def annotate(client: Client, number: int) -> None:
        for _ in range(n_batches):
            name, project_id = f"person {number}", f"of-{n_people}"
            client.label(project_id, client.query(project_id, "auto", name), name)

    return 1000 * median(traffic_of(service, n_people, annotate).queries)


def traffic_of(service: Service, n_clients: int, work: Callable[[Client, int], None]) -> Traffic:
    """Let clients work at the same time, and return their requests."""
    parts = [Traffic(n_clients) for _ in range(n_clients)]
    start = time.monotonic()
    with ThreadPoolExecutor(n_clients) as threads:
        clients = [Client(service.port, part) for part in parts]
        for done in [threads.submit(work, client, number) for number, client in enumerate(clients)]:
            done.result()
    return Traffic(
        n_clients,
        [seconds for part in parts for seconds in part.queries],
        sum(part.n_requests for part in parts),
        sum(part.n_busy for part in parts),
        time.monotonic() - start,
    )


def measure_clients(sizes: Sizes, directory: Path) -> tuple[list[Row], list[Traffic]]:
    """Row 12: queries and labels of 1 to 16 clients in six pools."""
    with served(directory) as service:
        for number in range(POOLS):
            create(service, f"pool-{number}", form(f"pool-{number}", sizes.pool_of_clients))
            label(service, f"pool-{number}", N_LABELS)
        rounds = count()
        numbers = [2**power for power in range(MOST_CLIENTS.bit_length())]
        taken = [drive(service, n_clients, sizes.client_seconds, next(rounds)) for n_clients in numbers]
    most = taken[-1]
    work = f"/query and /label, {MOST_CLIENTS} clients, {POOLS} pools of {sizes.pool_of_clients:,} x {WIDTH}"
    share = PERCENT * most.n_busy / most.n_requests
    p99 = at_most(12, f"{work}: p99 of queries", most.p99, "ms", 1000)
    return [
        replace(p99, note=f"{most.rate:.0f} requests/s, {len(most.queries)} queries", samples=tuple(most.queries)),
        at_most(12, f"{work}: answered 503", share, "%", 0.1),
    ], taken


def drive(service: Service, n_clients: int, seconds: float, seed: int) -> Traffic:
    """Let clients query and label for some seconds: auto and margin, half of the queries with leases."""
    until = time.monotonic() + seconds

    def work(client: Client, number: int) -> None:
        rng = random.Random(f"{seed} {number}")  # noqa: S311 - reproducible
        while time.monotonic() < until:
            pool = rng.randrange(POOLS) if rng.random() < IN_ANOTHER_POOL else number % POOLS
            project_id, name = f"pool-{pool}", f"client {number}"
            leases = name if rng.random() < 0.5 else None
            client.label(project_id, client.query(project_id, rng.choice(("auto", "margin")), leases), name)

    return traffic_of(service, n_clients, work)
