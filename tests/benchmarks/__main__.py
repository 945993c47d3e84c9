"""Speed benchmarks: `python -m tests.benchmarks`, from the root of a clone.

Needs `pip install -e '.[bench]'`; uses wrk if it is on the PATH. Run it on an idle machine with TMPDIR on a real disk.
`--quick` only shows that everything works.

A measurement is a function `(sizes, directory) -> list[Row]`, listed in COMPARISONS with the numbers of its rows. It
takes its samples in turns with those of what it compares with, and its sizes from `Sizes`, so that `--quick` is quick.
"""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click

from tests.benchmarks.forests import measure_forests
from tests.benchmarks.growth import measure_growth
from tests.benchmarks.large import measure_default_model, measure_huge, measure_label, measure_query
from tests.benchmarks.machine import machine, versions
from tests.benchmarks.people import measure_clients, measure_people
from tests.benchmarks.profile_query import profile_query
from tests.benchmarks.report import cost_table, draw, draw_clients, profile_table, table
from tests.benchmarks.rows import Row
from tests.benchmarks.selection import measure_selection
from tests.benchmarks.sizes import FULL, QUICK, Sizes
from tests.benchmarks.small import measure_small_requests
from tests.benchmarks.starting import measure_start
from tests.benchmarks.strategies import measure_strategies
from tests.benchmarks.uploads import measure_upload

COMPARISONS: dict[Callable[[Sizes, Path], list[Row]], set[int]] = {
    measure_query: {1, 2},
    measure_label: {3},
    measure_upload: {4},
    measure_small_requests: {5},
    measure_selection: {6},
    measure_huge: {8},
    measure_default_model: {10},
    measure_people: {11},
    measure_start: {13},
    measure_strategies: {14},
    measure_forests: {15},
}
GROWTH, HUGE, PROFILE, CLIENTS, LAST = 7, 8, 9, 12, 15


@click.command()
@click.option("--quick", is_flag=True, help="Small sizes and few samples, to see that it works.")
@click.option("--rows", multiple=True, type=click.IntRange(1, LAST), help="Measure only this row. Repeatable.")
@click.option("--large", is_flag=True, help="Also measure row 8, a pool of 5 million rows (1.3 GB of disk).")
@click.option("--profile", is_flag=True, help="Also measure row 9, a profile of a fresh query.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("active-query-benchmarks"),
    show_default=True,
    help="Directory for benchmarks.json, cost.png and clients.png.",
)
def main(quick: bool, rows: tuple[int, ...], large: bool, profile: bool, out: Path) -> None:
    """Measure each row against its target, and cost against pool size."""
    sizes = QUICK if quick else FULL
    optional = ({HUGE} if large else set()) | ({PROFILE} if profile else set())
    wanted = set(rows or {*range(1, LAST + 1)} - {HUGE, PROFILE}) | optional
    with TemporaryDirectory(prefix="active-query-") as scratch:
        result: dict[str, Any] = {
            "measured": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
            "command": shlex.join(["python", "-m", "tests.benchmarks", *sys.argv[1:]]),
            "machine": machine(Path(scratch)),
            "versions": versions(),
        }
        show(describe(result))
        compared = [row for measure, numbers in COMPARISONS.items() if numbers & wanted for row in run(measure, sizes)]
        costs = run(measure_growth, sizes) if GROWTH in wanted else []
        of_clients, traffic = run(measure_clients, sizes) if CLIENTS in wanted else ([], [])
        compared += of_clients
        profiled = run(profile_query, sizes) if PROFILE in wanted else None
    out.mkdir(parents=True, exist_ok=True)
    if compared:
        show(table(compared))
    if costs:
        show(cost_table(costs))
        draw(costs, out / "cost.png")
    if traffic:
        draw_clients(traffic, out / "clients.png")
    if profiled:
        show(profile_table(profiled))
    result |= {"rows": [asdict(row) for row in compared], "cost": [asdict(cost) for cost in costs]}
    result |= {"profile": asdict(profiled) if profiled else None, "clients": [asdict(each) for each in traffic]}
    (out / "benchmarks.json").write_text(json.dumps(result, indent=1) + "\n")


def run(measure: Callable[[Sizes, Path], Any], sizes: Sizes) -> Any:
    """Measure in a temporary directory and print the duration to standard error."""
    start = time.monotonic()
    with TemporaryDirectory(prefix="active-query-") as directory:
        measured = measure(sizes, Path(directory))
    click.echo(f"{measure.__name__}: {time.monotonic() - start:.0f} s", err=True)
    return measured


def describe(result: dict[str, Any]) -> str:
    """Format date, command, machine and versions, one per line."""
    lines = [f"{name}: {text}" for name, text in result.items() if isinstance(text, str)]
    for part in ("machine", "versions"):
        lines.append(f"{part}: " + ", ".join(f"{name} {text}" for name, text in result[part].items()))
    return "\n".join(lines)


def show(text: str) -> None:
    click.echo(text + "\n")


if __name__ == "__main__":
    main()
