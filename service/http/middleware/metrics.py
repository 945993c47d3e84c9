"""Metrics for Prometheus: the labels of a request, and the counts of all layers, over all workers."""

from __future__ import annotations

import os
from dataclasses import asdict

from flask import Request

from service.http.contract.operations import route_of_contract
from service.telemetry import metrics
from service.telemetry.multiprocess import shared_directory, worker_number, worker_pids
from service.telemetry.procfs import Usage, read_usage
from service.usecases.totals import TotalsCounter

CONTENT_TYPE = metrics.CONTENT_TYPE

METHODS = ("GET", "HEAD", "POST", "DELETE", "OPTIONS")


def render_metrics(totals: TotalsCounter) -> bytes:
    """Return the metrics of all workers in Prometheus' text format."""
    taken = asdict(current_usage())
    taken["cpu_seconds_total"] = taken.pop("cpu_seconds")
    found = asdict(totals.count()) | taken
    return metrics.render_metrics({f"active_query_{name}": value for name, value in found.items()})


def current_usage() -> Usage:
    """Return the resource usage of all workers, or of this process alone."""
    if worker_number() is None:
        return read_usage(os.getpid(), [os.getpid()])
    return read_usage(os.getppid(), worker_pids(shared_directory()))


def route_of(request: Request) -> str | None:
    """Return the contract's route of a request, None without one.

    The route, not the path: callers could otherwise create any number of time series.
    """
    rule = request.url_rule
    return route_of_contract(rule.rule) if rule else None


def method_of(request: Request) -> str:
    """Return the request's method, or `other`."""
    method = request.method
    return method if method in METHODS else "other"
