"""Arrow IPC and Parquet, which the extra `arrow` reads, as record batches.

Both announce how much they hold and may hold it compressed. What a file would make the library set aside is looked up
before the library is let at it, and what it returns is checked in full: offsets in it may point anywhere.
Source: https://arrow.apache.org/docs/format/Columnar.html
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from service.errors import InvalidRequest
from service.http.body.formats import parquet

FILE_MAGIC = b"ARROW1"
STREAM_AT = {"stream": 0, "file": 8}
"""Where the stream begins; a file of Arrow is a stream between a magic string and a list of its batches."""

END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"

MAX_METADATA_BYTES = 2**23
MAX_METADATA_ITEMS = 100_000
MAX_UNPACKED_BYTES = 2**27
"""How much may be unpacked at a time: a batch of Arrow, or what the rows of a batch of Parquet may come to."""


def library(pointer: str) -> Any:
    """Return pyarrow. Raises InvalidRequest where the extra is not installed."""
    try:
        import pyarrow.compute  # noqa: PLC0415 - an optional extra
        import pyarrow.parquet  # noqa: PLC0415
    except ImportError:
        problem = "Arrow and Parquet are read where pip install 'active-query[arrow]' was run; send application/x-npy"
        raise InvalidRequest.at(pointer, problem) from None
    return pyarrow


def is_text(pa: Any, kind: Any) -> bool:
    """Tell whether values of a type are text."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


@contextmanager
def readable(pa: Any) -> Iterator[None]:
    """Turn what the library raises on bytes that are wrong into ValueError."""
    try:
        yield
    # ArrowInvalid and others are Python's own errors, too; a lie about a length asks for too much memory.
    except (pa.ArrowException, ValueError, OSError, EOFError, MemoryError, OverflowError, struct.error) as error:
        first_line = str(error).partition("\n")[0][:200]
        raise ValueError(f"cannot be read: {first_line}") from None


class IpcTable:
    """A table in Arrow's stream format, mapped from its file. ValueError says what is wrong with it."""

    def __init__(self, pa: Any, path: Path, begin: int) -> None:
        self.pa = pa
        with readable(pa):
            mapped = pa.memory_map(str(path))
            mapped.seek(begin)
            check_messages(pa, mapped, to_end=begin == 0)
            mapped.seek(begin)
            self._reader = pa.ipc.open_stream(mapped, options=pa.ipc.IpcReadOptions(use_threads=False))
            self.schema = self._reader.schema

    def batches(self, n_rows: int) -> Iterator[Any]:
        """Yield record batches of at most some rows, checked."""
        for batch in checked(self.pa, iter(self._reader)):
            yield from (batch.slice(at, n_rows) for at in range(0, batch.num_rows, n_rows))


class ParquetTable:
    """A table in a Parquet file. ValueError says what is wrong with it."""

    def __init__(self, pa: Any, path: Path) -> None:
        self.pa = pa
        with readable(pa):
            self._dictionary_bytes = parquet.check_file(path)
            self._file = pa.parquet.ParquetFile(
                path,
                memory_map=True,
                pre_buffer=False,
                thrift_string_size_limit=MAX_METADATA_BYTES,
                thrift_container_size_limit=MAX_METADATA_ITEMS,
                arrow_extensions_enabled=False,
            )
            self.schema = self._file.schema_arrow

    def batches(self, n_rows: int) -> Iterator[Any]:
        """Yield record batches of at most some rows, checked."""
        if any(is_text(self.pa, kind) for kind in self.schema.types):
            # Every row of a batch may be the longest text of the dictionary.
            n_rows = max(1, min(n_rows, MAX_UNPACKED_BYTES // max(self._dictionary_bytes, 1)))
        with readable(self.pa):
            batches = self._file.iter_batches(n_rows, use_threads=False)
        return checked(self.pa, batches)


Table = IpcTable | ParquetTable


def open_table(pa: Any, path: Path, kind: str) -> Table:
    """Open a spooled table of a kind: stream, file or parquet. Raises ValueError."""
    table = ParquetTable(pa, path) if kind == "parquet" else IpcTable(pa, path, STREAM_AT[kind])
    if not table.schema.types:
        raise ValueError("has no columns")
    return table


def checked(pa: Any, batches: Iterator[Any]) -> Iterator[Any]:
    """Yield record batches whose every offset has been looked at."""
    while True:
        with readable(pa):
            batch = next(batches, None)
            if batch is None:
                return
            batch.validate(full=True)
        if batch.num_rows:
            yield batch


def check_messages(pa: Any, mapped: Any, *, to_end: bool) -> None:
    """Raise ValueError for a stream whose messages would unpack to too much, or that breaks off."""
    for message in pa.ipc.MessageReader.open_stream(mapped):
        if message.metadata.size > MAX_METADATA_BYTES:
            raise ValueError(f"a message has more than {MAX_METADATA_BYTES} bytes of metadata")
        if message.type != "schema" and unpacked_bytes(message) > MAX_UNPACKED_BYTES:
            problem = f"a record batch unpacks to more than {MAX_UNPACKED_BYTES} bytes"
            raise ValueError(f"{problem}; write smaller batches (max_chunksize), or do not compress them")
    end = mapped.tell()
    mapped.seek(max(0, end - len(END_OF_STREAM)))
    if mapped.read(len(END_OF_STREAM)) != END_OF_STREAM:
        raise ValueError("the stream breaks off: its end is not marked")
    if to_end and end != mapped.size():
        raise ValueError("there are bytes behind the end of the stream")


def unpacked_bytes(message: Any) -> int:
    """Return how much memory the compressed buffers of a message announce to need."""
    metadata, body = message.metadata, message.body
    root = at_offset(metadata, 0)
    header = table_field(metadata, root, 2)
    batch = at_offset(metadata, header) if header else None
    if batch and message.type == "dictionary":
        nested = table_field(metadata, batch, 1)
        batch = at_offset(metadata, nested) if nested else None
    if not batch or not table_field(metadata, batch, 3):
        return 0
    vector = table_field(metadata, batch, 2)
    if not vector:
        return 0
    begin = at_offset(metadata, vector)
    (count,) = struct.unpack_from("<I", metadata, begin)
    buffers = struct.iter_unpack("<qq", metadata[begin + 4 : begin + 4 + 16 * count])
    return sum(max(0, struct.unpack_from("<q", body, offset)[0]) for offset, size in buffers if size >= 8)


def at_offset(data: Any, position: int) -> int:
    """Follow an offset of a flatbuffer to where it points."""
    return position + int(struct.unpack_from("<I", data, position)[0])


def table_field(data: Any, table: int, number: int) -> int | None:
    """Return where a table of a flatbuffer has a field, None where it has none."""
    vtable = table - struct.unpack_from("<i", data, table)[0]
    (size,) = struct.unpack_from("<H", data, vtable)
    entry = 4 + 2 * number
    offset = struct.unpack_from("<H", data, vtable + entry)[0] if entry < size else 0
    return table + offset if offset else None
