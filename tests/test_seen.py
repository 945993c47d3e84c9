"""A real service of two workers, seen from outside: its counts over both, and over their deaths."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from tests.calls import ends, line
from tests.exposed import complaints, value
from tests.serving import Service


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service of two workers."""
    directory = tmp_path_factory.mktemp("seen")
    service = Service(directory / "data", directory / "log", AQ_WORKERS="2").start()
    service.post("/fit", {"project_id": "p", "X": line(), "y": ends()}, expect=201)
    yield service
    service.kill()


def scrape(service: Service) -> str:
    return service.call("GET", "/metrics").body.decode()


def n_healthy(text: str) -> float:
    return value(text, "active_query_requests_total", route="/healthz", status="200")


def sums_until_another(service: Service, gone: int) -> list[float]:
    """How many requests were counted, again and again until two workers are at work without the one that is gone."""
    deadline, seen, text = time.monotonic() + 30, [], ""
    while gone in service.workers() or value(text, "active_query_workers") != 2:
        assert time.monotonic() < deadline
        with suppress(OSError):  # the connection may be the dead one's
            text = scrape(service)
            seen.append(value(text, "active_query_requests_total"))
    return seen


@contextmanager
def alone(service: Service, worker: int) -> Iterator[None]:
    """Let one worker answer everything."""
    others = [pid for pid in service.workers() if pid != worker]
    for pid in others:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in others:
            os.kill(pid, signal.SIGCONT)


def test_each_worker_knows_what_both_counted(service: Service) -> None:
    before = n_healthy(scrape(service))
    for worker, n_requests in zip(service.workers(), (5, 7), strict=True):
        with alone(service, worker):
            for _ in range(n_requests):
                service.call("GET", "/healthz")
    for worker in service.workers():
        with alone(service, worker):
            assert n_healthy(scrape(service)) == before + 12


def test_it_is_as_prometheus_wants_it(service: Service) -> None:
    service.post("/query", {"project_id": "p"})
    text = scrape(service)
    assert complaints(text) == []
    assert value(text, "active_query_requests_in_flight") == 1
    assert value(text, "active_query_workers") == 2
    assert value(text, "active_query_memory_bytes") > 2**25
    assert value(text, "active_query_cache_bytes") > 0
    assert value(text, "active_query_samples") == 20


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "ended"])
def test_no_count_falls_when_a_worker_goes(service: Service, how: signal.Signals) -> None:
    before = scrape(service)
    worker = service.workers()[0]
    os.kill(worker, how)
    seen = [value(before, "active_query_requests_total"), *sums_until_another(service, worker)]
    assert seen == sorted(seen)
    after = scrape(service)
    for name in ("active_query_request_seconds_bucket", "active_query_cpu_seconds_total"):
        assert value(after, name) >= value(before, name), name
    assert n_healthy(after) == n_healthy(before)


def test_workers_that_are_gone_leave_two_files(service: Service) -> None:
    counters = service.counters()
    assert counters is not None
    kinds = ("counter", "histogram", "gauge_livesum")
    expected = {"counter_gone.db", "histogram_gone.db", "lock"}
    expected |= {f"{kind}_{pid}.db" for kind in kinds for pid in service.workers()}
    deadline = time.monotonic() + 30
    while {path.name for path in counters.iterdir()} != expected:
        assert time.monotonic() < deadline, list(counters.iterdir())  # a worker that starts makes its files one by one
        time.sleep(0.02)


def test_counts_lie_where_nothing_is_kept(service: Service) -> None:
    counters = service.counters()
    assert counters is not None
    assert not counters.is_relative_to(service.environment["AQ_DATA_DIR"])
