"""One pass over a pool in chunks: a model's probabilities, reduced at once to one score a row or to a few sums."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from service.compute.threads import run_in_threads, use_one_thread
from service.domain.project import TestScore
from service.learning.estimators import fast_predictor
from service.learning.models import Classifier, Committee, predict_probabilities
from service.learning.pool import Chunk, Features, Pool

Probabilities = NDArray[np.floating[Any]]
Scores = NDArray[np.float64]
Scorer = Callable[[Probabilities], Scores]

INVALID_SCORE = -1.0
"""Scorers answer 0 or more: a row that the model has no finite probability for comes after all others."""


@dataclass(frozen=True, slots=True, eq=False)
class SegmentScores:
    """The scores (n,) of a segment's rows under one model, as far as they were worked out: chunks are, whole, or not.

    Two requests that work out the same chunk write the same numbers; the lock keeps them from doing so.
    """

    scores: Scores
    done: NDArray[np.bool_]
    lock: Lock = field(default_factory=Lock)

    @classmethod
    def unknown(cls, n_rows: int, n_chunks: int) -> SegmentScores:
        """Return no scores yet."""
        return cls(np.full(n_rows, INVALID_SCORE), np.zeros(n_chunks, np.bool_))


class ScoreCache(Protocol):
    """What is known of the scores of a pool under one model, from requests before."""

    def segment_scores(self, scoring: Hashable, segment: int, n_rows: int, n_chunks: int) -> SegmentScores:
        """Return what is known of a segment's scores, of nothing at first; what is added to it may be kept."""


class NoScoreCache:
    """No memory at all."""

    def segment_scores(self, scoring: Hashable, segment: int, n_rows: int, n_chunks: int) -> SegmentScores:
        """Return nothing known."""
        return SegmentScores.unknown(n_rows, n_chunks)


Predictor = Classifier | Committee
"""What scorers are given the answers of."""

KeepScores = Callable[[Chunk, Scores], None]
"""Takes the scores of a chunk, from any thread."""


class Backend(Protocol):
    """Who works out the scores of chunks."""

    def score(self, model: Predictor, pool: Pool, scorer: Scorer, chunks: Sequence[Chunk], keep: KeepScores) -> None:
        """Hand the scores of each chunk to `keep`, in any order."""


class Threads:
    """Works in the threads of this process."""

    def score(self, model: Predictor, pool: Pool, scorer: Scorer, chunks: Sequence[Chunk], keep: KeepScores) -> None:
        """Hand the scores of each chunk to `keep`."""
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
    """Return the scores (n,) of each segment's rows; they mean something in those chunks that hold a `wanted` row.

    The scorer is given the probabilities (n, c) of a model, or those (m, n, c) of a committee's members. A chunk is
    computed whole or not at all, at edges that depend on the pool and the number of probabilities alone, so a
    row's score never depends on which other rows are wanted. Beside the scores, never more than a few chunks are held.
    """
    n_outputs = outputs_of(model)
    scoring = scorer, model.identity if isinstance(model, Committee) else None
    known = [
        (score_cache or NoScoreCache()).segment_scores(scoring, number, len(segment), pool.n_chunks(number, n_outputs))
        for number, segment in enumerate(pool.segments)
    ]

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
        with ExitStack() as held:
            for segment in known:
                held.enter_context(segment.lock)
            due = missing()  # somebody else may have worked them out meanwhile
            backend.score(model, pool, scorer, [chunk for _, _, chunk in due], keep)
            for segment, nth, _ in due:
                segment.done[nth] = True
    return [segment.scores for segment in known]


def outputs_of(model: Predictor) -> int:
    """Return how many numbers are held of a row; scorers of committees take a few copies of what they are given."""
    return 4 * len(model.classes_) * model.n_members if isinstance(model, Committee) else len(model.classes_)


def score_rows(probabilities: Callable[[Features], Probabilities], scorer: Scorer, X: Features) -> Scores:
    """Return one finite score a row of a chunk."""
    with np.errstate(all="ignore"):
        scores = np.asarray(scorer(probabilities(X)), np.float64)
    return np.where(np.isfinite(scores), scores, INVALID_SCORE)


def predictor_for(model: Predictor, pool: Pool) -> Callable[[Features], Probabilities]:
    """Return the function from rows of the pool (n, d) to probabilities (n, c) that is quickest for a model.

    It equals `predict_probabilities` within the rounding of the rows' dtype, near whose limits it may overflow first.
    Of a committee it returns (m, n, c).
    """
    use_one_thread()
    if isinstance(model, Committee):
        return member_predictor_for(model)
    fast = None if pool.is_sparse else fast_predictor(model)
    return fast or (lambda X: predict_probabilities(model, X))


def member_predictor_for(committee: Committee) -> Callable[[Features], Probabilities]:
    """Return the function from rows (n, d) to the probabilities (m, n, c) of a committee's members."""

    def predict(X: Features) -> Probabilities:
        use_one_thread()
        with np.errstate(all="ignore"):
            return committee.member_probabilities(X)

    return predict


def evaluate(model: Classifier, X_test: Pool, y_test_codes: NDArray[np.integer[Any]], n_classes: int) -> TestScore:
    """Measure a model whose `classes_` are class codes on rows (n, d) with codes (n,) below `n_classes`; n >= 1.

    A class that the model has not seen gets probability 0, and log_loss counts 0 as the smallest float step. The
    balanced accuracy is over the classes in `y_test_codes`, F1 over those there or predicted. The sums are our own:
    scikit-learn's metrics want all predictions at once, and warn where predictions and truth differ in their classes.
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
    there, met = true > 0, true + predicted > 0
    return TestScore(
        accuracy=float(right.sum() / len(X_test)),
        balanced_accuracy=float(np.mean(right[there] / true[there])),
        f1_macro=float(np.mean(2 * right[met] / (true + predicted)[met])),
        log_loss=loss / len(X_test),
    )
