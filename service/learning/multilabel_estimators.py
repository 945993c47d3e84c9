"""Registers the estimators of classes for samples that may have several of them."""

from __future__ import annotations

from service.learning.estimators import ESTIMATORS, EstimatorKind, Variant
from service.learning.linear_scorer import LinearPredictor
from service.learning.stacked_linear import StackedLinear


def variant_of_labels(kind: EstimatorKind) -> Variant:
    """Return how an estimator of classes learns several labels a sample: `fit` makes a one-vs-rest of its models.

    A blend is recognised by its type, whatever its target.
    """
    of_class = kind.variants["class"]
    linear = StackedLinear if kind.name == "logistic_regression" else None
    fast = None if linear is None else LinearPredictor
    return Variant(of_class.factory, model_type=linear, fast_predictor=fast, why_reduced=of_class.why_reduced)


for kind in ESTIMATORS.values():
    if "class" in kind.variants:
        kind.variants["labels"] = variant_of_labels(kind)
