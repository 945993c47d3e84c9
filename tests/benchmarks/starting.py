"""The start of a service, and the list of its projects right after one."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from service.store.layout import SUMMARY
from tests.benchmarks.measure import cpu_milliseconds, in_turns
from tests.benchmarks.rows import Row, at_most, times
from tests.benchmarks.sizes import Sizes
from tests.support.serving import Service

START_SECONDS = 2


def measure_start(sizes: Sizes, directory: Path) -> list[Row]:
    """Row 13: the start of a service, and a list of many projects with and without their summaries."""
    service = Service(directory / "data", directory / "log", AQ_LOG_LEVEL="error", AQ_MAX_PROJECTS="2000")
    waits, cpu = [], []
    for _ in range(sizes.rounds):
        begun = time.perf_counter()
        service.start()
        waits.append(time.perf_counter() - begun)
        assert service.process is not None
        cpu.append(cpu_milliseconds([service.process.pid, *service.workers()]) / 1000)
        service.stop()
    rows = [
        at_most(13, "start of serve to the first reply", sorted(waits)[len(waits) // 2], "s", START_SECONDS),
        at_most(13, "start of serve to the first reply, CPU", sorted(cpu)[len(cpu) // 2], "s", START_SECONDS),
    ]
    return [*rows, measure_list(sizes, service)]


def measure_list(sizes: Sizes, service: Service) -> Row:
    """Return the row of the list of projects after a start, against one that reads every state."""
    service.start()
    labels = (np.arange(sizes.listed_labels) % 2).tolist()
    body = {"X": [[float(label)] for label in labels], "y": labels, "estimator": "gaussian_nb"}
    service.post("/fit", {"project_id": "list-0", **body}, expect=201)
    archive = service.call("GET", "/projects/list-0/export").body
    headers = {"Content-Type": "application/zip"}
    for number in range(1, sizes.listed):
        reply = service.call("POST", f"/projects/import?project_id=list-{number}", archive, headers)
        assert reply.status == 201, reply.body
    service.stop()

    def listed() -> float:
        service.start()
        begun = time.perf_counter()
        assert len(service.call("GET", "/projects?limit=1000").json["projects"]) == sizes.listed
        seconds = time.perf_counter() - begun
        service.stop()
        return 1000 * seconds

    def listed_without() -> float:
        for path in service.data_dir.glob(f"projects/*/{SUMMARY}"):
            path.unlink()
        return listed()

    without, kept = in_turns(sizes.load_rounds, listed_without, listed)
    work = f"GET /projects after a start, {sizes.listed:,} projects of {sizes.listed_labels:,} labels"
    return times(13, work, kept, "ms", "the same without summaries", without)
