"""The service's metrics. Other modules call these functions and know nothing of Prometheus.

Each label has few values, all given by the code: routes, strategies, estimators, kinds. A project's name is never one:
each value is a time series that Prometheus keeps for weeks, and a reader of metrics need not know whose projects exist.

A count takes 0.8 microseconds and a timing 1.7, in memory shared with the other workers.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
    values,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from service import __version__
from service.errors import FitFailed, ServiceError
from service.telemetry.multiprocess import count_files, shared_directory, worker_number

CONTENT_TYPE = CONTENT_TYPE_LATEST

REQUEST_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
WORK_BUCKETS = (0.001, 0.005, 0.025, 0.1, 0.25, 1, 2.5, 10, 30, 60, 120, 600)
WAIT_BUCKETS = (0.0001, 0.001, 0.005, 0.025, 0.1, 0.5, 1, 5, 25, 30)

CACHE_KINDS = (
    "state",
    "leases",
    "draws",
    "model",
    "pool",
    "segment",
    "ids",
    "held_out",
    "scores",
    "committee",
    "crowd",
    "answer",
    "evaluation",
    "report",
    "other",
)
"""Kinds of cached objects."""

WAIT_KINDS = ("project", "fit", "lease", "gate", "staging", "data_directory", "place", "core", "other")
"""Kinds of waits; see the help text of `active_query_lock_wait_seconds`."""


@dataclass(frozen=True, slots=True)
class MetricInfo:
    """A metric as it is documented."""

    name: str
    kind: str
    labels: tuple[str, ...]
    help: str


CATALOGUE: list[MetricInfo] = []

REGISTRY = CollectorRegistry()

# The creation time of each series is of no use to Prometheus, and would double the number of series.
disable_created_metrics()

# prometheus-client would use shared files in each process that inherits the environment, and name them by process id.
values.ValueClass = values.MutexValue if worker_number() is None else values.MultiProcessValue(worker_number)


def declare(name: str, kind: str, labels: tuple[str, ...], help_text: str) -> MetricInfo:
    """Add a metric to the catalogue and return its entry."""
    CATALOGUE.append(MetricInfo(name, kind, labels, help_text))
    return CATALOGUE[-1]


def counter(name: str, help_text: str, *labels: str) -> Counter:
    """Declare a counter."""
    declare(name, "counter", labels, help_text)
    return Counter(name, help_text, labels, registry=REGISTRY)


def histogram(name: str, help_text: str, buckets: Iterable[float], *labels: str) -> Histogram:
    """Declare a histogram of durations in seconds."""
    declare(name, "histogram", labels, help_text)
    return Histogram(name, help_text, labels, buckets=tuple(buckets), registry=REGISTRY)


def gauge(name: str, help_text: str) -> Gauge:
    """Declare a gauge: the sum over all running workers."""
    declare(name, "gauge", (), help_text)
    return Gauge(name, help_text, registry=REGISTRY, multiprocess_mode="livesum")


REQUESTS = counter(
    "active_query_requests_total",
    "Requests answered, by the route of the contract; `none` for a path without a route.",
    *("method", "route", "status"),
)
REQUEST_SECONDS = histogram(
    "active_query_request_seconds",
    "Time from a request's headers to the first byte of its reply.",
    REQUEST_BUCKETS,
    *("method", "route"),
)
IN_FLIGHT = gauge("active_query_requests_in_flight", "Requests in progress.")
QUERY_SECONDS = histogram(
    "active_query_query_seconds",
    "Time to select a batch, by the strategy that ran. Batches from the cache are not included.",
    WORK_BUCKETS,
    "strategy",
)
FIT_SECONDS = histogram(
    "active_query_fit_seconds",
    "Time to fit and score a model. `mode` is `background` or `foreground`; `outcome` is `fitted`, `failed` (the"
    " estimator cannot learn from these labels) or `error` (a fault).",
    WORK_BUCKETS,
    *("estimator", "mode", "outcome"),
)
EVIDENCE_SECONDS = histogram(
    "active_query_evidence_seconds",
    "Time to make an `evaluation`, a `report` with its evaluation, or to run a `simulation`. Those from the cache"
    " are not included.",
    WORK_BUCKETS,
    "kind",
)
PREDICTIONS = counter("active_query_predictions_total", "Predictions made for GET /projects/{project_id}/predictions.")
BACKGROUND_FITS = gauge("active_query_background_fits", "Background fits in progress.")
SIMULATIONS_RUNNING = gauge("active_query_simulations_running", "Simulations in progress.")
SIMULATIONS = counter("active_query_simulations_total", "Simulations that were run to an end.", "outcome")
CACHE_HITS = counter("active_query_cache_hits_total", "Cache hits.", "kind")
CACHE_MISSES = counter("active_query_cache_misses_total", "Cache misses.", "kind")
CACHE_BYTES = gauge("active_query_cache_bytes", "Size of the workers' caches.")
LOCK_WAIT_SECONDS = histogram(
    "active_query_lock_wait_seconds",
    "Time waited for a lock of a `project`, for its `fit` or `lease` lock, at the `gate` to these within a worker, for"
    " the `staging` area, for the `data_directory`, for a `place` among the heavy requests, for a `core` to select on,"
    " or for an `other` lock.",
    WAIT_BUCKETS,
    "kind",
)
HEAVY_REQUESTS = gauge("active_query_heavy_requests", "Heavy requests in progress; see AQ_HEAVY_REQUESTS.")
REFUSALS = counter(
    "active_query_refused_total",
    "Requests that failed for lack of a resource and may succeed later: `too_busy` and `store_busy` (503),"
    " `out_of_time` (504), `store_full` (507) and the like.",
    "reason",
)

SCRAPE_METRICS = {
    "active_query_projects": "Projects.",
    "active_query_samples": "Samples in all pools.",
    "active_query_labeled_samples": "Samples with a label.",
    "active_query_skipped_samples": "Samples that were skipped.",
    "active_query_leases": "Current leases.",
    "active_query_leased_samples": "Samples under a lease.",
    "active_query_labels_since_fit": "Samples whose labels changed since the last fit.",
    "active_query_fits_due": "Projects with label changes to be fitted.",
    "active_query_fits_failed": "Projects whose last fit failed.",
    "active_query_projects_unreadable": "Projects whose state or leases cannot be read.",
    "active_query_projects_passed_over": "Changed projects counted as they were before, for lack of time.",
    "active_query_workers": "Worker processes.",
    "active_query_memory_bytes": "Memory of the workers, without mapped files.",
    "active_query_open_files": "Open file descriptors of the worker with the most.",
    "active_query_open_files_limit": "Limit of open file descriptors per worker.",
    "active_query_start_time_seconds": "Start of the service, in seconds since 1970 UTC.",
    "active_query_cpu_seconds_total": "CPU time of all processes, including workers that have exited.",
}
"""Metrics computed at scrape time."""

for name_, help_ in SCRAPE_METRICS.items():
    declare(name_, "counter" if name_.endswith("_total") else "gauge", (), help_)

BUILD_INFO = declare("active_query_build_info", "gauge", ("version",), "Version of the service; the value is always 1.")

# Start the series at 0: an alert on an increase would miss the first count of a series that did not exist.
for kind_ in CACHE_KINDS:
    CACHE_HITS.labels(kind_)
    CACHE_MISSES.labels(kind_)
for kind_ in WAIT_KINDS:
    LOCK_WAIT_SECONDS.labels(kind_)
for outcome_ in ("done", "failed", "cancelled"):
    SIMULATIONS.labels(outcome_)
for evidence_ in ("evaluation", "report", "simulation"):
    EVIDENCE_SECONDS.labels(evidence_)
for reason_ in ("too_busy", "store_busy", "out_of_time", "store_full"):
    REFUSALS.labels(reason_)

IN_BACKGROUND: ContextVar[bool] = ContextVar("IN_BACKGROUND", default=False)


@cache
def request_series(method: str, route: str, status: int) -> tuple[Counter, Histogram]:
    """Return the two time series of a kind of request; looking them up takes longer than counting."""
    return REQUESTS.labels(method, route, status), REQUEST_SECONDS.labels(method, route)


def count_response(method: str, route: str, status: int, seconds: float) -> None:
    """Count and time a request by the contract's route, never by its path."""
    total, duration = request_series(method, route, status)
    total.inc()
    duration.observe(seconds)


