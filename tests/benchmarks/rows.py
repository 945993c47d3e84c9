"""Rows of the result: a measurement, its reference, and the target for their ratio."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median


@dataclass(frozen=True)
class Row:
    """One comparison. `measured` and `reference` are medians of the samples, in `unit`.

    `ratio` is None without a reference, `reached` is None without a target.
    """

    number: int
    work: str
    measured: float
    unit: str
    compared_with: str
    reference: float | None = None
    ratio: float | None = None
    bar: str = ""
    reached: bool | None = None
    note: str = ""
    samples: tuple[float, ...] = ()
    reference_samples: tuple[float, ...] = ()


def at_most(number: int, work: str, measured: float, unit: str, limit: float) -> Row:
    """Return a row whose value must not exceed a limit."""
    return Row(number, work, measured, unit, "", bar=f"at most {limit:g} {unit}", reached=measured <= limit)


def times(
    number: int,
    work: str,
    ours: Sequence[float],
    unit: str,
    compared_with: str,
    theirs: Sequence[float],
    *,
    at_most: float | None = None,
    at_least: float | None = None,
) -> Row:
    """Return a row with the ratio of our median to theirs."""
    row = Row(number, work, median(ours), unit, compared_with, median(theirs))
    return with_ratio(row, row.measured / median(theirs), ours, theirs, at_most=at_most, at_least=at_least)


def faster(
    number: int, work: str, ours: Sequence[float], compared_with: str, theirs: Sequence[float], at_least: float | None
) -> Row:
    """Return a row with the speed-up over theirs in milliseconds; without times of theirs, ours alone."""
    reference = median(theirs) if theirs else None
    row = Row(number, work, median(ours), "ms", compared_with, reference)
    return with_ratio(row, reference and reference / row.measured, ours, theirs, at_least=at_least)


def with_ratio(
    row: Row,
    ratio: float | None,
    ours: Sequence[float],
    theirs: Sequence[float],
    *,
    at_most: float | None = None,
    at_least: float | None = None,
) -> Row:
    """Return the row with ratio, target and whether the ratio meets it."""
    bar, reached = "", None
    if at_most is not None:
        bar, reached = f"at most {at_most:g} x", ratio is not None and ratio <= at_most
    elif at_least is not None:
        bar, reached = f"at least {at_least:g} x", ratio is not None and ratio >= at_least
    if ratio is None:
        reached = None
    return replace(row, ratio=ratio, bar=bar, reached=reached, samples=tuple(ours), reference_samples=tuple(theirs))
