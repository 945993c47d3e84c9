"""Uncertainty of one model about one row: scorers over its probabilities p, sorted p(1) >= p(2) >= ...

Each takes probabilities (n, c), c >= 1, and returns scores (n,) from 0 (certain) to 1. They work column by column: the
rows of a chunk stay in the cache, and no second (n, c) array is made. The last two take marginals, the probabilities of
classes that a row may have together; the decision about each has the margin |2p - 1|.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr

from service.domain.parameters import Parameter
from service.learning.scoring import Probabilities, Scorer, Scores
from service.strategies.engine.registry import scorer


@scorer(
    "least_confidence",
    summary="Rows whose most likely class is least likely: 1 - p(1).",
    source="Lewis & Gale 1994, A Sequential Algorithm for Training Text Classifiers, arXiv:cmp-lg/9407020",
)
def least_confidence(probabilities: Probabilities) -> Scores:
    """Return 1 - p(1)."""
    first, _ = top_two(probabilities)
    return as_float64(1.0 - first)


@scorer(
    "margin",
    summary="Rows whose two most likely classes are closest: 1 - (p(1) - p(2)).",
    source="Scheffer, Decomain & Wrobel 2001, Active Hidden Markov Models for Information Extraction, "
    "doi:10.1007/3-540-44816-0_31",
    # p(1) is least where all other classes are as likely as the second.
    bound=lambda gap, n_classes: 1.0 - (1.0 - math.exp(-gap)) / (1.0 + (n_classes - 1) * math.exp(-gap)),
)
def margin(probabilities: Probabilities) -> Scores:
    """Return 1 - (p(1) - p(2))."""
    first, second = top_two(probabilities)
    return as_float64(1.0 - (first - second))


@scorer(
    "ratio",
    summary="Rows whose second class is nearly as likely as the first: p(2) / p(1).",
    source="Settles 2009, Active Learning Literature Survey, University of Wisconsin-Madison, report 1648",
    bound=lambda gap, n_classes: math.exp(-gap),
)
def ratio(probabilities: Probabilities) -> Scores:
    """Return p(2) / p(1), or 1 if both are 0."""
    first, second = top_two(probabilities)
    return as_float64(np.divide(second, first, out=np.ones_like(first), where=first != 0))


@scorer(
    "entropy",
    summary="Rows whose probabilities are spread most evenly over all classes: -sum p ln p / ln c.",
    source="Shannon 1948, A Mathematical Theory of Communication, doi:10.1002/j.1538-7305.1948.tb01338.x; Settles 2009",
)
def entropy(probabilities: Probabilities) -> Scores:
    """Return -sum p ln p / ln c, with 0 ln 0 = 0; 0 for a single class."""
    total = np.zeros(len(probabilities))
    for column in probabilities.T:
        total += entr(column)
    return total / math.log(max(probabilities.shape[1], 2))


@scorer(
    "mean_uncertainty",
    summary="Rows whose classes are uncertain on average: the mean of 1 - |2p - 1| over the classes.",
    source="the margin of Scheffer, Decomain & Wrobel 2001, doi:10.1007/3-540-44816-0_31, averaged over binary classes",
    targets=("labels",),
)
def mean_uncertainty(marginals: Probabilities) -> Scores:
    """Return the mean of 1 - |2p - 1|."""
    total = np.zeros(len(marginals))
    for column in marginals.T:
        total += 1.0 - np.abs(2.0 * column - 1.0)
    total /= marginals.shape[1]
    return total


@scorer(
    "binary_minimum",
    summary="Rows with the most uncertain class: the maximum of 1 - |2p - 1| over the classes.",
    source="Brinker 2006, On Active Learning in Multi-label Classification, doi:10.1007/3-540-31314-1_24",
    targets=("labels",),
)
def binary_minimum(marginals: Probabilities) -> Scores:
    """Return the maximum of 1 - |2p - 1|; NaN if a marginal is."""
    most = np.zeros(len(marginals))
    for column in marginals.T:
        np.maximum(most, 1.0 - np.abs(2.0 * column - 1.0), out=most)
    return most


def top_two(probabilities: Probabilities) -> tuple[Probabilities, Probabilities]:
    """Return p(1) and p(2), each (n,); p(2) is 0 for a single class."""
    first = probabilities[:, 0].copy()
    second, lesser = np.zeros_like(first), np.empty_like(first)
    for column in probabilities.T[1:]:
        np.minimum(first, column, out=lesser)
        np.maximum(second, lesser, out=second)
        np.maximum(first, column, out=first)
    return first, second


def as_float64(scores: NDArray[np.floating[Any]]) -> Scores:
    """Return scores in float64; they are computed in a narrower, faster dtype."""
    return scores.astype(np.float64, copy=False)


SCORERS: dict[str, Scorer] = {
    "least_confidence": least_confidence,
    "margin": margin,
    "ratio": ratio,
    "entropy": entropy,
}
"""Scorers that other strategies can use, by name."""


LABELS_SCORERS: dict[str, Scorer] = {"mean_uncertainty": mean_uncertainty, "binary_minimum": binary_minimum}
"""Scorers that other strategies can use, by name, where a sample may have several labels."""


def scorer_parameter(default: str, choices: Sequence[str] = tuple(SCORERS)) -> Parameter:
    """Return the parameter `scorer` of a strategy."""
    return Parameter(
        "scorer",
        kind="choice",
        default=default,
        choices=tuple(choices),
        summary="Strategy whose scores measure the uncertainty.",
    )
