"""The best rows of a large pool under a linear model, ranked by exact scores: see `learning.leaders`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from service.learning.leaders import (
    ROWS_PER_PICK,
    Bound,
    Estimates,
    errors_of_pool,
    estimate_leaders,
    exact_scores,
)
from service.learning.linear_scorer import LinearPredictor
from service.learning.scoring import INVALID_SCORE, THREADS, Predictor, Scorer, Scores, predictor_for
from service.strategies.engine.question import NO_ROWS, Positions, Question
from service.strategies.engine.ranking import best_rows, blocks_of
from service.strategies.engine.registry import Strategy

MIN_ROWS = 100_000
"""Number of rows of a pool from which it is ranked so: the best rows of smaller ones are less close to one another."""

Best = tuple[Positions, Scores, int]
"""The best rows and their scores, best first, and the number of candidates without finite probabilities."""


@dataclass(frozen=True, slots=True, eq=False)
class ExactRanking:
    """The candidates of a question under a linear model, by a scorer with a bound."""

    question: Question
    predictor: Predictor
    predict: LinearPredictor
    scorer: Scorer
    bound: Bound

    @classmethod
    def of(cls, strategy: Strategy, question: Question, predictor: Predictor) -> ExactRanking | None:
        """Return the ranking, None if the strategy, the pool or the model is not for it."""
        pool = question.read_by_model
        if strategy.bound is None or pool.is_sparse or len(pool) < MIN_ROWS:
            return None
        if question.backend is not THREADS or question.is_sampled:
            return None
        predict = predictor_for(predictor, pool)
        if not isinstance(predict, LinearPredictor) or not predict.has_logits:
            return None
        return cls(question, predictor, predict, strategy.function, strategy.bound)

    def best(self, n_wanted: int, rng: np.random.Generator) -> Best:
        """Return the `n_wanted` >= 1 best rows."""
        leaders = self._leaders(n_wanted)
        if leaders is not None:
            near, scores = self._score_near(lambda: iter([leaders]), n_wanted)
            if np.count_nonzero(scores > leaders.floor) >= n_wanted:
                return self._rank(near, scores, n_wanted, rng)
        near, scores = self._score_near(self._runs(), n_wanted)
        return self._rank(near, scores, n_wanted, rng)

    def _leaders(self, n_wanted: int) -> Estimates | None:
        """Return the estimates of the candidates with small gaps, None if there are too many."""
        question = self.question
        share = ROWS_PER_PICK * self.predict.n_classes * n_wanted / question.n_open
        found = estimate_leaders(
            self.predict, question.read_by_model, self.scorer, self.bound, share, question.fitted_score_cache
        )
        if found is None:
            return None
        some = question.is_open[found.rows]
        return Estimates(found.rows[some], found.scores[some], found.errors[some], found.floor)

    def _runs(self) -> Callable[[], Iterator[Estimates]]:
        """Return a function that yields the estimates of all candidates in blocks."""
        question, pool = self.question, self.question.read_by_model
        scores = question.score(self.predictor, pool, self.scorer, question.backend)
        errors = errors_of_pool(self.predict, pool)

        def runs() -> Iterator[Estimates]:
            parts = [(start, of_segment, None) for start, of_segment in zip(pool.starts, scores, strict=False)]
            for first, block, _ in blocks_of(parts):
                some = np.flatnonzero(question.is_open[first : first + len(block)])
                yield Estimates(first + some, block[some], errors[first + some].astype(np.float64), -np.inf)

        return runs

    def _score_near(self, runs: Callable[[], Iterator[Estimates]], n_wanted: int) -> tuple[Positions, Scores]:
        """Return the rows that may be among the `n_wanted` best, or have no finite probabilities, and exact scores."""
        lowest = np.empty(0)
        for run in runs():
            lowest = np.concatenate([lowest, run.scores - run.errors])
            if len(lowest) > n_wanted:
                lowest = np.partition(lowest, len(lowest) - n_wanted)[len(lowest) - n_wanted :]
        # Of fewer rows, all are near.
        cut = lowest.min() if len(lowest) == n_wanted else -np.inf
        near = np.concatenate([NO_ROWS, *(run.rows[run.scores + run.errors >= cut] for run in runs())])
        return near, exact_scores(self.predict, self.question.read_by_model, self.scorer, near)

    def _rank(self, near: Positions, scores: Scores, n_wanted: int, rng: np.random.Generator) -> Best:
        return *best_rows(near, scores, n_wanted, rng), int(np.count_nonzero(scores == INVALID_SCORE))
