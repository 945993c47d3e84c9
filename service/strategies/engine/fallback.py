"""The strategy to run while there is no model."""

from __future__ import annotations

from service.strategies.engine.question import Question
from service.strategies.engine.registry import Choice


def choose_without_model(question: Question) -> Choice:
    """Return a strategy that needs no model, and the reason why there is no model."""
    if question.target == "number":
        n_known, what = len(question.labeled), "sample"
    else:
        n_known, what = question.n_classes_labeled, "class"
    why = {0: "no sample is labelled", 1: f"only one {what} is labelled"}.get(n_known, "none has been fitted")
    return Choice("max_herding", f"no model yet: {why}, so these rows best represent the others")
