"""Samples of the candidates for models that would take too long to score all of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from service.learning.fit_time import about
from service.strategies.engine.question import Question

PASS_SECONDS = 20.0
"""Largest estimated time of a pass over the candidates on one core, a sixth of the default limit of a query."""

MIN_SAMPLE = 1000
"""Smallest number of candidates in a sample, however slow the model is."""


def sample_size(seconds_per_row: float, n: int, n_wanted: int = 0) -> int:
    """Return how many of n rows a model scores in time, but at least `n_wanted`."""
    if seconds_per_row * n <= PASS_SECONDS:
        return n
    return min(n, max(int(PASS_SECONDS / seconds_per_row), MIN_SAMPLE, n_wanted))


def sample_for_model(
    question: Question, n_models: int, n_wanted: int, rng: np.random.Generator
) -> tuple[Question, str | None]:
    """Return the question about as many random candidates as `n_models` models can score in time, and a note.

    The question stays as it is, without a note, if there is time for all. The time is estimated from the state of the
    project, so the same state of `rng` gives the same sample on every machine.
    """
    seconds_per_row = question.row_seconds * n_models
    seconds = seconds_per_row * question.n_open
    n_drawn = sample_size(seconds_per_row, question.n_open, n_wanted)
    if n_drawn == question.n_open:
        return question, None
    drawn = rng.choice(question.candidates, n_drawn, replace=False, shuffle=False)
    is_open = np.zeros_like(question.is_open)
    is_open[drawn] = True
    note = (
        f"considered a random sample of {n_drawn:,} of the {question.n_open:,} candidates: the model would take about "
        f"{about(seconds)} s of one core to score all of them"
    )
    return replace(question, is_open=is_open, is_sampled=True), note
