"""`python -m tests.torture`: fault injection. Prints what was tried and what failed; exits 1 on any failure."""

from __future__ import annotations

import logging
import sys
import time
import traceback
from dataclasses import fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType

import click

from tests.torture import annotators, contract, crash_points, damage, full_disk, fuzz, machine, remake, slow, storm
from tests.torture.outcome import Tally
from tests.torture.sizes import LONG, QUICK, Sizes

MODULES = (storm, annotators, machine, crash_points, damage, full_disk, remake, fuzz, slow, contract)
TRIALS: dict[str, ModuleType] = {module.__name__.rpartition(".")[2]: module for module in MODULES}
SIZES = [field.name for field in fields(Sizes)]


@click.command(epilog="\n\n".join(f"{name}: {module.__doc__}" for name, module in TRIALS.items()))
@click.argument("trials", nargs=-1, type=click.Choice(list(TRIALS)), metavar="[TRIAL]...")
@click.option("--quick", is_flag=True, help="Small sizes: each trial takes seconds, slow clients a minute.")
@click.option("--seed", default=0, show_default=True, help="Random seed. Trials that run several processes still vary.")
@click.option(
    "--size",
    "changes",
    multiple=True,
    metavar="NAME=N",
    help=f"Override a size, for example kills=50. Sizes: {', '.join(SIZES)}.",
)
def main(trials: tuple[str, ...], quick: bool, seed: int, changes: tuple[str, ...]) -> None:
    """Run all trials, or those named, and report every broken promise."""
    logging.disable(logging.ERROR)
    sizes = with_changes(QUICK if quick else LONG, changes)
    n_failures = 0
    for name in trials or TRIALS:
        click.echo(f"{name} (seed {seed}): {TRIALS[name].__doc__}")
        start = time.monotonic()
        with TemporaryDirectory(prefix="active-query-torture-") as scratch:
            tally = attempt(name, sizes, seed, Path(scratch))
        n_failures += len(tally.failures)
        click.echo("\n".join([*tally.report_lines(), f"  took: {time.monotonic() - start:.0f} s"]))
    click.echo(f"failures in total: {n_failures or 'none'}")
    sys.exit(1 if n_failures else 0)


def attempt(name: str, sizes: Sizes, seed: int, scratch: Path) -> Tally:
    """Run a trial. An exception counts as a failure, so that the other trials still run."""
    try:
        tally: Tally = TRIALS[name].run(sizes, seed, scratch)
        return tally
    except Exception as error:  # noqa: BLE001
        return Tally(failures=["".join(traceback.format_exception(error))[-3000:]])


def with_changes(sizes: Sizes, changes: tuple[str, ...]) -> Sizes:
    """Return the sizes with the given NAME=N changes."""
    for change in changes:
        name, _, number = change.partition("=")
        if name not in SIZES or not number.isdecimal():
            raise click.BadParameter(f"{change!r} is not NAME=N; the names are {', '.join(SIZES)}")
        sizes = replace(sizes, **{name: int(number)})
    return sizes


if __name__ == "__main__":
    main()
