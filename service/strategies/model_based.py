"""Strategies that train models of their own: labelled against unlabelled rows, or one per possible label."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.compute.deadline import check_deadline
from service.compute.threads import run_in_threads, use_one_thread
from service.domain.parameters import Parameter
from service.errors import FitFailed
from service.learning.models import Classifier, predict_probabilities
from service.learning.pool import Features, stack_rows
from service.learning.scoring import INVALID_SCORE, Scorer, score_rows
from service.strategies.engine.features import (
    SAMPLE,
    dense_width,
    draw_sample,
    largest_magnitude,
    notes_of_folding,
    to_dense,
)
from service.strategies.engine.notes import add_invalid_note, format_notes
from service.strategies.engine.question import Codes, FitModel, PoolView, Positions
from service.strategies.engine.ranking import top
from service.strategies.engine.registry import Need, set_strategy
from service.strategies.uncertainty import entropy, least_confidence, margin

DISCRIMINATED_CELLS = 2**21
"""Largest number of cells of the candidates, and of the labelled rows, in the discriminator: 16 MB each."""

STEPS = 100
"""Optimiser steps per fit; each fit starts from the last one's weights."""

REMEMBERED = 10
"""Number of steps that the optimiser remembers."""

SHORTENED = 20
"""Number of times that a step may be shortened."""

PRECISION = 5e-9
"""Decrease of a fit's loss per row, in nats, below which a fit ends."""

LIKELIEST = 3
"""Number of labels tried per row: in rows of small margin they hold most of the probability."""

EVALUATED_CELLS = 2**21
"""Largest number of cells of the rows on which the expected error is computed."""

NO_MODEL = 2.0
"""Loss of a row whose model cannot be trained: above the maximum of 1."""

Vector = NDArray[np.float64]

Train = Callable[[Features, Any], Classifier]

LOSSES: dict[str, Scorer] = {"log": entropy, "zero_one": least_confidence}


