"""The default: which strategy suits the situation."""

from __future__ import annotations

from service.strategies.registry import Choice, policy
from service.strategies.view import Question


@policy(
    "auto",
    summary="The strategy that suits the situation: k_means before there is a model, margin from then on.",
    source="this project's own policy",
)
def auto(question: Question, batch_size: int) -> Choice:
    """Explore until there is a model, then ask where it hesitates between two classes."""
    return without_model(question) if question.model is None else Choice("margin")


def without_model(question: Question) -> Choice:
    """Choose what needs no model, and say why there is none."""
    why = {
        0: "no sample is labelled",
        1: "only one class is labelled",
    }.get(question.n_classes_labeled, "none was fitted to the labels so far")
    return Choice("k_means", f"no model yet: {why}, so these are the rows nearest the k-means centres")
