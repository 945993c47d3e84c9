"""Read NDJSON, a JSON value per line, as it arrives."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge

from service.domain.labels import wrong_label
from service.domain.parameters import pointer_token, unknown_name
from service.domain.sample_ids import wrong_id
from service.errors import MAX_ERRORS, FieldError, InvalidRequest
from service.http.body.formats.spool import NOT_FINITE, first_missing_in_rows
from service.http.body.limits import check_cells
from service.store.spool import ArraySpool
from service.store.staging import StagedRows, Staging

RECORD_FIELDS = ("x", "text", "id", "url", "y")
CELLS = {int, float, bool, type(None)}
KEPT_BYTES = 8
"""Memory of an id or a label in a list, beyond its text."""


class Lines:
    """Splits bytes into lines and parses each, holding at most one piece and one incomplete line.

    Raises RequestEntityTooLarge for a line longer than `max_bytes`, BadRequest for one that is not JSON.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._rest = bytearray()
        self._n_lines = 0

    def feed(self, data: bytes) -> list[Any]:
        """Add bytes, and return the values of the lines that they complete."""
        end = data.rfind(b"\n") + 1
        if not end:
            self._keep(data)
            return []
        first = data.index(b"\n") + 1
        self._keep(data[:first])
        whole = bytes(self._rest) + data[first:end]
        self._rest.clear()
        self._keep(data[end:])
        return [self._parse(line) for line in whole[:-1].split(b"\n")]

    def end(self) -> list[Any]:
        """Return the value of the last line if no line break ended it."""
        return [self._parse(bytes(self._rest))] if self._rest else []

    def _keep(self, data: bytes) -> None:
        self._rest += data
        self._check_length(self._rest)

    def _parse(self, line: bytes) -> Any:
        self._check_length(line)
        try:
            value = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise BadRequest(f"line {self._n_lines} (from 0) is not JSON: {error}") from None
        self._n_lines += 1
        return value

    def _check_length(self, line: bytes | bytearray) -> None:
        if len(line) > self.max_bytes:
            raise RequestEntityTooLarge(f"line {self._n_lines} (from 0) is longer than {self.max_bytes} bytes")


class RowWriter:
    """Checks rows of numbers and writes them to a staged file as float64; null becomes NaN. Raises InvalidRequest.

    The pointer to row i is `pointer`/i followed by `below`.
    """

    def __init__(self, pointer: str, staging: Staging, max_cells: int, below: str = "") -> None:
        self.pointer = pointer
        self.below = below
        self.max_cells = max_cells
        self.n_rows = 0
        self.n_columns = 0
        self._missing: str | None = None
        self._spool = ArraySpool(staging, np.dtype(np.float64))

    def write(self, rows: list[Any]) -> None:
        """Append rows."""
        if not rows:
            return
        if not self.n_columns and isinstance(rows[0], list):
            self.n_columns = len(rows[0])
        first = self.n_rows
        refuse(error for number, row in enumerate(rows, first) for error in self._wrong(row, number))
        self.n_rows += len(rows)
        check_cells(self.pointer, (self.n_rows, self.n_columns), self.max_cells)
        block = np.array(rows, np.float64)
        found = first_missing_in_rows(block, self.pointer, first, self.below)
        self._missing = self._missing or found
        self._spool.write(block)

    def close(self) -> StagedRows:
        """Return the staged rows."""
        if not self.n_rows:
            raise InvalidRequest.at(self.pointer, "has no lines; it must have rows")
        rows = self._spool.close((self.n_rows, self.n_columns))
        return StagedRows({"rows": rows}, self.n_rows, self.n_columns, missing=self._missing)

    def abandon(self) -> None:
        """Close the unfinished file."""
        self._spool.abandon()

    def _wrong(self, row: Any, number: int) -> Iterator[FieldError]:
        pointer = f"{self.pointer}/{number}{self.below}"
        if not isinstance(row, list) or not row:
            yield FieldError(pointer, "must be a list of numbers, and not empty")
        elif len(row) != self.n_columns:
            yield FieldError(pointer, f"has {len(row)} numbers, but row 0 has {self.n_columns}")
        elif not set(map(type, row)) <= CELLS:
            for at, value in enumerate(row):
                if type(value) not in CELLS:
                    yield FieldError(f"{pointer}/{at}", NOT_FINITE)


class LineMatrix:
    """A sink for a matrix with a row per line."""

    def __init__(self, pointer: str, staging: Staging, max_cells: int, max_line_bytes: int) -> None:
        self._lines = Lines(max_line_bytes)
        self._rows = RowWriter(pointer, staging, max_cells)

    def write(self, data: bytes) -> None:
        """Write the next bytes."""
        self._rows.write(self._lines.feed(data))

    def close(self) -> StagedRows:
        """Return the staged matrix, after the last bytes."""
        self._rows.write(self._lines.end())
        return self._rows.close()

    def abandon(self) -> None:
        """Close the unfinished file."""
        self._rows.abandon()


