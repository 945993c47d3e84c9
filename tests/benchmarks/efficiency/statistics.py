"""Areas under learning curves, their differences paired by seed, and significance tests."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from tests.benchmarks.efficiency.runs import WHOLE_POOL, Curve, Run

METRICS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "f1_macro": "macro-F1",
    "auc": "AUC",
}
CONFIDENCE = 0.95
SIGNIFICANT = 1 - CONFIDENCE
TARGET_SHARE = 0.95
"""Share of the score that the labels of the whole pool give."""

Runs = Mapping[Run, Curve]


@dataclass(frozen=True, slots=True)
class Cell:
    """A combination of model, start and batch size."""

    model: str
    start: str
    batch_size: int


@dataclass(frozen=True, slots=True)
class Difference:
    """Mean of differences paired by seed, with its confidence interval.

    `p_worse` is the p-value of the one-sided t-test against a mean of 0 or more.
    """

    mean: float
    low: float
    high: float
    p_worse: float
    n_seeds: int

    @property
    def is_significant(self) -> bool:
        """Whether the interval excludes 0: the paired two-sided t-test at 5 %."""
        return self.low > 0 or self.high < 0

    @classmethod
    def of(cls, differences: Sequence[float]) -> Difference:
        """Summarize differences. A single one has an infinite interval."""
        d = np.asarray(differences, np.float64)
        mean, n = float(d.mean()), len(d)
        if n < 2:
            return cls(mean, -np.inf, np.inf, 1.0, n)
        error = float(d.std(ddof=1) / np.sqrt(n))
        if error == 0:
            return cls(mean, mean, mean, 0.0 if mean < 0 else 1.0, n)
        margin = error * float(student.ppf((1 + CONFIDENCE) / 2, n - 1))
        return cls(mean, mean - margin, mean + margin, float(student.cdf(mean / error, n - 1)), n)


def area(curve: Curve, metric: str) -> float:
    """Return the area under a learning curve divided by its width: the mean score over the labels."""
    n, scores = np.asarray(curve.labels, np.float64), np.asarray(curve.scores[metric])
    return float(np.trapezoid(scores, n) / (n[-1] - n[0]))


def curves_of(runs: Runs) -> Runs:
    """Return the runs that query, without those that label the whole pool at once."""
    return {run: curve for run, curve in runs.items() if run.batch_size != WHOLE_POOL}


def areas(runs: Runs, metric: str) -> dict[Run, float]:
    """Return the area of each run that has this metric."""
    return {run: area(curve, metric) for run, curve in curves_of(runs).items() if metric in curve.scores}


def against(runs: Runs, strategy: str, baseline: str, metric: str) -> dict[tuple[str, Cell], dict[int, float]]:
    """Return by data set and cell the differences of areas, for each seed that both strategies have."""
    found = areas(runs, metric)
    differences: dict[tuple[str, Cell], dict[int, float]] = defaultdict(dict)
    for run, value in found.items():
        other = replace(run, strategy=baseline)
        if run.strategy == strategy and other in found:
            differences[run.data, cell_of(run)][run.seed] = value - found[other]
    return dict(differences)


def cell_of(run: Run) -> Cell:
    """Return the cell of a run."""
    return Cell(run.model, run.start, run.batch_size)


def by_set(differences: Mapping[tuple[str, Cell], Mapping[int, float]]) -> dict[str, Difference]:
    """Return by data set the mean difference over its cells, paired by the seeds that all cells have."""
    cells: dict[str, list[Mapping[int, float]]] = defaultdict(list)
    for (data, _), of_seeds in differences.items():
        cells[data].append(of_seeds)
    found = {}
    for data, of_cells in cells.items():
        seeds = sorted(set.intersection(*(set(of_seeds) for of_seeds in of_cells)))
        if seeds:
            found[data] = Difference.of([float(np.mean([of[seed] for of in of_cells])) for seed in seeds])
    return found


def holm(p: Sequence[float]) -> NDArray[np.float64]:
    """Return p-values corrected for multiple tests (Holm 1979)."""
    values = np.asarray(p, np.float64)
    order = np.argsort(values)
    steps = values[order] * np.arange(len(values), 0, -1)
    corrected = np.empty(len(values))
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0) if len(values) else steps
    return corrected


def labels_needed(curve: Curve, metric: str, score: float) -> float:
    """Return the number of labels at which a curve first reaches a score, infinite if it never does."""
    reached = (n for n, value in zip(curve.labels, curve.scores[metric], strict=True) if value >= score)
    return float(next(reached, np.inf))


@dataclass(frozen=True, slots=True)
class Needed:
    """Labels needed for TARGET_SHARE of the full score: medians over the common runs, inf if not reached."""

    labels: float
    baseline: float
    n_reached: int
    n_reached_by_baseline: int
    n_runs: int

    @classmethod
    def of(cls, needed: NDArray[np.float64]) -> Needed:
        """Summarize the labels (n, 2) that a strategy and its baseline needed in n runs."""
        n_reached = np.isfinite(needed).sum(axis=0)
        middle = np.quantile(needed, 0.5, axis=0, method="higher")  # infinite values cannot be interpolated
        return cls(float(middle[0]), float(middle[1]), int(n_reached[0]), int(n_reached[1]), len(needed))


def needed_by_set(runs: Runs, strategy: str, baseline: str, metric: str, cells: Iterable[Cell]) -> dict[str, Needed]:
    """Return by data set the labels that a strategy and its baseline needed, over some cells."""
    full = {(run.data, run.model, run.seed): curve for run, curve in runs.items() if run.batch_size == WHOLE_POOL}
    wanted = set(cells)
    pairs: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for run, curve in runs.items():
        other = runs.get(replace(run, strategy=baseline))
        of_full = full.get((run.data, run.model, run.seed))
        if run.strategy != strategy or cell_of(run) not in wanted or other is None or of_full is None:
            continue
        score = TARGET_SHARE * of_full.scores[metric][0]
        pairs[run.data].append((labels_needed(curve, metric, score), labels_needed(other, metric, score)))
    return {data: Needed.of(np.array(of_runs)) for data, of_runs in pairs.items()}
