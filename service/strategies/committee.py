"""Disagreement within a committee: scorers over the members' probabilities P (m, n, c).

A single model may be uncertain because the classes overlap, which no label changes. Where models fitted to the same
labels contradict one another, a label helps.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr

from service.learning.scoring import Probabilities, Scores
from service.strategies.engine.registry import committee_scorer
from service.strategies.uncertainty import entropy

LEAST = float(np.finfo(np.float64).tiny)
"""Smaller probabilities count as this in logarithms."""


@committee_scorer(
    "vote_entropy",
    summary="Rows where the members' votes are spread most evenly over the classes.",
    source="Dagan & Engelson 1995, Committee-Based Sampling for Training Probabilistic Classifiers, "
    "doi:10.1016/B978-1-55860-377-6.50027-X",
)
def vote_entropy(members: Probabilities) -> Scores:
    """Return the entropy of the members' hard votes, / ln min(m, c)."""
    votes = vote_shares(members)
    return clip_at_zero(entr(votes).sum(axis=0) / math.log(max(min(len(members), len(votes)), 2)))


@committee_scorer(
    "consensus_entropy",
    summary="Rows where the mean of the members' probabilities is spread most evenly over the classes.",
    source="Settles 2009, Active Learning Literature Survey, University of Wisconsin-Madison, report 1648",
)
def consensus_entropy(members: Probabilities) -> Scores:
    """Return the entropy of the mean member, / ln c."""
    return entropy(members.mean(axis=0))


@committee_scorer(
    "bald",
    summary="Rows where the members are certain but disagree: H(mean p) - mean H(p).",
    source="McCallum & Nigam 1998, Employing EM and Pool-Based Active Learning for Text Classification; "
    "Houlsby et al. 2011, Bayesian Active Learning for Classification and Preference Learning, arXiv:1112.5745",
)
def bald(members: Probabilities) -> Scores:
    """Return the mutual information of the label and the member, in nats: the mean KL divergence to the consensus."""
    consensus = members.mean(axis=0, dtype=np.float64)
    return clip_at_zero(entr(consensus).sum(axis=1) - entr(members, dtype=np.float64).sum(axis=2).mean(axis=0))


@committee_scorer(
    "max_disagreement",
    summary="Rows where one member differs most from the mean of all: the largest KL(p_i, mean p).",
    source="McCallum & Nigam 1998; named as in modAL, Danka & Horvath 2018, arXiv:1805.00979",
)
def max_disagreement(members: Probabilities) -> Scores:
    """Return the largest KL divergence of a member from the consensus, in nats."""
    consensus = members.mean(axis=0, dtype=np.float64)
    terms = members * np.log(np.maximum(consensus, LEAST))  # where the consensus is 0, so are the members
    terms += entr(members, dtype=np.float64)
    return clip_at_zero(-terms.sum(axis=2).min(axis=0))


@committee_scorer(
    "variation_ratio",
    summary="Rows where the winning class has the smallest share of the members' votes: 1 - that share.",
    source="Freeman 1965, Elementary Applied Statistics",
)
def variation_ratio(members: Probabilities) -> Scores:
    """Return 1 - the winner's share of the members' hard votes."""
    return clip_at_zero(1.0 - vote_shares(members).max(axis=0))


def vote_shares(members: Probabilities) -> NDArray[np.float64]:
    """Return the share of members that vote for each class (c, n), NaN where any member's probabilities are.

    Of equally likely classes the first has the vote.
    """
    highest = members.max(axis=2)
    is_free = np.ones(highest.shape, np.bool_)
    shares = np.empty((members.shape[2], members.shape[1]))
    for share, of_class in zip(shares, np.moveaxis(members, 2, 0), strict=True):
        votes = of_class == highest
        votes &= is_free
        is_free ^= votes
        np.mean(votes, axis=0, out=share)
    shares[:, ~np.isfinite(highest).all(axis=0)] = np.nan
    return shares


def clip_at_zero(differences: NDArray[np.floating[Any]]) -> Scores:
    """Return scores with negative rounding errors set to 0."""
    scores: Scores = np.maximum(differences, 0.0, dtype=np.float64)
    return scores
