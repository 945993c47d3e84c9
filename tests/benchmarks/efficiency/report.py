"""Markdown tables and plots of the runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from math import ceil
from pathlib import Path
from statistics import mean

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from tests.benchmarks.efficiency.defaults import auc_table, defaults_table, summary_table
from tests.benchmarks.efficiency.runs import DEFAULT
from tests.benchmarks.efficiency.statistics import (
    METRICS,
    SIGNIFICANT,
    Cell,
    Difference,
    Needed,
    Runs,
    against,
    by_set,
    cell_of,
    curves_of,
    holm,
    needed_by_set,
)
from tests.benchmarks.report import markdown

BASELINE = "random"
MAIN_METRIC = "f1_macro"
DETAILED = ("auto", "margin")
"""Strategies that are compared on each data set."""
COLOURS = {"auto": "#0b6e99", "margin": "#b5442e", BASELINE: "#7d828a"}
MORE_COLOURS = ("#3d7d3a", "#5b4a8a", "#c08a1e", "#2aa198", "#8c564b", "#d33682")


def report(runs: Runs) -> str:
    """Return all tables, each with a heading."""
    parts = [f"Areas under learning curves of {len(curves_of(runs))} runs, over {len({r.seed for r in runs})} seeds."]
    if any(run.model == DEFAULT for run in runs):
        parts += ["## The defaults, cold starts, in points: auto / margin less random", defaults_table(runs)]
        parts += [auc_table(runs), summary_table(runs)]
    for metric in METRICS:
        parts += [f"## {METRICS[metric]}: mean difference from {BASELINE} in points (data sets won / all)"]
        parts += [overview(runs, metric)]
    for strategy in [name for name in DETAILED if name in strategies_of(runs)]:
        parts += [f"## {strategy} against {BASELINE}, by data set, 95 % intervals over seeds", verdict(runs, strategy)]
        parts += [
            losses(runs, strategy),
            f"### Labels to 95 % of the full score, {METRICS[MAIN_METRIC]}, batches of 10",
        ]
        parts += [table_of_needed(runs, strategy)]
    if {"auto", "margin"} <= set(strategies_of(runs)):
        parts += ["## auto against margin", verdict(runs, "auto", "margin"), losses(runs, "auto", "margin")]
    return "\n\n".join(parts)


def strategies_of(runs: Runs) -> list[str]:
    """Return the strategies of the runs without the baseline, sorted."""
    return sorted({run.strategy for run in curves_of(runs)} - {BASELINE})


def cells_of(runs: Runs) -> list[Cell]:
    """Return the cells of the runs, sorted."""
    return sorted({cell_of(run) for run in curves_of(runs)}, key=lambda cell: (cell.start, cell.batch_size, cell.model))


def overview(runs: Runs, metric: str) -> str:
    """Format for each strategy and cell the mean difference of areas from random selection, in points."""
    cells = cells_of(runs)
    lines = []
    for strategy in strategies_of(runs):
        differences = against(runs, strategy, BASELINE, metric)
        shown = []
        for cell in cells:
            of_sets = [mean(seeds.values()) for (_, each), seeds in differences.items() if each == cell]
            shown.append(f"{100 * mean(of_sets):+.1f} ({wins(of_sets)}/{len(of_sets)})" if of_sets else "")
        lines.append((strategy, *shown))
    head = (METRICS[metric], *(f"{short(cell.model)}, {cell.start}, b = {cell.batch_size}" for cell in cells))
    return markdown(head, lines)


def wins(differences: Sequence[float]) -> int:
    """Count the positive differences."""
    return sum(difference > 0 for difference in differences)


def short(model: str) -> str:
    """Return the short name of a model."""
    return {"logistic_regression": "linear", "random_forest": "forest", "auto": "default"}[model]


def verdict(runs: Runs, strategy: str, baseline: str = BASELINE) -> str:
    """Compare two strategies on each data set by each metric, in points of area over all cells.

    Marks a difference that is significantly worse: one-sided paired t-test, Holm-corrected over the table.
    """
    found = {metric: by_set(against(runs, strategy, baseline, metric)) for metric in METRICS}
    tests = [(metric, data) for metric, of_sets in found.items() for data in of_sets]
    corrected = dict(zip(tests, holm([found[metric][data].p_worse for metric, data in tests]), strict=True))
    lines = [
        (data, *(format_difference(found[metric].get(data), corrected.get((metric, data), 1.0)) for metric in METRICS))
        for data in sorted({data for _, data in tests})
    ]
    return markdown((f"{strategy} - {baseline}", *METRICS.values()), lines)


def format_difference(difference: Difference | None, p_corrected: float) -> str:
    """Format a difference in points with its confidence interval, and a mark if it is significantly negative."""
    if difference is None:
        return ""
    if difference.n_seeds == 1:
        return f"{100 * difference.mean:+.1f} (one seed)"
    mark = " WORSE" if difference.mean < 0 and p_corrected < SIGNIFICANT else ""
    return f"{100 * difference.mean:+.1f} [{100 * difference.low:+.1f}, {100 * difference.high:+.1f}]{mark}"


def losses(runs: Runs, strategy: str, baseline: str = BASELINE) -> str:
    """List the cells in which a strategy is worse, each tested on its own, and count those that remain after Holm."""
    cells = [
        (metric, data, cell, Difference.of(list(seeds.values())))
        for metric in METRICS
        for (data, cell), seeds in against(runs, strategy, baseline, metric).items()
    ]
    corrected = holm([difference.p_worse for *_, difference in cells])
    worst = [
        (
            data,
            f"{short(cell.model)}, {cell.start}, b = {cell.batch_size}",
            METRICS[metric],
            format_difference(each, p),
            f"{p:.2g}",
        )
        for (metric, data, cell, each), p in sorted(
            zip(cells, corrected, strict=True), key=lambda pair: pair[0][3].mean
        )
        if each.p_worse < SIGNIFICANT
    ]
    n_better = sum(each.low > 0 for *_, each in cells)
    n_worse_corrected = sum(p < SIGNIFICANT for p in corrected)
    summary = (
        f"{strategy} against {baseline}, each cell on its own: of {len(cells)}, {n_better} are better (95 % interval "
        f"above 0), {len(worst)} worse (p < 5 % uncorrected), {n_worse_corrected} worse after Holm."
    )
    head = ("data set", "cell", "metric", f"{strategy} - {baseline}", "p (Holm)")
    return "\n".join([summary, "", markdown(head, worst)] if worst else [summary])


def table_of_needed(runs: Runs, strategy: str) -> str:
    """Format for each data set the labels needed for 95 % of the full score, in batches of 10."""
    cells = [cell for cell in cells_of(runs) if cell.batch_size == 10]
    found = needed_by_set(runs, strategy, BASELINE, MAIN_METRIC, cells)
    lines = [(data, *needed_cells(found[data])) for data in sorted(found)]
    return markdown(("data set", f"{strategy}: labels", "reached", f"{BASELINE}: labels", "reached"), lines)


def needed_cells(needed: Needed) -> tuple[str, ...]:
    return (
        *(number(needed.labels), f"{needed.n_reached} of {needed.n_runs}"),
        *(number(needed.baseline), f"{needed.n_reached_by_baseline} of {needed.n_runs}"),
    )


def number(labels: float) -> str:
    """Format a number of labels."""
    return "not reached" if np.isinf(labels) else f"{labels:.0f}"


def draw_all(runs: Runs, out: Path) -> Iterator[Path]:
    """Plot the curves of each cell and the differences of all strategies; yield the paths."""
    for cell in cells_of(runs):
        path = out / f"curves-{short(cell.model)}-{cell.start}-{cell.batch_size}.png"
        draw_curves(runs, cell, path)
        yield path
    path = out / "differences.png"
    if any(against(runs, strategy, BASELINE, MAIN_METRIC) for strategy in strategies_of(runs)):
        draw_differences(runs, path)
        yield path


def draw_curves(runs: Runs, cell: Cell, path: Path) -> None:
    """Plot the mean learning curve of each strategy on each data set, with a band of one standard error."""
    grouped: dict[str, dict[str, list[tuple[Sequence[int], Sequence[float]]]]] = defaultdict(lambda: defaultdict(list))
    for run, curve in curves_of(runs).items():
        if cell_of(run) == cell:
            grouped[run.data][run.strategy].append((curve.labels, curve.scores[MAIN_METRIC]))
    columns = min(len(grouped), 5)
    rows = ceil(len(grouped) / columns)
    figure = Figure(figsize=(3.2 * columns, 2.7 * rows + 0.9), layout="constrained")
    all_axes = figure.subplots(rows, columns, squeeze=False).ravel()
    colours = colours_of(sorted({strategy for of_data in grouped.values() for strategy in of_data}))
    for axes, (data, of_strategies) in zip(all_axes, sorted(grouped.items()), strict=False):
        for strategy, curves in sorted(of_strategies.items()):
            draw_curve(axes, strategy, curves, colours[strategy])
        axes.set_title(data, loc="left", weight="bold")
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in all_axes[len(grouped) :]:
        axes.set_visible(False)
    lines = {line.get_label(): line for axes in all_axes for line in axes.get_lines()}
    figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=min(len(lines), 7), frameon=False)
    figure.suptitle(
        f"{METRICS[MAIN_METRIC]} against labels: {cell.model}, {cell.start} start, batches of {cell.batch_size}"
    )
    figure.savefig(path, dpi=110)


def colours_of(strategies: Sequence[str]) -> dict[str, str]:
    """Return a colour for each strategy; the main ones keep theirs."""
    others = [strategy for strategy in strategies if strategy not in COLOURS]
    return COLOURS | {name: MORE_COLOURS[nth % len(MORE_COLOURS)] for nth, name in enumerate(others)}


def draw_curve(axes: Axes, strategy: str, curves: Sequence[tuple[Sequence[int], Sequence[float]]], colour: str) -> None:
    """Plot the mean of curves that have the same numbers of labels."""
    labels = curves[0][0]
    scores = np.array([of_run for n, of_run in curves if list(n) == list(labels)])
    middle = scores.mean(axis=0)
    axes.plot(labels, middle, color=colour, linewidth=1.6, label=strategy)
    if len(scores) > 1:
        error = scores.std(axis=0, ddof=1) / np.sqrt(len(scores))
        axes.fill_between(labels, middle - error, middle + error, color=colour, alpha=0.15, linewidth=0)


def draw_differences(runs: Runs, path: Path) -> None:
    """Plot the mean difference from random selection of each strategy on each data set as a heat map."""
    strategies = strategies_of(runs)
    found = {strategy: by_set(against(runs, strategy, BASELINE, MAIN_METRIC)) for strategy in strategies}
    data = sorted({name for of_sets in found.values() for name in of_sets})
    nothing = Difference.of([np.nan])
    points = np.array([[100 * found[s].get(name, nothing).mean for name in data] for s in strategies])
    order = np.argsort(-np.nanmean(points, axis=1))
    figure = Figure(figsize=(1.1 * len(data) + 2.5, 0.36 * len(strategies) + 1.8), layout="constrained")
    axes = figure.subplots()
    axes.imshow(points[order], cmap="RdBu", vmin=-10, vmax=10, aspect="auto")
    for (row, column), value in np.ndenumerate(points[order]):
        if not np.isnan(value):
            axes.text(
                column,
                row,
                f"{value:+.1f}",
                ha="center",
                va="center",
                fontsize=8,
                color="white" if abs(value) > 6.5 else "black",
            )
    axes.set_xticks(range(len(data)), data, rotation=30, ha="right")
    axes.set_yticks(range(len(strategies)), [strategies[row] for row in order])
    axes.set_title(f"Area under the curve ({METRICS[MAIN_METRIC]}) minus random selection, in points", loc="left")
    figure.savefig(path, dpi=110)
