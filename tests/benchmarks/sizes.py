"""Sizes of the benchmarks: FULL for measurements, QUICK for a check that everything works."""

from __future__ import annotations

from dataclasses import dataclass

WIDTH = 64
N_CLASSES = 10
BATCH = 100


@dataclass(frozen=True)
class Sizes:
    """Rows of pools, numbers of labels, and repetitions."""

    rounds: int
    pool: int
    labels: int
    small_pool: int
    labels_of_both: int
    upload: int
    load_rounds: int
    load_seconds: int
    shrink: int
    growth: tuple[int, ...]
    huge: int
    pool_of_people: int
    pool_of_clients: int
    client_seconds: int
    listed: int
    listed_labels: int


FULL = Sizes(
    rounds=11,
    pool=1_000_000,
    labels=2_000,
    small_pool=10_000,
    labels_of_both=9_000,
    upload=1_000_000,
    load_rounds=9,
    load_seconds=1,
    shrink=1,
    growth=(10_000, 100_000, 1_000_000),
    huge=5_000_000,
    pool_of_people=50_000,
    pool_of_clients=20_000,
    client_seconds=20,
    listed=1_000,
    listed_labels=10_000,
)
QUICK = Sizes(
    rounds=3,
    pool=50_000,
    labels=500,
    small_pool=2_000,
    labels_of_both=1_800,
    upload=50_000,
    load_rounds=1,
    load_seconds=1,
    shrink=10,
    growth=(2_000,),
    huge=200_000,
    pool_of_people=2_000,
    pool_of_clients=2_000,
    client_seconds=1,
    listed=10,
    listed_labels=1_000,
)
