"""The default policy."""

from __future__ import annotations

from service.strategies.engine.fallback import choose_without_model
from service.strategies.engine.question import Question
from service.strategies.engine.registry import Choice, policy

LARGEST_HERD = 1000
"""Largest batch for herding: larger ones take seconds and were not benchmarked."""


@policy(
    "auto",
    summary="Chooses the strategy: max_herding without a model, then uherding; power for batches above 1,000, and "
    "margin or power without features. With a model, lcmd for numbers, and power for several labels a sample.",
    source="this project's own policy",
)
def auto(question: Question, batch_size: int) -> Choice:
    """Choose `uherding` where possible, whose kernel narrows as labels are added; `power` or `margin` otherwise."""
    if question.model is None:
        return choose_without_model(question)
    if question.target == "number":
        return Choice("lcmd", "the rows that are farthest from what is labelled, of the largest clusters")
    if question.target == "labels":
        return Choice("power", "drawn in proportion to the uncertainty of all classes on average", {"beta": 1.0})
    if not question.has_features:
        return choose_without_features(batch_size)
    if batch_size <= LARGEST_HERD:
        return Choice("uherding", "the rows that best represent what the model is unsure of")
    why = f"herding more than {LARGEST_HERD} rows is slow"
    return Choice("power", f"{why}, so these are drawn by margin")


def choose_without_features(batch_size: int) -> Choice:
    """Return a strategy that needs only probabilities."""
    if batch_size == 1:
        return Choice("margin", "without features, representative rows cannot be found")
    return Choice("power", "without features, a batch cannot be made diverse, so it is drawn by margin")
