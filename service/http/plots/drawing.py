"""Drawing of plots with matplotlib, on figures of their own: any thread may draw."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator, PercentFormatter

from service.http.plots.values import Line, LinePlot, Plot, PointPlot, Points, Theme

mpl.rcParams.update(
    {
        "svg.fonttype": "none",  # text stays text
        "svg.hashsalt": "active-query",  # the same plot gives the same ids
        "text.parse_math": False,  # a name with two dollar signs is no formula
        "font.family": ["sans-serif"],  # the widths are those of DejaVu Sans; a browser takes its own
    }
)

DRAWING = Lock()
"""Held while a figure is drawn: matplotlib's caches of fonts are shared by all threads."""

DOTS_PER_INCH = 120

NARROW = 6
"""Inches below which a legend has two columns."""


@dataclass(frozen=True, slots=True)
class Palette:
    """The colours of a theme."""

    surface: str
    ink: str
    muted: str
    grid: str
    reference: str
    series: tuple[str, ...]


PALETTES: dict[Theme, Palette] = {
    "light": Palette(
        surface="#ffffff",
        ink="#1b1f24",
        muted="#57606a",
        grid="#e3e6ea",
        reference="#7d828a",
        series=("#0b6e99", "#b3541e", "#2f7d4f", "#7a4fb5", "#a6306b", "#6b6a00", "#1f5fbf", "#8a4b2a"),
    ),
    "dark": Palette(
        surface="#14181d",
        ink="#e6eaef",
        muted="#a3acb7",
        grid="#2c333b",
        reference="#98a0aa",
        series=("#5bb8e0", "#f0995c", "#6ec98f", "#b79af0", "#ee86b7", "#cfcb4f", "#86b4ff", "#d6a184"),
    ),
}

LINE_STYLES = ("-", "--", "-.", ":")
"""Lines also differ by their style, for those who cannot tell the colours."""

MARKERS = ("o", "s", "^", "D")


def draw(plot: Plot, file_format: Literal["svg", "png"], theme: Theme) -> bytes:
    """Return a plot as a file."""
    palette = PALETTES[theme]
    figure = Figure(figsize=plot.size, layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1), facecolor=palette.surface)
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.set_facecolor(palette.surface)
    if isinstance(plot, LinePlot):
        draw_lines(figure, axes, plot, palette)
    else:
        draw_points(figure, axes, plot, palette)
    axes.set_title(plot.title, loc="left", weight="bold", color=palette.ink)
    file = io.BytesIO()
    metadata = {"Title": plot.title, "Date": None} if file_format == "svg" else {"Title": plot.title}
    with DRAWING:
        figure.savefig(file, format=file_format, dpi=DOTS_PER_INCH, metadata=metadata)
    return file.getvalue()


def draw_lines(figure: Figure, axes: Axes, plot: LinePlot, palette: Palette) -> None:
    """Draw the lines of a plot with their axes."""
    n_coloured = 0
    for line in plot.lines:
        draw_line(axes, line, palette, n_coloured)
        n_coloured += not line.is_reference
    axes.set_xlabel(plot.x_label, color=palette.muted)
    axes.set_ylabel(plot.y_label, color=palette.muted)
    axes.tick_params(colors=palette.muted, which="both")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(color=palette.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(palette.grid)
    axes.margins(y=0.08)
    if plot.is_share:
        keep_within_shares(axes)
    finish(figure, axes, has_content(plot.lines), plot.note, palette)


def draw_line(axes: Axes, line: Line, palette: Palette, nth: int) -> None:
    """Draw a line, the nth coloured one, and its band."""
    colour = palette.reference if line.is_reference else palette.series[nth % len(palette.series)]
    style = LINE_STYLES[nth // len(palette.series) % len(LINE_STYLES)] if not line.is_reference else "--"
    y = np.asarray(line.y, np.float64)
    is_sparse = line.is_marked or np.count_nonzero(np.isfinite(y)) < 2
    marker = MARKERS[nth % len(MARKERS)] if is_sparse else None
    axes.plot(line.x, y, style, color=colour, linewidth=1.8, marker=marker, markersize=4, label=line.name)
    if line.low is not None and line.high is not None:
        low, high = np.asarray(line.low, np.float64), np.asarray(line.high, np.float64)
        if len(low) == 1 and np.isfinite(y[0]):
            axes.errorbar(line.x, y, [y - low, high - y], color=colour, capsize=4)
        axes.fill_between(line.x, low, high, color=colour, alpha=0.18, linewidth=0)


def keep_within_shares(axes: Axes) -> None:
    """Show y as percentages, and no part of the axis far outside 0 to 100 %."""
    low, high = axes.get_ylim()
    low, high = max(low, -0.02), min(high, 1.02)
    axes.set_ylim(min(low, high - 0.04), max(high, low + 0.04))
    axes.set_yticks([tick for tick in axes.get_yticks() if 0.0 <= tick <= 1.0 + 1e-9])  # which moves the limits
    axes.set_ylim(min(low, high - 0.04), max(high, low + 0.04))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))


def draw_points(figure: Figure, axes: Axes, plot: PointPlot, palette: Palette) -> None:
    """Draw the groups of a plot, without axes: their numbers mean nothing."""
    n_coloured = 0
    for nth, group in enumerate(plot.groups):
        if group.is_background:
            colour, size, marker = palette.reference, 6, "o"
        else:
            colour = palette.series[n_coloured % len(palette.series)]
            size, marker = 22, MARKERS[n_coloured % len(MARKERS)]
            n_coloured += 1
        alpha = 0.5 if group.is_background else 0.9
        axes.scatter(
            group.x,
            group.y,
            s=size,
            c=colour,
            marker=marker,
            alpha=alpha,
            linewidths=0,
            label=group.name,
            zorder=nth,
            rasterized=group.is_background,  # thousands of points are smaller as an image
        )
    axes.set_axis_off()
    finish(figure, axes, has_content(plot.groups), plot.note, palette)


def has_content(parts: Sequence[Line | Points]) -> bool:
    """Return whether any part of a plot has a finite point."""
    return any(np.isfinite(np.asarray(part.y, np.float64)).any() for part in parts)


def finish(figure: Figure, axes: Axes, is_filled: bool, note: str, palette: Palette) -> None:
    """Add the legend, or the note of an empty plot."""
    if not is_filled:
        axes.set(xticks=[], yticks=[])
        axes.text(0.5, 0.5, note, transform=axes.transAxes, ha="center", va="center", color=palette.muted)
        return
    ncols = 3 if figure.get_figwidth() > NARROW else 2
    figure.legend(loc="outside lower center", ncols=ncols, frameon=False, labelcolor=palette.ink)
