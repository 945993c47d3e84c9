"""Rows of Parquet files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pyarrow as pa
from pyarrow import parquet


def parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file as objects. Raises ClickException."""
    try:
        for batch in parquet.ParquetFile(path).iter_batches():
            yield from batch.to_pylist()
    except pa.ArrowException as error:
        raise click.ClickException(f"{path.name} cannot be read: {error}") from None
