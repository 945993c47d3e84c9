"""Label-efficiency benchmark: `python -m tests.benchmarks.efficiency`, from the root of a clone.

Needs `pip install -e '.[bench]'`. It can be stopped and resumed: runs in the journal are not repeated, and the report
covers all of them.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from itertools import product
from pathlib import Path

import click

from service.strategies import STRATEGIES
from tests.benchmarks.efficiency import journal
from tests.benchmarks.efficiency.data import MAX_ROWS, names, split
from tests.benchmarks.efficiency.report import draw_all, report
from tests.benchmarks.efficiency.runs import (
    DEFAULT,
    MODELS,
    N_QUERIES,
    OLD_DEFAULT,
    OLD_STRATEGY,
    STARTS,
    WHOLE_POOL,
    Run,
    execute,
    n_queries,
)

COMPARED = ("random", "margin", "auto")
DEFAULTS = (
    (100, DEFAULT, COMPARED),
    (10, DEFAULT, COMPARED),
    (10, OLD_DEFAULT, ("random", OLD_STRATEGY)),
    (1, DEFAULT, COMPARED),
)
"""What the tables of the defaults compare: batch size, model and strategies. The quickest comes first."""
DEFAULTS_ROWS, DEFAULTS_SEEDS = 2900, 3
SHORT_ROWS, SHORT_SEEDS = 1000, 1
BATCHES = tuple(str(batch_size) for batch_size in N_QUERIES)


class Seeds(click.ParamType[range]):
    """A number of seeds, counted from 0, or first:end."""

    name = "seeds"

    def convert(self, value: str | range, param: click.Parameter | None, context: click.Context | None) -> range:
        if isinstance(value, range):
            return value
        first, _, end = value.rpartition(":")
        try:
            return range(int(first or 0), int(end))
        except ValueError:
            self.fail(f"{value!r} is neither a number nor first:end", param, context)


@click.command()
@click.option(
    "--data",
    "folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of .npz files with X and y, added to the data sets of scikit-learn.",
)
@click.option("--set", "sets", multiple=True, help="Only this data set. Repeatable.")
@click.option(
    "--strategy",
    "strategies",
    multiple=True,
    default=COMPARED,
    show_default=True,
    help="A strategy, optionally followed by a space and its parameters as JSON.",
)
@click.option("--all", "is_all", is_flag=True, help="All strategies.")
@click.option("--model", "models", multiple=True, type=click.Choice(list(MODELS)), default=(DEFAULT, OLD_DEFAULT))
@click.option("--start", "starts", multiple=True, type=click.Choice(STARTS), default=STARTS)
@click.option("--batch", "batches", multiple=True, type=click.Choice(BATCHES), default=BATCHES)
@click.option("--seeds", type=Seeds(), default="10", show_default=True, help="Number of seeds, or first:end.")
@click.option("--rows", type=click.IntRange(100), default=MAX_ROWS, show_default=True, help="Largest number of rows.")
@click.option(
    "--defaults", "is_of_defaults", is_flag=True, help="Only what the tables of the defaults need, with three seeds."
)
@click.option(
    "--short", "is_short", is_flag=True, help="As --defaults: at most 1,000 rows, one seed, no single queries. Minutes."
)
@click.option("--jobs", type=click.IntRange(1), help="Number of processes.  [default: number of cores]")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("active-query-efficiency"),
    show_default=True,
    help="Directory for the journal (runs.jsonl), the report and the plots.",
)
def main(
    folder: Path | None,
    sets: Sequence[str],
    strategies: Sequence[str],
    is_all: bool,
    models: Sequence[str],
    starts: Sequence[str],
    batches: Sequence[str],
    seeds: range,
    rows: int,
    is_of_defaults: bool,
    is_short: bool,
    jobs: int | None,
    out: Path,
) -> None:
    """Run strategies on data sets from cold and warm starts, and compare each with random selection."""
    if is_of_defaults or is_short:
        planned = runs_of_defaults(sets or names(folder), is_short=is_short)
    else:
        planned = (
            Run(data, model, start, int(batch), strategy, seed, rows)
            for seed, data, model, start, batch, strategy in product(
                seeds, sets or names(folder), models, starts, batches, list(STRATEGIES) if is_all else strategies
            )
        )
    runs = list(possible(planned, folder))
    if not (is_of_defaults or is_short):
        runs = list(with_whole_pools(runs))
    measure(runs, folder, out / "runs.jsonl", jobs or len(os.sched_getaffinity(0)))
    found = journal.read(out / "runs.jsonl")
    text = report(found)
    (out / "report.md").write_text(text + "\n")
    click.echo(text)
    for path in draw_all(found, out):
        click.echo(f"wrote {path}", err=True)


def measure(runs: Sequence[Run], folder: Path | None, path: Path, jobs: int) -> None:
    """Execute the runs that are not in the journal, in parallel, with a progress bar."""
    done = journal.read(path)
    due = [run for run in runs if run not in done]
    context = multiprocessing.get_context("spawn")
    with (
        journal.open_journal(path) as file,
        ProcessPoolExecutor(jobs, context) as processes,
        click.progressbar(length=len(due), label=f"{len(due)} runs", file=sys.stderr) as bar,
    ):
        futures = {processes.submit(execute, run, folder): run for run in due}
        try:
            for future in as_completed(futures):
                journal.write(file, futures[future], future.result())
                bar.update(1)
        finally:
            processes.shutdown(cancel_futures=True)


def runs_of_defaults(data: Sequence[str], *, is_short: bool) -> Iterator[Run]:
    """Yield the runs that the tables of the defaults need, in an order in which the first ones can be read alone."""
    n_seeds, rows = (SHORT_SEEDS, SHORT_ROWS) if is_short else (DEFAULTS_SEEDS, DEFAULTS_ROWS)
    for batch_size, model, strategies in DEFAULTS:
        if batch_size > 1 or not is_short:
            for seed, name, strategy in product(range(n_seeds), data, strategies):
                yield Run(name, model, "cold", batch_size, strategy, seed, rows)


def possible(runs: Iterable[Run], folder: Path | None) -> Iterator[Run]:
    """Yield the runs whose pools are large enough."""
    for run in runs:
        data = split(run.data, folder, run.seed, run.max_rows)
        if n_queries(run, len(data.y), data.n_classes) > 0:
            yield run


def with_whole_pools(runs: Iterable[Run]) -> Iterator[Run]:
    """Yield the runs, each after the run that labels its whole pool."""
    seen = set()
    for run in runs:
        whole = replace(run, start="warm", batch_size=WHOLE_POOL, strategy="random")
        if whole not in seen:
            seen.add(whole)
            yield whole
        yield run


if __name__ == "__main__":
    main()
