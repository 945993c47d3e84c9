"""Columns of features by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from service.domain.columns import Columns, TableContext
from service.domain.labels import MAX_LABEL_LENGTH
from service.errors import FieldError, InvalidRequest, ProjectNotFound
from service.store import Part, Store
from service.store.staging import StagedRows, Staging

LABEL_NAMES = ("label", "target", "class", "y")
"""Names of columns that probably hold labels, in lower case."""

MAX_LISTED = 20
"""How many names an error lists."""


def name_columns(X: StagedRows, feature_names: Sequence[str] | None, staging: Staging) -> StagedRows:
    """Return the rows of a new pool with the names of their columns, in the order of `feature_names` if it is given.

    Raises InvalidRequest for names that do not fit the rows.
    """
    if feature_names is None:
        check_names("/X", X.names or ())
        return X
    if X.names is None and len(feature_names) != X.n_columns:
        problem = f"has {len(feature_names)} entries, but X has {X.n_columns} columns"
        raise InvalidRequest.at("/feature_names", problem)
    names = tuple(feature_names)
    return replace(order_columns("/X", X, names, staging), names=names)


def order_columns(pointer: str, X: StagedRows, names: tuple[str, ...] | None, staging: Staging) -> StagedRows:
    """Return rows with their columns in the order of the names of the pool.

    Columns go by position if they or those of the pool have no names. Raises InvalidRequest for other names.
    """
    if X.names is None or names is None or X.names == names:
        return X
    check_names(pointer, X.names)
    positions = {name: position for position, name in enumerate(X.names)}
    missing = [name for name in names if name not in positions]
    known = set(names)
    additional = [name for name in X.names if name not in known]
    problems = {"lacks columns of the pool": missing, "has columns that the pool lacks": additional}
    if missing or additional:
        raise InvalidRequest(
            FieldError(pointer, f"{problem}: {list_names(wrong)}") for problem, wrong in problems.items() if wrong
        )
    return staging.reorder(X, [positions[name] for name in names])


def notes_on_columns(pointer: str, X: StagedRows, names: Sequence[str] | None) -> list[str]:
    """Return notes on columns of features that were left out or are probably labels; `names` are those of X."""
    field, notes = pointer[1:], []
    if X.index_names:
        unnamed = "the first column, which has no name, was left out as an index"
        pandas = f"the index of the pandas table was left out: {list_names(X.index_names)}"
        notes.append(f"{field}: {pandas if any(X.index_names) else unnamed}")
    labels = [name for name in names or () if name.lower() in LABEL_NAMES]
    if labels:
        problem = "is a feature, but is named like a label" if len(labels) == 1 else "are features, but are named like"
        notes.append(f"{field}: {list_names(labels)} {problem}" + (" labels" if len(labels) > 1 else ""))
    return notes


def check_names(pointer: str, names: Sequence[str]) -> None:
    """Raise InvalidRequest for names of columns that are repeated, empty or too long."""
    if not all(1 <= len(name) <= MAX_LABEL_LENGTH for name in names):
        raise InvalidRequest.at(pointer, f"has a column whose name is not 1 to {MAX_LABEL_LENGTH} characters long")
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise InvalidRequest.at(pointer, f"repeats column names: {list_names(repeated)}")


def list_names(names: Sequence[str]) -> str:
    """Return names for an error, only the first if they are many."""
    listed: Iterable[str] = map(repr, names[:MAX_LISTED])
    n_more = len(names) - MAX_LISTED
    return ", ".join(listed) + (f" and {n_more} more" if n_more > 0 else "")


def table_context(store: Store, project_id: str) -> TableContext:
    """Return what a project knows about tables that are sent to it; nothing if there is no such project."""
    try:
        snapshot = store.read(project_id, Part.IDS)
    except ProjectNotFound:
        return TableContext()
    project, ids = snapshot.project, snapshot.ids
    id_type = None if ids is None else type(ids.first)
    has_texts, has_lists, may_be_numbers = (
        project.text is not None,
        project.target == "labels",
        project.target == "number",
    )
    return TableContext(project.columns or Columns(), project.classes, id_type, has_texts, has_lists, may_be_numbers)
