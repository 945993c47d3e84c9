"""The strategy to run while there is no model."""

from __future__ import annotations

from service.strategies.engine.question import Question
from service.strategies.engine.registry import Choice


def choose_without_model(question: Question) -> Choice:
    """Return a strategy that needs no model, and the reason why there is no model."""
    why = {
        0: "no sample is labelled",
        1: "only one class is labelled",
    }.get(question.n_classes_labeled, "none has been fitted")
    return Choice("max_herding", f"no model yet: {why}, so these rows best represent the others")
