"""A batch of samples: those that come first, those that the strategy selects, and those drawn for exploration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from service.strategies import Question, Selection, next_in_random_order, select
from service.usecases.query_request import QueryRequest


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """The selected samples: first `n_leased` that the annotator holds already, then `n_partly_labeled`, then those of
    the strategy, and among these at the positions `drawn_at` those for exploration.
    """

    selection: Selection
    n_leased: int
    n_partly_labeled: int
    drawn_at: NDArray[np.int64]


Choose = Callable[[Question, int], Selection]
"""Selects a number of the open rows of a question, or all if there are fewer."""


def choose_batch(
    question: Question, request: QueryRequest, seed: Sequence[int], order_seed: int, choose: Choose | None = None
) -> Batch:
    """Return the batch of a question: leased and partly labelled samples first, the rest selected or drawn.

    `seed` is that of the strategy, unless another function is to `choose`; samples for exploration come in the random
    order of `order_seed`.
    """
    leased = question.leased[: request.batch_size]
    unlabeled, partly_labeled = unlabeled_rows(question), question.partly_labeled[: request.batch_size - len(leased)]
    n_open = question.n_open
    if request.purpose == "evaluation":
        partly_labeled, n_open = partly_labeled[:0], int(np.count_nonzero(unlabeled))
    n_wanted = min(request.batch_size - len(leased) - len(partly_labeled), n_open)
    n_explored = int(request.share_explored * n_wanted + 0.5)
    drawn = next_in_random_order(unlabeled, n_explored, order_seed)
    rest = without_rows(question, drawn) if len(drawn) else question
    n_chosen = n_wanted - len(drawn)
    if choose is not None:
        selection = choose(rest, n_chosen)
    else:
        selection = select(request.strategy, request.params, rest, n_chosen, np.random.default_rng(seed))
    if question.relabel_candidates is not None:
        selection = with_note_of_labeled(selection, question.relabel_candidates.rows)
    n_first = len(leased) + len(partly_labeled)
    drawn_at = n_first + spread_positions(len(selection.indices) + len(drawn), len(drawn))
    whole = assemble(leased, partly_labeled, selection, drawn, drawn_at)
    return Batch(whole, len(leased), len(partly_labeled), drawn_at)


def spread_positions(n: int, k: int) -> NDArray[np.int64]:
    """Return k of n positions, in the middle of k equal parts: a tool that asks for more at half has met its share."""
    return ((2 * np.arange(k, dtype=np.int64) + 1) * n - 1) // (2 * max(k, 1))


def unlabeled_rows(question: Question) -> NDArray[np.bool_]:
    """Return a mask (n,) of the open rows without a label."""
    if question.relabel_candidates is None:
        return question.is_open
    is_unlabeled = question.is_open.copy()
    is_unlabeled[question.relabel_candidates.rows] = False
    return is_unlabeled


def without_rows(question: Question, rows: NDArray[np.int64]) -> Question:
    """Return a question without some of its open rows."""
    is_open = question.is_open.copy()
    is_open[rows] = False
    return replace(question, is_open=is_open)


def with_note_of_labeled(selection: Selection, labeled: NDArray[np.int64]) -> Selection:
    """Return a selection with a note on its samples that have a label already."""
    n_labeled = int(np.isin(selection.indices, labeled).sum())
    note = f"{n_labeled} of the batch have a label: another one for them is worth more than a first one elsewhere"
    return replace(selection, reason=join_notes(selection.reason, note if n_labeled else None))


def join_notes(*notes: str | None) -> str | None:
    """Return the notes as one text, None without any."""
    return "; ".join(filter(None, notes)) or None


def assemble(
    leased: NDArray[np.int64],
    partly_labeled: NDArray[np.int64],
    selection: Selection,
    drawn: NDArray[np.int64],
    drawn_at: NDArray[np.int64],
) -> Selection:
    """Return a selection with the samples before it and those drawn, without scores, and a reason for each part."""
    n_leased, n_partly, n_drawn = len(leased), len(partly_labeled), len(drawn)
    if n_leased + n_partly + n_drawn == 0:
        return selection
    position = "next" if n_leased else "first"
    reason = join_notes(
        f"the first {n_leased} were already leased to this annotator" if n_leased else None,
        f"the {position} {n_partly} have a label and need more" if n_partly else None,
        selection.reason,
        f"{n_drawn}, spread through the batch, were drawn for exploration" if n_drawn else None,
    )
    # numpy inserts before positions of the array without the inserted values.
    before = drawn_at - np.arange(n_drawn)
    indices = np.insert(np.concatenate([leased, partly_labeled, selection.indices]), before, drawn)
    scores = selection.scores
    if scores is not None:
        scores = np.insert(np.concatenate([np.full(n_leased + n_partly, np.nan), scores]), before, np.nan)
    return replace(selection, indices=indices, scores=scores, reason=reason)
