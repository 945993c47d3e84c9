"""The journal of completed runs, one line of JSON each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import IO

from tests.benchmarks.efficiency.runs import Curve, Run


def read(path: Path) -> dict[Run, Curve]:
    """Return all runs of a journal with their curves, ignoring truncated lines."""
    found: dict[Run, Curve] = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        run = Run(**{field.name: record[field.name] for field in fields(Run) if field.name in record})
        found[run] = Curve(record["labels"], record["scores"])
    return found


@contextmanager
def open_journal(path: Path) -> Iterator[IO[str]]:
    """Open a journal for appending, at the start of a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        if file.tell() and not path.read_bytes().endswith(b"\n"):
            file.write("\n")
        yield file


def write(file: IO[str], run: Run, curve: Curve) -> None:
    """Append a run and flush."""
    file.write(json.dumps(asdict(run) | asdict(curve)) + "\n")
    file.flush()
