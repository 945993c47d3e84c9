"""A real service of two workers: its metrics, also when workers die, and its log."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from service.http.routes import OPERATIONS
from tests.support.calls import end_labels, line_pool
from tests.support.npy import npy
from tests.support.prometheus import lint_metrics, metric_value
from tests.support.serving import Service, wait_until

CONTRACT = Path(__file__).parents[2] / "openapi.yaml"

MARK = "tiger7391"
NUMBER = 739173917391


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service of two workers that logs everything."""
    directory = tmp_path_factory.mktemp("seen")
    service = Service(directory / "data", directory / "log", AQ_WORKERS="2", AQ_LOG_LEVEL="debug").start()
    service.post(
        "/fit", {"project_id": "p", "estimator": "logistic_regression", "X": line_pool(), "y": end_labels()}, expect=201
    )
    yield service
    service.kill()


def scrape(service: Service) -> str:
    return service.call("GET", "/metrics").body.decode()


def n_healthy(text: str) -> float:
    return metric_value(text, "active_query_requests_total", route="/healthz", status="200")


def lines(service: Service) -> list[dict[str, Any]]:
    return [json.loads(each) for each in service.log.read_text(encoding="ascii").splitlines()]


def sums_until_another(service: Service, gone: int) -> list[float]:
    """The number of counted requests, once two workers other than the dead one are running."""
    deadline, seen, text = time.monotonic() + 100, [], ""
    while gone in service.workers() or metric_value(text, "active_query_workers") != 2:
        assert time.monotonic() < deadline
        with suppress(OSError):  # the connection may be the dead one's
            text = scrape(service)
            seen.append(metric_value(text, "active_query_requests_total"))
    return seen


@contextmanager
def alone(service: Service, worker: int) -> Iterator[None]:
    """Let one worker handle all requests."""
    others = [pid for pid in service.workers() if pid != worker]
    for pid in others:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in others:
            os.kill(pid, signal.SIGCONT)


def test_each_worker_reports_the_counts_of_both(service: Service) -> None:
    before = n_healthy(scrape(service))
    for worker, n_requests in zip(service.workers(), (5, 7), strict=True):
        with alone(service, worker):
            for _ in range(n_requests):
                service.call("GET", "/healthz")
    for worker in service.workers():
        with alone(service, worker):
            assert n_healthy(scrape(service)) == before + 12


def test_the_linter_of_prometheus_has_no_complaint(service: Service) -> None:
    service.post("/query", {"project_id": "p"})
    text = scrape(service)
    assert lint_metrics(text) == []
    assert metric_value(text, "active_query_requests_in_flight") == 1
    assert metric_value(text, "active_query_workers") == 2
    assert metric_value(text, "active_query_memory_bytes") > 2**25
    assert metric_value(text, "active_query_cache_bytes") > 0
    assert metric_value(text, "active_query_samples") == 20


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "ended"])
def test_no_count_falls_when_a_worker_exits(service: Service, how: signal.Signals) -> None:
    before = scrape(service)
    worker = service.workers()[0]
    os.kill(worker, how)
    seen = [metric_value(before, "active_query_requests_total"), *sums_until_another(service, worker)]
    assert seen == sorted(seen)
    after = scrape(service)
    for name in ("active_query_request_seconds_bucket", "active_query_cpu_seconds_total"):
        assert metric_value(after, name) >= metric_value(before, name), name
    assert n_healthy(after) == n_healthy(before)


def test_dead_workers_leave_no_files_behind(service: Service) -> None:
    counters = service.counters()
    assert counters is not None
    kinds = ("counter", "histogram", "gauge_livesum")
    expected = {f"{kind}_{number}.db" for kind in kinds for number in (0, 1)}
    expected |= {f"pid_{pid}" for pid in service.workers()}
    # A worker that starts makes its files one by one.
    wait_until(lambda: {path.name for path in counters.iterdir()} == expected, lambda: list(counters.iterdir()))


def test_counts_are_not_in_the_data_directory(service: Service) -> None:
    counters = service.counters()
    assert counters is not None
    assert not counters.is_relative_to(service.environment["AQ_DATA_DIR"])


def test_a_background_fit_logs_its_project(service: Service) -> None:
    labels = [{"index": 3, "label": 1}]
    service.post("/label", {"project_id": "p", "labels": labels, "refit": "background"})
    fitted = "fitted in the background", "p"
    wait_until(lambda: fitted in [(line["message"], line["project_id"]) for line in lines(service)])
    assert metric_value(scrape(service), "active_query_fit_seconds_count", mode="background", outcome="fitted") == 1


def documents() -> Iterator[tuple[str, Any]]:
    """Valid and invalid bodies with a marker in every possible position."""
    fields = {name for each in OPERATIONS.all if each.body for name in each.body().fields} - {"project_id"}
    for path in ("/fit", "/query", "/label", "/projects/p/pool"):
        for field in sorted(fields):
            yield path, {"project_id": "p", field: MARK}
            yield path, {"project_id": "p", field: [MARK, {MARK: NUMBER}]}
        yield path, {"project_id": "p", MARK: NUMBER}
        yield path, {"project_id": f"/{MARK}"}
        yield path, f'{{"project_id": "p", "{MARK}'.encode()
        yield path, MARK.encode()
    yield "/fit", {"project_id": "kept", "X": [[NUMBER, 1], [2, 3]], "y": [MARK, f"{MARK}2"], "ids": [MARK, "b"]}
    yield "/query", {"project_id": "kept", "annotator": MARK, "strategy": "margin", "explain": True}
    yield "/label", {"project_id": "kept", "labels": [{"id": MARK, "label": MARK, "annotator": MARK, "query_id": MARK}]}
    yield "/label", {"project_id": "kept", "labels": [{"id": "b", "skip": True, "annotator": MARK}], "refit": "never"}


