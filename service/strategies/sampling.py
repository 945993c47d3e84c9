"""Strategies that draw the batch at random in proportion to a score, which makes it diverse."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from service.compute.threads import run_in_threads
from service.domain.parameters import Parameter
from service.learning.scoring import INVALID_SCORE, Scores, score_rows
from service.strategies.engine.greedy import blocks_of
from service.strategies.engine.notes import add_invalid_note, format_notes
from service.strategies.engine.question import PoolView, Positions
from service.strategies.engine.ranking import top
from service.strategies.engine.registry import Chances, Need, set_strategy
from service.strategies.uncertainty import LABELS_SCORERS, SCORERS, margin, mean_uncertainty, scorer_parameter

SCORE_OF_CERTAIN = -1e6
"""Key of rows with weight 0, which come last: below 100 times the logarithm of any number above 0."""

SAMPLE_CELLS = 2**20
"""Largest number of probabilities in a sample: 4 MB."""

DRAW_CELLS = 2**31
"""Largest number of probabilities compared to drawn rows in one request: some seconds."""


@set_strategy(
    "power",
    summary="Rows drawn at random in proportion to a power of their score, so that the batch is diverse.",
    source="Kirsch et al. 2023, Stochastic Batch Acquisition: A Simple Baseline for Deep Active Learning, "
    "arXiv:2106.12059",
    needs=frozenset({Need.PROBABILITIES}),
    parameters=(
        scorer_parameter("margin", (*SCORERS, *LABELS_SCORERS)),
        Parameter(
            "beta",
            kind="number",
            default=3.0,
            minimum=0.0,
            maximum=100.0,
            summary="The power: 0 draws uniformly among rows with a score above 0, large values take the highest "
            "scores.",
        ),
    ),
    targets=("class", "labels"),
)
def power(
    view: PoolView, batch_size: int, rng: np.random.Generator, *, scorer: str, beta: float
) -> tuple[Positions, Scores, str | None, Chances]:
    """Take the highest beta ln(score) + Gumbel noise: a draw without replacement in proportion to score^beta.

    Rows with a score of 0 come last, in random order. The paper's default for beta is 1. With several labels a sample,
    the margin is that of each class on its own, averaged: `mean_uncertainty`.
    """
    scorers = SCORERS if view.question.target == "class" else {"margin": mean_uncertainty, **LABELS_SCORERS}
    scores = view.scores(scorers[scorer])
    is_broken = scores == INVALID_SCORE
    log_weights = log_powers(scores, beta)
    keys = add_gumbel_noise(log_weights, rng)
    keys[is_broken] = 2 * SCORE_OF_CERTAIN
    positions = top(keys, batch_size, rng)
    note = add_invalid_note(None, is_broken, "come last")
    return positions, keys[positions], note, chances_of(log_weights, positions)


@set_strategy(
    "falcun",
    summary="Rows drawn one by one that are uncertain and whose probabilities differ from those drawn before.",
    source="Gilhuber et al. 2024, FALCUN: A Simple and Efficient Deep Active Learning Strategy, ECML PKDD 2024",
    needs=frozenset({Need.PROBABILITIES}),
    parameters=(
        Parameter(
            "gamma",
            kind="number",
            default=10.0,
            minimum=0.0,
            maximum=100.0,
            summary="Power of the relevance: 0 draws uniformly among rows with any relevance, large values take the "
            "most relevant.",
        ),
        Parameter(
            "sample",
            kind="integer",
            default=100_000,
            minimum=100,
            maximum=1_000_000,
            summary="Largest number of candidates considered, drawn at random; fewer with many classes, never fewer "
            "than the batch.",
        ),
    ),
)
def falcun(
    view: PoolView, batch_size: int, rng: np.random.Generator, *, gamma: float, sample: int
) -> tuple[Positions, None, str | None]:
    """Draw one row after another in proportion to relevance^gamma, the relevance being uncertainty plus diversity.

    The uncertainty is 1 - (p(1) - p(2)). The diversity is the L1 distance of the probabilities to those of the nearest
    drawn row; it starts as the uncertainty, and is rescaled to 0..1 before it is added. Each draw takes a pass over the
    sample: beyond a limit of work, the rest is drawn by the last relevance. Rescaling, start and default gamma follow
    the paper, not the authors' code.
    """
    n, n_classes = len(view.candidates), len(view.model.classes_)
    n_drawn = min(n, max(min(sample, SAMPLE_CELLS // n_classes), batch_size))
    drawn = np.arange(n) if n_drawn == n else np.sort(rng.choice(n, n_drawn, replace=False, shuffle=False))
    P, uncertainty = read_probabilities(view, drawn)
    is_broken = uncertainty == INVALID_SCORE
    notes = [] if n_drawn == n else [f"considered a sample of {n_drawn} of the {n} candidates"]
    n_turns = max(DRAW_CELLS // (n_drawn * n_classes), 1)
    if n_turns < batch_size:
        notes.append(f"drew the last {batch_size - n_turns} of the batch at once: one by one would be slow")
    positions = draw_diverse(P, uncertainty, is_broken, gamma, batch_size, n_turns, rng)
    return drawn[positions], None, add_invalid_note(format_notes("falcun", notes), is_broken, "come last")


def read_probabilities(view: PoolView, positions: Positions) -> tuple[NDArray[np.float32], Scores]:
    """Return the probabilities, class by class (c, k), and the margin scores (k,) of some candidates, read in chunks.

    A row without finite probabilities has 0 for each, and INVALID_SCORE.
    """
    n_classes = len(view.model.classes_)
    P, scores = np.zeros((n_classes, len(positions)), np.float32), np.empty(len(positions))

    def read(rows: Positions) -> None:
        of_rows = view.probabilities(view.candidates[positions[rows]])
        scores[rows] = score_rows(lambda p: p, margin, of_rows)
        P[:, rows] = np.where(scores[rows] == INVALID_SCORE, 0.0, of_rows.T)

    run_in_threads(read, blocks_of(view, positions))
    return P, scores


def draw_diverse(
    P: NDArray[np.float32],
    uncertainty: Scores,
    is_broken: NDArray[np.bool_],
    gamma: float,
    batch_size: int,
    n_turns: int,
    rng: np.random.Generator,
) -> Positions:
    """Draw `batch_size` positions by FALCUN's rule, updating the diversity in the first `n_turns` turns.

    `P` (c, k) is class by class. Each turn takes the largest gamma ln(relevance) + Gumbel noise.
    """
    uncertainty = np.where(is_broken, 0.0, uncertainty)
    diversity = uncertainty.copy()
    drawn: list[int] = []
    while True:
        keys = gumbel_keys(uncertainty + rescale(diversity, ~is_broken), gamma, rng)
        keys[is_broken] = 2 * SCORE_OF_CERTAIN
        keys[drawn] = 4 * SCORE_OF_CERTAIN
        if len(drawn) == min(n_turns, batch_size) - 1:
            return np.concatenate([np.array(drawn, np.int64), top(keys, batch_size - len(drawn), rng)])
        drawn.append(int(top(keys, 1, rng)[0]))
        away = np.zeros(len(diversity), np.float32)
        for column in P:
            away += np.abs(column - column[drawn[-1]])
        np.minimum(diversity, away, out=diversity)


def gumbel_keys(weights: Scores, power: float, rng: np.random.Generator) -> Scores:
    """Return keys whose order is a draw without replacement in proportion to weights^power; weights <= 0 come last."""
    return add_gumbel_noise(log_powers(weights, power), rng)


def log_powers(weights: Scores, power: float) -> Scores:
    """Return the logarithms of weights^power, -inf for weights <= 0."""
    is_drawable = weights > 0
    logs = np.log(weights, out=np.zeros(len(weights)), where=is_drawable)
    logs *= power
    logs[~is_drawable] = -np.inf
    return logs


def add_gumbel_noise(log_weights: Scores, rng: np.random.Generator) -> Scores:
    """Return keys whose order is a draw without replacement in proportion to weights; weights of 0 come last."""
    return np.maximum(log_weights + rng.gumbel(size=len(log_weights)), SCORE_OF_CERTAIN)


def chances_of(log_weights: Scores, positions: Positions) -> Chances:
    """Return the probabilities with which positions were drawn one after another in proportion to weights."""
    is_drawable = np.isfinite(log_weights)
    drawn = positions[is_drawable[positions]]
    is_rest = is_drawable.copy()
    is_rest[drawn] = False
    rest, of_drawn = log_weights[is_rest], log_weights[drawn]
    highest = rest.max(initial=-np.inf)
    log_rest = highest + np.log(np.exp(rest - highest).sum()) if len(rest) else -np.inf
    # The sums of weights before each draw, from the last to the first: nothing cancels.
    log_sums = np.logaddexp.accumulate(np.append(log_rest, of_drawn[::-1]))[:0:-1]
    return Chances(np.minimum(of_drawn - log_sums, 0.0), is_drawable)


def rescale(values: Scores, counts: NDArray[np.bool_]) -> Scores:
    """Return values rescaled so that those in `counts` range from 0 to 1; all 0 if these are equal."""
    some = values[counts]
    low, high = (some.min(), some.max()) if len(some) else (0.0, 0.0)
    return (values - low) / (high - low) if high > low else np.zeros(len(values))
