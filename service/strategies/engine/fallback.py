"""The strategy to run while there is no model."""

from __future__ import annotations

from service.domain.project import TargetName
from service.strategies.engine.question import Question
from service.strategies.engine.registry import Choice

ONE_LABEL: dict[TargetName, str] = {
    "class": "only one class is labelled",
    "number": "only one sample is labelled",
    "labels": "all labels are the same",
}
"""Why there is no model with one label, by target."""


def choose_without_model(question: Question) -> Choice:
    """Return a strategy that needs no model, and the reason why there is no model."""
    n_known = len(question.labeled) if question.target == "number" else question.n_classes_labeled
    why = {0: "no sample is labelled", 1: ONE_LABEL[question.target]}.get(n_known, "none has been fitted")
    return Choice("max_herding", f"no model yet: {why}, so these rows best represent the others")
