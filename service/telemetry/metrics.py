"""What the service counts and times of itself. The lower layers call these functions; none of them knows Prometheus.

Every label has few values that the code itself gives: routes, strategies, estimators, kinds. A project's name is never
one of them: there may be any number of projects, each value is a time series that Prometheus keeps for weeks, and
whoever may read the numbers of the service need not know whose projects there are.

To count takes 0.8 microseconds and to time 1.7, in memory that is shared with the other workers and outlives this one.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from prometheus_client.values import ValueClass

from service.errors import FitFailed, ServiceError
from service.telemetry.multiprocess import locked_files, shared_directory

CONTENT_TYPE = CONTENT_TYPE_LATEST

REQUEST_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
WORK_BUCKETS = (0.001, 0.005, 0.025, 0.1, 0.25, 1, 2.5, 10, 30, 60, 120, 600)
WAIT_BUCKETS = (0.0001, 0.001, 0.005, 0.025, 0.1, 0.5, 1, 5, 25, 30)

CACHE_KINDS = (
    "state",
    "leases",
    "model",
    "pool",
    "segment",
    "ids",
    "held_out",
    "scores",
    "committee",
    "crowd",
    "answer",
    "other",
)
"""What a worker keeps at hand."""

WAIT_KINDS = ("project", "fit", "lease", "gate", "staging", "data_directory", "place", "other")
"""What is waited for: a lock of a project, its turn to fit, another thread of the same worker at either, and so on."""


@dataclass(frozen=True, slots=True)
class MetricInfo:
    """One metric, as it is documented."""

    name: str
    kind: str
    labels: tuple[str, ...]
    sentence: str


CATALOGUE: list[MetricInfo] = []

REGISTRY = CollectorRegistry()

# When a series began is of no use to Prometheus, and would double their number.
disable_created_metrics()


def declare(name: str, kind: str, labels: tuple[str, ...], sentence: str) -> str:
    """Put a metric into the catalogue, and return its name."""
    CATALOGUE.append(MetricInfo(name, kind, labels, sentence))
    return name


def counter(name: str, sentence: str, *labels: str) -> Counter:
    """Declare what only grows."""
    return Counter(declare(name, "counter", labels, sentence), sentence, labels, registry=REGISTRY)


def histogram(name: str, sentence: str, buckets: Iterable[float], *labels: str) -> Histogram:
    """Declare what is timed, in seconds."""
    name = declare(name, "histogram", labels, sentence)
    return Histogram(name, sentence, labels, buckets=tuple(buckets), registry=REGISTRY)


def gauge(name: str, sentence: str) -> Gauge:
    """Declare what is going on in each worker; a worker that ends takes its part along."""
    name = declare(name, "gauge", (), sentence)
    return Gauge(name, sentence, registry=REGISTRY, multiprocess_mode="livesum")


REQUESTS = counter(
    "active_query_requests_total",
    "Requests answered. The route is the one of the contract, `none` where there is no such.",
    *("method", "route", "status"),
)
REQUEST_SECONDS = histogram(
    "active_query_request_seconds",
    "Time from a request's headers to the first byte of its reply.",
    REQUEST_BUCKETS,
    *("method", "route"),
)
IN_FLIGHT = gauge("active_query_requests_in_flight", "Requests at work.")
QUERY_SECONDS = histogram(
    "active_query_query_seconds",
    "Time to choose a batch, by the strategy that ran; a batch that was at hand is not chosen anew.",
    WORK_BUCKETS,
    "strategy",
)
FIT_SECONDS = histogram(
    "active_query_fit_seconds",
    "Time to fit a model and score it. The outcome is `fitted`, `failed` (the estimator cannot learn from these labels)"
    " or `error` (a fault); the mode is `background` where nobody waits, else `foreground`.",
    WORK_BUCKETS,
    *("estimator", "mode", "outcome"),
)
BACKGROUND_FITS = gauge("active_query_background_fits", "Fits in the background that are at work.")
CACHE_HITS = counter("active_query_cache_hits_total", "What was asked for and at hand.", "kind")
CACHE_MISSES = counter("active_query_cache_misses_total", "What was asked for and had to be read or made.", "kind")
CACHE_BYTES = gauge("active_query_cache_bytes", "Memory that the workers' caches count.")
LOCK_WAIT_SECONDS = histogram(
    "active_query_lock_wait_seconds",
    "Time spent waiting for a lock: of a `project`, for its turn to `fit` or to `lease`, at the `gate` to any of them"
    " in a worker, of the `staging` area or the `data_directory`, for a `place` for heavy work, or for some `other`.",
    WAIT_BUCKETS,
    "kind",
)
HEAVY_REQUESTS = gauge("active_query_heavy_requests", "Places for heavy work in use, of AQ_HEAVY_REQUESTS a worker.")
REFUSALS = counter(
    "active_query_refused_total",
    "Requests that failed for want of something, and may succeed later: `too_busy` and `store_busy` (503),"
    " `out_of_time` (504), `store_full` (507) and the like.",
    "reason",
)

SCRAPE_METRICS = {
    "active_query_projects": "Projects.",
    "active_query_samples": "Samples in all pools.",
    "active_query_labeled_samples": "Samples with a label.",
    "active_query_skipped_samples": "Samples that were skipped.",
    "active_query_leases": "Leases at the moment.",
    "active_query_leased_samples": "Samples that are held by leases.",
    "active_query_labels_since_fit": "Samples whose labels the models lack: how stale they are.",
    "active_query_fits_due": "Projects with labels that could be learnt from.",
    "active_query_fits_failed": "Projects whose last fit failed.",
    "active_query_projects_unreadable": "Projects whose state or leases cannot be read.",
    "active_query_projects_passed_over": "Projects that changed, and that this reply does not count as they are now,"
    " since it took too long.",
    "active_query_workers": "Worker processes.",
    "active_query_memory_bytes": "Memory of the workers, without files that they map.",
    "active_query_open_files": "Files that the worker has open that has the most.",
    "active_query_open_files_limit": "How many files a worker may have open.",
    "active_query_start_time_seconds": "When the service was started, in seconds since 1970 UTC.",
    "active_query_cpu_seconds_total": "Time of processors that the service took, of workers that ended, too.",
}
"""What stands at the moment of a scrape, and is asked for then."""

for name_, sentence_ in SCRAPE_METRICS.items():
    declare(name_, "counter" if name_.endswith("_total") else "gauge", (), sentence_)

# What was never counted is 0, and not missing: an alert on its growth would not see the first time.
for kind_ in CACHE_KINDS:
    CACHE_HITS.labels(kind_)
    CACHE_MISSES.labels(kind_)
for kind_ in WAIT_KINDS:
    LOCK_WAIT_SECONDS.labels(kind_)
for reason_ in ("too_busy", "store_busy", "out_of_time", "store_full"):
    REFUSALS.labels(reason_)

IN_BACKGROUND: ContextVar[bool] = ContextVar("IN_BACKGROUND", default=False)


@cache
def request_series(method: str, route: str, status: int) -> tuple[Counter, Histogram]:
    """Return the two time series of a kind of request; to look them up takes longer than to count."""
    return REQUESTS.labels(method, route, status), REQUEST_SECONDS.labels(method, route)


def count_response(method: str, route: str, status: int, seconds: float) -> None:
    """Count a request, by the route of the contract and never by its path."""
    counted, timed = request_series(method, route, status)
    counted.inc()
    timed.observe(seconds)


def time_selection(strategy: str, began: float) -> None:
    """Time a selection that began at this moment of `time.perf_counter`."""
    QUERY_SECONDS.labels(strategy).observe(time.perf_counter() - began)


@contextmanager
def in_background() -> Iterator[None]:
    """Tell that nobody waits for what this thread does."""
    token = IN_BACKGROUND.set(True)
    try:
        yield
    finally:
        IN_BACKGROUND.reset(token)


@contextmanager
def time_fit(estimator: str) -> Iterator[None]:
    """Time a fit, and tell how it ended."""
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


@cache
def cache_series(kind: str) -> tuple[Counter, Counter]:
    """Return the time series of what is kept at hand: hits, misses."""
    return CACHE_HITS.labels(kind), CACHE_MISSES.labels(kind)


def count_cache_lookup(kind: str, *, is_hit: bool) -> None:
    """Count a look into a worker's cache."""
    cache_series(kind)[0 if is_hit else 1].inc()


