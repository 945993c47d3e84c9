"""Selection of a batch: choose the strategy that can run, run it, and report the reason."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from service.domain.draws import Draw
from service.domain.parameters import Parameters
from service.learning.committees import BaggedCommittee
from service.learning.estimators import committee_in
from service.learning.number_models import NumberBag
from service.learning.pool import Pool
from service.learning.scoring import INVALID_SCORE, THREADS, Predictor, Scores
from service.strategies.engine.exact_ranking import ExactRanking
from service.strategies.engine.fallback import choose_without_model
from service.strategies.engine.question import PoolView, Question
from service.strategies.engine.ranking import top_rows
from service.strategies.engine.registry import MEMBERS, Chances, Choice, Need, Strategy, resolve_strategy
from service.strategies.engine.slow_models import sample_for_model

OF_MODEL = {Need.PROBABILITIES, Need.PREDICTIONS, Need.MEMBERS}
"""The needs that take a model."""

MOST_AT_ONCE = 300
"""Largest number of rows of several batches chosen at once: more would keep the first one waiting."""


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """The batch, ask-first first: pool indices (b,), scores (b,) and the strategy that ran.

    `fallback_reason` says what it fell short of, `reason` why a policy chose it and what else is in the batch. `draw`
    is that of a strategy that draws with known probabilities. Unless it `depends_on_seed`, each seed gives this batch.
    """

    indices: NDArray[np.int64]
    scores: Scores | None
    strategy: str
    fallback_reason: str | None
    reason: str | None = None
    draw: Draw | None = None
    depends_on_seed: bool = True


class OneClassModel:
    """The model of a pool with one known class, whose probability is always 1."""

    classes_ = np.zeros(1, dtype=np.int64)

    def predict_proba(self, X: Any, /) -> NDArray[np.float64]:
        """Return ones (n, 1)."""
        return np.ones((X.shape[0], 1))


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """The strategy to run. Without a fitted model, `model` is a `OneClassModel`."""

    strategy: Strategy
    params: Parameters
    model: Any
    fallback_reason: str | None = None
    reason: str | None = None


def select(
    strategy: Strategy,
    params: Parameters,
    question: Question,
    batch_size: int,
    rng: np.random.Generator,
    *,
    n_batches: int = 1,
) -> Selection:
    """Choose `batch_size` candidates, or all if there are fewer; the same state of `rng` gives the same batch.

    A strategy that spreads its batch chooses up to `n_batches` batches at once, as one. A strategy that cannot run yet
    is replaced: `Selection` names the one that ran and says why.
    """
    plan = choose_plan(strategy, params, question, batch_size)
    question, note = question_in_time(plan, question, max(batch_size, MOST_AT_ONCE), rng)
    run = run_scorer if plan.strategy.kind == "scorer" else run_set
    if plan.strategy.spreads and batch_size:
        n_batches = max(1, min(n_batches, MOST_AT_ONCE // batch_size))
        selection = run(plan, question, min(n_batches * batch_size, question.n_open), rng)
    else:
        selection = run(plan, question, min(batch_size, question.n_open), rng)
    shortfalls = filter(None, (plan.fallback_reason, selection.fallback_reason))
    reasons = filter(None, (plan.reason, note))
    return replace(
        selection,
        fallback_reason="; ".join(shortfalls) or None,
        reason="; ".join(reasons) or None,
        draw=None if note else selection.draw,  # the probabilities hold within the sample only
        depends_on_seed=selection.depends_on_seed or note is not None,
    )


def question_in_time(
    plan: Plan, question: Question, n_wanted: int, rng: np.random.Generator
) -> tuple[Question, str | None]:
    """Return the question, about a sample of the candidates if the model takes too long for all, and a note on it."""
    if question.model is None or not plan.strategy.needs & OF_MODEL:
        return question, None
    has_bag = Need.MEMBERS in plan.strategy.needs and committee_in(plan.model) is None
    n_models = cast(int, plan.params.get("members", MEMBERS.default)) if has_bag else 1
    return sample_for_model(question, n_models, n_wanted, rng)


def choose_plan(strategy: Strategy, params: Parameters, question: Question, batch_size: int) -> Plan:
    """Return the strategy to run: the policy's choice, or one that needs no model if there is none."""
    model = OneClassModel() if question.model is None else question.model
    if strategy.kind == "policy":
        choice: Choice = strategy.function(question, batch_size)
        reason = f"{strategy.name} chose {choice.strategy}: {choice.reason}"
        return Plan(*resolve_strategy(choice.strategy, choice.params), model, reason=reason)
    if question.model is not None or not strategy.needs & OF_MODEL:
        return Plan(strategy, params, model)
    if question.target == "class" and question.n_classes_labeled == 1:
        reason = "no model yet: only one class is labelled, so all samples are equally certain; 'auto' does better here"
        return Plan(strategy, params, model, reason)
    if strategy.starts_alone and question.n_classes_labeled == 0:
        return Plan(strategy, params, model, "no model yet: no sample is labelled, so probabilities were not used")
    choice = choose_without_model(question)
    return Plan(*resolve_strategy(choice.strategy, {}), model, choice.reason)


