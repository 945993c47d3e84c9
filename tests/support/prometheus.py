"""Parse the output of /metrics, and check it against the naming rules of Prometheus."""

from __future__ import annotations

import re
from collections import Counter

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("_total",), "gauge": ("",)}


def metric_families(text: str) -> dict[str, Metric]:
    """Return all families by name; counters without their `_total`."""
    return {family.name: family for family in text_string_to_metric_families(text)}


def metric_value(text: str, name: str, **labels: str) -> float:
    """Return the sum of the samples with this name and these labels."""
    samples = (sample for family in metric_families(text).values() for sample in family.samples if sample.name == name)
    return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())


def lint_metrics(text: str) -> list[str]:
    """Return the problems that the linter of Prometheus would report."""
    names = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE ")]
    found = [f"{name} is duplicated" for name, times in Counter(names).items() if times > 1]
    series = Counter(line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#"))
    found += [f"{name} is duplicated" for name, times in series.items() if times > 1]
    for family in metric_families(text).values():
        if not family.documentation.endswith("."):
            found.append(f"{family.name} has no help sentence")
        if not re.fullmatch(r"active_query_[a-z_]+[a-z]", family.name):
            found.append(f"{family.name} does not start with active_query_ or has invalid characters")
        if family.type not in SUFFIXES:
            found.append(f"{family.name} has type {family.type}")
            continue
        if family.type == "histogram" and not family.name.endswith("_seconds"):
            found.append(f"{family.name} does not name its unit")
        if family.type == "gauge" and family.name.endswith(("_total", "_count", "_sum", "_bucket")):
            found.append(f"{family.name} is a gauge with the suffix of a counter")
        allowed = {family.name + suffix for suffix in SUFFIXES[family.type]}
        found += [f"{sample.name} has an unexpected suffix" for sample in family.samples if sample.name not in allowed]
    return found