def set_cache_bytes(n_bytes: int) -> None:
    """Tell how full this worker's cache is."""
    CACHE_BYTES.set(n_bytes)


@contextmanager
def time_wait(kind: str) -> Iterator[None]:
    """Time how long something is waited for, whether or not it is had in the end."""
    began = time.perf_counter()
    try:
        yield
    finally:
        LOCK_WAIT_SECONDS.labels(kind).observe(time.perf_counter() - began)


def count_refusal(error: ServiceError) -> None:
    """Count a request that the service could not follow, by the kind of the error."""
    REFUSALS.labels(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(error).__name__).lower()).inc()


def is_shared() -> bool:
    """Tell whether the numbers lie in a directory that all workers share."""
    return bool(ValueClass._multiprocess)


class ScrapeCollector(Collector):
    """What stands at the moment."""

    def __init__(self, values: Mapping[str, float]) -> None:
        self._values = values

    def collect(self) -> Iterator[Metric]:
        """Yield a family for each number."""
        for name, value in self._values.items():
            family = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
            yield family(name, SCRAPE_METRICS[name], value=value)


class WorkersCollector(Collector):
    """What all workers counted, also those that are gone."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def collect(self) -> Iterable[Metric]:
        """Return all families."""
        with locked_files(self._directory) as files:
            found: Iterable[Metric] = MultiProcessCollector.merge(list(map(str, files)))
        return found


def render_metrics(at_scrape: Mapping[str, float]) -> bytes:
    """Return all numbers, of all workers, with what stands at the moment, in Prometheus' text format."""
    registry = CollectorRegistry()
    directory = shared_directory()
    registry.register(WorkersCollector(directory) if directory is not None and is_shared() else REGISTRY)
    registry.register(ScrapeCollector(at_scrape))
    return generate_latest(registry)
