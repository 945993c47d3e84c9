"""The labels of a project as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import fields

from service.usecases.projects import StoredLabel


def csv_lines(records: Iterator[StoredLabel]) -> Iterator[str]:
    """Write records as CSV (RFC 4180), a line at a time."""
    columns = [field.name for field in fields(StoredLabel)]
    yield csv_line(columns)
    for record in records:
        yield csv_line([csv_value(getattr(record, column)) for column in columns])


def csv_value(value: object) -> str:
    """Show a value as JSON would, but for a string's quotes; nothing for null."""
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def csv_line(values: list[str]) -> str:
    """Write one line of CSV."""
    line = io.StringIO()
    csv.writer(line).writerow(values)
    return line.getvalue()
