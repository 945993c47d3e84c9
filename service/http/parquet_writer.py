"""Write Parquet in pieces. Import this module only with the extra `arrow`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from io import RawIOBase
from typing import Any

import pyarrow as pa
import pyarrow.parquet

ROW_GROUP = 65_536
"""Smallest number of rows of a row group, except the last."""


class Pieces(RawIOBase):
    """A file whose written bytes can be taken out."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, data: Any, /) -> int:
        """Append bytes."""
        self._pieces.append(bytes(data))
        return len(self._pieces[-1])

    def drain(self) -> bytes:
        """Return and forget the bytes written since the last call."""
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)


def write_parquet(types: Sequence[tuple[str, str]], blocks: Iterable[Mapping[str, Any]]) -> Iterator[bytes]:
    """Yield a Parquet file in pieces.

    `types` are the names of the columns and their types in Arrow, after "list " for lists; a block is some rows, the
    values by column.
    """
    schema = pa.schema([(name, arrow_type(kind)) for name, kind in types])
    file, batches = Pieces(), []
    with pa.parquet.ParquetWriter(file, schema) as writer:
        for block in blocks:
            columns = [pa.array(block[field.name], field.type) for field in schema]
            batches.append(pa.record_batch(columns, schema=schema))
            if sum(map(len, batches)) >= ROW_GROUP:
                writer.write_table(pa.Table.from_batches(batches))
                batches = []
                yield file.drain()
        writer.write_table(pa.Table.from_batches(batches, schema))
    yield file.drain()


def arrow_type(kind: str) -> Any:
    """Return a type of Arrow by its name."""
    of_list, _, name = kind.rpartition(" ")
    value = pa.type_for_alias(name)
    return pa.list_(value) if of_list else value
