"""The table of the defaults: model and strategy of today against random labels, and against the old default model."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

import numpy as np

from tests.benchmarks.efficiency.runs import DEFAULT, N_QUERIES, OLD_DEFAULT, Curve
from tests.benchmarks.efficiency.statistics import Cell, Runs, against, areas, cell_of, curves_of, labels_needed
from tests.benchmarks.report import markdown

LABELS = 200
"""Number of random labels whose score is to be reached with fewer."""

HEAD = (
    "data set",
    *(f"macro-F1, b = {batch_size}" for batch_size in N_QUERIES),
    "AUC, b = 10",
    f"labels for the F1 of {LABELS} random ones",
    "over the old default",
    f"labels for its F1 with {LABELS} random ones",
)


def defaults_table(runs: Runs) -> str:
    """Return a row for each data set, with cold starts: differences from random in points, `auto` / `margin`.

    The last two columns compare `auto` with random labels under the old default model.
    """
    data = sorted({run.data for run in runs if run.model == DEFAULT})
    lines = [[name, *cells_of_set(runs, name)] for name in data]
    means = [mean_of([numbers_of_set(runs, name)[nth] for name in data]) for nth in range(len(N_QUERIES) + 2)]
    *usual, over_old = means
    return markdown(HEAD, [*lines, ["mean", *usual, "", over_old, ""]])


def cells_of_set(runs: Runs, data: str) -> list[str]:
    """Return the cells of a data set's row."""
    *usual, over_old = [format_pair(pair) for pair in numbers_of_set(runs, data)]
    cell = Cell(DEFAULT, "cold", 10)
    wanted = [score_at(mean_curve(runs, data, Cell(model, "cold", 10), "random")) for model in (DEFAULT, OLD_DEFAULT)]
    now, before = [format_needed(mean_curve(runs, data, cell, "auto"), score) for score in wanted]
    return [*usual, now, over_old, before]


Pair = tuple[float | None, ...]


def numbers_of_set(runs: Runs, data: str) -> list[Pair]:
    """Return the differences of `auto` and `margin` from random by batch size, in AUC, and over the old default."""
    of_f1 = [difference(runs, data, "f1_macro", batch_size) for batch_size in N_QUERIES]
    return [*of_f1, difference(runs, data, "auc", 10), (gain_over_old(runs, data),)]


def difference(runs: Runs, data: str, metric: str, batch_size: int) -> Pair:
    """Return the mean differences of the areas of `auto` and `margin` from random, in points."""
    cell = Cell(DEFAULT, "cold", batch_size)
    found = [against(runs, strategy, "random", metric).get((data, cell), {}) for strategy in ("auto", "margin")]
    return tuple(100 * mean(seeds.values()) if seeds else None for seeds in found)


def gain_over_old(runs: Runs, data: str) -> float | None:
    """Return the area of `auto` under the default model less that of random labels under the old one, in points."""
    found = {
        (run.model, run.strategy, run.seed): value
        for run, value in areas(runs, "f1_macro").items()
        if (run.data, run.start, run.batch_size) == (data, "cold", 10)
    }
    differences = [
        value - found[OLD_DEFAULT, "random", seed]
        for (model, strategy, seed), value in found.items()
        if (model, strategy) == (DEFAULT, "auto") and (OLD_DEFAULT, "random", seed) in found
    ]
    return 100 * mean(differences) if differences else None


def mean_curve(runs: Runs, data: str, cell: Cell, strategy: str) -> Curve | None:
    """Return the mean learning curve over the seeds, None without any."""
    curves = [
        curve
        for run, curve in curves_of(runs).items()
        if run.data == data and run.strategy == strategy and cell_of(run) == cell
    ]
    if not curves:
        return None
    n = min(len(curve.labels) for curve in curves)
    scores = np.mean([curve.scores["f1_macro"][:n] for curve in curves], axis=0)
    return Curve(curves[0].labels[:n], {"f1_macro": scores.tolist()})


def score_at(curve: Curve | None) -> float | None:
    """Return the score of a curve at LABELS labels, None if it ends before."""
    if curve is None or LABELS not in curve.labels:
        return None
    return curve.scores["f1_macro"][list(curve.labels).index(LABELS)]


def format_needed(curve: Curve | None, score: float | None) -> str:
    """Format the number of labels at which a curve reaches a score."""
    if curve is None or score is None:
        return ""
    needed = labels_needed(curve, "f1_macro", score)
    return "more" if np.isinf(needed) else f"{needed:.0f}"


def mean_of(pairs: Sequence[Pair]) -> str:
    """Format the means of differences over data sets, without those that are missing."""
    known = [[value for value in column if value is not None] for column in zip(*pairs, strict=True)]
    return format_pair(tuple(mean(values) if values else None for values in known))


def format_pair(pair: Pair) -> str:
    """Format differences in points, with a dash for a missing one; empty if all are."""
    if all(value is None for value in pair):
        return ""
    return " / ".join("-" if value is None else f"{value:+.1f}" for value in pair)
