"""Tables and the plot of a benchmark run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil, floor, log10
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from tests.benchmarks.growth import Cost
from tests.benchmarks.measure import MB
from tests.benchmarks.people import Traffic
from tests.benchmarks.profile_query import Profile
from tests.benchmarks.rows import Row
from tests.benchmarks.sizes import WIDTH

REACHED = {True: "yes", False: "NO", None: ""}
LINES = {
    "fit": ("/fit", "#7d828a"),
    "query_fresh": ("/query margin, fresh model", "#b5442e"),
    "query_auto": ("/query auto, fresh model", "#c9820a"),
    "query_default": ("/query margin, fresh default model", "#8a4fa3"),
    "label": ("/label, 100 records", "#3d7d3a"),
    "query_again": ("/query, again", "#0b6e99"),
}


def table(rows: Iterable[Row]) -> str:
    """Format the comparisons as a Markdown table with notes."""
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


def cost_table(costs: Iterable[Cost]) -> str:
    """Format cost against pool size as a Markdown table."""
    head = ("rows", *(name for name, _ in LINES.values()), "own memory")
    body = [
        (f"{cost.rows:,}", *(amount(getattr(cost, line), "ms") for line in LINES), amount(cost.own_mb, "MB"))
        for cost in costs
    ]
    return markdown(head, body)


def profile_table(profile: Profile) -> str:
    """Format a profile as a Markdown table, largest share first."""
    head = (f"{profile.work}: {amount(profile.milliseconds, 'ms')}", "share, over all threads")
    return markdown(head, [(line.line, f"{line.share:.0%}") for line in profile.lines])


def amount(value: float, unit: str) -> str:
    """Format a value to three digits."""
    return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"


def markdown(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Format a Markdown table."""
    widths = [max(len(line[column]) for line in (head, *body)) for column in range(len(head))]
    lines = [head, ["-" * max(width, 3) for width in widths], *body]
    return "\n".join(
        "| " + " | ".join(cell.ljust(max(width, 3)) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in lines
    )


def draw(costs: Sequence[Cost], path: Path) -> None:
    """Plot time and memory against the number of rows on logarithmic axes."""
    figure = Figure(figsize=(11, 5.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    n_rows = [cost.rows for cost in costs]
    for line, (name, colour) in LINES.items():
        # A repeated query is never slower than a fresh one, so its numbers fit below.
        draw_line(left, n_rows, [getattr(cost, line) for cost in costs], name, colour, below=line == "query_again")
    draw_line(right, n_rows, [cost.own_mb for cost in costs], "peak of one worker", "#5b4a8a")
    right.plot(n_rows, [n * WIDTH * 4 / MB for n in n_rows], "--", color="#7d828a", label="the pool on disk")
    finish(left, "milliseconds", "Time of one request")
    finish(right, "MB", "Memory")
    figure.savefig(path, dpi=150)


def draw_clients(traffic: Sequence[Traffic], path: Path) -> None:
    """Plot requests per second and the latency of queries against the number of clients."""
    figure = Figure(figsize=(11, 5.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    clients = [each.clients for each in traffic]
    draw_line(left, clients, [each.rate for each in traffic], "queries and labels", "#0b6e99")
    draw_line(right, clients, [each.p99 for each in traffic], "p99 of queries", "#b5442e")
    finish(left, "requests per second", "Requests", "clients")
    finish(right, "milliseconds", "Time of one query", "clients")
    figure.savefig(path, dpi=150)


def draw_line(
    axes: Axes, n_rows: list[int], values: list[float], name: str, colour: str, *, below: bool = False
) -> None:
    """Plot one line, each point with its value."""
    # A logarithmic scale cannot show zero.
    clipped = [max(value, 0.1) for value in values]
    axes.plot(n_rows, clipped, "o-", color=colour, linewidth=2, markersize=5, label=name)
    for x, y, value in zip(n_rows, clipped, values, strict=True):
        text = f"{value:,.0f}" if value >= 100 else f"{value:.2g}"
        axes.annotate(text, (x, y), (0, -15 if below else 7), color=colour, textcoords="offset points", ha="center")


def finish(axes: Axes, unit: str, title: str, against: str = f"rows of {WIDTH} float32") -> None:
    """Set scales, labels and grid."""
    axes.set_xscale("log")
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.set_ylim(10 ** floor(log10(low)), 10 ** ceil(log10(high * 1.5)))
    axes.margins(x=0.12)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
        axis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(against)
    axes.set_ylabel(unit)
    axes.set_title(title, loc="left", weight="bold")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(0, -0.14), ncols=2)  # below, clear of the lines
