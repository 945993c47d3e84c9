"""Passes over a pool in chunks: a model's probabilities, reduced to one score per row or to a few sums."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from service.compute.threads import run_in_threads, use_one_thread
from service.domain.project import NumberScore, TestScore
from service.learning.estimators import fast_predictor
from service.learning.models import (
    Classifier,
    Committee,
    NumberCommittee,
    Regressor,
    is_committee,
    is_of_numbers,
    is_regressor,
    predict_numbers,
    predict_outputs,
    predict_probabilities,
)
from service.learning.pool import CHUNK_CELLS, Chunk, Features, Pool

Probabilities = NDArray[np.floating[Any]]
Scores = NDArray[np.float64]
Scorer = Callable[[Probabilities], Scores]

INVALID_SCORE = -1.0
"""Score of rows without finite probabilities, which come last: scorers return 0 or more."""


@dataclass(frozen=True, slots=True, eq=False)
class SegmentScores:
    """The scores (n,) of a segment's rows under one model; `done` marks the chunks that are computed.

    The lock keeps two requests from computing the same chunk, though both would write the same numbers.
    """

    scores: Scores
    done: NDArray[np.bool_]
    lock: Lock = field(default_factory=Lock)

    @classmethod
    def unknown(cls, n_rows: int, n_chunks: int) -> SegmentScores:
        """Return scores of which no chunk is computed."""
        return cls(np.full(n_rows, INVALID_SCORE), np.zeros(n_chunks, np.bool_))


class ScoreCache(Protocol):
    """The scores of a pool under one model, kept between requests."""

    def segment_scores(self, scoring: Hashable, segment: int, n_rows: int, n_chunks: int) -> SegmentScores:
        """Return the cached scores of a segment, initially empty; scores added to them may be kept."""

    def of_model(self, key: Hashable, make: Callable[[], tuple[Any, int]]) -> Any:
        """Return what is cached of the model and the pool under a key, or what `make` returns, with its bytes."""


class NoScoreCache:
    """A cache that keeps nothing."""

    def segment_scores(self, scoring: Hashable, segment: int, n_rows: int, n_chunks: int) -> SegmentScores:
        """Return empty scores."""
        return SegmentScores.unknown(n_rows, n_chunks)

    def of_model(self, key: Hashable, make: Callable[[], tuple[Any, int]]) -> Any:
        """Return what `make` returns."""
        value, _ = make()
        return value


Predictor = Classifier | Committee | Regressor | NumberCommittee
"""The source of the probabilities, or of the predicted numbers, that scorers take."""

KeepScores = Callable[[Chunk, Scores], None]
"""Stores the scores of a chunk; called from any thread."""


class Backend(Protocol):
    """Computes the scores of chunks."""

    def score(self, model: Predictor, pool: Pool, scorer: Scorer, chunks: Sequence[Chunk], keep: KeepScores) -> None:
        """Call `keep` with the scores of each chunk, in any order."""


class Threads:
    """Backend in the threads of this process."""

    def score(self, model: Predictor, pool: Pool, scorer: Scorer, chunks: Sequence[Chunk], keep: KeepScores) -> None:
        """Call `keep` with the scores of each chunk."""
        probabilities = predictor_for(model, pool)
        run_in_threads(lambda chunk: keep(chunk, score_rows(probabilities, scorer, pool.read(chunk))), chunks)


THREADS = Threads()


def score_pool(
    model: Predictor,
    pool: Pool,
    scorer: Scorer,
    wanted: NDArray[np.bool_],
    *,
    score_cache: ScoreCache | None = None,
    backend: Backend = THREADS,
) -> list[Scores]:
    """Return the scores (n,) of each segment's rows, which are valid in the chunks that contain a `wanted` row.

    The scorer takes the probabilities (n, c) of a model, or (m, n, c) of a committee's members; of numbers it takes the
    predictions (n, 1) or (m, n). Chunks are computed as
    a whole, and their edges depend only on the pool and the number of probabilities, so a row's score never depends on
    which other rows are wanted. Only a few chunks are held in memory besides the scores.
    """
    scoring = scorer, model.identity if is_committee(model) else None
    known = known_scores(pool, scoring, outputs_of(model), score_cache)
    compute_missing(
        known, pool, wanted, outputs_of(model), lambda chunks, keep: backend.score(model, pool, scorer, chunks, keep)
    )
    return [segment.scores for segment in known]


def known_scores(pool: Pool, scoring: Hashable, n_outputs: int, score_cache: ScoreCache | None) -> list[SegmentScores]:
    """Return the scores of each segment that are known."""
    cache = score_cache or NoScoreCache()
    return [
        cache.segment_scores(scoring, number, len(segment), pool.n_chunks(number, n_outputs))
        for number, segment in enumerate(pool.segments)
    ]


def compute_missing(
    known: Sequence[SegmentScores],
    pool: Pool,
    wanted: NDArray[np.bool_],
    n_outputs: int,
    score: Callable[[Sequence[Chunk], KeepScores], None],
) -> None:
    """Compute the scores of the chunks with a `wanted` row that are not known, by a function that keeps them."""

    def missing() -> list[tuple[SegmentScores, int, Chunk]]:
        return [
            (segment, nth, chunk)
            for number, segment in enumerate(known)
            if not segment.done.all()
            for nth, chunk in enumerate(pool.chunks_of(number, n_outputs))
            if not segment.done[nth] and wanted[chunk.rows].any()
        ]

    def keep(chunk: Chunk, scores: Scores) -> None:
        known[chunk.segment].scores[chunk.within] = scores

    if missing():
        with ExitStack() as locks:
            for segment in known:
                locks.enter_context(segment.lock)
            due = missing()  # another request may have computed some meanwhile
            score([chunk for _, _, chunk in due], keep)
            for segment, nth, _ in due:
                segment.done[nth] = True


def score_some(model: Predictor, pool: Pool, scorer: Scorer, rows: NDArray[np.int64]) -> list[Scores]:
    """Return the scores of each segment's rows as `score_pool` does, computed for `rows` (k,) alone and not cached.

    They may differ in rounding from those of `score_pool`, and with the other rows.
    """
    predict, found = predictor_for(model, pool), np.full(len(pool), INVALID_SCORE)
    step = max(1, CHUNK_CELLS // max(pool.cells_per_row, outputs_of(model)))

    def score(start: int) -> None:
        some = rows[start : start + step]
        found[some] = score_rows(predict, scorer, pool.take(some))

    run_in_threads(score, range(0, len(rows), step))
    return np.split(found, pool.starts[1:-1])


def outputs_of(model: Predictor) -> int:
    """Return the numbers held in memory per row; committee scorers make a few copies of their input."""
    if is_committee(model):
        return 4 * model.n_members * (1 if is_of_numbers(model) else len(cast(Committee, model).classes_))
    return 1 if is_regressor(model) else len(cast(Classifier, model).classes_)


def score_rows(probabilities: Callable[[Features], Probabilities], scorer: Scorer, X: Features) -> Scores:
    """Return one finite score for each row of a chunk."""
    with np.errstate(all="ignore"):
        scores = np.asarray(scorer(probabilities(X)), np.float64)
    return np.where(np.isfinite(scores), scores, INVALID_SCORE)


def predictor_for(model: Predictor, pool: Pool) -> Callable[[Features], Probabilities]:
    """Return the fastest function from rows of the pool (n, d) to a model's probabilities (n, c).

    It equals `predict_outputs` up to rounding in the rows' dtype, near whose limits it may overflow first. For a
    committee it returns (m, n, c), or (m, n) if that predicts numbers.
    """
    use_one_thread()
    if is_committee(model):
        return member_predictor_for(model)
    fast = None if pool.is_sparse else fast_predictor(cast(Classifier | Regressor, model))
    return fast or (lambda X: predict_outputs(model, X))


def member_predictor_for(committee: Committee | NumberCommittee) -> Callable[[Features], Probabilities]:
    """Return the function from rows (n, d) to the probabilities (m, n, c), or numbers (m, n), of a committee."""

    def predict(X: Features) -> Probabilities:
        use_one_thread()
        with np.errstate(all="ignore"):
            if is_of_numbers(committee):
                return committee.member_predictions(X)
            return cast(Committee, committee).member_probabilities(X)

    return predict


def evaluate_numbers(model: Regressor, X_test: Pool, y_test: NDArray[np.float64]) -> NumberScore | None:
    """Return the test score of a model of numbers on n >= 1 rows, None if a prediction is not finite.

    R2 is 0 where all labels are the same and not predicted exactly.
    """
    squares, distance = 0.0, 0.0
    for chunk in X_test.chunks(1):
        errors = predict_numbers(model, X_test.read(chunk)) - y_test[chunk.rows]
        squares += float(np.square(errors).sum())
        distance += float(np.abs(errors).sum())
    if not np.isfinite(squares):
        return None
    spread = float(np.square(y_test - y_test.mean()).sum())
    n = len(X_test)
    r2 = 1.0 - squares / spread if spread > 0 else float(squares == 0)
    return NumberScore(rmse=math.sqrt(squares / n), mae=distance / n, r2=r2)


def evaluate(model: Classifier, X_test: Pool, y_test_codes: NDArray[np.integer[Any]], n_classes: int) -> TestScore:
    """Return the test score of a model, whose `classes_` are codes, on n >= 1 rows with codes below `n_classes`.

    A class that the model has not seen has probability 0, which log_loss clips to float64's epsilon. Balanced accuracy
    averages over the true classes, F1 over the true and predicted ones. scikit-learn's metrics are not used: they need
    all predictions at once, and warn if predictions and truth differ in their classes.
    """
    classes = np.asarray(model.classes_, dtype=np.int64)
    column_of = np.full(n_classes, -1)
    column_of[classes] = np.arange(len(classes))
    true, predicted, right = (np.zeros(n_classes, dtype=np.int64) for _ in range(3))
    loss = 0.0
    for chunk in X_test.chunks(len(classes)):
        probabilities = predict_probabilities(model, X_test.read(chunk))
        known = np.nan_to_num(probabilities, nan=0.0, posinf=0.0, neginf=0.0)
        truth = y_test_codes[chunk.rows]
        guess = classes[known.argmax(axis=1)]
        column = column_of[truth]
        of_truth = np.where(column >= 0, known[np.arange(len(known)), column], 0.0)
        loss -= float(np.log(np.clip(of_truth, np.finfo(np.float64).eps, 1.0)).sum())
        true += np.bincount(truth, minlength=n_classes)
        predicted += np.bincount(guess, minlength=n_classes)
        right += np.bincount(truth[guess == truth], minlength=n_classes)
    present, seen = true > 0, true + predicted > 0
    return TestScore(
        accuracy=float(right.sum() / len(X_test)),
        balanced_accuracy=float(np.mean(right[present] / true[present])),
        f1_macro=float(np.mean(2 * right[seen] / (true + predicted)[seen])),
        log_loss=loss / len(X_test),
    )
