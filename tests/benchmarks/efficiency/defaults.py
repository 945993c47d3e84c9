"""Tables of the defaults: strategies against random labels under the default model, and the old defaults beside them.

Areas under learning curves from cold starts are compared, in points. A star marks a difference that is significant:
for a data set by a paired t-test over the seeds, for a mean by Wilcoxon's signed-rank test over the data sets, both
two-sided, 5 %.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean

import numpy as np
from scipy.stats import wilcoxon

from tests.benchmarks.efficiency.runs import DEFAULT, N_QUERIES, OLD_DEFAULT, OLD_STRATEGY, Curve, Run
from tests.benchmarks.efficiency.statistics import (
    SIGNIFICANT,
    Cell,
    Difference,
    Runs,
    against,
    areas,
    cell_of,
    curves_of,
    holm,
    labels_needed,
)
from tests.benchmarks.report import markdown

LABELS = 200
"""Number of random labels whose score is to be reached with fewer."""

CELLS = {batch_size: Cell(DEFAULT, "cold", batch_size) for batch_size in N_QUERIES}
OLD_CELL = Cell(OLD_DEFAULT, "cold", 10)

HEAD = (
    "data set",
    *(f"b = {batch_size}" for batch_size in N_QUERIES),
    f"labels for {LABELS} random ones",
    "old defaults, b = 10",
    f"labels for {LABELS} random ones",
    "new less old, b = 10",
    f"labels for {LABELS} random ones of the old",
)

BySet = Mapping[str, Difference]


def defaults_table(runs: Runs) -> str:
    """Return a row of macro-F1 for each data set: `auto` / `margin` less random, and the same for the old defaults."""
    pairs = [pair_of(runs, "f1_macro", cell) for cell in CELLS.values()]
    old, gain = difference_of(runs, OLD_STRATEGY, "random", "f1_macro", OLD_CELL), gain_over_old(runs)
    lines = [
        (
            data,
            *(format_pair(pair, data) for pair in pairs),
            labels_for(runs, data, (CELLS[10], "auto"), CELLS[10]),
            format_pair((old,), data),
            labels_for(runs, data, (OLD_CELL, OLD_STRATEGY), OLD_CELL),
            format_pair((gain,), data),
            labels_for(runs, data, (CELLS[10], "auto"), OLD_CELL),
        )
        for data in names_of(runs)
    ]
    means = [*map(format_means, pairs), "", format_means((old,)), "", format_means((gain,)), ""]
    return markdown(HEAD, [*lines, ("mean", *means)])


def auc_table(runs: Runs) -> str:
    """Return a row of AUC for each data set of two classes: `auto` / `margin` less random."""
    pairs = [pair_of(runs, "auc", cell) for cell in CELLS.values()]
    lines = [
        (data, *(format_pair(pair, data) for pair in pairs))
        for data in sorted({data for pair in pairs for of_sets in pair for data in of_sets})
    ]
    head = ("AUC", *(f"b = {batch_size}" for batch_size in N_QUERIES))
    return markdown(head, [*lines, ("mean", *map(format_means, pairs))])


def summary_table(runs: Runs) -> str:
    """Return a row for each metric, batch size and baseline: on how many data sets `auto` is better or worse."""
    lines = [
        (f"{name}, b = {batch_size}", f"auto less {baseline}", *summarize(found))
        for metric, name in (("f1_macro", "macro-F1"), ("auc", "AUC"))
        for batch_size, cell in CELLS.items()
        for baseline in ("random", "margin")
        if (found := difference_of(runs, "auto", baseline, metric, cell))
    ]
    head = (
        "",
        "",
        "better",
        "significantly better",
        "significantly worse",
        "after Holm",
        "mean",
        "least",
        "p over sets",
    )
    return markdown(head, lines)


def summarize(found: BySet) -> tuple[str, ...]:
    """Return the counts of data sets, the mean and least difference, and the p-value over the data sets."""
    values = list(found.values())
    least = min(found, key=lambda data: found[data].mean)
    return (
        f"{sum(each.mean > 0 for each in values)} of {len(values)}",
        str(sum(each.mean > 0 and each.is_significant for each in values)),
        str(sum(each.mean < 0 and each.is_significant for each in values)),
        str(int((holm([each.p_worse for each in values]) < SIGNIFICANT).sum())),
        f"{100 * mean(each.mean for each in values):+.1f}",
        f"{100 * found[least].mean:+.1f} ({least})",
        f"{p_over_sets(found):.2g}",
    )


def names_of(runs: Runs) -> list[str]:
    """Return the names of the data sets that were measured with the default model, sorted."""
    return sorted({run.data for run in runs if run.model == DEFAULT})


def pair_of(runs: Runs, metric: str, cell: Cell) -> tuple[BySet, BySet]:
    """Return by data set the differences of `auto` and of `margin` from random."""
    found = [difference_of(runs, strategy, "random", metric, cell) for strategy in ("auto", "margin")]
    return found[0], found[1]


def difference_of(runs: Runs, strategy: str, baseline: str, metric: str, cell: Cell) -> BySet:
    """Return by data set the difference of two strategies in a cell."""
    found = against(runs, strategy, baseline, metric)
    return {data: Difference.of(list(seeds.values())) for (data, each), seeds in found.items() if each == cell}


def gain_over_old(runs: Runs) -> BySet:
    """Return by data set the area of the new defaults less that of the old ones, both with their own strategy."""
    found = {(run.data, cell_of(run), run.strategy, run.seed): area for run, area in areas(runs, "f1_macro").items()}
    gains: dict[str, list[float]] = {}
    for (data, cell, strategy, seed), area in found.items():
        old = found.get((data, OLD_CELL, OLD_STRATEGY, seed))
        if (cell, strategy) == (CELLS[10], "auto") and old is not None:
            gains.setdefault(data, []).append(area - old)
    return {data: Difference.of(differences) for data, differences in gains.items()}


def labels_for(runs: Runs, data: str, chosen: tuple[Cell, str], at_random: Cell) -> str:
    """Return how many labels a strategy needs, under its model, for the mean score of LABELS random ones."""
    curve, baseline = mean_curve(runs, data, *chosen), mean_curve(runs, data, at_random, "random")
    if curve is None or baseline is None or LABELS not in baseline.labels:
        return ""
    score = baseline.scores["f1_macro"][list(baseline.labels).index(LABELS)]
    needed = labels_needed(curve, "f1_macro", score)
    return "more" if np.isinf(needed) else f"{needed:.0f}"


def mean_curve(runs: Runs, data: str, cell: Cell, strategy: str) -> Curve | None:
    """Return the mean learning curve over the seeds, None without any."""

    def is_wanted(run: Run) -> bool:
        return (run.data, cell_of(run), run.strategy) == (data, cell, strategy)

    curves = [curve for run, curve in curves_of(runs).items() if is_wanted(run)]
    if not curves:
        return None
    n = min(len(curve.labels) for curve in curves)
    scores = np.mean([curve.scores["f1_macro"][:n] for curve in curves], axis=0)
    return Curve(curves[0].labels[:n], {"f1_macro": scores.tolist()})


def format_pair(pair: Sequence[BySet], data: str) -> str:
    """Format the differences of a data set in points, with a dash for a missing one; empty if all are."""
    found = [of_sets.get(data) for of_sets in pair]
    if not any(found):
        return ""
    return " / ".join(format_points(each.mean, each.is_significant) if each else "-" for each in found)


def format_means(pair: Sequence[BySet]) -> str:
    """Format the means over data sets."""
    return " / ".join(
        format_points(mean(each.mean for each in of_sets.values()), p_over_sets(of_sets) < SIGNIFICANT)
        for of_sets in pair
        if of_sets
    )


def format_points(difference: float, is_significant: bool) -> str:
    """Format a difference in points, with a star if it is significant."""
    return f"{100 * difference:+.1f}{'*' if is_significant else ''}"


def p_over_sets(found: BySet) -> float:
    """Return the p-value of Wilcoxon's signed-rank test over the mean differences of the data sets."""
    differences = [each.mean for each in found.values()]
    return float(wilcoxon(differences).pvalue) if any(differences) else 1.0
