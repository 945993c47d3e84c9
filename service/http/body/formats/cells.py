"""Cells of CSV, which are text: the labels and ids that they mean."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

import orjson

from service.domain.labels import INT64_MAX, INT64_MIN, Label
from service.domain.sample_ids import SampleId
from service.errors import MAX_ERRORS, FieldError, InvalidRequest

INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,18})")
WHOLE_NUMBER = re.compile(INTEGER.pattern + r"(\.0*)?")
"""An integer, also as pandas writes it beside missing ones."""

JSON_LIST = 'is not a JSON list of classes, such as ["a", "b"]; [] is a sample with none, and an empty cell unlabelled'
NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]{1,3})?")

BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}


def read_labels(
    cells: Sequence[str], classes: Sequence[Label], missing: Label | None, *, may_be_numbers: bool = True
) -> list[Label | None]:
    """Return the labels in cells, None for an empty one or for `missing`.

    They have the type of the classes; without classes they are all integers, all numbers if that `may_be`, all
    booleans, or all text.
    """
    unlabeled = {"", *spellings(missing)}
    distinct = {cell for cell in cells if cell not in unlabeled}
    kinds = [type(classes[0])] if classes else [int, bool]
    meaning: dict[str, Label] = {}
    if int in kinds and all(map(is_integer, distinct)):
        meaning = {cell: int(cell.partition(".")[0]) for cell in distinct}
    elif may_be_numbers and bool in kinds and are_fractions(distinct):
        meaning = {cell: float(cell) for cell in distinct}
    elif bool in kinds and distinct <= BOOLEANS.keys():
        meaning = {cell: BOOLEANS[cell] for cell in distinct}
    return [None if cell in unlabeled else meaning.get(cell, cell) for cell in cells]


def read_lists(cells: Sequence[str], pointer: str) -> list[list[Label] | None]:
    """Return the labels in cells that are JSON lists of classes, None for an empty one. Raises InvalidRequest."""
    labels: list[list[Label] | None] = []
    errors: list[FieldError] = []
    for row, cell in enumerate(cells):
        try:
            value = orjson.loads(cell) if cell else None
        except orjson.JSONDecodeError:
            value = cell
        if value is not None and not isinstance(value, list) and len(errors) <= MAX_ERRORS:
            errors.append(FieldError(f"{pointer}/{row}", f"{cell[:64]!r} {JSON_LIST}"))
        labels.append(value)
    if errors:
        raise InvalidRequest(errors)
    return labels


def are_fractions(cells: Collection[str]) -> bool:
    """Return whether all cells are numbers, and one of them is not whole."""
    return all(map(NUMBER.fullmatch, cells)) and not all(float(cell).is_integer() for cell in cells)


def spellings(label: Label | None) -> list[str]:
    """Return the cells that mean a label."""
    if isinstance(label, bool):
        return [cell for cell, value in BOOLEANS.items() if value is label]
    return [] if label is None else [str(label)]


def is_integer(cell: str) -> bool:
    """Return whether a cell is a whole number of 64 bits."""
    return bool(WHOLE_NUMBER.fullmatch(cell)) and INT64_MIN <= int(cell.partition(".")[0]) <= INT64_MAX


def read_ids(cells: Sequence[str], id_type: type | None) -> list[SampleId]:
    """Return the ids in cells: integers if all are and `id_type` is not text, so that "007" stays text."""
    if id_type is str or not all(INTEGER.fullmatch(cell) and is_integer(cell) for cell in cells):
        return list(cells)
    return [int(cell) for cell in cells]
