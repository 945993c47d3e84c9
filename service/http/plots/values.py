"""Plots as plain values, without the library that draws them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Theme = Literal["light", "dark"]

Numbers = Sequence[float] | NDArray[np.integer | np.floating]

SCORE_LABELS = {"rmse": "RMSE", "f1_micro": "micro-averaged F1"}
"""Scores whose label on an axis is not their name."""


@dataclass(frozen=True, slots=True, eq=False)
class Line:
    """A line through points, with a band from `low` to `high` if they are given; NaN leaves a gap.

    `is_marked` draws the points too. The colour is that of its position in the plot, grey for a `reference`.
    """

    name: str
    x: Numbers
    y: Numbers
    low: Numbers | None = None
    high: Numbers | None = None
    is_marked: bool = False
    is_reference: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class LinePlot:
    """Lines over a common axis. `is_share` shows y as percentages. `note` stands in an empty plot."""

    title: str
    x_label: str
    y_label: str
    lines: Sequence[Line]
    is_share: bool = True
    note: str = "nothing to show yet"
    size: tuple[float, float] = (8.0, 4.5)


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """A group of points (n,); `is_background` draws them small and grey, others are numbered like lines."""

    name: str
    x: Numbers
    y: Numbers
    is_background: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class PointPlot:
    """Groups of points in a plane, the later ones above the earlier ones."""

    title: str
    groups: Sequence[Points]
    note: str = "nothing to show yet"
    size: tuple[float, float] = field(default=(8.0, 5.5))


Plot = LinePlot | PointPlot
