"""What Prometheus is told: requests by route and status, and how long they took, over all workers."""

from __future__ import annotations

import time
from functools import cache

from flask import Flask, Response, g, request
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.values import ValueClass

CONTENT_TYPE = CONTENT_TYPE_LATEST

LABELS = ("method", "route", "status")

# prometheus-client keeps its numbers per process, in files of a shared directory when `serve` has named one.
requests = Counter("active_query_requests", "Requests answered.", LABELS)
seconds = Histogram("active_query_request_seconds", "Time from a request's first line to its reply.", LABELS[:2])


def exposition() -> bytes:
    """Return all numbers, of all workers, in Prometheus' text format."""
    if not is_shared():
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    return generate_latest(registry)


def is_shared() -> bool:
    """Tell whether the numbers lie in a directory that all workers share."""
    return bool(ValueClass._multiprocess)


@cache
def series(method: str, route: str, status: int) -> tuple[Counter, Histogram]:
    """Return the two time series of a kind of request; to look them up takes longer than to count."""
    return requests.labels(method, route, status), seconds.labels(method, route)


def register(app: Flask) -> None:
    """Count every request."""

    @app.after_request
    def count(response: Response) -> Response:
        # The rule and not the path: a caller could otherwise make up as many time series as there are paths.
        route = request.url_rule.rule if request.url_rule else "none"
        method = request.method if request.method in ("GET", "HEAD", "POST", "DELETE", "OPTIONS") else "other"
        counted, timed = series(method, route, response.status_code)
        counted.inc()
        timed.observe(time.perf_counter() - g.began)
        return response
