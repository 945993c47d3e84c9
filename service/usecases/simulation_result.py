"""The result of a simulation: learning curves, labels to reach a target, and what a strategy saves against random."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from service.usecases.simulation_run import SimulationPlan

BASELINE = "random"
TOLERANCE = 1e-9

Run = Mapping[str, Sequence[Any]]
"""A run's numbers of labels, and accuracies, None without a model."""

Curves = NDArray[np.float64]
"""The accuracies of a strategy (r, p) in each repeat at each point; NaN without a model."""

Json = dict[str, Any]


def summarize_runs(plan: SimulationPlan, runs: Sequence[Run]) -> Json:
    """Return the result of all runs of a plan, in the order of their numbers."""
    n_strategies = len(plan.strategies)
    n_labeled = np.array(runs[0]["n_labeled"], np.int64)
    curves = [
        np.array([run["accuracy"] for run in runs[nth::n_strategies]], np.float64)  # None becomes NaN
        for nth in range(n_strategies)
    ]
    names = [strategy.name for strategy in plan.strategies]
    target = target_of(plan, curves[names.index(BASELINE)])
    needed = [labels_needed(n_labeled, curve, target, is_error=plan.is_error) for curve in curves]
    baseline = needed[names.index(BASELINE)]
    strategies = [
        {
            "strategy": strategy.name,
            "params": dict(strategy.params),
            "curve": curve_of(n_labeled, accuracy, np.inf if plan.is_error else 1.0),
            "labels_to_target": labels_to_target(n_labeled, labels),
            "labels_saved": None if strategy.name == BASELINE else labels_saved(n_labeled, baseline, labels),
        }
        for strategy, accuracy, labels in zip(plan.strategies, curves, needed, strict=True)
    ]
    if target is None:
        for entry in strategies:
            entry["labels_to_target"] = entry["labels_saved"] = None
    return {"target": target, "strategies": strategies, "recommendation": recommend(plan, target, strategies)}


def target_of(plan: SimulationPlan, baseline: Curves) -> float | None:
    """Return the score to reach: the one requested, or what random reaches with the whole budget on average."""
    if plan.target is not None:
        return plan.target
    last = float(baseline[:, -1].mean())
    return None if np.isnan(last) else last


def labels_needed(
    n_labeled: NDArray[np.int64], accuracy: Curves, target: float | None, *, is_error: bool = False
) -> Curves:
    """Return the number of labels with which each repeat (r,) first reached the target, NaN if it never did."""
    if target is None:
        return np.full(len(accuracy), np.nan)
    with np.errstate(invalid="ignore"):
        is_reached = accuracy <= target * (1 + TOLERANCE) if is_error else accuracy >= target - TOLERANCE
    return np.where(is_reached.any(axis=1), n_labeled[is_reached.argmax(axis=1)], np.nan)


def curve_of(n_labeled: NDArray[np.int64], accuracy: Curves, most: float = 1.0) -> list[Json]:
    """Return the mean over the repeats at each point, with its interval in 0 to `most`; null if a repeat had no model
    yet.
    """
    return [
        {"n_labeled": int(labels), **within(interval(column), 0.0, most)}
        for labels, column in zip(n_labeled, accuracy.T, strict=True)
    ]


def labels_to_target(n_labeled: NDArray[np.int64], needed: Curves) -> Json:
    """Return the mean number of labels to reach the target, null unless all repeats did, and how many did."""
    mean = within(interval(needed), float(n_labeled[0]), float(n_labeled[-1]))
    return {**mean, "n_reached": int(np.isfinite(needed).sum())}


def labels_saved(n_labeled: NDArray[np.int64], baseline: Curves, needed: Curves) -> Json:
    """Return how many labels fewer than random a strategy needed, from the differences within each repeat.

    A run that never reached the target counts as if it had with its last label, so both sides have a value.
    """
    end = float(n_labeled[-1])
    return interval(np.nan_to_num(baseline, nan=end) - np.nan_to_num(needed, nan=end))


def interval(values: Curves) -> Json:
    """Return the mean of values and its 95 % interval by Student's t, which takes two values; null for NaN."""
    mean = values.mean()
    if np.isnan(mean):
        return {"mean": None, "low": None, "high": None}
    if len(values) == 1:
        return {"mean": float(mean), "low": None, "high": None}
    half = float(stdtrit(len(values) - 1, 0.975) * values.std(ddof=1) / np.sqrt(len(values)))
    return {"mean": float(mean), "low": float(mean) - half, "high": float(mean) + half}


def within(estimate: Json, low: float, high: float) -> Json:
    """Return an estimate with its values moved into a range."""
    return {name: None if value is None else min(max(value, low), high) for name, value in estimate.items()}


def recommend(plan: SimulationPlan, target: float | None, strategies: Sequence[Json]) -> str:
    """Return one sentence on which strategy to use."""
    others = [entry for entry in strategies if entry["strategy"] != BASELINE]
    if target is None:
        return "No strategy can be recommended: the runs end before there is a model, so raise the budget."
    if not others:
        return f"No strategy can be recommended: only {BASELINE!r} was simulated."
    best = max(others, key=lambda entry: entry["labels_saved"]["mean"])
    name, saved = name_strategy(best, strategies), best["labels_saved"]
    goal = f"to reach {plan.score_name} of " + (f"{target:.4g}" if plan.is_error else f"{100 * target:.1f} %")
    if saved["low"] is None:
        return (
            f"Simulate more repeats: in the only one, {name!r} needed {describe(saved['mean'])} than {BASELINE!r} "
            f"{goal}, which may be chance."
        )
    found = (
        f"{describe(saved['mean'])} than {BASELINE!r} {goal} (95 % interval {saved['low']:.0f} to {saved['high']:.0f}"
    )
    found += f", {plan.repeats} repeats)"
    if saved["low"] > 0:
        return f"Use {name!r}: it needs {found}."
    if saved["high"] < 0:
        return f"Use {BASELINE!r}: the best of the others, {name!r}, needs {found}."
    return f"No strategy is surely better than {BASELINE!r}: the best, {name!r}, needs {found}; simulate more repeats."


def name_strategy(entry: Json, strategies: Sequence[Json]) -> str:
    """Return the name of a strategy, with its parameters if another one has the same name."""
    name: str = entry["strategy"]
    if sum(other["strategy"] == name for other in strategies) == 1:
        return name
    return f"{name}({', '.join(f'{parameter}={value}' for parameter, value in entry['params'].items())})"


def describe(saved: float) -> str:
    """Return a difference in words."""
    n_labels = round(abs(saved))
    return f"{n_labels} {'fewer' if saved >= 0 else 'more'} {'label' if n_labels == 1 else 'labels'}"
