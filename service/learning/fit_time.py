"""How long a fit takes on one core, foreseen from its labels.

The constants were measured on one core of 2024 with 1,000 and 10,000 labels of 64 features in ten classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any, cast

from service.domain.parameters import Parameters
from service.domain.project import EstimatorSpec, Project, TargetName
from service.learning.estimators import resolve_estimator

NOTED_SECONDS = 10.0
"""Foreseen time from which a fit is worth a note."""


def tree_seconds(seconds: float, params: Parameters, n_labels: int, n_features: int) -> float:
    """Return the time to grow a forest; `seconds` is that of one label, level and feature that a split tries."""
    tried = params.get("max_features", "sqrt")
    n_tried = n_features if tried == "all" else math.log2(n_features + 1) if tried == "log2" else math.sqrt(n_features)
    return seconds * cast(int, params["n_estimators"]) * n_labels * math.log2(n_labels + 1) * n_tried


def extra_trees(params: Parameters, n_labels: int, n_features: int, n_classes: int) -> float:
    """Return the time of extra trees, which take most of the time of `auto`, too."""
    return tree_seconds(27e-9, params, n_labels, n_features)


def random_forest(params: Parameters, n_labels: int, n_features: int, n_classes: int) -> float:
    """Return the time of a random forest, which sorts the labels by each feature that a split tries."""
    return tree_seconds(68e-9, params, n_labels, n_features)


def boosting(params: Parameters, n_labels: int, n_features: int, n_classes: int) -> float:
    """Return the time of boosting, which grows a tree for each class in each round."""
    n_trees = cast(int, params["max_iter"]) * (n_classes if n_classes > 2 else 1)
    return n_trees * n_features * (33e-6 + 20e-9 * n_labels)


def svc(params: Parameters, n_labels: int, n_features: int, n_classes: int) -> float:
    """Return the time of a support vector machine and its calibration, which fits five more."""
    return n_labels**2 * (110e-9 + 1.2e-9 * n_features)


def mlp(params: Parameters, n_labels: int, n_features: int, n_classes: int) -> float:
    """Return the longest time of a network, which often stops earlier."""
    layers = n_features, *cast("tuple[int, ...]", params["hidden_layer_sizes"]), n_classes
    n_weights = sum(above * below for above, below in pairwise(layers))
    return 0.5e-9 * cast(int, params["max_iter"]) * n_labels * n_weights


def gaussian_process(params: Parameters, n_labels: int, n_features: int, n_classes: int) -> float:
    """Return the time of a Gaussian process, whose covariance is factorised in each step of the search for a kernel."""
    return 11e-9 * (1 + cast(int, params["restarts"])) * n_labels**3


SECONDS: dict[str, Callable[[Any, int, int, int], float]] = {
    "auto": extra_trees,
    "extra_trees": extra_trees,
    "random_forest": random_forest,
    "hist_gradient_boosting": boosting,
    "svc": svc,
    "mlp": mlp,
    "gaussian_process": gaussian_process,
}
"""Of the estimators whose fits may take long."""

QUICK = {"class": "logistic_regression", "labels": "logistic_regression", "number": "ridge"}
"""The estimator of a target that learns from many labels in a second."""

SHARED = ("auto", "extra_trees", "random_forest")
"""The estimators that learn all classes of several labels a sample at once, unless these have weights."""


def fit_seconds(spec: EstimatorSpec, target: TargetName, n_labels: int, n_features: int, n_classes: int) -> float:
    """Foresee the time of one core for a fit, 0 for an estimator that takes seconds at most."""
    seconds = SECONDS.get(spec.name)
    if seconds is None:
        return 0.0
    if target == "labels" and (spec.name not in SHARED or spec.params.get("class_weight") is not None):
        return n_classes * seconds(spec.params, n_labels, n_features, 2)
    return seconds(spec.params, n_labels, n_features, n_classes)


def about(seconds: float) -> str:
    """Return a time to two digits, as text: 310.2 is "310"."""
    return f"{float(f'{seconds:.2g}'):,g}"


def note_on_fit_time(
    spec: EstimatorSpec, target: TargetName, n_labels: int, n_features: int, n_classes: int
) -> str | None:
    """Return a note on a fit that takes long, None if it does not."""
    seconds = fit_seconds(spec, target, n_labels, n_features, n_classes)
    if seconds < NOTED_SECONDS:
        return None
    return (
        f"{spec.name} takes about {about(seconds)} s of one core to learn from {n_labels:,} labels: a reply that waits "
        f"for it comes late, 'refit': 'background' does not wait, and {QUICK[target]} is quick"
    )


def faster_estimator(
    spec: EstimatorSpec, target: TargetName, n_labels: int, n_features: int, n_classes: int, limit: float
) -> str:
    """Return which estimators would learn from as many labels within a time limit, in seconds."""
    quick = f"{QUICK[target]} is quick"
    trees = fit_seconds(resolve_estimator("extra_trees", {}), target, n_labels, n_features, n_classes)
    if spec.name in ("auto", "extra_trees") or trees >= limit:
        return quick
    return f"{quick}, and extra_trees would take about {about(max(trees, 1))} s of one core"


def size_of_fit(project: Project) -> tuple[EstimatorSpec, TargetName, int, int, int]:
    """Return what the time of a project's fit depends on, as the first arguments of the functions above."""
    return project.estimator, project.target, project.n_labeled, project.n_features, len(project.classes)
