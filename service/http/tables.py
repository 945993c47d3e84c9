"""Read the tables of a request: their features, and the columns that hold ids, labels, texts and addresses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from marshmallow import ValidationError

from service.domain.columns import Columns, TableContext
from service.errors import InvalidRequest
from service.http.body.formats.cells import read_ids, read_labels, read_lists
from service.http.body.formats.records import RecordTable, read_list
from service.http.body.formats.tables import TableFile
from service.http.body.limits import COLUMNS as COLUMN_FIELDS
from service.http.body.limits import MAX_LENGTHS, Limits
from service.http.schemas import fields
from service.store.staging import Staging

FIELDS = {
    "X": {"id": "ids", "label": "y", "text": "texts", "url": "urls"},
    "X_test": {"label": "y_test", "text": "X_test"},
}
"""The fields of a request that columns of its tables are, by the matrix and the role of the column."""

ADVICE = 'say what each column is: "columns": {"features": [names], "id": name, "label": name, "text": name}'

COLUMNS = fields.columns()

Table = TableFile | RecordTable


def read_arrays(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a document with its tables read, whose columns are all features. Raises InvalidRequest."""
    return {name: value.read() if isinstance(value, Table) else value for name, value in document.items()}


def read_tables(
    document: Mapping[str, Any], context_of: Callable[[], TableContext], limits: Limits, staging: Staging
) -> dict[str, Any]:
    """Return a document with its tables read; columns with another role become fields of their own.

    Matrices in JSON may be tables, too: lists of objects. Raises InvalidRequest and ValidationError.
    """
    tables: dict[str, Table] = {name: value for name, value in document.items() if isinstance(value, Table)}
    for name in FIELDS:
        value = document.get(name)
        if isinstance(value, list) and value and isinstance(value[0], dict):
            tables[name] = RecordTable(name, partial(read_list, value), limits, staging)
    refuse_columns_without_table(document, tables)
    if not tables:
        return dict(document)
    context = context_of()
    if "columns" in document:
        context = replace(context, columns=columns_of(document))
    found: dict[str, Any] = {}
    for _, table in sorted(tables.items()):  # X_test after X, and y_test after y
        found |= read_table(table, {**document, **found}, context)
    document = {name: value for name, value in document.items() if name not in tables} | found
    if any(table.is_text for table in tables.values()) and not may_be_missing(document):
        del document["missing_label"]  # the cells were compared with its text
    return document


def read_table(table: Table, document: Mapping[str, Any], context: TableContext) -> dict[str, Any]:
    """Return the fields of a request that a table brings. Raises InvalidRequest."""
    named = context.columns.named
    if table.field == "X_test" and not named and (context.has_texts or "texts" in document):
        return {table.field: table.read_column(None, f"/{table.field}")}
    fields_of = {role: field for role, field in FIELDS.get(table.field, {}).items() if role in named}
    # Columns that the project remembers may be missing.
    required = [role for role, field in fields_of.items() if "columns" in document and field not in document]
    found: dict[str, Any] = {}
    if "text" in named:
        table.find_roles(context.columns, sorted({*required, "text"}))
    else:
        found[table.field] = table.read(context.columns, required, ADVICE)
    for role in table.roles:
        if field := fields_of.get(role):
            found[field] = read_role(table, named[role], field, document)
    if table.is_text:
        cells = {field: value for field, value in found.items() if field in COLUMN_FIELDS}
        found |= {field: meaning_of(cells[field], field, {**document, **found}, context) for field in cells}
    return found


def meaning_of(cells: list[str], field: str, document: Mapping[str, Any], context: TableContext) -> list[Any]:
    """Return the ids, labels or texts in cells of CSV."""
    if field in MAX_LENGTHS:
        return cells
    if field == "ids":
        return read_ids(cells, context.id_type)
    if context.has_lists or document.get("target") == "labels":
        return read_lists(cells, f"/{field}")
    classes = context.classes or (first_label(document, "y") if field == "y_test" else ())
    return read_labels(cells, classes, document.get("missing_label"), may_be_numbers=context.may_be_numbers)


def first_label(document: Mapping[str, Any], field: str) -> list[Any]:
    """Return the first label of a list in a document, in a list of its own that is empty without one."""
    labels = document.get(field)
    return [label for label in labels if label is not None][:1] if isinstance(labels, list) else []


def may_be_missing(document: Mapping[str, Any]) -> bool:
    """Return whether labels may have the type of `missing_label`."""
    missing, first = document.get("missing_label"), first_label(document, "y") or first_label(document, "y_test")
    return missing is None or not first or type(missing) is type(first[0])


def columns_of(document: Mapping[str, Any]) -> Columns:
    """Return the columns that a document names. Raises ValidationError."""
    try:
        columns: Columns = COLUMNS.read(document["columns"])
    except ValidationError as error:
        raise ValidationError({"columns": error.messages}) from None
    return columns


def read_role(table: Table, column: str, field: str, document: Mapping[str, Any]) -> Any:
    """Return the column that is a field of the request. Raises InvalidRequest."""
    if field in document and field != table.field:
        raise InvalidRequest.at(f"/{field}", f"was sent, but is the column {column!r} of {table.field}, too")
    return table.read_column(column, f"/{field}")


def refuse_columns_without_table(document: Mapping[str, Any], tables: Mapping[str, Any]) -> None:
    """Raise InvalidRequest for `columns` beside features whose columns have no names."""
    if "columns" in document and document.keys() & FIELDS.keys() and not tables.keys() & FIELDS.keys():
        raise InvalidRequest.at("/columns", "needs a table with named columns as X or X_test")
