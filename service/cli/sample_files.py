"""Files of samples and of labels."""

from __future__ import annotations

import csv
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import click

from service.client import MEDIA_TYPES

COLUMNS = {
    "text": "Column with the texts, which become the samples.",
    "label": "Column with the labels that are known; empty = none.",
    "id": "Column with your own ids of the samples.",
    "url": "Column with an address of each sample.",
}
"""The roles that a column can have, each with the help of its option."""

MAX_CELL = 2**27
"""Maximum size of a cell of a CSV, for long texts."""

FORMATS = ("csv", "jsonl", "parquet", "npy", "npz", "arrow")


@dataclass(frozen=True, slots=True)
class SampleFile:
    """A file of samples: its name, its format if the name does not say it, and the columns that were named, by role."""

    name: str
    kind: str | None
    columns: dict[str, str]


def file_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options for a file of samples, and call a command with the file, None if none is named."""

    @wraps(command)
    def run(file: str | None, kind: str | None, **options: Any) -> None:
        named = {role: options.pop(f"{role}_column") for role in COLUMNS}
        columns = {role: column for role, column in named.items() if column is not None}
        if file is None and columns:
            raise click.UsageError("--file is required with columns")
        command(samples=None if file is None else SampleFile(file, kind, columns), **options)

    options = [
        click.option("--file", help="File of samples: .csv, .jsonl, .parquet, .arrow, .npy or .npz; - reads a pipe."),
        click.option(
            "--format", "kind", type=click.Choice(FORMATS), help="Format of the file, if its name does not say."
        ),
        *(click.option(f"--{role}-column", help=text) for role, text in COLUMNS.items()),
    ]
    with_options = run
    for option in reversed(options):
        with_options = option(with_options)
    return with_options


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
    """Yield the rows of a CSV, of JSON lines or of a Parquet file as objects. Raises ClickException."""
    if path.suffix == ".parquet":
        try:
            from service.cli.parquet import parquet_rows  # noqa: PLC0415 - an optional extra
        except ModuleNotFoundError:
            raise click.ClickException("Parquet needs pyarrow: pip install 'active-query[arrow]'") from None
        yield from parquet_rows(path)
        return
    if path.suffix not in (".csv", ".jsonl", ".ndjson"):
        raise click.ClickException(f"labels are read from .csv, .jsonl and .parquet, and not from {path.name}")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            yield from csv_rows(file) if path.suffix == ".csv" else json_rows(file)
    except UnicodeDecodeError as error:
        raise click.ClickException(f"{path.name} is not UTF-8: {error.reason} at byte {error.start}") from None


def csv_rows(file: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Yield the rows of a CSV. Raises ClickException."""
    csv.field_size_limit(MAX_CELL)
    try:
        yield from csv.DictReader(file)
    except csv.Error as error:
        raise click.ClickException(f"the CSV cannot be read: {error}") from None


def json_rows(file: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Yield the objects on the lines of a file. Raises ClickException."""
    for number, line in enumerate(file, 1):
        try:
            row = json.loads(line) if line.strip() else {}
        except ValueError as error:
            raise click.ClickException(f"line {number} is not JSON: {error}") from None
        if not isinstance(row, dict):
            raise click.ClickException(f"line {number} is not an object")
        if row:
            yield row
