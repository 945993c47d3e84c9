"""Reading what /metrics answers, and a check that it is as Prometheus wants it."""

from __future__ import annotations

import re
from collections import Counter

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("_total",), "gauge": ("",)}


def metric_families(text: str) -> dict[str, Metric]:
    """All families by name; counters without their `_total`."""
    return {family.name: family for family in text_string_to_metric_families(text)}


def metric_value(text: str, name: str, **labels: str) -> float:
    """The sum of all samples of a name that have these labels."""
    samples = (sample for family in metric_families(text).values() for sample in family.samples if sample.name == name)
    return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())


def lint_metrics(text: str) -> list[str]:
    """What Prometheus' own linter would not like."""
    names = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE ")]
    found = [f"{name} is there twice" for name, times in Counter(names).items() if times > 1]
    series = Counter(line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#"))
    found += [f"{name} is there twice" for name, times in series.items() if times > 1]
    for family in metric_families(text).values():
        if not family.documentation.endswith("."):
            found.append(f"{family.name} has no sentence of help")
        if not re.fullmatch(r"active_query_[a-z_]+[a-z]", family.name):
            found.append(f"{family.name} is no name of ours")
        if family.type not in SUFFIXES:
            found.append(f"{family.name} has type {family.type}")
            continue
        if family.type == "histogram" and not family.name.endswith("_seconds"):
            found.append(f"{family.name} does not name its unit")
        if family.type == "gauge" and family.name.endswith(("_total", "_count", "_sum", "_bucket")):
            found.append(f"{family.name} is a gauge by the name of a counter")
        allowed = {family.name + suffix for suffix in SUFFIXES[family.type]}
        found += [f"{sample.name} is odd" for sample in family.samples if sample.name not in allowed]
    return found