def begin_request() -> None:
    """Count a request as in progress."""
    IN_FLIGHT.inc()


def end_request() -> None:
    """Count a request as no longer in progress."""
    IN_FLIGHT.dec()


def time_selection(strategy: str, began: float) -> None:
    """Record the duration of a selection that began at `began`, a time of `time.perf_counter`."""
    QUERY_SECONDS.labels(strategy).observe(time.perf_counter() - began)


@contextmanager
def in_background() -> Iterator[None]:
    """Count the fits of this thread as background fits."""
    token = IN_BACKGROUND.set(True)
    try:
        yield
    finally:
        IN_BACKGROUND.reset(token)


@contextmanager
def time_fit(estimator: str) -> Iterator[None]:
    """Time a fit and record its outcome."""
    is_in_background = IN_BACKGROUND.get()
    mode, outcome = "background" if is_in_background else "foreground", "error"
    began = time.perf_counter()
    BACKGROUND_FITS.inc(is_in_background)
    try:
        yield
        outcome = "fitted"
    except FitFailed:
        outcome = "failed"
        raise
    finally:
        BACKGROUND_FITS.dec(is_in_background)
        FIT_SECONDS.labels(estimator, mode, outcome).observe(time.perf_counter() - began)


@contextmanager
def time_evidence(kind: str) -> Iterator[None]:
    """Time the making of evidence, successful or not."""
    began = time.perf_counter()
    try:
        yield
    finally:
        EVIDENCE_SECONDS.labels(kind).observe(time.perf_counter() - began)


