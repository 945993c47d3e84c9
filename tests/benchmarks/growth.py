"""Time and memory of each request against pool size: /fit, fresh and repeated /query, /label."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from tests.benchmarks.measure import PeakMemory, milliseconds
from tests.benchmarks.pools import create, form, label, materialized, query, relabel, served
from tests.benchmarks.sizes import Sizes

ROUNDS = 5
N_RELABELED = 100


@dataclass(frozen=True)
class Cost:
    """Costs for one pool size: milliseconds of one /fit, medians of the others, peak memory of the worker.

    `query_fresh` and `query_again` are by margin under logistic regression, `query_auto` by the strategy `auto`, and
    `query_default` by margin under the estimator `auto`.
    """

    rows: int
    fit: float
    query_fresh: float
    query_auto: float
    query_default: float
    query_again: float
    label: float
    own_mb: float


def measure_growth(sizes: Sizes, directory: Path) -> list[Cost]:
    """Row 7: a new service with one worker for each size, so that caches and memory are its own."""
    return [measure_size(n_rows, sizes.labels, directory) for n_rows in sizes.growth]


def measure_size(n_rows: int, n_labels: int, directory: Path) -> Cost:
    upload = materialized(form("pool", n_rows))
    with TemporaryDirectory(dir=directory) as own, served(Path(own), AQ_WORKERS="1") as service:
        send_query = partial(query, service, "pool")
        turns = count()

        def fresh_query(strategy: str = "margin") -> float:
            relabel(service, "pool", next(turns))
            return milliseconds(partial(query, service, "pool", strategy))

        def change_labels() -> float:
            turn = next(turns)
            return milliseconds(partial(relabel, service, "pool", turn, N_RELABELED, "never"))

        with PeakMemory(service.workers()) as memory:
            fit = milliseconds(partial(create, service, "pool", upload))
            label(service, "pool", n_labels)
            query_fresh = median(fresh_query() for _ in range(ROUNDS))
            query_again = median(milliseconds(send_query) for _ in range(ROUNDS))
            labels = median(change_labels() for _ in range(ROUNDS))
        query_auto = median(fresh_query("auto") for _ in range(ROUNDS))
        service.post("/fit", {"project_id": "pool", "estimator": "auto"})
        query_default = median(fresh_query() for _ in range(ROUNDS))
    return Cost(n_rows, fit, query_fresh, query_auto, query_default, query_again, labels, memory.growth_mb)
