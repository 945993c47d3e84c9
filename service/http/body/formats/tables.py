"""Arrow, Parquet and CSV: matrices and columns from tables, read in a separate process (`formats.table_reader`)."""

from __future__ import annotations

import atexit
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from dataclasses import field as dataclass_field
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from queue import Empty, LifoQueue
from signal import SIGALRM, SIGKILL, Signals
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray
from werkzeug.exceptions import ServiceUnavailable

from service.domain.columns import NO_COLUMNS, Columns
from service.domain.labels import MAX_LABEL_LENGTH
from service.errors import InvalidRequest
from service.http.body.formats.spool import first_missing_in_rows
from service.http.body.limits import COLUMNS, MAX_LENGTHS, Limits, check_cells
from service.store.spool import ArraySpool, SpoolFile
from service.store.staging import StagedRows, Staging

MAX_READERS = 2
"""Tables that a worker reads at the same time."""

MEMORY_BYTES = 2**30
"""Memory limit of a reader for one table, without its own memory and the mapped file."""

READ_SECONDS = 120
"""Time limit for reading a table."""

WAIT_SECONDS = 30.0
"""Maximum wait for a free reader."""

START = """\
import os, sys
os.putenv("ARROW_DEFAULT_MEMORY_POOL", "system")  # other pools reserve more address space than they use
sys.path[:] = sys.argv[1:]
from service.http.body.formats.table_reader import main
main()
"""

PIPE_BYTES = 2**20
VALUE_BYTES = 64
"""Memory of a value as a Python object, without its text."""


def check_library(pointer: str) -> None:
    """Raise InvalidRequest if the extra `arrow` is not installed."""
    if find_spec("pyarrow") is None:
        problem = "reading Arrow, Parquet and CSV requires pip install 'active-query[arrow]'; send application/x-npy"
        raise InvalidRequest.at(pointer, problem)


@dataclass(slots=True)
class TableFile:
    """A spooled table of a kind (stream, file, parquet or csv), which is read when the roles of its columns are known.

    `field` is the request field that it was sent as. `roles` are those that it has columns for, once it was read.
    """

    field: str
    kind: str
    path: Path
    limits: Limits
    staging: Staging
    roles: list[str] = dataclass_field(default_factory=list)

    @property
    def is_text(self) -> bool:
        """Whether the format has no types: ids and labels are read as text."""
        return self.kind == "csv"

    def read(self, columns: Columns = NO_COLUMNS, required: Sequence[str] = (), advice: str = "") -> Any:
        """Return the features, or the only column if the field is one. Raises InvalidRequest or ServiceUnavailable.

        The table must have the columns of the `required` roles. `advice` is added to the error for a column that cannot
        be a feature.
        """
        if self.field in COLUMNS:
            return self.read_column(None, f"/{self.field}")
        with errors_at(f"/{self.field}"):
            rows, self.roles = read_matrix(self, columns, required, advice)
        return rows

    def find_roles(self, columns: Columns, required: Sequence[str]) -> None:
        """Find the roles that the table has columns for, without reading features. Raises as `read` does."""
        with errors_at(f"/{self.field}"), table_reader() as reader:
            named = replace(columns, features=())
            frames = reader.read(
                self.path, self.kind, f"/{self.field}", is_matrix=True, columns=named, required=required
            )
            for header in frames:
                self.roles = header["roles"]

    def read_column(self, name: str | None, pointer: str) -> NDArray[Any] | list[Any]:
        """Return a column, or without a name the only one. Raises InvalidRequest or ServiceUnavailable."""
        with errors_at(pointer):
            return read_column(self, name, pointer, MAX_LENGTHS.get(pointer[1:], MAX_LABEL_LENGTH))


class TableSink:
    """A sink that writes a table to a file, and returns it unread."""

    def __init__(self, path: Path, table: Any) -> None:
        self.table = table
        self._spool = SpoolFile(path)

    def write(self, data: bytes) -> None:
        """Write the next bytes."""
        self._spool.write(data)

    def close(self) -> Any:
        """Return the table."""
        self._spool.close()
        return self.table

    def abandon(self) -> None:
        """Close the file of an unfinished part."""
        self._spool.abandon()