def read_values(path: Path) -> list[Any]:
    """Read a column with a value per line. Raises BadRequest."""
    data = path.read_bytes()
    lines = Lines(len(data))
    return lines.feed(data) + lines.end()


class Records:
    """Reads samples, one per line: an object with features `x` or a `text`, and optionally `id`, `url` and label `y`.

    All but the features are held in memory, at most `max_kept_bytes`. Raises InvalidRequest at /<line>/<field>.
    """

    def __init__(self, staging: Staging, max_cells: int, max_line_bytes: int, max_kept_bytes: int) -> None:
        self.max_kept_bytes = max_kept_bytes
        self._lines = Lines(max_line_bytes)
        self._rows = RowWriter("", staging, max_cells, below="/x")
        self._columns: dict[str, list[Any]] = {}
        self._labels: list[Any] = []
        self._n_records = 0
        self._n_kept_bytes = 0

    def write(self, data: bytes) -> None:
        """Write the next bytes."""
        if records := self._lines.feed(data):
            self._take(records)

    def close(self) -> dict[str, Any]:
        """Return the equivalent JSON document: X or texts, and ids, urls and y if the lines have them."""
        if records := self._lines.end():
            self._take(records)
        document: dict[str, Any] = {f"{name}s": column for name, column in self._columns.items()}
        if "texts" not in document:
            document["X"] = self._rows.close()
        if self._labels:
            self._pad(self._n_records)
            document["y"] = self._labels
        return document

    def abandon(self) -> None:
        """Close the unfinished file."""
        self._rows.abandon()

    def _take(self, records: list[Any]) -> None:
        first = self._n_records
        if not first and isinstance(records[0], dict):
            self._columns = {name: [] for name in ("text", "id", "url") if name in records[0]}
        refuse(
            error
            for number, record in enumerate(records, first)
            for error in wrong_fields(record, f"/{number}", self._columns)
        )
        self._n_records += len(records)
        if "text" not in self._columns:
            self._rows.write([record["x"] for record in records])
        for number, record in enumerate(records, first):
            for name, column in self._columns.items():
                column.append(record[name])
                self._count(memory_of(record[name]))
            label = record.get("y")
            if label is not None:
                self._pad(number)
                self._labels.append(label)
                self._count(memory_of(label))

    def _pad(self, n_labels: int) -> None:
        missing = n_labels - len(self._labels)
        self._count(KEPT_BYTES * missing)
        self._labels += [None] * missing

    def _count(self, n_bytes: int) -> None:
        self._n_kept_bytes += n_bytes
        if self._n_kept_bytes > self.max_kept_bytes:
            problem = f"the ids, labels, texts and addresses take more than {self.max_kept_bytes} bytes"
            raise RequestEntityTooLarge(f"{problem}; send the samples in several requests")


def memory_of(value: Any) -> int:
    """Return roughly the memory of an id or a label in a list, in bytes."""
    if isinstance(value, list):
        return KEPT_BYTES + sum(map(memory_of, value))
    return KEPT_BYTES + (len(value) if isinstance(value, str) else 0)


def refuse(errors: Iterable[FieldError]) -> None:
    """Raise InvalidRequest with the first errors, if there are any."""
    if wrong := list(islice(errors, MAX_ERRORS + 1)):
        raise InvalidRequest(wrong)


def wrong_fields(record: Any, pointer: str, columns: Collection[str]) -> Iterator[FieldError]:
    """Yield the errors of a record, except those of its numbers; `columns` are the texts that the first line has."""
    if not isinstance(record, dict):
        yield FieldError(
            pointer, "must be an object with 'x' or 'text' and, if the sample has them, 'id', 'url' and 'y'"
        )
        return
    for name in record:
        if name not in RECORD_FIELDS:
            problem = unknown_name("field here", name, RECORD_FIELDS)
            yield FieldError(f"{pointer}/{pointer_token(name)}", problem)
    if "x" not in record and "text" not in columns:
        yield FieldError(f"{pointer}/x", "is required")
    if "x" in record and "text" in columns:
        yield FieldError(f"{pointer}/x", "must be omitted with 'text': the features are made of one or the other")
    for name in ("text", "id", "url"):
        yield from wrong_text(record, pointer, name, is_expected=name in columns)
    label = record.get("y")
    # Lists and fractions are labels for some targets, and are checked with all other labels.
    if label is not None and not isinstance(label, list | float) and (wrong := wrong_label(label)):
        yield FieldError(f"{pointer}/y", wrong)


def wrong_text(record: dict[str, Any], pointer: str, name: str, *, is_expected: bool) -> Iterator[FieldError]:
    """Yield the error of a field that all lines or none have."""
    if is_expected != (name in record):
        problem = "is required: line 0 has one" if is_expected else "must be left out: line 0 has none"
        yield FieldError(f"{pointer}/{name}", problem)
    elif is_expected and name == "id":
        if wrong := wrong_id(record[name]):
            yield FieldError(f"{pointer}/{name}", wrong)
    elif is_expected and not isinstance(record[name], str):
        yield FieldError(f"{pointer}/{name}", "must be a string")
