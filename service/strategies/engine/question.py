"""The input of a strategy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.domain.project import TargetName
from service.learning.estimators import committee_in
from service.learning.models import Classifier, Committee, NumberCommittee, predict_numbers, predict_probabilities
from service.learning.pool import CHUNK_CELLS, Features, Pool
from service.learning.scoring import (
    THREADS,
    Backend,
    Predictor,
    Probabilities,
    ScoreCache,
    Scorer,
    Scores,
    member_predictor_for,
    predictor_for,
    score_pool,
    score_some,
)

Positions = NDArray[np.int64]
NO_ROWS: Positions = np.empty(0, np.int64)
Codes = NDArray[np.integer[Any]]
FitModel = Callable[[Features, Codes], Classifier]
"""Trains a model on rows (l, d) and their class codes (l,). Raises FitFailed."""


@dataclass(frozen=True, slots=True, eq=False)
class RelabelCandidates:
    """Labelled rows that may be asked about again, sorted, with the estimates of CROWDLAB.

    `quality` (k,) is the probability that the label is right, and `weight` (k,) the total weight of its votes. The
    model has `model_weight`, with its probabilities at a `temperature`, and a usual annotator `usual_weight`.
    """

    rows: NDArray[np.int64]
    quality: Scores
    weight: Scores
    model_weight: float
    usual_weight: float
    temperature: float
    n_classes: int


@dataclass(frozen=True, eq=False)
class Question:
    """A pool (n, d) with its labels and model.

    `is_open` (n,) marks the rows that may be chosen; `labeled` are the sorted indices of those with a label. `model` is
    None until one is fitted, which takes two classes, or two numbers. `score_cache` holds its earlier scores.
    `committee` returns a committee of the given number of members; without it the model is the only member. `codes`
    (l,) are the classes of the labelled rows, and `fit_model` trains another model like this one; either may be None.
    If the `target` is a number, `numbers` (l,) are those of the labelled rows, in place of `codes`, and the model is a
    regressor; with `members_sent` the committee is the caller's. If a sample may have several labels, `label_sizes`
    (l,) are their numbers, also in place of `codes`, and the model's probabilities are marginals. `model_pool` and
    `committee_pool` hold the input of model and committee if that is not the features. Without `has_features` the pool
    holds only the model's input. The rows of `relabel_candidates` are open as well as labelled. `leased` rows are held
    for the caller and `partly_labeled` ones have too few labels; these are not open, and come first. `pending` rows are
    leased to any annotator. The model takes about `row_seconds` of one core to score a row, if that is long. With
    `is_sampled`, the open rows are a sample, and only they are scored.
    """

    pool: Pool
    is_open: NDArray[np.bool_]
    labeled: NDArray[np.int64]
    model: Any
    n_classes_labeled: int
    score_cache: ScoreCache | None = None
    backend: Backend = THREADS
    committee: Callable[[int], Committee | NumberCommittee] | None = None
    codes: Codes | None = None
    fit_model: FitModel | None = None
    model_pool: Pool | None = None
    committee_pool: Pool | None = None
    has_features: bool = True
    relabel_candidates: RelabelCandidates | None = None
    partly_labeled: Positions = field(default_factory=lambda: NO_ROWS)
    leased: Positions = field(default_factory=lambda: NO_ROWS)
    pending: Positions = field(default_factory=lambda: NO_ROWS)
    target: TargetName = "class"
    numbers: NDArray[np.float64] | None = None
    members_sent: bool = False
    label_sizes: NDArray[np.int64] | None = None
    row_seconds: float = 0.0
    is_sampled: bool = False

    @property
    def read_by_model(self) -> Pool:
        """The pool that the model reads."""
        return self.pool if self.model_pool is None else self.model_pool

    @property
    def fitted_score_cache(self) -> ScoreCache | None:
        """The cache of a fitted model's scores, None without a model."""
        return None if self.model is None else self.score_cache

    @cached_property
    def n_open(self) -> int:
        """The number of rows that may be chosen."""
        return int(np.count_nonzero(self.is_open))

    @cached_property
    def candidates(self) -> NDArray[np.int64]:
        """The indices of the rows that may be chosen, sorted."""
        return np.flatnonzero(self.is_open)

    def score(self, model: Predictor, pool: Pool, scorer: Scorer, backend: Backend = THREADS) -> list[Scores]:
        """Return the scores of each segment of a pool, valid for the rows that may be chosen."""
        if self.is_sampled:
            return score_some(model, pool, scorer, self.candidates)
        return score_pool(model, pool, scorer, self.is_open, score_cache=self.fitted_score_cache, backend=backend)

    @property
    def covered(self) -> NDArray[np.int64]:
        """The indices of the rows that are labelled or leased, sorted: rows near them add little information."""
        return np.union1d(self.labeled, self.pending) if len(self.pending) else self.labeled