def count_predictions(n: int) -> None:
    """Count predictions."""
    PREDICTIONS.inc(n)


def count_simulation(outcome: str) -> None:
    """Count a simulation that has ended: `done`, `failed` or `cancelled`."""
    SIMULATIONS.labels(outcome).inc()


@cache
def cache_series(kind: str) -> tuple[Counter, Counter]:
    """Return the time series of a kind of cached object: hits, misses."""
    return CACHE_HITS.labels(kind), CACHE_MISSES.labels(kind)


def count_cache_lookup(kind: str, *, is_hit: bool) -> None:
    """Count a lookup in the worker's cache."""
    cache_series(kind)[0 if is_hit else 1].inc()


def set_cache_bytes(n_bytes: int) -> None:
    """Record the size of this worker's cache."""
    CACHE_BYTES.set(n_bytes)


@contextmanager
def time_wait(kind: str) -> Iterator[None]:
    """Time a wait, successful or not."""
    began = time.perf_counter()
    try:
        yield
    finally:
        LOCK_WAIT_SECONDS.labels(kind).observe(time.perf_counter() - began)


def count_refusal(error: ServiceError) -> None:
    """Count a request that failed for lack of a resource, by the name of the error."""
    REFUSALS.labels(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(error).__name__).lower()).inc()


class Scrape(Collector):
    """All metrics at one moment: the counts of all workers, dead ones too, and the values computed at scrape time."""

    def __init__(self, at_scrape: Mapping[str, float]) -> None:
        self._at_scrape = at_scrape

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics."""
        if worker_number() is None:
            yield from REGISTRY.collect()
        else:
            yield from MultiProcessCollector.merge(count_files(shared_directory()))
        build = GaugeMetricFamily(BUILD_INFO.name, BUILD_INFO.help, labels=BUILD_INFO.labels)
        build.add_metric([__version__], 1)
        yield build
        for name, value in self._at_scrape.items():
            family = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
            yield family(name, SCRAPE_METRICS[name], value=value)


def render_metrics(at_scrape: Mapping[str, float]) -> bytes:
    """Return all metrics in Prometheus' text format; `at_scrape` holds those of SCRAPE_METRICS."""
    return generate_latest(Scrape(at_scrape))
