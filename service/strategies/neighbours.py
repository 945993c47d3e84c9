"""Strategies that compare a row with its nearest labelled rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import xlogy

from service.compute.threads import run_in_threads, use_one_thread
from service.domain.parameters import Parameter
from service.learning.scoring import INVALID_SCORE, Probabilities, Scores
from service.strategies.engine.greedy import SAMPLE, Points, centered_space, cut, draw, nearest_centers, rows_per_block
from service.strategies.engine.notes import add_invalid_note
from service.strategies.engine.question import PoolView, Positions
from service.strategies.engine.ranking import top
from service.strategies.engine.registry import Need, set_strategy

HELD_CELLS = 2**20
"""Largest number of features, and of probabilities, of the labelled rows: 8 MB each."""

MAX_BLOCK_ROWS = 1024
BLOCK_CENTERS = 256
"""Rows and centres of a block of distances: 2 MB."""

LEAST = float(np.finfo(np.float64).eps)
"""Lower limit for probabilities, as in the log loss: divergences stay finite."""


@set_strategy(
    "contrastive",
    summary="Rows whose probabilities differ most from those of the nearest labelled rows.",
    source="Margatina et al. 2021, Active Learning by Acquiring Contrastive Examples, arXiv:2109.03764",
    needs=frozenset({Need.PROBABILITIES, Need.FEATURES, Need.LABELED}),
    parameters=(
        Parameter(
            "n_neighbors",
            kind="integer",
            default=10,
            minimum=1,
            maximum=100,
            summary="Number of labelled rows that each row is compared to.",
        ),
        SAMPLE,
    ),
)
def contrastive(
    view: PoolView, batch_size: int, rng: np.random.Generator, *, n_neighbors: int, sample: int
) -> tuple[Positions, Scores, str | None]:
    """Score by the mean KL divergence of a row's probabilities from those of its nearest labelled rows, in nats (CAL).

    Neighbours are found by Euclidean distance between the features; the paper uses those of its network's last layer.
    Without a labelled row every score is 0. Of too many labelled rows a sample is drawn.
    """
    use_one_thread()
    labeled, P_labeled, notes = labeled_probabilities(view, rng)
    # All distances are computed, unlike in the greedy strategies: hence the factor.
    drawn, note = draw("contrastive", view, max(4 * len(labeled), 1), sample, batch_size, rng)
    rows = view.candidates[drawn]
    scores = np.zeros(len(rows))
    space = centered_space(view.pool, np.concatenate([rows, labeled]))
    centers = [space.read(block) for block in cut(labeled, BLOCK_CENTERS)]
    table = with_own_terms(P_labeled)
    step = min(rows_per_block(view.pool, P_labeled.shape[1]), MAX_BLOCK_ROWS)

    def score(positions: Positions) -> None:
        X = view.pool.take(rows[positions])
        _, near = nearest_centers(Points(space.moved(X)), centers, min(n_neighbors, len(labeled)))
        scores[positions] = mean_divergences(table, near, view.probabilities(rows[positions], X))

    run_in_threads(score, list(cut(np.arange(len(rows)), step)))
    positions = top(scores, batch_size, rng)
    note = "; ".join([*([note] if note else []), *notes]) or None
    return drawn[positions], scores[positions], add_invalid_note(note, scores == INVALID_SCORE, "come last")


def labeled_probabilities(view: PoolView, rng: np.random.Generator) -> tuple[Positions, Probabilities, list[str]]:
    """Return labelled rows with finite probabilities, these probabilities (l, c), and notes on the others."""
    n_classes, n_labeled = len(view.model.classes_), len(view.labeled)
    n_held = min(n_labeled, max(HELD_CELLS // max(n_classes, view.pool.cells_per_row), 100))
    held = view.labeled
    if n_held < n_labeled:
        held = view.labeled[np.sort(rng.choice(n_labeled, n_held, replace=False, shuffle=False))]
    P = view.probabilities(held) if n_held else np.empty((0, n_classes))
    is_good = np.isfinite(P).all(axis=1)
    notes = [f"contrastive used a sample of {n_held} of the {n_labeled} labelled rows"]
    if not is_good.any():
        notes = ["contrastive has no labelled row to compare to, so rows are drawn at random"]
    return held[is_good], P[is_good], notes if n_held < n_labeled or not is_good.any() else []


def with_own_terms(P: Probabilities) -> NDArray[np.float64]:
    """Return probabilities (l, c) with one more column, each row's sum of p ln p."""
    return np.column_stack([P, xlogy(P, np.maximum(P, LEAST)).sum(axis=1)])


def mean_divergences(table: NDArray[np.float64], near: NDArray[np.int64], P: Probabilities) -> Scores:
    """Return the mean of KL(neighbour || row) over each row's neighbours (m, k); INVALID_SCORE for invalid rows.

    `table` has the neighbours' probabilities as `with_own_terms` returns them. The mean is that of sum p ln p minus the
    sum of (mean p) ln q, which avoids an array (m, k, c).
    """
    m, k = near.shape
    sums = sparse.csr_array((np.ones(m * k), near.ravel(), np.arange(m + 1) * k), shape=(m, len(table))) @ table
    with np.errstate(all="ignore"):
        cross = (sums[:, :-1] * np.log(np.maximum(P, LEAST))).sum(axis=1)
    scores = np.maximum((sums[:, -1] - cross) / max(k, 1), 0.0)
    return np.where(np.isfinite(P).all(axis=1), scores, INVALID_SCORE)