@dataclass(frozen=True, eq=False)
class PoolView:
    """The input of a set strategy, which identifies a candidate by its position in `candidates`, not its pool index.

    `model` is a stand-in until a model is fitted. `committee` returns the members, fitted on the first call, and the
    pool that they read.
    """

    question: Question
    model: Any
    committee: Callable[[], tuple[Any, Pool]]

    @property
    def pool(self) -> Pool:
        """The features."""
        return self.question.pool

    @property
    def candidates(self) -> NDArray[np.int64]:
        """The pool indices that may be chosen, sorted."""
        return self.question.candidates

    @property
    def labeled(self) -> NDArray[np.int64]:
        """The pool indices with a label, sorted."""
        return self.question.labeled

    @property
    def covered(self) -> NDArray[np.int64]:
        """The pool indices with a label or leased to an annotator, sorted."""
        return self.question.covered

    def features(self, positions: Positions) -> Features:
        """Return the rows of the candidates at these positions (k,), copied: dense (k, d), or a csr_array."""
        return self.pool.take(self.candidates[positions])

    def labeled_features(self) -> Features:
        """Return the rows of the labelled samples, copied into memory."""
        return self.pool.take(self.labeled)

    def probabilities(self, rows: Positions, X: Features | None = None) -> Probabilities:
        """Return the model's probabilities (k, c) of rows of the pool; pass their features `X` if already read."""
        if X is None or self.question.read_by_model is not self.pool:
            X = self.question.read_by_model.take(rows)
        with np.errstate(all="ignore"):
            return self.predictor(X)

    @cached_property
    def predictor(self) -> Callable[[Features], Probabilities]:
        """The fastest function from the rows that the model reads to its probabilities."""
        return predictor_for(self.model, self.question.read_by_model)

    def predict(self, X: Features) -> Probabilities:
        """Return the model's probabilities (k, c) of any features."""
        return predict_probabilities(self.model, X)

    def scores(self, scorer: Scorer) -> Scores:
        """Return a score for each candidate (n,), INVALID_SCORE without finite probabilities."""
        question = self.question
        return self.of_candidates(question.score(self.model, question.read_by_model, scorer, question.backend))

    def member_scores(self, scorer: Scorer) -> Scores:
        """Return a score for each candidate (n,) as `scores` does, from the members' probabilities."""
        committee, pool = self.committee()
        return self.of_candidates(self.question.score(committee, pool, scorer))

    def member_probabilities(self, rows: Positions) -> Probabilities:
        """Return the members' probabilities (m, k, c) of rows of the pool."""
        committee, pool = self.committee()
        return member_predictor_for(committee)(pool.take(rows))

    @property
    def has_own_members(self) -> bool:
        """Whether the model has members of its own: a forest's trees, or predictions of members in the request."""
        return self.question.members_sent or committee_in(self.model) is not None

    @property
    def n_own_members(self) -> int:
        """The number of members of a committee of numbers."""
        committee, _ = self.committee()
        n_members: int = committee.n_members
        return n_members

    def numbers(self, rows: Positions) -> NDArray[np.float64]:
        """Return the numbers (k,) that the model predicts for rows of the pool."""
        pool = self.question.read_by_model
        step = max(1, CHUNK_CELLS // pool.cells_per_row)
        blocks = (rows[start : start + step] for start in range(0, len(rows), step))
        return np.concatenate([np.empty(0), *(predict_numbers(self.model, pool.take(some)) for some in blocks)])

    def member_predictions(self, rows: Positions) -> NDArray[np.float64]:
        """Return the numbers (m, k) that the members predict for rows of the pool."""
        committee, pool = self.committee()
        predict = member_predictor_for(committee)
        step = max(1, CHUNK_CELLS // max(pool.cells_per_row, committee.n_members))
        blocks = (rows[start : start + step] for start in range(0, len(rows), step))
        empty = np.empty((committee.n_members, 0))
        return np.concatenate([empty, *(predict(pool.take(some)) for some in blocks)], axis=1)

    def of_candidates(self, scores: list[Scores]) -> Scores:
        """Return the candidates' scores (n,) out of those of each segment of a pool."""
        starts = accumulate((len(of_segment) for of_segment in scores), initial=0)
        return np.concatenate(
            [
                of_segment[self.question.is_open[start : start + len(of_segment)]]
                for start, of_segment in zip(starts, scores, strict=False)
            ]
        )
