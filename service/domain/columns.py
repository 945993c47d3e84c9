"""The columns of a table that a caller sends: which are features, and which hold ids, labels, texts or addresses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from service.domain.labels import Label

ROLES = ("id", "label", "text", "url")
"""What a column other than a feature may hold."""


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a table by name; `features` None = all that have no other role, or none beside a `text`."""

    features: tuple[str, ...] | None = None
    id: str | None = None
    label: str | None = None
    text: str | None = None
    url: str | None = None

    @property
    def named(self) -> dict[str, str]:
        """The column of each role that has one."""
        return {role: name for role in ROLES if (name := getattr(self, role)) is not None}


NO_COLUMNS = Columns()
"""Columns of which nothing is known: all are features."""


@dataclass(frozen=True, slots=True)
class TableContext:
    """What is known about the tables of a request before they are read.

    `columns` are those of the project, `classes` its labels, and `id_type` the type of its ids, None without ids: in
    CSV, 1 may be text. `has_texts`: its samples are texts. `has_lists`: a label is a list of classes. `may_be_numbers`:
    labels may be numbers that are not whole.
    """

    columns: Columns = NO_COLUMNS
    classes: Sequence[Label] = ()
    id_type: type | None = None
    has_texts: bool = False
    has_lists: bool = False
    may_be_numbers: bool = True
