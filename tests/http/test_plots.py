"""Plots as SVG and PNG, light and dark, from any thread."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from service.http.media_types import PNG, SVG
from service.http.plots import THEMES, Line, LinePlot, Plot, PointPlot, Points, Theme, render_plot

LINES = [
    Line("margin", [10, 20, 30], [0.5, 0.7, np.nan], [0.4, 0.6, np.nan], [0.6, 0.8, np.nan], is_marked=True),
    Line("random", [10, 20, 30], [0.5, 0.6, 0.65], is_reference=True),
]
MAP = PointPlot("The pool", [Points("rest", [0, 1], [1, 0], is_background=True), Points("$next$", [0.5], [0.5])])


def texts_of(svg: bytes) -> str:
    root = ET.fromstring(svg)  # noqa: S314 - drawn here
    assert root.tag.endswith("svg")
    return "".join(root.itertext())


def line_plot(*lines: Line) -> LinePlot:
    return LinePlot("Accuracy", "labels", "accuracy", lines)


@pytest.mark.slow
@pytest.mark.parametrize(
    "plot",
    [
        line_plot(*LINES),
        line_plot(),
        line_plot(Line("one", [5], [0.5], [0.4], [0.7])),
        line_plot(Line("gap", [5, 6], [np.nan, np.nan])),
        line_plot(*(Line(f"strategy {n}", [1, 2], [0.1, n / 12]) for n in range(12))),
        MAP,
        PointPlot("The pool", []),
    ],
    ids=["bands", "empty", "one point", "only gaps", "many lines", "map", "empty map"],
)
@pytest.mark.parametrize("theme", THEMES)
def test_every_plot_is_drawn_as_both_types(plot: Plot, theme: Theme) -> None:
    svg = render_plot(plot, SVG, theme)
    assert plot.title in texts_of(svg)
    assert svg == render_plot(plot, SVG, theme)
    assert render_plot(plot, PNG, theme).startswith(b"\x89PNG")


def test_text_stays_text_and_loads_nothing() -> None:
    svg = render_plot(MAP, SVG)
    assert "$next$" in texts_of(svg)
    assert b"<script" not in svg
    assert not re.search(rb'href="(?!#|data:image/png)', svg)


def test_threads_draw_the_same_plot() -> None:
    expected = render_plot(line_plot(*LINES), SVG)
    with ThreadPoolExecutor(4) as threads:
        drawn = list(threads.map(lambda _: render_plot(line_plot(*LINES), SVG), range(8)))
    assert set(drawn) == {expected}
