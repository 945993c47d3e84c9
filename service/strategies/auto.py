"""The default: which strategy suits the situation."""

from __future__ import annotations

from service.committee import trees_of
from service.strategies.registry import Choice, policy
from service.strategies.view import Question

LABELS_A_CLASS = 2
"""With fewer labels than this for each class, a model's doubts say less than where the rows lie."""

DIVERSE_BATCH = 100
"""Up to this size a batch is made diverse; nothing larger was compared."""


@policy(
    "auto",
    summary="The strategy that suits the situation: k_means while labels are few, margin for one question at a time, "
    "margin_k_means for batches of up to 100, power for larger ones and for forests.",
    source="this project's own policy",
)
def auto(question: Question, batch_size: int) -> Choice:
    """Explore while labels are few, then ask where the model hesitates, and never ten times the same."""
    n_labels, n_classes = len(question.labeled), question.n_classes_labeled
    if question.model is None:
        return without_model(question)
    if not question.has_features:
        why = "without features a batch cannot be made diverse, so these are drawn by their margin"
        return Choice("margin") if batch_size == 1 else Choice("power", why)
    if n_labels < LABELS_A_CLASS * n_classes:
        why = f"{n_labels} labels of {n_classes} classes are few"
        return Choice("k_means", f"{why}, so these are the rows nearest the k-means centres")
    if batch_size == 1:
        return Choice("margin")
    if trees_of(question.model) is not None:
        return Choice("power", "trees of a forest agree to the vote on many rows, so these are drawn by their margin")
    if batch_size <= DIVERSE_BATCH:
        return Choice("margin_k_means")
    return Choice("power", f"more than {DIVERSE_BATCH} of least margin would be alike, so these are drawn by it")


def without_model(question: Question) -> Choice:
    """Choose what needs no model, and say why there is none."""
    why = {
        0: "no sample is labelled",
        1: "only one class is labelled",
    }.get(question.n_classes_labeled, "none was fitted to the labels so far")
    return Choice("k_means", f"no model yet: {why}, so these are the rows nearest the k-means centres")
