"""`python -m tests.torture`: the promises under attack. Prints what was tried and lost; exits 1 if anything was."""

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

from tests.torture import annotators, contract, crash_points, damage, full_disk, fuzz, machine, slow, storm
from tests.torture.outcome import Tally
from tests.torture.sizes import LONG, QUICK, Sizes

MODULES = (storm, annotators, machine, crash_points, damage, full_disk, fuzz, slow, contract)
TRIALS: dict[str, ModuleType] = {module.__name__.rpartition(".")[2]: module for module in MODULES}
SIZES = [field.name for field in fields(Sizes)]


@click.command(epilog="\n\n".join(f"{name}: {module.__doc__}" for name, module in TRIALS.items()))
@click.argument("trials", nargs=-1, type=click.Choice(list(TRIALS)), metavar="[TRIAL]...")
@click.option("--quick", is_flag=True, help="Small sizes: each trial takes seconds, but for a minute of slow clients.")
@click.option(
    "--seed", default=0, show_default=True, help="What is drawn; a trial of processes never comes again exactly."
)
@click.option(
    "--size", "changes", multiple=True, metavar="NAME=N", help=f"Another size, such as kills=50, of {', '.join(SIZES)}."
)
def main(trials: tuple[str, ...], quick: bool, seed: int, changes: tuple[str, ...]) -> None:
    """Try to make the service break its promises, by all trials or those named."""
    logging.disable(logging.ERROR)
    sizes = changed(QUICK if quick else LONG, changes)
    lost = 0
    for name in trials or TRIALS:
        click.echo(f"{name} (seed {seed}): {TRIALS[name].__doc__}")
        start = time.monotonic()
        with TemporaryDirectory(prefix="active-query-torture-") as scratch:
            tally = attempt(name, sizes, seed, Path(scratch))
        lost += len(tally.lost)
        click.echo("\n".join([*tally.lines(), f"  took: {time.monotonic() - start:.0f} s"]))
    click.echo(f"lost in all: {lost or 'nothing'}")
    sys.exit(1 if lost else 0)


def attempt(name: str, sizes: Sizes, seed: int, scratch: Path) -> Tally:
    """Run a trial; one that cannot be brought to its end is a loss, and hides no other."""
    try:
        tally: Tally = TRIALS[name].run(sizes, seed, scratch)
        return tally
    except Exception as error:  # noqa: BLE001
        return Tally(lost=["".join(traceback.format_exception(error))[-3000:]])


def changed(sizes: Sizes, changes: tuple[str, ...]) -> Sizes:
    """Sizes with some of them set."""
    for change in changes:
        name, _, number = change.partition("=")
        if name not in SIZES or not number.isdecimal():
            raise click.BadParameter(f"{change!r}: NAME=N, with a name of {', '.join(SIZES)}")
        sizes = replace(sizes, **{name: int(number)})
    return sizes


if __name__ == "__main__":
    main()