def form(name: str, media_type: str, data: bytes) -> tuple[bytes, dict[str, str]]:
    head = f'--{MARK}\r\nContent-Disposition: form-data; name="{name}"; filename="{MARK}"\r\nContent-Type: {media_type}'
    body = head.encode() + b"\r\n\r\n" + data + f"\r\n--{MARK}--\r\n".encode()
    return body, {"Content-Type": f"multipart/form-data; boundary={MARK}"}


def raw(service: Service, data: bytes) -> None:
    """Send bytes that may not be HTTP, and wait for the end of the connection."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=10) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        try:
            while connection.recv(2**16):
                continue
        except ConnectionResetError:
            return


@pytest.fixture(scope="module")
def marked(service: Service) -> str:
    """The whole log after markers were sent everywhere and files of a project were damaged."""
    headers = {
        "Authorization": f"Bearer {MARK}",
        "Cookie": f"{MARK}={MARK}",
        "User-Agent": MARK,
        "X-Request-ID": f"{MARK}\t{MARK}",
        "Prefer": MARK,
    }
    for number, (path, body) in enumerate(documents()):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        key = {"Content-Type": "application/json", "Idempotency-Key": f"{MARK}{number}"}
        service.call("POST", path, data, headers | key)
    for path in (
        f"/{MARK}",
        f"/projects/p/{MARK}",
        f"/projects/p/labels/{MARK}",
        f"/projects/-{MARK}",
        f"/?{MARK}={MARK}",
    ):
        for method in ("GET", "POST", "DELETE", MARK.upper()):
            service.call(method, f"{path}?{MARK}={MARK}", headers=headers)
    bad = npy(np.array([[MARK]])) + MARK.encode()
    for name, media_type, data in [("X", "application/x-npy", bad), ("y", MARK, bad), (MARK, "text/plain", bad)]:
        service.call("POST", "/fit", *form(name, media_type, data))
    service.call("POST", "/projects/import", MARK.encode(), {"Content-Type": "application/zip"})
    service.call("POST", "/fit", MARK.encode(), {"Content-Type": "application/json", "Content-Encoding": "gzip"})
    mark = MARK.encode()
    for data in [
        b"GET /" + mark + b"\x1b[2J\xff\xfe HTTP/1.1\r\n\r\n",
        mark + b"\r\n\r\n",
        b"GET / HTTP/" + mark + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + mark + b" x: " + mark + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nX-Request-ID: " + mark + b"\x00\r\n\r\n",
        b"GET / HTTP/1.1\r\nTransfer-Encoding: " + mark + b"\r\n\r\n",
        b"POST /fit HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + mark + b"\r\n",
        b"POST /fit HTTP/1.1\r\nContent-Length: 100\r\nContent-Type: application/json\r\n\r\n{" + mark,
        b"GET /" + mark * 2_000 + b" HTTP/1.1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nX-Long: " + mark * 2_000 + b"\r\n\r\n",
        b"GET /projects/%0a%22%1b[2J%ff" + mark + b" HTTP/1.1\r\nHost: " + mark + b"\r\n\r\n",
        mark,
    ]:
        raw(service, data)
    (Path(service.environment["AQ_DATA_DIR"]) / "projects/kept/state.joblib").write_bytes(mark)
    assert service.call("POST", "/query", {"project_id": "kept", "annotator": MARK}).status == 500
    return service.log.read_text(encoding="ascii")


def test_nothing_of_a_request_is_logged(marked: str) -> None:
    found = [each for each in marked.splitlines() if MARK in each.lower() or str(NUMBER) in each]
    assert found == []


def test_every_line_of_the_log_is_a_json_object(marked: str) -> None:
    told = [json.loads(each) for each in marked.splitlines()]
    assert all({"time", "level", "logger", "message", "request_id", "pid"} <= each.keys() for each in told)
    assert {each["logger"] for each in told} >= {"gunicorn.error", "service.access", "service.http.problems"}


def test_an_internal_error_is_logged_with_traceback_and_request(marked: str) -> None:
    told = [json.loads(each) for each in marked.splitlines()]
    faults = [each for each in told if "traceback" in each]
    ids = {each["request_id"] for each in told if each.get("status") == 500}
    assert faults
    assert {each["request_id"] for each in faults} == ids
    assert {each["project_id"] for each in faults} == {"kept"}
    assert all("service/store" in each["traceback"] for each in faults)


def test_routes_are_logged_and_not_paths(marked: str) -> None:
    routes = {json.loads(each).get("route") for each in marked.splitlines()}
    assert routes <= {None, *yaml.safe_load(CONTRACT.read_text(encoding="utf-8"))["paths"]}
