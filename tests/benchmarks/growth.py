"""What each call costs as the pool grows: /fit, /query fresh and again, /label, and the memory of all of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from tests.benchmarks.measure import PeakMemory, milliseconds
from tests.benchmarks.pools import create, form, label, made, query, relabel, served
from tests.benchmarks.sizes import Sizes

ROUNDS = 5
N_RELABELED = 100


@dataclass(frozen=True)
class Cost:
    """The cost of a pool: milliseconds of one /fit, medians of the rest, and the most memory it took its worker."""

    rows: int
    fit: float
    query_fresh: float
    query_again: float
    label: float
    own_mb: float


def measure_growth(sizes: Sizes, directory: Path) -> list[Cost]:
    """Row 7: one worker for each size, so that its caches and its memory are all there are."""
    return [measure_size(n_rows, sizes.labels, directory) for n_rows in sizes.growth]


def measure_size(n_rows: int, n_labels: int, directory: Path) -> Cost:
    upload = made(form("pool", n_rows))
    with TemporaryDirectory(dir=directory) as own, served(Path(own), AQ_WORKERS="1") as service:
        ask = partial(query, service, "pool")
        turns = count()

        def fresh() -> float:
            relabel(service, "pool", next(turns))
            return milliseconds(ask)

        def change() -> float:
            turn = next(turns)
            return milliseconds(partial(relabel, service, "pool", turn, N_RELABELED, "never"))

        with PeakMemory(service.workers()) as memory:
            fit = milliseconds(partial(create, service, "pool", upload))
            label(service, "pool", n_labels)
            query_fresh = median(fresh() for _ in range(ROUNDS))
            query_again = median(milliseconds(ask) for _ in range(ROUNDS))
            labels = median(change() for _ in range(ROUNDS))
    return Cost(n_rows, fit, query_fresh, query_again, labels, memory.growth_mb)
