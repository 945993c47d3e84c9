"""Labels that are lists of classes, and indicator matrices, which have a column for each class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from marshmallow import ValidationError
from numpy.typing import NDArray

from service.domain.label_sets import IndicatorLabels
from service.domain.labels import EncodedLabels, Label, wrong_label
from service.domain.project import quote_label, type_name
from service.http.schemas.fields import first_few
from service.learning.pool import SparseRows
from service.store.staging import StagedRows


class ClassLists:
    """Checks lists of classes, which all have the type of the first one."""

    def __init__(self) -> None:
        self._first: Label | None = None

    def wrong(self, value: Any) -> str | dict[int, list[str]] | None:
        """Return what is wrong with a list of classes, or with some of them by position; None if it is a label."""
        if not isinstance(value, list):
            return "must be a list of classes; [] says that the sample has none of them"
        return first_few(self._wrong_members(value)) or None

    def _wrong_members(self, value: list[Any]) -> Iterator[tuple[int, str]]:
        seen: set[Label] = set()
        for position, each in enumerate(value):
            if problem := wrong_label(each):
                yield position, problem
                continue
            self._first = each if self._first is None else self._first
            if type(each) is not type(self._first):
                yield position, f"is {type_name(each)}, but the first class is {type_name(self._first)}"
            elif each in seen:
                yield position, f"{quote_label(each)} is listed twice"
            seen.add(each)


def encode_class_lists(values: Sequence[Any], *, null_is: str | None) -> EncodedLabels:
    """Return labels that are lists of classes as codes; null is unlabelled, or the error `null_is`.

    The value of a code is the sorted tuple of its classes. Raises ValidationError for what is wrong, by position.
    """
    found: dict[Label | None, int] = {None: -1}
    codes = np.full(len(values), -1, np.int32)
    lists = ClassLists()

    def problems() -> Iterator[tuple[int, Any]]:
        for position, value in enumerate(values):
            if problem := null_is if value is None else lists.wrong(value):
                yield position, problem
            elif value is not None:
                codes[position] = found.setdefault(tuple(sorted(value)), len(found) - 1)

    if wrong := first_few(problems()):
        raise ValidationError(wrong)
    return EncodedLabels(tuple(label for label in found if label is not None), codes)


def encode_indicators(matrix: NDArray[Any], *, nan_is: str | None) -> IndicatorLabels:
    """Return the labels of an indicator matrix (n, c) of 0 and 1.

    A row of NaN alone is unlabelled, or the error `nan_is`. Raises ValidationError by row.
    """
    if matrix.dtype.kind not in "fiub":
        raise ValidationError(f"has dtype {matrix.dtype}; an indicator matrix holds 0 and 1")
    is_given = ~np.isnan(matrix).all(axis=1) if matrix.dtype.kind == "f" else np.ones(len(matrix), np.bool_)
    mask = matrix == 1
    is_wrong = is_given[:, np.newaxis] & ~mask & (matrix != 0)
    rows = np.flatnonzero(is_wrong.any(axis=1) | (~is_given & (nan_is is not None)))
    if len(rows):
        column = is_wrong.argmax(axis=1)
        raise ValidationError(
            first_few(
                (row, {int(column[row]): ["must be 0 or 1"]} if is_given[row] else nan_is) for row in rows.tolist()
            )
        )
    distinct, inverse = np.unique(np.packbits(mask[is_given], axis=1), axis=0, return_inverse=True)
    codes = np.full(len(matrix), -1, np.int32)
    codes[is_given] = inverse.reshape(-1)
    bits = np.unpackbits(distinct, axis=1, count=matrix.shape[1])
    return IndicatorLabels(matrix.shape[1], tuple(tuple(np.flatnonzero(row).tolist()) for row in bits), codes)


def encode_sparse_indicators(staged: StagedRows) -> IndicatorLabels:
    """Return the labels of a sparse indicator matrix (n, c); a row without a 1 has none of the classes.

    Raises ValidationError for the first row with another value than 0 and 1.
    """
    rows = staged.open()
    if not isinstance(rows, SparseRows):
        raise TypeError("the rows are dense")
    values, columns, starts = np.asarray(rows.data), np.asarray(rows.indices), np.asarray(rows.indptr)
    wrong = np.flatnonzero((values != 0) & (values != 1))
    if len(wrong):
        row = int(np.searchsorted(starts, wrong[0], side="right")) - 1
        raise ValidationError({row: {int(columns[wrong[0]]): ["must be 0 or 1"]}})
    found: dict[tuple[int, ...], int] = {}
    sets = (tuple(columns[a:b][values[a:b] == 1].tolist()) for a, b in pairwise(starts.tolist()))
    codes = np.fromiter((found.setdefault(one, len(found)) for one in sets), np.int32, len(rows))
    return IndicatorLabels(rows.n_columns, tuple(found), codes)
