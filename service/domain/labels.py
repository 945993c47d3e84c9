"""Labels: their types, what is none, and many of them as codes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Label = str | int | bool | float | tuple[Any, ...]
"""A class, a number where the target is one, or the classes of a sample that may have several, sorted."""

Values = tuple[Label, ...] | list[Label] | NDArray[np.float64]
"""Distinct labels of one type; numbers that are not all whole are an array."""

MAX_LABEL_LENGTH = 256
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1

LARGEST_NUMBER = 1e100
"""Largest magnitude of a number as a label: sums of squares of millions of them are numbers, too."""

MISSING_SPELLINGS = frozenset({"", "nan", "NaN", "None", "null", "<NA>", "N/A"})
"""Texts that tables have for a missing label, with or without blanks around them."""


def wrong_label(value: Any) -> str | None:
    """Return why a value is not a label, or None if it is one."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        return None if 1 <= len(value) <= MAX_LABEL_LENGTH else f"must be 1 to {MAX_LABEL_LENGTH} characters long"
    if isinstance(value, int):
        return None if INT64_MIN <= value <= INT64_MAX else "must fit 64 bits"
    return "must be a label: a string, an integer or a boolean"


def wrong_number(value: Any) -> str | None:
    """Return why a value is not a number that can be a label, or None if it is one."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and abs(value) <= LARGEST_NUMBER:
        return None
    return f"must be a number from {-LARGEST_NUMBER:g} to {LARGEST_NUMBER:g}"


def is_blank(value: Any) -> bool:
    """Return whether a value is text without a visible character."""
    return isinstance(value, str) and not value.strip()


def is_same_label(label: Label, other: Label) -> bool:
    """Return whether two labels have one type and are equal, for text apart from blanks around it."""
    if isinstance(label, str) and isinstance(other, str):
        return label.strip() == other.strip()
    return type(label) is type(other) and label == other


def missing_spellings(values: Sequence[Label], classes: Sequence[Label]) -> list[int]:
    """Return the positions of the values that probably mean a missing label and are not among the classes.

    These are MISSING_SPELLINGS, and the integer -1 if no other value or class is negative (scikit-learn's convention).
    """
    known = set(classes)
    new = [(position, value) for position, value in enumerate(values) if value not in known]
    if not new:
        return []
    only_minus_one = all(value >= 0 for value in {*values, *classes} - {-1} if type(value) is int)
    return [
        position
        for position, value in new
        if (value.strip() in MISSING_SPELLINGS if isinstance(value, str) else value == -1 and only_minus_one)
    ]


@dataclass(frozen=True, slots=True, eq=False)
class EncodedLabels:
    """n labels as codes: `values[codes[i]]` is the i-th label, and a code of -1 means unlabelled.

    The values are distinct. `float_rows` are the first rows of a list that hold no integer, where numbers are labels.
    """

    values: Values
    codes: NDArray[np.int32]
    float_rows: tuple[int, ...] = ()

    @property
    def are_numbers(self) -> bool:
        """Whether the labels are an array of numbers."""
        return isinstance(self.values, np.ndarray)

    @classmethod
    def encode(cls, labels: Iterable[Label | None]) -> EncodedLabels:
        """Encode labels of one type, in the order in which they first appear."""
        table: dict[Label | None, int] = {None: -1}
        codes = np.fromiter((table.setdefault(label, len(table) - 1) for label in labels), dtype=np.int32)
        return cls(tuple(label for label in table if label is not None), codes)

    @classmethod
    def of_numbers(cls, numbers: NDArray[np.float64]) -> EncodedLabels:
        """Encode numbers (n,), of which NaN means unlabelled."""
        given = ~np.isnan(numbers)
        values, inverse = np.unique(numbers[given] + 0.0, return_inverse=True)  # -0.0 becomes 0.0
        codes = np.full(len(numbers), -1, np.int32)
        codes[given] = inverse
        return cls(values, codes)

    def without(self, missing: Label) -> EncodedLabels:
        """Return the labels with those that are the same as `missing` as unlabelled."""
        if isinstance(self.values, np.ndarray):
            is_kept = np.append(self.values != missing, False)
        else:
            is_kept = np.array([not is_same_label(value, missing) for value in self.values] + [False])
        if is_kept[:-1].all():
            return self
        new_codes = np.where(is_kept, np.cumsum(is_kept) - 1, -1).astype(np.int32)
        if isinstance(self.values, np.ndarray):
            return EncodedLabels(self.values[is_kept[:-1]], new_codes[self.codes])
        values = tuple(value for value, kept in zip(self.values, is_kept[:-1], strict=True) if kept)
        return EncodedLabels(values, new_codes[self.codes])

    def only(self, is_kept: NDArray[np.bool_]) -> EncodedLabels:
        """Return the labels with those of the other rows as unlabelled."""
        codes = np.where(is_kept, self.codes, np.int32(-1))
        used, new_codes = np.unique(np.append(codes, np.int32(-1)), return_inverse=True)
        if isinstance(self.values, np.ndarray):
            return EncodedLabels(self.values[used[1:]], (new_codes[:-1] - 1).astype(np.int32))
        values = tuple(self.values[code] for code in used[1:].tolist())
        return EncodedLabels(values, (new_codes[:-1] - 1).astype(np.int32))
