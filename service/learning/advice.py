"""Notes on a fit: what in its features and labels makes the model worse, and what to do about it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.domain.labels import Label
from service.domain.project import EstimatorSpec
from service.learning.estimators import ESTIMATORS, is_unscaled_linear
from service.learning.pool import Features, Matrix
from service.learning.preprocessing import as_float64, largest_magnitudes

UNEQUAL = 100.0
"""Ratio of the ranges of two features above which their scales are very unequal."""

SMALL_RANGES = 0.1
"""Share of the features whose ranges may be smaller: almost constant ones, such as pixels at the edge of a picture."""

RARE = 0.01
"""Share of the labels under which a class is rare."""

MAX_NAMED = 5
"""How many classes a note names."""


def notes_on_fit(
    spec: EstimatorSpec, X: Features, codes: NDArray[np.integer[Any]], classes: Sequence[Label]
) -> tuple[str, ...]:
    """Return notes on an estimator and its labelled rows `X` (l, d), whose labels are `classes` by their codes (l,)."""
    counts = np.bincount(codes, minlength=len(classes)).tolist()
    return notes_on_counts(spec, X, counts, len(codes), classes)


def notes_on_counts(
    spec: EstimatorSpec, X: Features, counts: Sequence[int], n_labels: int, classes: Sequence[Label]
) -> tuple[str, ...]:
    """Return notes on an estimator and its labelled rows `X` (l, d), of which `counts` (c,) have each class."""
    notes = note_of_scale(spec, X), note_of_few(classes, counts), note_of_rare(spec, classes, counts, n_labels)
    return tuple(filter(None, notes))


def notes_on_scale(spec: EstimatorSpec, X: Features) -> tuple[str, ...]:
    """Return the note on the scale of the features alone, if there is one."""
    return tuple(filter(None, [note_of_scale(spec, X)]))


def note_of_scale(spec: EstimatorSpec, X: Features) -> str | None:
    """Return a note on features of very unequal scale under a linear model that does not scale them."""
    if not is_unscaled_linear(spec):
        return None
    ranges = ranges_of(X)
    ranges = np.sort(ranges[ranges > 0])
    if len(ranges) == 0:
        return None
    largest, small = float(ranges[-1]), float(ranges[int(SMALL_RANGES * len(ranges))])
    if not largest > UNEQUAL * small:
        return None
    return (
        f"features: their ranges differ widely, from {small:.3g} to {largest:.3g}, and {spec.name} does not scale "
        'them: set its parameter "scale" to true, or use the estimator "auto"'
    )


def ranges_of(X: Features) -> Matrix:
    """Return the range of each feature (d,); of sparse ones the largest magnitude."""
    X = as_float64(X)
    with np.errstate(over="ignore", invalid="ignore"):
        if not isinstance(X, np.ndarray):
            return largest_magnitudes(X)
        ranges: Matrix = np.fmax.reduce(X) - np.fmin.reduce(X)  # which skip missing values
    return ranges


def note_of_few(classes: Sequence[Label], counts: Sequence[int]) -> str | None:
    """Return a note on classes with fewer than two labels."""
    few = [f"{quote(label)} ({count})" for label, count in zip(classes, counts, strict=True) if count < 2]
    if not few:
        return None
    return f"classes with fewer than two labels, which the model can hardly learn: {listed(few)}"


def note_of_rare(spec: EstimatorSpec, classes: Sequence[Label], counts: Sequence[int], total: int) -> str | None:
    """Return a note on classes with two labels or more, but under one per cent of all labels."""
    rare = [
        f"{quote(label)} ({count / total:.1%})"
        for label, count in zip(classes, counts, strict=True)
        if 2 <= count < RARE * total
    ]
    if not rare:
        return None
    can_weigh = any(parameter.name == "class_weight" for parameter in ESTIMATORS[spec.name].parameters)
    advice = can_weigh and spec.params["class_weight"] is None
    cure = '; "class_weight": "balanced" gives all classes the same weight' if advice else ""
    return f"classes with under 1 % of the labels, which the model seldom predicts: {listed(rare)}{cure}"


def quote(label: Label) -> str:
    """Return a label as JSON."""
    return json.dumps(label, ensure_ascii=False)


def listed(names: Sequence[str]) -> str:
    """Return names as one text, and how many more there are."""
    more = len(names) - MAX_NAMED
    return ", ".join(names[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")