@set_strategy(
    "discriminative",
    summary="Rows that a classifier tells apart from the labelled ones, chosen in a few parts.",
    source="Gissin & Shalev-Shwartz 2019, Discriminative Active Learning, arXiv:1907.06347",
    needs=frozenset({Need.FEATURES, Need.LABELED}),
    parameters=(
        Parameter(
            "sub_batches",
            kind="integer",
            default=10,
            minimum=1,
            maximum=100,
            summary="Number of parts in which the batch is chosen; the rows of each part then count as labelled.",
        ),
        SAMPLE,
    ),
)
def discriminative(
    view: PoolView, batch_size: int, rng: np.random.Generator, *, sub_batches: int, sample: int
) -> tuple[Positions, None, str | None]:
    """Choose the rows most likely to be unlabelled by a logistic regression that is refitted after each part (DAL).

    The paper trains a small network on a learnt representation; here it is a linear model of the standardised features,
    with the same total weight for labelled and unlabelled rows. Without labels, the first part is drawn at random.
    """
    n_labeled, n_held = len(view.covered), max(DISCRIMINATED_CELLS // dense_width(view.pool), 100)
    drawn, notes = draw_sample(view, min(sample, n_held), batch_size, rng)
    held = rng.choice(n_labeled, min(n_labeled, n_held), replace=False)
    if len(held) < n_labeled:
        notes.append(f"used a sample of {len(held)} of the {n_labeled} labelled rows")
    Z = standardize(view.pool.take(np.concatenate([view.candidates[drawn], view.covered[held]])))
    is_labeled = np.arange(len(Z)) >= len(drawn)
    weights = np.zeros(Z.shape[1] + 1)
    chosen: list[int] = []
    for part in np.array_split(np.arange(batch_size), min(sub_batches, batch_size)):
        check_deadline()
        rest = np.flatnonzero(~is_labeled)
        weights = fit_discriminator(Z, is_labeled, weights)
        scores = (Z @ weights[:-1].astype(np.float32)).astype(np.float64)
        rows = rest[top(scores[rest], len(part), rng)]
        is_labeled[rows] = True
        chosen += rows.tolist()
    return drawn[chosen], None, format_notes("discriminative", notes + notes_of_folding(view.pool))


def standardize(X: Features) -> NDArray[np.float32]:
    """Return rows as a dense matrix with columns of mean 0 and standard deviation 1; constant columns become 0."""
    Z = to_dense(X).astype(np.float64)
    Z /= largest_magnitude(Z)
    Z -= Z[0].copy()  # exact, so that rows far from the origin keep their differences
    Z -= Z.mean(axis=0)
    deviations = np.sqrt(np.einsum("nd,nd->d", Z, Z) / len(Z))
    varies = deviations > 1e-12 * deviations.max(initial=0.0)
    Z *= np.divide(1.0, deviations, out=np.zeros(len(deviations)), where=varies)
    return Z.astype(np.float32, order="F")  # whose product with a vector is fastest


def fit_discriminator(
    Z: NDArray[np.float32], is_labeled: NDArray[np.bool_], start: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the weights (d + 1,), intercept last, of a logistic regression for unlabelled rows; 0 without labels.

    It has an L2 penalty of 1 on all but the intercept, and each of the two classes has a total weight of n / 2.
    scikit-learn's LogisticRegression gives the same within rounding, in several times the time.
    """
    n_labeled = np.count_nonzero(is_labeled)
    if n_labeled == 0:
        return np.zeros_like(start)
    use_one_thread()
    sides = np.where(is_labeled, np.float32(-1), np.float32(1))
    shares = (len(Z) / 2 / np.where(is_labeled, n_labeled, len(Z) - n_labeled)).astype(np.float32) * sides

    def gradient(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        narrow = weights.astype(np.float32)
        leads = Z @ narrow[:-1]
        leads += narrow[-1]
        leads *= sides
        with np.errstate(over="ignore"):
            np.exp(leads, out=leads)
        leads += 1
        slopes = np.divide(shares, leads, out=leads)
        return np.append(weights[:-1] - slopes @ Z, -slopes.sum())

    # The second derivative along a standardised feature is about n / 4 where the odds are even.
    return minimize_convex(gradient, start, 4 / len(Z), PRECISION * len(Z))


def minimize_convex(gradient: Callable[[Vector], Vector], start: Vector, scale: float, tolerance: float) -> Vector:
    """Return where a convex function is least, up to a decrease of `tolerance`, by L-BFGS from its gradient alone.

    Its values, computed in float32, hardly differ near the minimum. The first step is `scale` times the gradient.
    Nocedal 1980, Updating Quasi-Newton Matrices with Limited Storage, doi:10.1090/S0025-5718-1980-0572855-7.
    """
    at, slopes = start, gradient(start)
    pairs: deque[tuple[Vector, Vector]] = deque(maxlen=REMEMBERED)
    for _ in range(STEPS):
        step = newton_step(slopes, pairs, scale)
        descent = -(slopes @ step)
        if descent <= tolerance:
            break
        for _ in range(SHORTENED):
            new = gradient(at + step)
            rise = new @ step
            if rise <= descent / 2:
                break
            factor = descent / (descent + rise)  # to where the slope would be 0 if it changed evenly
            step, descent = step * factor, descent * factor
        change = new - slopes
        if step @ change <= 0:  # nothing but rounding errors
            break
        pairs.append((step, change))
        at, slopes, scale = at + step, new, float((step @ change) / (change @ change))
    return at


def newton_step(slopes: Vector, pairs: Sequence[tuple[Vector, Vector]], scale: float) -> Vector:
    """Return the step to the minimum that the last steps, paired with their changes of the gradient, suggest."""
    step = -slopes
    shares = []
    for moved, change in reversed(pairs):
        shares.append((moved @ step) / (moved @ change))
        step -= shares[-1] * change
    step *= scale
    for (moved, change), share in zip(pairs, reversed(shares), strict=True):
        step += (share - (change @ step) / (moved @ change)) * moved
    return step


@set_strategy(
    "expected_error_reduction",
    summary="Rows whose label, whichever it is, leaves the model most certain about the rest of the pool. Slow.",
    source="Roy & McCallum 2001, Toward Optimal Active Learning through Sampling Estimation of Error Reduction, ICML",
    needs=frozenset({Need.PROBABILITIES, Need.FEATURES, Need.LABELED, Need.LABELS, Need.MODEL}),
    parameters=(
        Parameter(
            "contenders",
            kind="integer",
            default=20,
            minimum=2,
            maximum=1000,
            summary="Number of candidates tried, those with the smallest margin. Each takes up to three fits.",
        ),
        Parameter(
            "evaluated",
            kind="integer",
            default=500,
            minimum=10,
            maximum=10_000,
            summary="Number of candidates, drawn at random, on which the expected error is computed.",
        ),
        Parameter(
            "loss",
            kind="choice",
            default="log",
            choices=tuple(LOSSES),
            summary="Expected loss: 'log' (the entropy) or 'zero_one' (1 - p(1)).",
        ),
    ),
)
def expected_error_reduction(
    view: PoolView, batch_size: int, rng: np.random.Generator, *, contenders: int, evaluated: int, loss: str
) -> tuple[Positions, None, str | None]:
    """Train the project's estimator with each possible label of a row, and take the rows of smallest expected loss.

    As in the paper, the loss is the model's own expectation on a sample of the pool, averaged over the labels by their
    probability. At most the three likeliest labels are tried, and only for the rows of smallest margin; larger batches
    are filled up by margin. Rows are scored independently of each other.
    """
    uncertainty = view.scores(margin)
    is_broken = uncertainty == INVALID_SCORE
    n = len(uncertainty)
    ranked = top(uncertainty, max(contenders, batch_size), rng)
    if view.question.fit_model is None or view.question.codes is None or len(view.model.classes_) < 2:
        note = "expected_error_reduction needs an estimator and two classes: these are the rows of smallest margin"
        return ranked[:batch_size], None, add_invalid_note(note, is_broken, "come last")
    tried = ranked[:contenders][~is_broken[ranked[:contenders]]]
    n_evaluated = min(n, evaluated, max(EVALUATED_CELLS // view.pool.cells_per_row, 10))
    X = view.features(np.sort(rng.choice(n, n_evaluated, replace=False, shuffle=False)))
    train = partial(train_with, view.question.fit_model, view.labeled_features(), view.question.codes)
    losses = expected_losses(view, tried, train, partial(mean_loss, X=X, loss=LOSSES[loss]))
    best = tried[top(-losses, len(tried), rng)]
    positions = np.concatenate([best, ranked[~np.isin(ranked, best)]])[:batch_size]
    notes = [] if n_evaluated == n else [f"estimated the error on a sample of {n_evaluated} of the {n} candidates"]
    if len(tried) < n:
        notes.append(f"tried the {len(tried)} rows of smallest margin")
    if len(tried) < batch_size:
        notes.append(f"took the last {batch_size - len(tried)} of the batch by margin")
    return positions, None, add_invalid_note(format_notes("expected_error_reduction", notes), is_broken, "come last")


def expected_losses(
    view: PoolView, tried: Positions, train: Train, loss_of: Callable[[Classifier], float]
) -> NDArray[np.float64]:
    """Return for each tried row the loss of a model trained with it, averaged over its likely labels.

    It is NO_MODEL where one of the models cannot be trained.
    """
    P, classes = view.probabilities(view.candidates[tried]), view.model.classes_
    losses = np.full(len(tried), NO_MODEL)

    def try_row(number: int) -> None:
        x, p = view.features(tried[number : number + 1]), P[number]
        likeliest = np.argsort(-p, kind="stable")[:LIKELIEST]
        likeliest = likeliest[p[likeliest] > 0]
        with suppress(FitFailed):
            of_labels = [loss_of(train(x, classes[label])) for label in likeliest.tolist()]
            losses[number] = np.average(of_labels, weights=p[likeliest])

    run_in_threads(try_row, range(len(tried)))
    return losses


def train_with(fit_model: FitModel, X: Features, codes: Codes, x: Features, code: int) -> Classifier:
    """Train on the labelled rows and one more."""
    return fit_model(stack_rows([X, x], X.dtype, X.shape[1]), np.append(codes, codes.dtype.type(code)))


def mean_loss(model: Classifier, X: Features, loss: Scorer) -> float:
    """Return the mean loss that a model expects on some rows, from 0 to 1; rows with invalid probabilities count 1."""
    losses = score_rows(partial(predict_probabilities, model), loss, X)
    return float(np.where(losses == INVALID_SCORE, 1.0, losses).mean())
