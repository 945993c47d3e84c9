"""What is shown of a run: tables, a picture of cost against pool size, and all the numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil, floor, log10
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from tests.benchmarks.growth import Cost
from tests.benchmarks.measure import MB
from tests.benchmarks.rows import Row
from tests.benchmarks.sizes import WIDTH
from tests.benchmarks.where import Profile

REACHED = {True: "yes", False: "NO", None: ""}
LINES = {
    "fit": ("/fit", "#7d828a"),
    "query_fresh": ("/query, fresh model", "#b5442e"),
    "label": ("/label, 100 records", "#3d7d3a"),
    "query_again": ("/query, again", "#0b6e99"),
}


def table(rows: Iterable[Row]) -> str:
    """The comparisons as a Markdown table, and below it what must be known of them."""
    head = ("", "work", "measured", "compared with", "", "ratio", "bar", "reached")
    body = [
        (
            *(str(row.number), row.work, amount(row.measured, row.unit), row.compared_with),
            *("" if row.reference is None else amount(row.reference, row.unit), ratio(row), row.bar),
            REACHED[row.reached],
        )
        for row in rows
    ]
    notes = [f"{row.number} {row.work}, {row.compared_with}: {row.note}" for row in rows if row.note]
    return "\n".join([markdown(head, body), "", *notes])


def ratio(row: Row) -> str:
    return "" if row.ratio is None else f"{row.ratio:.3g} x"


def table_of_costs(costs: Iterable[Cost]) -> str:
    """Cost against pool size as a Markdown table."""
    head = ("rows", *(name for name, _ in LINES.values()), "own memory")
    body = [
        (f"{cost.rows:,}", *(amount(getattr(cost, line), "ms") for line in LINES), amount(cost.own_mb, "MB"))
        for cost in costs
    ]
    return markdown(head, body)


def table_of_places(profile: Profile) -> str:
    """Where the time goes, most first."""
    head = (f"{profile.work}: {amount(profile.milliseconds, 'ms')}", "share of it, over all threads")
    return markdown(head, [(place.line, f"{place.share:.0%}") for place in profile.places])


def amount(value: float, unit: str) -> str:
    """A figure to three digits."""
    return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"


def markdown(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Lines of a table, as wide as they need to be."""
    widths = [max(len(line[column]) for line in (head, *body)) for column in range(len(head))]
    lines = [head, ["-" * max(width, 3) for width in widths], *body]
    return "\n".join(
        "| " + " | ".join(cell.ljust(max(width, 3)) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in lines
    )


def draw(costs: Sequence[Cost], path: Path) -> None:
    """Draw time and memory against the number of rows, all axes logarithmic."""
    figure = Figure(figsize=(11, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    n_rows = [cost.rows for cost in costs]
    for line, (name, colour) in LINES.items():
        # A repeated query is never dearer than a fresh one, so its figures have room below.
        draw_line(left, n_rows, [getattr(cost, line) for cost in costs], name, colour, below=line == "query_again")
    draw_line(right, n_rows, [cost.own_mb for cost in costs], "one worker's own, at most", "#5b4a8a")
    right.plot(n_rows, [n * WIDTH * 4 / MB for n in n_rows], "--", color="#7d828a", label="the pool on disk")
    finish(left, "milliseconds", "Time of one request")
    finish(right, "MB", "Memory")
    figure.savefig(path, dpi=150)


def draw_line(
    axes: Axes, n_rows: list[int], values: list[float], name: str, colour: str, *, below: bool = False
) -> None:
    """Draw one figure of all sizes, each point with its number."""
    # What is too small to be measured still has a place on a logarithmic scale.
    shown = [max(value, 0.1) for value in values]
    axes.plot(n_rows, shown, "o-", color=colour, linewidth=2, markersize=5, label=name)
    for x, y, value in zip(n_rows, shown, values, strict=True):
        text = f"{value:,.0f}" if value >= 100 else f"{value:.2g}"
        axes.annotate(text, (x, y), (0, -15 if below else 7), color=colour, textcoords="offset points", ha="center")


def finish(axes: Axes, unit: str, title: str) -> None:
    """Give the axes their scales, names and grid."""
    axes.set_xscale("log")
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.set_ylim(10 ** floor(log10(low)), 10 ** ceil(log10(high * 1.5)))
    axes.margins(x=0.12)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
        axis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(f"rows of {WIDTH} float32")
    axes.set_ylabel(unit)
    axes.set_title(title, loc="left", weight="bold")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper left")