def run_scorer(plan: Plan, question: Question, n_wanted: int, rng: np.random.Generator) -> Selection:
    """Score every candidate and take the top."""
    name = plan.strategy.name
    if n_wanted == 0:
        return Selection(np.empty(0, np.int64), np.empty(0), name, None)
    predictor: Predictor = plan.model
    pool, backend = question.read_by_model, question.backend
    if Need.MEMBERS in plan.strategy.needs:
        predictor, pool = committee_for(plan, question)
        backend = THREADS
    # One row more shows whether the seed decided which of several rows with the same score is the last.
    exact = ExactRanking.of(plan.strategy, question, predictor)
    if exact is not None:
        indices, best, n_invalid = exact.best(n_wanted + 1, rng)
    else:
        scores = question.score(predictor, pool, plan.strategy.function, backend)
        indices, best = top_rows(pool, scores, question.is_open, n_wanted + 1, rng)
        n_invalid = count_invalid(pool, question, scores)
    return Selection(
        indices[:n_wanted],
        best[:n_wanted],
        name,
        note_of_invalid(question, n_invalid),
        depends_on_seed=bool((best[1:] == best[:-1]).any()),
    )


def committee_for(plan: Plan, question: Question) -> tuple[Any, Pool]:
    """Return the committee for a strategy, and the pool that it reads.

    Its members are a forest's own trees, or as many models as the parameter `members` says.
    """
    trees = committee_in(plan.model)
    if trees is not None:
        return trees, question.read_by_model
    if question.model is None or question.committee is None:
        single = NumberBag((plan.model,)) if question.target == "number" else BaggedCommittee.of([plan.model])
        return single, question.read_by_model
    pool = question.read_by_model if question.committee_pool is None else question.committee_pool
    return question.committee(cast(int, plan.params.get("members", MEMBERS.default))), pool


def count_invalid(pool: Pool, question: Question, scores: list[Scores]) -> int:
    """Return the number of candidates without finite probabilities."""
    n_broken = 0
    for start, of_segment in zip(pool.starts, scores, strict=False):
        if of_segment.min() <= INVALID_SCORE:
            broken = np.flatnonzero(of_segment == INVALID_SCORE)
            n_broken += int(np.count_nonzero(question.is_open[start + broken]))
    return n_broken


def note_of_invalid(question: Question, n_broken: int) -> str | None:
    """Return a note on the number of candidates without finite probabilities, if any."""
    if n_broken == 0:
        return None
    what = "predictions" if question.target == "number" else "probabilities"
    return (
        f"the model has no finite {what} for {n_broken} of the {question.n_open} candidates "
        f"(their features overflow): these rank last, with a score of {INVALID_SCORE:g}"
    )


def run_set(plan: Plan, question: Question, n_wanted: int, rng: np.random.Generator) -> Selection:
    """Let the strategy choose the batch as a whole, and check its result."""
    name = plan.strategy.name
    if n_wanted == 0:
        return Selection(np.empty(0, np.int64), None, name, None)
    view = PoolView(question, plan.model, cache(partial(committee_for, plan, question)))
    positions, scores, note, *chances = plan.strategy.function(view, n_wanted, rng, **plan.params)
    if len(positions) != n_wanted or len(np.unique(positions)) != n_wanted:
        raise RuntimeError(f"strategy {name!r} did not return {n_wanted} distinct candidates")
    indices = question.candidates[positions]
    return Selection(indices, scores, name, note, draw=draw_of(question, indices, *chances))


def draw_of(question: Question, indices: NDArray[np.int64], chances: Chances | None = None) -> Draw | None:
    """Return the draw of a batch of indices, None unless it was drawn with known probabilities."""
    if chances is None or len(chances.log_q) == 0:
        return None
    is_other = np.ones(len(question.is_open), bool)
    is_other[question.candidates[chances.is_drawable]] = False
    return Draw(indices[: len(chances.log_q)], chances.log_q, np.flatnonzero(is_other), len(is_other))
