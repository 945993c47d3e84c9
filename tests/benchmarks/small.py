"""Small queries and labels under load, compared with an almost empty endpoint."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from service.cli.serve import SHARED_MEMORY, gunicorn_command
from service.settings import Settings
from tests.benchmarks.load import GENERATOR, UNIQUE_NUMBER, Load, requests_per_second
from tests.benchmarks.measure import cpu_milliseconds, in_turns
from tests.benchmarks.pools import label_records
from tests.benchmarks.rows import Row, times
from tests.benchmarks.sizes import Sizes
from tests.benchmarks.sqlite import commits_per_second, connect
from tests.support.serving import Service

ROOT = Path(__file__).parent.parent.parent
CONNECTIONS = 8
CHANGE = "/label a change, refit never"
N_ROWS, N_COLUMNS, N_LABELS, SMALL_BATCH = 1_000, 10, 90, 10


class Empty(Service):
    """The empty endpoint, served by the same gunicorn command line and settings as Active Query."""

    def start(self) -> Empty:
        counters, files = self.log.with_suffix(".counters"), self.log.with_suffix(".files")
        for path in (counters, files):
            path.mkdir()
        for number in range(CONNECTIONS):  # two requests that create a database at once would fail
            connect(files / f"small-{number}.sqlite").close()
        # PYTHONPATH comes before site-packages, where another package may have put a module named `tests`.
        environment = self.environment | {"PROMETHEUS_MULTIPROC_DIR": str(counters), "PYTHONPATH": str(ROOT)}
        settings = Settings.from_env(environment)
        command = [
            f"tests.benchmarks.empty:create_app({str(files)!r})" if part == "service.app:create_app()" else part
            for part in gunicorn_command(settings, SHARED_MEMORY)
        ]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
        self.wait_until_ready()
        return self


@contextmanager
def both(directory: Path) -> Iterator[tuple[Service, Empty]]:
    """Run Active Query with small projects and the empty endpoint side by side; only one is under load at a time."""
    service = Service(directory / "data", directory / "log", AQ_LOG_LEVEL="error")
    empty = Empty(directory / "none", directory / "log-of-empty", AQ_LOG_LEVEL="error")
    try:
        service.start()
        empty.start()
        for number in range(CONNECTIONS):
            service.post("/fit", small_project(f"small-{number}"), expect=201)
        yield service, empty
    finally:
        for started in (service, empty):
            if started.process is not None:
                started.kill()


def measure_small_requests(sizes: Sizes, directory: Path) -> list[Row]:
    """Row 5: requests per second of each kind of request, in turns with the empty endpoint."""
    kinds = {
        f"{kind}, {spread}": load
        for spread, names in (
            ("one project", ["small-0"] * CONNECTIONS),
            (f"{CONNECTIONS} projects", [f"small-{number}" for number in range(CONNECTIONS)]),
        )
        for kind, load in loads(names).items()
    }
    with both(directory) as (service, empty):
        bodies = tuple((query_body(f"small-{number}"),) for number in range(CONNECTIONS))
        targets = [
            (empty.port, Load(path, sent))
            for path, sent in (("/empty", bodies), ("/sqlite", bodies[:1] * CONNECTIONS), ("/sqlite", bodies))
        ]
        targets += [(service.port, load) for load in kinds.values()]
        for port, load in targets:
            requests_per_second(port, load, 1)  # warm up every worker
        measures = [partial(requests_per_second, *target, sizes.load_seconds) for target in targets]
        databases = [directory / f"{number}.sqlite" for number in range(CONNECTIONS)]
        for paths in (databases[:1] * CONNECTIONS, databases):
            measures.append(partial(commits_per_second, paths, sizes.load_seconds))
        rates = in_turns(sizes.load_rounds, *measures)
        nothing, over_http, rates, alone = rates[0], rates[1:3], rates[3:-2], rates[-2:]
        cores = [cores_used(service, load, sizes.load_seconds) for kind, load in kinds.items() if CHANGE in kind]
    against = f"empty Flask + marshmallow POST, {CONNECTIONS} connections of {GENERATOR}"
    rated = dict(zip(kinds, rates, strict=True))
    rows = [times(5, kind, rate, "/s", against, nothing, at_least=0.6) for kind, rate in rated.items()]
    changes = {kind: rate for kind, rate in rated.items() if CHANGE in kind}
    names = ("one database", f"{CONNECTIONS} databases")
    for (kind, rate), which, theirs, bare, (ours, clients) in zip(
        changes.items(), names, over_http, alone, cores, strict=True
    ):
        against = f"the same POST that commits a row to SQLite (WAL, synchronous=FULL), {which}"
        rows.append(times(5, kind, rate, "/s", against, theirs))
        against = f"SQLite (WAL, synchronous=FULL) without HTTP, {CONNECTIONS} processes, {which}"
        rows.append(times(5, kind, rate, "/s", against, bare, at_least=0.5))
        rows.append(times(5, f"{kind}: the clients' CPU", [clients], "cores", "that of the workers", [ours]))
    return rows


def cores_used(service: Service, load: Load, seconds: int) -> tuple[float, float]:
    """Return how many cores the workers and the clients keep busy under a load."""
    workers, began = service.workers(), time.monotonic()
    before = cpu_milliseconds(workers), sum(os.times()[:4])
    requests_per_second(service.port, load, seconds)
    elapsed = time.monotonic() - began
    return (cpu_milliseconds(workers) - before[0]) / 1000 / elapsed, (sum(os.times()[:4]) - before[1]) / elapsed


def loads(projects: list[str]) -> dict[str, Load]:
    """Return the bodies of each kind of request; every connection has its own project or samples."""
    sizes = f"{N_ROWS:,} x {N_COLUMNS}, {N_LABELS} labels"
    queries = tuple((query_body(name),) for name in projects)
    others = tuple((query_body(name, random_state=UNIQUE_NUMBER),) for name in projects)
    same = tuple((label_body(name, first, 0),) for first, name in enumerate(projects))
    changes = tuple(
        tuple(label_body(name, index, turn) for index in range(first, N_LABELS, CONNECTIONS) for turn in (0, 1))
        for first, name in enumerate(projects)
    )
    return {
        f"/query margin, {sizes}": Load("/query", queries),
        f"/query margin, another seed each time, {sizes}": Load("/query", others),
        f"/label the same again, {sizes}": Load("/label", same),
        f"{CHANGE}, {sizes}": Load("/label", changes),
    }


def query_body(project_id: str, **more: int) -> bytes:
    return json.dumps({"project_id": project_id, "strategy": "margin", "batch_size": SMALL_BATCH, **more}).encode()


def label_body(project_id: str, index: int, turn: int) -> bytes:
    """Return a request with one label, which differs in every turn."""
    return json.dumps(
        {"project_id": project_id, "labels": label_records(index, index + 1, turn), "refit": "never"}
    ).encode()


def small_project(project_id: str) -> dict[str, Any]:
    """Return the request that creates a small project."""
    X = np.random.default_rng(2).standard_normal((N_ROWS, N_COLUMNS))
    y = [record["label"] for record in label_records(0, N_LABELS, 0)]
    return {
        "project_id": project_id,
        "estimator": "logistic_regression",
        "X": X.tolist(),
        "y": y + [None] * (N_ROWS - N_LABELS),
    }
