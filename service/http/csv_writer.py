"""CSV (RFC 4180) that a spreadsheet can open without running labels or names as formulas."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import fields
from typing import Any

import orjson

from service.usecases.projects import StoredLabel

SAFE_HEADER = "X-CSV-Safe"
"""Header of a CSV reply that says how its cells are written: `spreadsheet` or `none`."""

FORMULA = re.compile(r"[=+\-@\t\r]")
NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")


def csv_labels(records: Iterable[StoredLabel], record_type: type[StoredLabel], safe: str) -> Iterator[str]:
    """Yield the lines of labels as CSV."""
    columns = [field.name for field in fields(record_type)]
    yield csv_lines([columns])
    for record in records:
        yield csv_lines([[csv_value(getattr(record, column), safe) for column in columns]])


def csv_value(value: object, safe: str) -> str:
    """Return a value as JSON shows it, strings without quotes and null as nothing. A list is a JSON list.

    With `safe="spreadsheet"` an apostrophe precedes text that a spreadsheet would take for a formula; a number stays.
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    text = orjson.dumps(value).decode() if isinstance(value, list | tuple) else str(value)
    is_formula = safe == "spreadsheet" and FORMULA.match(text) and not NUMBER.fullmatch(text)
    return f"'{text}" if is_formula else text


def csv_lines(rows: Iterable[Iterable[Any]]) -> str:
    """Write rows as CSV."""
    lines = io.StringIO()
    csv.writer(lines).writerows(rows)
    return lines.getvalue()