@contextmanager
def errors_at(pointer: str) -> Iterator[None]:
    """Turn ValueError into InvalidRequest at a pointer."""
    try:
        yield
    except ValueError as error:
        raise InvalidRequest.at(pointer, str(error)) from None


def read_matrix(
    table: TableFile, columns: Columns, required: Sequence[str], advice: str
) -> tuple[StagedRows, list[str]]:
    """Read the features of a table into a staged matrix, some rows at a time; return it and the roles of its columns.

    Raises InvalidRequest at a wrong cell or row, ValueError for an error of the whole table, or ServiceUnavailable.
    """
    pointer = f"/{table.field}"
    array: ArraySpool | None = None
    header: dict[str, Any] = {}
    missing: str | None = None
    n_rows = n_columns = 0
    try:
        with table_reader() as reader:
            for frame in reader.read(
                table.path, table.kind, pointer, is_matrix=True, columns=columns, required=required, advice=advice
            ):
                header = header or frame
                block_rows, n_columns = frame["shape"]
                check_cells(pointer, (n_rows + block_rows, n_columns), table.limits.cells)
                block = reader.read_array(frame)
                found = first_missing_in_rows(block, pointer, n_rows)
                missing = missing or found
                array = array.widened(block.dtype) if array else ArraySpool(table.staging, block.dtype)
                array.write(block)
                n_rows += block_rows
        if array is None:
            raise ValueError("has no rows")
        files = {"rows": array.close((n_rows, n_columns))}
        names = header["names"] and tuple(header["names"])
        return StagedRows(files, n_rows, n_columns, names, tuple(header["index_names"]), missing), header["roles"]
    finally:
        if array is not None:
            array.abandon()


def read_column(table: TableFile, name: str | None, pointer: str, max_length: int) -> NDArray[Any] | list[Any]:
    """Read a column of a table: numbers as an array, with NaN for null in floats, and all else as a list.

    Raises InvalidRequest at a text that is too long, ValueError, also for more memory than the body may have bytes, or
    ServiceUnavailable.
    """
    max_bytes = table.limits.body_bytes
    pieces: list[NDArray[Any] | list[Any]] = []
    n_bytes = 0
    with table_reader() as reader:
        for frame in reader.read(table.path, table.kind, pointer, is_matrix=False, column=name, max_length=max_length):
            pieces.append(reader.read_array(frame) if "dtype" in frame else reader.read_values(frame))
            n_bytes += memory_of(pieces[-1])
            if n_bytes > max_bytes:
                raise ValueError(too_large(max_bytes))
    arrays = [piece for piece in pieces if isinstance(piece, np.ndarray)]
    if arrays and len(arrays) == len(pieces):
        return np.concatenate(arrays)
    return list(chain.from_iterable(p.tolist() if isinstance(p, np.ndarray) else p for p in pieces))


def too_large(max_bytes: int) -> str:
    """Return the error for a column that takes too much memory."""
    return f"takes more than {max_bytes} bytes of memory; AQ_MAX_BODY_BYTES allows no more"


def memory_of(values: NDArray[Any] | list[Any]) -> int:
    """Return roughly the memory of some values, in bytes."""
    if isinstance(values, np.ndarray):
        return values.nbytes
    return sum(
        VALUE_BYTES + (len(value) if isinstance(value, str) else memory_of(value) if isinstance(value, list) else 0)
        for value in values
    )


