"""From a question to a batch: settle which strategy can run, run it, say what was done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.parameters import Parameters
from service.scoring import Classifier, Scores, score_pool
from service.strategies.auto import without_model
from service.strategies.ranking import top
from service.strategies.registry import Choice, Need, Strategy, resolve
from service.strategies.view import PoolView, Positions, Question

# Scorers answer 0 or more: a row that the model has no finite probability for comes after all others.
SCORE_OF_BROKEN = -1.0


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """The batch, ask-first first: pool indices (b,), scores (b,), the strategy that ran, and what it fell short of."""

    indices: NDArray[np.int64]
    scores: Scores | None
    strategy: str
    fallback_reason: str | None


class OneClass:
    """The model of a pool with one known class: certain of it."""

    classes_ = np.zeros(1, dtype=np.int64)

    def predict_proba(self, X: Any, /) -> NDArray[np.float64]:
        """Return ones (n, 1)."""
        return np.ones((len(X), 1))


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What will run. Without a fitted model it is `OneClass`, which only a strategy that can do with it gets to see."""

    strategy: Strategy
    params: Parameters
    model: Classifier
    reason: str | None


Answer = tuple[Positions, Scores | None, str | None]


def select(
    strategy: Strategy, params: Parameters, question: Question, batch_size: int, rng: np.random.Generator
) -> Selection:
    """Choose `batch_size` candidates, or all where there are fewer; the same state of `rng` gives the same answer.

    A strategy that cannot run yet is replaced, never refused: `Selection` names the one that ran and the reason.
    """
    plan = settle(strategy, params, question, batch_size)
    run = run_scorer if plan.strategy.kind == "scorer" else run_set
    positions, scores, note = run(plan, question, min(batch_size, len(question.candidates)), rng)
    reasons = [reason for reason in (plan.reason, note) if reason]
    return Selection(question.candidates[positions], scores, plan.strategy.name, "; ".join(reasons) or None)


def settle(strategy: Strategy, params: Parameters, question: Question, batch_size: int) -> Plan:
    """Find out which strategy can run, by policy or for want of a model."""
    model = OneClass() if question.model is None else question.model
    if strategy.kind == "policy":
        choice: Choice = strategy.function(question, batch_size)
    elif question.model is not None or Need.PROBABILITIES not in strategy.needs:
        return Plan(strategy, params, model, None)
    elif question.n_classes_labeled == 1:
        reason = (
            "no model yet: only one class is labelled and thus certain, so all scores are equal "
            "and the order is drawn by the seed; 'auto' does better here"
        )
        return Plan(strategy, params, model, reason)
    else:
        choice = without_model(question)
    return Plan(*resolve(choice.strategy, {}), model, choice.reason)


def run_scorer(plan: Plan, question: Question, n_wanted: int, rng: np.random.Generator) -> Answer:
    """Score every candidate and take the top."""
    wanted = np.zeros(len(question.X), dtype=np.bool_)
    wanted[question.candidates] = True
    scores = score_pool(plan.model, question.X, plan.strategy.function, wanted)[question.candidates]
    broken = ~np.isfinite(scores)
    scores[broken] = SCORE_OF_BROKEN
    positions = top(scores, n_wanted, rng)
    note = None
    if broken.any():
        note = (
            f"the model has no finite probabilities for {broken.sum()} of the {len(scores)} candidates "
            f"(their features overflow): these rank last, with a score of {SCORE_OF_BROKEN:g}"
        )
    return positions, scores[positions], note


def run_set(plan: Plan, question: Question, n_wanted: int, rng: np.random.Generator) -> Answer:
    """Let the strategy choose the batch as a whole, and hold it to its promise."""
    if n_wanted == 0:
        return np.empty(0, dtype=np.int64), None, None
    view = PoolView(question.X, question.candidates, question.labeled)
    positions, scores, note = plan.strategy.function(view, n_wanted, rng, **plan.params)
    if len(positions) != n_wanted or len(np.unique(positions)) != n_wanted:
        raise RuntimeError(f"strategy {plan.strategy.name!r} did not answer with {n_wanted} distinct candidates")
    return positions, scores, note
