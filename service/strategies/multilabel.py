"""Strategies for samples that may have several classes, from the marginals p of each class on its own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from service.compute.threads import use_one_thread
from service.domain.parameters import Parameter
from service.learning.scoring import INVALID_SCORE, Probabilities, Scorer, Scores
from service.strategies.engine.greedy import blocks_of
from service.strategies.engine.notes import add_invalid_note
from service.strategies.engine.question import PoolView, Positions
from service.strategies.engine.ranking import top
from service.strategies.engine.registry import Need, set_strategy

LEAST_SEPARATION = 1e-6
"""Separations below this count as this much: their inverse is finite."""

MAX_LABELED = 10_000
"""Largest number of labelled rows that the number of classes of a row is learnt from."""

MAX_RANKS = 50
"""Number of the largest marginals of a row that its number of classes is predicted from."""


@set_strategy(
    "mmc",
    summary="Rows on which the model's marginals are furthest from the most likely set of the predicted size.",
    source="Yang, Sun, Wang & Chen 2009, Effective Multi-label Active Learning for Text Classification, "
    "doi:10.1145/1557019.1557119",
    needs=frozenset({Need.PROBABILITIES, Need.LABELED, Need.LABELS}),
    targets=("labels",),
)
def mmc(view: PoolView, batch_size: int, rng: np.random.Generator) -> tuple[Positions, Scores, str | None]:
    """Take the greatest expected loss reduction with maximal confidence.

    Logistic regression learns the number of classes of a row from its marginals, largest first. A row's loss is the sum
    of 1 - p over that many of its most likely classes, and of p over the others.
    """
    return take_best(view, SizeLoss.of(view, rng), batch_size, rng)


@set_strategy(
    "adaptive",
    summary="Rows whose classes are hardly separated from the others, and whose number of classes is unusual.",
    source="Li & Guo 2013, Active Learning with Multi-Label SVM Classification, IJCAI",
    needs=frozenset({Need.PROBABILITIES, Need.LABELED, Need.LABELS}),
    parameters=(
        Parameter(
            "beta",
            kind="number",
            default=0.5,
            minimum=0.0,
            maximum=1.0,
            summary="Weight of the separation; the number of classes has the rest. The paper tries several and keeps "
            "the one whose model predicts best, which takes a fit for each.",
        ),
    ),
    targets=("labels",),
)
def adaptive(
    view: PoolView, batch_size: int, rng: np.random.Generator, *, beta: float
) -> tuple[Positions, Scores, str | None]:
    """Take the greatest max-margin uncertainty^beta x label cardinality inconsistency^(1 - beta).

    The uncertainty is the inverse of the gap between the classes with p > 1/2 and the others, in 2p - 1. The
    inconsistency is the distance of the number of classes with p > 1/2 from its mean over the labelled rows.
    """
    sizes = sizes_of(view)
    return take_best(view, Inconsistency(beta, float(sizes.mean()) if len(sizes) else 0.0), batch_size, rng)


def sizes_of(view: PoolView) -> NDArray[np.int64]:
    """Return the number of classes of each labelled row (l,), or none if the labels are not known."""
    sizes = view.question.label_sizes
    return np.empty(0, np.int64) if sizes is None else sizes


def take_best(
    view: PoolView, scorer: Scorer, batch_size: int, rng: np.random.Generator
) -> tuple[Positions, Scores, str | None]:
    """Return the candidates of the highest scores, and their scores."""
    scores = view.scores(scorer)
    positions = top(scores, batch_size, rng)
    return positions, scores[positions], add_invalid_note(None, scores == INVALID_SCORE, "come last")


@dataclass(frozen=True, slots=True)
class Inconsistency:
    """The scorer of `adaptive`, equal to others of the same numbers; a group without a class is at distance 1."""

    beta: float
    usual_size: float

    def __call__(self, marginals: Probabilities) -> Scores:
        """Return the scores (n,) of marginals (n, c)."""
        nearest_in, nearest_out, size = np.ones(len(marginals)), np.ones(len(marginals)), np.zeros(len(marginals))
        for column in marginals.T:
            decision = 2.0 * column.astype(np.float64) - 1.0
            np.minimum(nearest_in, np.where(decision <= 0, 1.0, decision), out=nearest_in)
            np.minimum(nearest_out, np.where(decision > 0, 1.0, -decision), out=nearest_out)
            size += decision > 0
        separation = np.maximum(nearest_in + nearest_out, LEAST_SEPARATION)
        scores: Scores = separation**-self.beta * np.abs(size - self.usual_size) ** (1.0 - self.beta)
        return scores


@dataclass(frozen=True, slots=True)
class SizeLoss:
    """The scorer of `mmc`, equal to others of the same numbers.

    A row has `sizes[i]` classes if i has the greatest of the linear functions of its largest marginals, `weights`
    (i, r) and `intercepts` (i,).
    """

    sizes: tuple[int, ...]
    weights: tuple[tuple[float, ...], ...]
    intercepts: tuple[float, ...]

    @classmethod
    def of(cls, view: PoolView, rng: np.random.Generator) -> SizeLoss:
        """Return the loss whose sizes are learnt from the labelled rows, or some of them drawn at random.

        Without a labelled row, or if all have the same number of classes, all sizes are the same.
        """
        sizes, rows = sizes_of(view), np.arange(len(view.labeled))
        if len(np.unique(sizes)) < 2:
            return cls((int(sizes[0]) if len(sizes) else 1,), ((),), (0.0,))
        if len(rows) > MAX_LABELED:
            rows = np.sort(rng.choice(rows, MAX_LABELED, replace=False, shuffle=False))
        ranked = np.concatenate(
            [descending(view.probabilities(view.labeled[rows[some]]))[:, :MAX_RANKS] for some in blocks_of(view, rows)]
        )
        is_finite = np.isfinite(ranked).all(axis=1)
        ranked, given = ranked[is_finite], sizes[rows[is_finite]]
        if len(np.unique(given)) < 2:
            return cls((round(float(sizes.mean())),), ((),), (0.0,))
        use_one_thread()
        model = LogisticRegression(max_iter=200).fit(ranked, given)
        weights, intercepts = model.coef_, model.intercept_
        if len(model.classes_) == 2:
            weights, intercepts = np.concatenate([-weights, weights]), np.concatenate([-intercepts, intercepts])
        return cls(tuple(model.classes_.tolist()), tuple(map(tuple, weights.tolist())), tuple(intercepts.tolist()))

    def __call__(self, marginals: Probabilities) -> Scores:
        """Return the scores (n,) of marginals (n, c)."""
        ranked = descending(marginals)
        weights = np.array(self.weights)
        best = (ranked[:, : weights.shape[1]] @ weights.T + np.array(self.intercepts)).argmax(axis=1)
        sizes = np.minimum(np.array(self.sizes)[best], ranked.shape[1])
        losses: Scores = ranked.sum(axis=1) + sizes
        sums = np.cumsum(ranked, axis=1, out=ranked)[np.arange(len(ranked)), sizes - 1]
        losses -= 2.0 * np.where(sizes > 0, sums, 0.0)  # 1 - p = p + 1 - 2p
        return losses


def descending(marginals: Probabilities) -> NDArray[np.float64]:
    """Return the marginals (n, c) of each row, largest first; a row with NaN has NaN."""
    ranked = np.negative(marginals, dtype=np.float64)
    ranked.sort(axis=1)
    return np.negative(ranked, out=ranked)
