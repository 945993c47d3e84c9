"""Tables whose rows are JSON objects: the lines of a file, or the entries of a list."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence, Set
from contextlib import closing
from dataclasses import dataclass, replace
from dataclasses import field as dataclass_field
from pathlib import Path
from typing import Any

from service.domain.columns import NO_COLUMNS, Columns
from service.domain.parameters import pointer_token
from service.errors import FieldError, InvalidRequest
from service.http.body.formats.ndjson import Lines, RowWriter, refuse
from service.http.body.formats.tables import memory_of, too_large
from service.http.body.formats.wrong_tables import list_columns, no_features, wrong_feature
from service.http.body.limits import COLUMNS, Limits
from service.store.files import COPY_BYTES
from service.store.staging import Staging

TYPE_NAMES: dict[type, str] = {str: "text", list: "lists", dict: "objects"}
"""What values that are no features are called in errors."""

LIST_RECORDS = 1_000
"""How many entries of a list are read at a time."""


@dataclass(slots=True)
class RecordTable:
    """A table of records, read like a `TableFile`; `chunks` yields some records at a time, from the first one on."""

    field: str
    chunks: Callable[[], Iterator[list[Any]]]
    limits: Limits
    staging: Staging
    roles: list[str] = dataclass_field(default_factory=list)
    is_text: bool = False

    def read(self, columns: Columns = NO_COLUMNS, required: Sequence[str] = (), advice: str = "") -> Any:
        """Return the features, or the only column if the field is one. Raises InvalidRequest.

        The table must have the columns of the `required` roles. `advice` is added to the error for a column that cannot
        be a feature. A record may lack columns that are no features.
        """
        if self.field in COLUMNS:
            return self.read_column(None, f"/{self.field}")
        first = self._first()
        self._find_roles(columns, required, first)
        others = set(columns.named.values())
        names = [name for name in first if name not in others] if columns.features is None else list(columns.features)
        is_list = len(names) == 1 and isinstance(first.get(names[0]), list)
        self._check_features(first, names, is_list=is_list, advice=advice)
        rows = RowWriter(f"/{self.field}", self.staging, self.limits.cells)
        try:
            for records in self._checked(first.keys() | others if columns.features is None else None):
                rows.write([record.get(names[0]) if is_list else list(map(record.get, names)) for record in records])
            staged = rows.close()
        finally:
            rows.abandon()
        return staged if is_list else replace(staged, names=tuple(names))

    def find_roles(self, columns: Columns, required: Sequence[str]) -> None:
        """Find the roles that the table has columns for, without reading features. Raises as `read` does."""
        self._find_roles(columns, required, self._first())

    def read_column(self, name: str | None, pointer: str) -> list[Any]:
        """Return the values of a column, None where a record lacks it; without a name, of the only one."""
        if name is None:
            name, *others = self._first()
            if others:
                raise InvalidRequest.at(pointer, f"has {1 + len(others)} columns; it must have one")
        values: list[Any] = []
        n_bytes = 0
        for records in self._checked(None):
            values += [record.get(name) for record in records]
            n_bytes += memory_of(values[-len(records) :])
            if n_bytes > self.limits.body_bytes:
                raise InvalidRequest.at(pointer, too_large(self.limits.body_bytes))
        return values

    def _first(self) -> dict[str, Any]:
        """Return the first record, whose columns are those of the table."""
        with closing(self._checked(None)) as chunks:
            first: dict[str, Any] = next(chunks)[0]
        if not first:
            raise InvalidRequest.at(f"/{self.field}", "has no columns")
        return first

    def _checked(self, known: Set[str] | None) -> Generator[list[dict[str, Any]]]:
        """Yield records that are objects, at least one at a time; they have no columns but those `known`, if given."""
        n_records = 0
        for records in filter(None, self.chunks()):
            refuse(
                error
                for number, record in enumerate(records, n_records)
                for error in wrong_columns(record, known, f"/{self.field}/{number}")
            )
            yield records
            n_records += len(records)
        if not n_records:
            raise InvalidRequest.at(f"/{self.field}", "has no rows")

    def _find_roles(self, columns: Columns, required: Sequence[str], first: dict[str, Any]) -> None:
        """Find out which roles have columns. Raises InvalidRequest for a required one without."""
        missing = {role: name for role, name in columns.named.items() if name not in first}
        found: set[str] = set()
        if missing:  # labels may come late
            found.update(*(record.keys() & missing.values() for records in self._checked(None) for record in records))
        for role, name in missing.items():
            if role in required and name not in found:
                raise InvalidRequest.at(f"/columns/{role}", f"{name!r} is not a column; {list_columns([*first])}")
        self.roles = [role for role, name in columns.named.items() if name not in missing.values() or name in found]

    def _check_features(self, first: dict[str, Any], names: list[str], *, is_list: bool, advice: str) -> None:
        """Raise InvalidRequest for a feature that the first record lacks, or that is text."""
        pointer = f"/{self.field}"
        if not names:
            raise InvalidRequest.at(pointer, no_features(advice))
        for name in names:
            if name not in first:
                raise InvalidRequest.at(pointer, f"has no column {name!r}; {list_columns([*first])}")
            value = first[name]
            if not is_list and isinstance(value, str | list | dict):
                raise InvalidRequest.at(pointer, wrong_feature(name, TYPE_NAMES[type(value)], advice))


def wrong_columns(record: Any, known: Set[str] | None, pointer: str) -> Iterator[FieldError]:
    """Yield an error for an entry that is no object, and for each of its columns that is not known."""
    if not isinstance(record, dict):
        yield FieldError(pointer, "must be an object, as the first row is")
    elif known is not None and not record.keys() <= known:
        for name in record.keys() - known:
            yield FieldError(f"{pointer}/{pointer_token(name)}", "is not a column of the first row")


def read_lines(path: Path, max_line_bytes: int) -> Iterator[list[Any]]:
    """Yield the values on the lines of a file, some at a time. Raises BadRequest and RequestEntityTooLarge."""
    lines = Lines(max_line_bytes)
    with path.open("rb") as file:
        while data := file.read(COPY_BYTES):
            yield lines.feed(data)
    yield lines.end()


def read_list(values: list[Any]) -> Iterator[list[Any]]:
    """Yield the entries of a list, some at a time."""
    return (values[begin : begin + LIST_RECORDS] for begin in range(0, len(values), LIST_RECORDS))
