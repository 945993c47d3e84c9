"""One line of the result: what was measured, what it is held against, and whether that is good enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median


@dataclass(frozen=True)
class Row:
    """One comparison of one run.

    `ratio` is None where there is nothing to compare with, `reached` where the design asks for nothing.
    The samples are in the unit of what they were taken for; `measured` and `reference` are their medians.
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
    """A figure that must not exceed a limit of its own unit."""
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
    """How many times another figure ours is."""
    row = Row(number, work, median(ours), unit, compared_with, median(theirs))
    return judged(row, row.measured / median(theirs), ours, theirs, at_most=at_most, at_least=at_least)


def faster(
    number: int, work: str, ours: Sequence[float], compared_with: str, theirs: Sequence[float], at_least: float | None
) -> Row:
    """How many times faster we are, in milliseconds; without any times of theirs, only ours are told."""
    reference = median(theirs) if theirs else None
    row = Row(number, work, median(ours), "ms", compared_with, reference)
    return judged(row, reference and reference / row.measured, ours, theirs, at_least=at_least)


def judged(
    row: Row,
    ratio: float | None,
    ours: Sequence[float],
    theirs: Sequence[float],
    *,
    at_most: float | None = None,
    at_least: float | None = None,
) -> Row:
    """Add the ratio, the bar in words and, where there are both, whether the one reaches the other."""
    bar, reached = "", None
    if at_most is not None:
        bar, reached = f"at most {at_most:g} x", ratio is not None and ratio <= at_most
    elif at_least is not None:
        bar, reached = f"at least {at_least:g} x", ratio is not None and ratio >= at_least
    if ratio is None:
        reached = None
    return replace(row, ratio=ratio, bar=bar, reached=reached, samples=tuple(ours), reference_samples=tuple(theirs))
