"""Read the tables of a request: their features, and the columns that hold ids and labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from marshmallow import ValidationError

from service.domain.columns import Columns, TableContext
from service.errors import InvalidRequest
from service.http.body.formats.tables import TableFile
from service.http.schemas import fields

FIELDS = {"X": {"id": "ids", "label": "y"}, "X_test": {"label": "y_test"}}
"""The fields of a request that columns of its tables are, by the matrix and the role of the column."""

ADVICE = 'say what each column is: "columns": {"features": [names], "id": name, "label": name}'

COLUMNS = fields.columns()


def read_tables(document: Mapping[str, Any], context_of: Callable[[], TableContext] | None = None) -> dict[str, Any]:
    """Return a document with its tables read; columns that are ids or labels become fields of their own.

    Without `context_of` tables have only features. Raises InvalidRequest and ValidationError.
    """
    tables = {name: value for name, value in document.items() if isinstance(value, TableFile)}
    refuse_columns_without_table(document, tables)
    if context_of is None:
        return {**document, **{name: table.read() for name, table in tables.items()}}
    if not tables:
        return dict(document)
    columns = columns_of(document) if "columns" in document else context_of().columns
    found: dict[str, Any] = {}
    for name, table in tables.items():
        fields_of = {role: field for role, field in FIELDS.get(name, {}).items() if role in columns.named}
        # Columns that the project remembers may be missing.
        required = [role for role, field in fields_of.items() if "columns" in document and field not in document]
        found[name] = table.read(columns, required, ADVICE)
        for role in table.roles:
            if field := fields_of.get(role):
                found[field] = read_role(table, columns.named[role], field, document)
    return {**document, **found}


def columns_of(document: Mapping[str, Any]) -> Columns:
    """Return the columns that a document names. Raises ValidationError."""
    try:
        columns: Columns = COLUMNS.read(document["columns"])
    except ValidationError as error:
        raise ValidationError({"columns": error.messages}) from None
    return columns


def read_role(table: TableFile, column: str, field: str, document: Mapping[str, Any]) -> Any:
    """Return the column that is a field of the request. Raises InvalidRequest."""
    if field in document:
        raise InvalidRequest.at(f"/{field}", f"was sent, but is the column {column!r} of {table.field}, too")
    return table.read_column(column, f"/{field}")


def refuse_columns_without_table(document: Mapping[str, Any], tables: Mapping[str, Any]) -> None:
    """Raise InvalidRequest for `columns` beside features whose columns have no names."""
    if "columns" in document and document.keys() & FIELDS.keys() and not tables.keys() & FIELDS.keys():
        raise InvalidRequest.at("/columns", "needs a table with named columns as X or X_test")
