"""One pass over a pool in chunks: a model's probabilities, reduced at once to one score a row or to a few sums."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from service.project import TestScore
from service.threads import use_one_thread

Features = NDArray[Any]
Probabilities = NDArray[np.floating[Any]]
Scores = NDArray[np.float64]
Scorer = Callable[[Probabilities], Scores]

# 2 MB of float64: a chunk and what is computed from it stay in the cache of a core.
CHUNK_CELLS = 2**18
MIN_CHUNK_ROWS = 256


class Classifier(Protocol):
    """A trained model, as far as the service looks into it."""

    @property
    def classes_(self) -> NDArray[Any]:
        """The codes of the classes seen in training (c,), ascending."""

    def predict_proba(self, X: Any, /) -> NDArray[Any]:
        """Return the probabilities (n, c) of rows (n, d), columns in the order of `classes_`.

        A row of magnitudes far beyond those of training can overflow to NaN; with `scale` it does not.
        """


def chunks(n_rows: int, n_columns: int) -> Iterator[slice]:
    """Cut `n_rows` rows of `n_columns` cells into slices of about CHUNK_CELLS cells.

    The edges follow from the two sizes and nothing else: a matrix product rounds differently at other edges.
    """
    step = max(MIN_CHUNK_ROWS, CHUNK_CELLS // max(n_columns, 1))
    for start in range(0, n_rows, step):
        yield slice(start, min(start + step, n_rows))


def predict_probabilities(model: Classifier, X: Features) -> NDArray[np.float64]:
    """Return the probabilities (n, c) of rows (n, d), columns in the order of `model.classes_`.

    Features near the limits of their type overflow inside some models; what comes of it is returned in silence, not
    finite, for the caller to judge.
    """
    use_one_thread()
    with np.errstate(all="ignore"):
        return np.asarray(model.predict_proba(X), dtype=np.float64)


def score_pool(model: Classifier, X: Features, scorer: Scorer, wanted: NDArray[np.bool_]) -> Scores:
    """Return one score a row of the pool (n, d), NaN in those chunks where no row is `wanted` (n,).

    A chunk is computed whole or not at all, at edges that depend on the pool and the number of classes alone, so a
    row's score never depends on which other rows are wanted. Never more than one chunk's probabilities are held.
    """
    scores = np.full(len(X), np.nan)
    for rows, probabilities in probability_chunks(model, X, wanted):
        with np.errstate(all="ignore"):
            scores[rows] = scorer(probabilities)
    return scores


def evaluate(model: Classifier, X_test: Features, y_test_codes: NDArray[np.integer[Any]], n_classes: int) -> TestScore:
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
    for rows, probabilities in probability_chunks(model, X_test, np.ones(len(X_test), dtype=np.bool_)):
        known = np.nan_to_num(probabilities, nan=0.0, posinf=0.0, neginf=0.0)
        truth = y_test_codes[rows]
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


def probability_chunks(
    model: Classifier, X: Features, wanted: NDArray[np.bool_]
) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """Yield the rows and probabilities (rows, c) of each chunk that holds a wanted row."""
    # The wider of the two matrices sets the step: four features and a thousand classes must not fill the memory.
    for rows in chunks(len(X), max(X.shape[1], len(model.classes_))):
        if wanted[rows].any():
            yield rows, predict_probabilities(model, np.asarray(X[rows]))
