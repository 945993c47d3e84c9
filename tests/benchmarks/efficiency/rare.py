"""Rare classes: `python -m tests.benchmarks.efficiency.rare --data FOLDER`.

One class of a data set becomes one row in a thousand. Two of its rows and ten others are labelled, and strategies ask
for 100 more in batches of ten, under the default model. The table has the number of rare rows that they find.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from service.learning.estimators import fit, resolve_estimator
from service.learning.pool import Pool
from service.strategies import AUTO_SHARE, Question, next_in_random_order, resolve_strategy, select
from tests.benchmarks.efficiency.data import load
from tests.benchmarks.report import markdown

MODEL = resolve_estimator("auto", {})
CLASSES = (("letter", 0), ("letter", 17), ("penbased", 5), ("mnist10k", 1), ("mnist10k", 3), ("wordnet", 5))
STRATEGIES = ("random", "margin", "anchor_al", "auto")
N_ROWS, ONE_IN = 10_000, 1000
N_KNOWN, N_OTHERS = 2, 10
N_BATCHES, BATCH_SIZE = 10, 10


def draw(name: str, rare: int, folder: Path | None, seed: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return a shuffled pool and whether each of its rows is of the rare class, as 0 or 1."""
    X, y = load(name, folder)
    rng = np.random.default_rng(seed)
    others = rng.permutation(np.flatnonzero(y != rare))[:N_ROWS]
    rows = np.concatenate([others, rng.permutation(np.flatnonzero(y == rare))[: N_KNOWN + len(others) // ONE_IN]])
    rng.shuffle(rows)
    return X[rows], (y[rows] == rare).astype(np.int64)


def count_found(X: NDArray[np.float64], y: NDArray[np.int64], strategy: str, seed: int) -> int:
    """Return how many rare rows a strategy finds, besides those known from the start."""
    rng = np.random.default_rng([seed, 1])
    is_known = np.zeros(len(y), np.bool_)
    for label, n_known in ((1, N_KNOWN), (0, N_OTHERS)):
        is_known[rng.choice(np.flatnonzero(y == label), n_known, replace=False)] = True
    for _ in range(N_BATCHES):
        is_known[next_batch(X, y, is_known, strategy, seed)] = True
    return int(y[is_known].sum()) - N_KNOWN


def next_batch(
    X: NDArray[np.float64], y: NDArray[np.int64], is_known: NDArray[np.bool_], strategy: str, seed: int
) -> NDArray[np.int64]:
    """Return the rows to label next, with `auto`'s share of exploration."""
    labeled, is_open = np.flatnonzero(is_known), ~is_known
    n_explored = int(AUTO_SHARE * BATCH_SIZE + 0.5) if strategy == "auto" else 0
    drawn = next_in_random_order(is_open, n_explored, seed)
    is_open[drawn] = False
    model = fit(MODEL, X[labeled], y[labeled], seed, len(X))
    question = Question(Pool.of(X), is_open, labeled, model, 2, codes=y[labeled])
    rng = np.random.default_rng([seed, len(labeled)])
    chosen = select(*resolve_strategy(strategy, {}), question, BATCH_SIZE - len(drawn), rng).indices
    return np.concatenate([chosen, drawn])


@click.command()
@click.option(
    "--data", "folder", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Folder of .npz files."
)
@click.option("--seeds", type=click.IntRange(1), default=2, show_default=True, help="Number of seeds.")
@click.option("--class", "classes", multiple=True, type=(str, int), default=CLASSES, help="A data set and its class.")
def main(folder: Path | None, seeds: int, classes: Sequence[tuple[str, int]]) -> None:
    """Print the table: the rare rows found, and how many there are, added up over the seeds."""
    lines = []
    for name, rare in classes:
        pools = [draw(name, rare, folder, seed) for seed in range(seeds)]
        found = [sum(count_found(*pool, each, seed) for seed, pool in enumerate(pools)) for each in STRATEGIES]
        lines.append((f"{name}, class {rare}", *map(str, found), str(sum(int(y.sum()) - N_KNOWN for _, y in pools))))
    click.echo(markdown(("data set", *STRATEGIES, "all"), lines))


if __name__ == "__main__":
    main()