class TableReader:
    """A process that reads one table after another; it takes 0.3 s to start."""

    def __init__(self) -> None:
        # It ends when its standard input does, and so with this process. Without `site` it starts faster.
        self._process = subprocess.Popen(  # noqa: S603 - nothing here comes from a request
            [sys.executable, "-I", "-S", "-c", START, *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pipesize=PIPE_BYTES,
        )
        self._stdin, self._stdout = cast(IO[bytes], self._process.stdin), cast(Any, self._process.stdout)
        self._is_idle = True

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    @property
    def is_ready(self) -> bool:
        """Whether it can read another table."""
        return self._is_idle and self._process.poll() is None

    def read(
        self,
        path: Path,
        kind: str,
        pointer: str,
        *,
        is_matrix: bool,
        column: str | None = None,
        columns: Columns = NO_COLUMNS,
        required: Sequence[str] = (),
        advice: str = "",
        max_length: int = MAX_LABEL_LENGTH,
    ) -> Iterator[dict[str, Any]]:
        """Yield the frames of a table, whose bytes must be read in between. Raises as `read_matrix` does.

        A matrix has the features of `columns`; a column is the one named, or the only one.
        """
        request = {
            "path": str(path.absolute()),
            "kind": kind,
            "is_matrix": is_matrix,
            "column": column,
            "features": columns.features,
            "roles": columns.named,
            "required": required,
            "advice": advice,
            "max_text_length": max_length,
            "memory_bytes": MEMORY_BYTES,
            "seconds": READ_SECONDS,
        }
        self._is_idle = False
        with suppress(BrokenPipeError):  # it has ended, which is seen below
            self._stdin.write(json.dumps(request).encode() + b"\n")
            self._stdin.flush()
        while frame := self._read_frame():
            if "error" in frame:
                self._is_idle = True
                role = frame.get("role")
                raise InvalidRequest.at(f"/columns/{role}" if role else pointer + frame["at"], frame["error"])
            yield frame
        self._is_idle = True

    def read_array(self, frame: dict[str, Any]) -> NDArray[Any]:
        """Read the numbers of a frame."""
        array = np.empty(frame["shape"], frame["dtype"])
        self._fill(array.reshape(-1).view(np.uint8).data)
        return array

    def read_values(self, frame: dict[str, Any]) -> list[Any]:
        """Read the values of a frame."""
        text = bytearray(frame["n_bytes"])
        self._fill(memoryview(text))
        values: list[Any] = json.loads(text)
        return values

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._stdin, self._stdout):
            with suppress(BrokenPipeError):
                pipe.close()

    def _read_frame(self) -> dict[str, Any]:
        line = self._stdout.readline()
        if not line.endswith(b"\n"):
            raise self._reason_of_end()
        frame: dict[str, Any] = json.loads(line)
        return frame

    def _fill(self, buffer: memoryview) -> None:
        if self._stdout.readinto(buffer) < len(buffer):
            raise self._reason_of_end()

    def _reason_of_end(self) -> Exception:
        code = self._process.wait()
        if code == -SIGALRM:
            return ValueError(f"takes longer than {READ_SECONDS} seconds to read")
        if code < 0 and code != -SIGKILL:
            return ValueError(f"cannot be read: its reader ended with {Signals(-code).name}")
        return ServiceUnavailable("the process that read the table was killed, perhaps for lack of memory; try again")


READERS: LifoQueue[TableReader | None] = LifoQueue()
"""MAX_READERS slots: a free reader, or None for one that has to be started."""

for _ in range(MAX_READERS):
    READERS.put(None)


@contextmanager
def table_reader() -> Iterator[TableReader]:
    """Borrow a reader. Raises ServiceUnavailable if none is free in time or can be started."""
    try:
        reader = READERS.get(timeout=WAIT_SECONDS)
    except Empty:
        raise ServiceUnavailable(f"this worker is reading {MAX_READERS} other tables; try again") from None
    try:
        reader = close_unless_ready(reader) or start_reader()
        yield reader
    finally:
        READERS.put(close_unless_ready(reader))


def start_reader() -> TableReader:
    """Start a reader. Raises ServiceUnavailable if the system refuses another process."""
    try:
        return TableReader()
    except OSError as error:
        raise ServiceUnavailable(f"the process that reads tables cannot be started: {error.strerror}") from None


def close_unless_ready(reader: TableReader | None) -> TableReader | None:
    """Return a reader if it can read another table; otherwise end its process and return None."""
    if reader is None or reader.is_ready:
        return reader
    reader.close()
    return None


@atexit.register
def close_readers() -> None:
    """End the free readers."""
    while not READERS.empty():
        if reader := READERS.get():
            reader.close()
