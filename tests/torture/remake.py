"""Projects are deleted and created again while others use them, in several processes: no request is a fault."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import count, islice
from pathlib import Path
from random import Random
from typing import Any

from service.app import create_app
from service.settings import Settings
from tests.torture.outcome import Tally
from tests.torture.sizes import Sizes

N_PROCESSES, N_THREADS = 3, 4
NAMES = ("p", "q")
POOL: dict[str, Any] = {
    "X": [[n % 5, n % 7, n] for n in range(20)],
    "ids": [f"n{n}" for n in range(20)],
    "y": ["a", "b"] + [None] * 18,
    "estimator": "gaussian_nb",
}


def requests_of(name: str) -> list[tuple[str, str, Any]]:
    """List the requests that are made of a project: method, path and body."""
    who = {"annotator": "ann", "lease_seconds": 60}
    label = {"project_id": name, "labels": [{"id": "n5", "label": "b"}]}
    query = {"project_id": name, "strategy": "margin"}
    return [
        ("POST", "/fit", {"project_id": name, **POOL}),
        ("POST", "/fit", {"project_id": name, **POOL, "replace": True}),
        ("POST", "/fit", {"project_id": name}),
        ("POST", "/label", label | {"refit": "wait"}),
        ("POST", "/label", label | {"refit": "never"}),
        ("POST", "/query", query),
        ("POST", "/query", query | who),
        ("GET", f"/projects/{name}", None),
        ("GET", f"/projects/{name}/labels", None),
        ("GET", f"/projects/{name}/events", None),
        ("GET", f"/projects/{name}/leases", None),
        ("GET", f"/projects/{name}/export", None),
        ("DELETE", f"/projects/{name}/labels/5", None),
        ("GET", "/projects", None),
        ("GET", "/metrics", None),
        ("DELETE", f"/projects/{name}", None),
    ]


def request_at_random(root: str, n_requests: int, seed: int) -> Counter[str]:
    """Make requests in threads; return how many had each status, and the first faults in words."""
    app = create_app(Settings(data_dir=Path(root), log_level="critical"))
    numbers = islice(count(), n_requests)

    def work(thread: int) -> Counter[str]:
        rng, client, statuses = Random(f"{seed} {thread}"), app.test_client(), Counter[str]()  # noqa: S311
        for _ in numbers:
            method, path, body = rng.choice(requests_of(rng.choice(NAMES)))
            reply = client.open(path, method=method, json=body)
            statuses[str(reply.status_code)] += 1
            if reply.status_code >= 500:
                statuses[f"{method} {path}: {reply.status_code} {reply.get_data(as_text=True)[:300]}"] += 1
            reply.close()
        return statuses

    with ThreadPoolExecutor(N_THREADS) as threads:
        return sum(threads.map(work, range(N_THREADS)), Counter())


def run(sizes: Sizes, seed: int, scratch: Path) -> Tally:
    """Count the faults among many requests."""
    tally, root = Tally(), scratch / "data"
    create_app(Settings(data_dir=root, log_level="critical"))
    share = -(-sizes.remaking_requests // N_PROCESSES)
    with multiprocessing.get_context("spawn").Pool(N_PROCESSES) as processes:
        jobs = [(str(root), share, seed * N_PROCESSES + n) for n in range(N_PROCESSES)]
        found: Counter[str] = sum(processes.starmap(request_at_random, jobs), Counter())
    for status, n in sorted(found.items()):
        if status.isdecimal():
            tally.count(f"replies {status}", n)
        else:
            tally.fail(f"{n} times {status}")
    return tally
