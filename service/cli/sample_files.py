"""Files of samples and of labels."""

from __future__ import annotations

import csv
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from service.client import MEDIA_TYPES

FORMATS = ("csv", "jsonl", "parquet", "npy", "npz", "arrow")


def file_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options for a file of samples."""
    options = [
        click.option("--file", help="File of samples: .csv, .jsonl, .parquet, .arrow, .npy or .npz; - reads a pipe."),
        click.option(
            "--format", "kind", type=click.Choice(FORMATS), help="Format of the file, if its name does not say."
        ),
        click.option("--text-column", help="Column with the texts, which become the samples."),
        click.option("--label-column", help="Column with the labels that are known; empty = none."),
        click.option("--id-column", help="Column with your own ids of the samples."),
        click.option("--url-column", help="Column with an address of each sample."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def columns_of(columns: dict[str, str | None]) -> dict[str, str]:
    """Return the columns that were named, by role."""
    return {role: name for role, name in columns.items() if name is not None}


@contextmanager
def readable(file: str, kind: str | None) -> Iterator[Path]:
    """Return the path of a file whose name ends in its format; what comes from a pipe is written to a file first."""
    path = Path(file)
    if file != "-" and not path.is_file():
        raise click.ClickException(f"there is no file {file!r}")
    if file != "-" and path.suffix in ([*MEDIA_TYPES] if kind is None else [f".{kind}"]):
        yield path
        return
    if kind is None:
        say = "the standard input" if file == "-" else repr(file)
        raise click.ClickException(f"the format of {say} is unknown: --format is one of {', '.join(FORMATS)}")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / f"samples.{kind}"
        if file == "-":
            with copy.open("wb") as target:
                shutil.copyfileobj(sys.stdin.buffer, target)
        else:
            copy.symlink_to(path.absolute())
        yield copy


def is_list_of_texts(path: Path) -> bool:
    """Return whether a file of JSON lines has a string on each line, and not an object."""
    if path.suffix not in (".jsonl", ".ndjson"):
        return False
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.readline().lstrip().startswith('"')


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a CSV or of JSON lines as objects. Raises ClickException."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        if path.suffix == ".csv":
            yield from csv.DictReader(file)
            return
        for number, line in enumerate(file, 1):
            try:
                row = json.loads(line) if line.strip() else {}
            except ValueError as error:
                raise click.ClickException(f"line {number} is not JSON: {error}") from None
            if not isinstance(row, dict):
                raise click.ClickException(f"line {number} is not an object")
            if row:
                yield row
