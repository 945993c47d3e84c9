"""Uncertainty of one model about one row: scorers over its probabilities p, sorted p(1) >= p(2) >= ...

Each takes probabilities (n, c), c >= 1, and returns scores (n,) from 0 (certain) to 1. They work column by column: the
rows of a chunk stay in the cache, and no second (n, c) array is made.
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
)
def margin(probabilities: Probabilities) -> Scores:
    """Return 1 - (p(1) - p(2))."""
    first, second = top_two(probabilities)
    return as_float64(1.0 - (first - second))


@scorer(
    "ratio",
    summary="Rows whose second class is nearly as likely as the first: p(2) / p(1).",
    source="Settles 2009, Active Learning Literature Survey, University of Wisconsin-Madison, report 1648",
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


def scorer_parameter(default: str, choices: Sequence[str] = tuple(SCORERS)) -> Parameter:
    """Return the parameter `scorer` of a strategy."""
    return Parameter(
        "scorer",
        kind="choice",
        default=default,
        choices=tuple(choices),
        summary="Strategy whose scores measure the uncertainty.",
    )
