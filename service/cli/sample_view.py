"""What `annotate` shows of a sample."""

from __future__ import annotations

from typing import Any

MAX_SHOWN = 20
"""Number of features that are shown at most."""


def describe(sample: dict[str, Any], facts: dict[str, Any]) -> str:
    """Return what is known of a sample: its id or index, and its address, its text or its features."""
    parts = [f"--- {sample.get('id', sample['index'])}", sample.get("url"), sample.get("text")]
    if sample.get("features") is not None:
        parts += feature_lines(sample["features"], facts["feature_names"])
    return "\n".join(part for part in parts if part)


def feature_lines(features: list[float | None], names: list[str] | None) -> list[str]:
    """Return a line for each feature with its name or number; of many features, only of those that are not 0."""
    named = [(f"feature {at}" if names is None else names[at], value) for at, value in enumerate(features)]
    shown = named if len(named) <= MAX_SHOWN else [each for each in named if each[1] != 0][:MAX_SHOWN]
    width = max((len(name) for name, _ in shown), default=0)
    lines = [f"{name.ljust(width)}  {'-' if value is None else f'{value:.6g}'}" for name, value in shown]
    n_more = len(named) - len(shown)
    return [*lines, f"and {n_more} more"] if n_more else lines
