"""QUIRE: minimum worst-case risk of a kernel machine."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from service.compute.threads import run_in_threads, use_one_thread
from service.domain.parameters import Parameter
from service.learning.scoring import Scores
from service.strategies.engine.greedy import (
    SAMPLE,
    WIDTH_ROWS,
    Points,
    centered_space,
    cut,
    draw,
    median_distance,
    rows_per_block,
)
from service.strategies.engine.question import PoolView, Positions
from service.strategies.engine.ranking import top
from service.strategies.engine.registry import Need, set_strategy

Matrix = NDArray[np.float64]

MAX_LABELED = 500
"""Largest number of labelled rows used: the work grows with its square."""

MAX_BLOCK_ROWS = 1024


@set_strategy(
    "quire",
    summary="Rows that reduce most the worst-case risk of a kernel machine over labelled and unlabelled rows.",
    source="Huang, Jin & Zhou 2010, Active Learning by Querying Informative and Representative Examples, NIPS",
    needs=frozenset({Need.FEATURES, Need.LABELED, Need.LABELS}),
    parameters=(
        Parameter(
            "regularization",
            kind="number",
            default=1.0,
            minimum=0.001,
            maximum=1000.0,
            summary="Number added to the diagonal of the kernel matrix; larger values give a simpler machine.",
        ),
        Parameter(
            "bandwidth",
            kind="number",
            default=0.5,
            minimum=0.01,
            maximum=100.0,
            summary="Width of the Gaussian kernel, as a share of the median distance between two rows.",
        ),
        SAMPLE,
    ),
)
def quire(
    view: PoolView,
    batch_size: int,
    rng: np.random.Generator,
    *,
    regularization: float,
    bandwidth: float,
    sample: int,
) -> tuple[Positions, Scores, str | None]:
    """Score by minus the min-max risk of a row s: y' L y, maximised over its label and minimised over all others.

    L is the inverse of the kernel matrix of all rows with the regularisation on its diagonal. As in the paper's
    relaxation, the labels of the other rows may be any number. The minimum over these is the quadratic form in the
    inverse of the block of the labelled rows and s, so no matrix of the pool's size is inverted. It is a constant plus
    (1 + |f|)^2 / v, with the mean f(s) and variance v(s) of the Gaussian process fitted to the labelled rows. With more
    than two classes it is the mean risk of one against the rest. The paper asks for one row at a time; here the rows
    of a batch are scored independently.
    """
    use_one_thread()
    n_labeled = len(view.labeled)
    held = np.sort(rng.choice(n_labeled, min(n_labeled, MAX_LABELED), replace=False))
    # All kernel values are computed, and each row is multiplied by a matrix (l, l).
    n_centers = max(4 * len(held) * (1 + len(held) // view.pool.cells_per_row), 1)
    drawn, note = draw("quire", view, n_centers, sample, batch_size, rng)
    rows, labeled = view.candidates[drawn], view.labeled[held]
    space = centered_space(view.pool, np.concatenate([rows, labeled]))
    some = rng.choice(rows, min(len(rows), 2 * WIDTH_ROWS), replace=False)
    width = bandwidth * median_distance(space.read(some))
    machine = KernelMachine(space.read(labeled), one_against_rest(view, held), width, regularization)
    scores = np.empty(len(rows))

    def score(positions: Positions) -> None:
        scores[positions] = -machine.risks(space.read(rows[positions]))

    run_in_threads(score, list(cut(np.arange(len(rows)), min(rows_per_block(view.pool, 1), MAX_BLOCK_ROWS))))
    notes = [note] if note else []
    if len(held) < n_labeled:
        notes.append(f"quire used a sample of {len(held)} of the {n_labeled} labelled rows")
    if n_labeled and view.question.codes is None:
        notes.append("quire has no labels: only the features of the labelled rows count")
    positions = top(scores, batch_size, rng)
    return drawn[positions], scores[positions], "; ".join(notes) or None


def one_against_rest(view: PoolView, held: Positions) -> Matrix:
    """Return for each class a column (l,) of 1 for its own rows and -1 for others; a column of 0 without labels."""
    if view.question.codes is None or len(held) == 0:
        return np.zeros((len(held), 1))
    codes = view.question.codes[held]
    return np.where(codes[:, np.newaxis] == np.unique(codes), 1.0, -1.0)


class KernelMachine:
    """A Gaussian process with the kernel exp(-distance^2 / (2 width^2)), for each column of labels (l, c)."""

    def __init__(self, points: Points, labels: Matrix, width: float, regularization: float) -> None:
        self.points = points
        self.width = width
        self.diagonal = 1.0 + regularization
        n_labeled = len(labels)
        factor = cho_factor(self.kernel(points) + regularization * np.eye(n_labeled)) if n_labeled else None
        self.inverse = cho_solve(factor, np.eye(n_labeled)) if factor else np.zeros((0, 0))
        self.weights = self.inverse @ labels
        self.constant = float(np.einsum("lc,lc->c", labels, self.weights).mean())

    def kernel(self, points: Points) -> Matrix:
        """Return the kernel (k, l) between some rows and the labelled ones."""
        with np.errstate(over="ignore"):  # infinitely far apart
            return np.asarray(np.exp(-0.5 * (points.squared_distances(self.points) / self.width) / self.width))

    def risks(self, points: Points) -> Scores:
        """Return the risk of each row for its worst label."""
        K = self.kernel(points)
        variances = self.diagonal - np.einsum("kl,kl->k", K @ self.inverse, K)
        return np.asarray(self.constant + np.square(1.0 + np.abs(K @ self.weights)).mean(axis=1) / variances)
