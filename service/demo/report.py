"""Reports of a comparison: sentences, a table, a plot, and all numbers as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import PercentFormatter

from service.demo.measurement import Curves, Outcome

ACTIVE_COLOUR, RANDOM_COLOUR = "#0b6e99", "#7d828a"
LEGEND = """\
Labels saved: how many more labels random queries needed for the mean accuracy of the line. "> s": they had not
reached it with s labels more."""


def describe_comparison(outcome: Outcome) -> str:
    """Return a sentence on the setup of the comparison."""
    comparison = outcome.comparison
    start = comparison.start(0)
    n_runs = outcome.active.n_runs
    return (
        f"{comparison.strategy} makes {comparison.n_queries} queries of {comparison.batch_size}, starting with "
        f"{start.n_labeled} labels in a pool of {len(start.y)}; accuracy on {len(start.y_test)} held-out rows"
        + (f", the mean of {n_runs} runs" if n_runs > 1 else "")
    )


def format_table(outcome: Outcome, every: int = 4) -> str:
    """Return a text table of every `every`-th point of the strategy's curve, and the last; see LEGEND."""
    active, random = outcome.active, outcome.random
    last = len(active.labels) - 1
    lines = [f"{'labels':>8}{'accuracy':>12}{'random':>12}{'labels saved':>15}"]
    lines += [
        f"{active.labels[point]:>8}{percent(active.mean[point]):>12}{percent(random.mean[point]):>12}"
        f"{format_labels_saved(random, int(active.labels[point]), active.mean[point]):>15}"
        for point in [*range(0, last, every), last]
    ]
    return "\n".join(lines)


def format_labels_saved(random: Curves, n_labels: int, accuracy: float) -> str:
    """Return how many labels more than `n_labels` random queries needed to reach an accuracy on average."""
    needed = random.labels_needed(accuracy)
    return f"> {random.labels[-1] - n_labels}" if needed is None else str(needed - n_labels)


def summarize(outcome: Outcome) -> str:
    """Return a sentence on the result of the comparison."""
    active, random = outcome.active, outcome.random
    last = len(active.labels) - 1
    return (
        f"{percent(active.mean[0])} -> {percent(active.mean[last])} with {active.labels[last] - active.labels[0]} "
        f"queries; random queries: {percent(random.mean[last])} on average over {random.n_runs} seeds"
    )


def percent(share: float) -> str:
    """Format a share as a percentage with one decimal."""
    return f"{100 * share:.1f} %"


def draw_curves(outcome: Outcome, path: Path) -> None:
    """Plot both learning curves: means, bands of one standard deviation, and the values at the last query."""
    comparison, start = outcome.comparison, outcome.comparison.start(0)
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    draw_curve(axes, outcome.random, "random", RANDOM_COLOUR)
    draw_curve(axes, outcome.active, comparison.strategy, ACTIVE_COLOUR)
    last = len(outcome.active.labels) - 1
    mark_point(axes, outcome.random, last, RANDOM_COLOUR, -17)
    mark_point(axes, outcome.active, last, ACTIVE_COLOUR, 8)
    axes.set_title(f"{comparison.title}: {comparison.strategy} against random queries\n", loc="left", weight="bold")
    offer = f"{start.n_labeled} labels to start, pool of {len(start.y):,}, batches of {comparison.batch_size}"
    axes.text(0, 1.02, offer, transform=axes.transAxes, color="#555555")
    axes.set_xlabel("labels")
    axes.set_ylabel(f"accuracy on {len(start.y_test)} held-out rows")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    axes.margins(y=0.08)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, reverse=True)
    figure.savefig(path, dpi=150)


def draw_curve(axes: Axes, curves: Curves, name: str, colour: str) -> None:
    """Plot the mean of runs with a band of one standard deviation."""
    n_runs = curves.n_runs
    label = f"{name}: mean of {n_runs} runs ± standard deviation" if n_runs > 1 else f"{name}: one run"
    axes.plot(curves.labels, curves.mean, color=colour, linewidth=2, label=label)
    if n_runs > 1:
        low, high = curves.mean - curves.deviation, curves.mean + curves.deviation
        axes.fill_between(curves.labels, low, high, color=colour, alpha=0.18, linewidth=0)


def mark_point(axes: Axes, curves: Curves, point: int, colour: str, height: int) -> None:
    """Annotate a point of a curve with its mean, `height` points above it."""
    labels, accuracy = int(curves.labels[point]), float(curves.mean[point])
    axes.plot(labels, accuracy, "o", color=colour, markersize=5)
    text = axes.annotate(
        percent(accuracy), (labels, accuracy), (0, height), textcoords="offset points", ha="center", weight="bold"
    )
    text.set(color=colour, path_effects=[withStroke(linewidth=3, foreground="white")])


def as_json(outcome: Outcome) -> dict[str, Any]:
    """Return all measurements."""
    comparison = outcome.comparison
    return {
        "title": comparison.title,
        "strategy": comparison.strategy,
        "batch_size": comparison.batch_size,
        "estimator": comparison.estimator,
        **{name: curve_of(curves) for name, curves in (("active", outcome.active), ("random", outcome.random))},
    }


def curve_of(curves: Curves) -> dict[str, Any]:
    """Return the values of a curve."""
    return {
        "labels": curves.labels.tolist(),
        "accuracy": curves.mean.tolist(),
        "deviation": curves.deviation.tolist(),
        "runs": curves.n_runs,
    }
