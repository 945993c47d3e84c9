"""CROWDLAB: consensus labels, label quality and annotator accuracy from the votes of several annotators and a model.

Goh, Tkachenko & Mueller 2022, arXiv:2210.06812. The probability of a class is the weighted mean of the model's and
each vote's. A weight is the improvement over "always the most frequent class" on the samples with several votes: an
annotator's in agreeing with the others, the model's in predicting the consensus. The model's probabilities are first
calibrated by temperature, as in Goh & Mueller 2023, arXiv:2301.11856.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

Numbers = NDArray[np.float64]
Codes = NDArray[np.int64]

LEAST = 1e-6
"""Smallest weight, and smallest divisor."""

SMALLEST = 1e-30
"""Smallest probability of which the logarithm is taken."""

TEMPERATURES = 0.1, 8.0
"""Search range of the temperature; below 1 the probabilities become sharper."""


@dataclass(frozen=True, slots=True, eq=False)
class VoteTable:
    """v votes as parallel columns (v,): `annotator` in 0..m-1 gives `label` in 0..c-1 to sample `row` in 0..n-1.

    Every sample has a vote, and at most one by each annotator.
    """

    row: Codes
    annotator: Codes
    label: Codes
    n_samples: int
    n_annotators: int
    n_classes: int

    @property
    def sizes(self) -> Codes:
        """The number of votes per sample (n,)."""
        return np.bincount(self.row, minlength=self.n_samples)

    def totals(self, weights: Numbers) -> Numbers:
        """Return the total weight (n, c) of the votes for each class of each sample, given their weights (v,)."""
        cells = self.row * self.n_classes + self.label
        sums = np.bincount(cells, weights, minlength=self.n_samples * self.n_classes)
        return np.asarray(sums, np.float64).reshape(self.n_samples, -1)

    @property
    def counts(self) -> Numbers:
        """The number of votes for each class of each sample (n, c)."""
        return self.totals(np.ones(len(self.row)))

    def mean_by_annotator(self, values: Numbers, weights: Numbers) -> Numbers:
        """Return the weighted mean (m,) of values (v,) over each annotator's votes, NaN for a total weight of 0."""
        sums = np.bincount(self.annotator, weights * values, minlength=self.n_annotators)
        total = np.bincount(self.annotator, weights, minlength=self.n_annotators)
        means = np.full(self.n_annotators, np.nan)
        np.divide(sums, total, out=means, where=total > 0)
        return means


@dataclass(frozen=True, slots=True, eq=False)
class ConsensusEstimate:
    """The consensus labels (n,), the probability (n,) that each is right, and the weights of model and annotators.

    `accuracy` (m,) is the estimate of each annotator's, NaN for those whose samples have no other votes.
    """

    consensus: Codes
    quality: Numbers
    model_weight: float
    weights: Numbers
    accuracy: Numbers
    temperature: float


def weigh_votes(votes: VoteTable, probabilities: Numbers, latest: Codes) -> ConsensusEstimate:
    """Estimate the consensus from votes and a model's probabilities (n, c) of samples that it was not trained on.

    `latest` (n,) is the class to take if votes and model tie. A single vote is the consensus, but its quality is low
    if the model contradicts it. If no sample has two votes, weights and temperature are 1, and the quality is the
    model's probability of the label.
    """
    single = votes.sizes == 1
    majority = majority_vote(votes, probabilities, latest)
    if single.all():
        ones, unknown = np.ones(votes.n_annotators), np.full(votes.n_annotators, np.nan)
        return ConsensusEstimate(majority, pick_columns(probabilities, majority), 1.0, ones, unknown, 1.0)
    temperature = best_temperature(votes, probabilities)
    probabilities = apply_temperature(probabilities, temperature)
    posterior, _, _ = combine_votes(votes, probabilities, majority)
    consensus = np.where(single, majority, most_likely(posterior, majority))
    # Once more with the better consensus, as the authors do.
    posterior, model_weight, weights = combine_votes(votes, probabilities, consensus)
    return ConsensusEstimate(
        consensus,
        pick_columns(posterior, consensus),
        model_weight,
        weights,
        estimate_accuracy(votes, posterior, consensus, model_weight, weights),
        temperature,
    )


def majority_vote(votes: VoteTable, probabilities: Numbers, latest: Codes) -> Codes:
    """Return the class with the most votes (n,); ties go to the model's likeliest of them, then to `latest`."""
    counts = votes.counts
    leads = counts == counts.max(axis=1, keepdims=True)
    return most_likely(np.where(leads, probabilities, -1.0), latest)


def most_likely(probabilities: Numbers, otherwise: Codes) -> Codes:
    """Return the class of the highest number in each row, or `otherwise` if several tie."""
    is_highest = probabilities == probabilities.max(axis=1, keepdims=True)
    return np.where(is_highest.sum(axis=1) == 1, is_highest.argmax(axis=1), otherwise)


def combine_votes(votes: VoteTable, probabilities: Numbers, consensus: Codes) -> tuple[Numbers, float, Numbers]:
    """Return the combined probabilities (n, c), the model's weight and the annotators' weights (m,)."""
    sizes = votes.sizes
    several = sizes > 1
    decided = consensus[several]
    baseline_error = max(1.0 - np.bincount(decided).max() / len(decided), LEAST)
    others = np.asarray(sizes[votes.row] - 1, np.float64)
    same = np.asarray(votes.counts[votes.row, votes.label] - 1, np.float64)
    agreement = votes.mean_by_annotator(same / np.maximum(others, 1.0), others)
    agreement = np.where(np.isnan(agreement), np.nanmean(agreement), agreement)
    weights = np.maximum(1.0 - (1.0 - agreement) / baseline_error, LEAST)
    model_error = float(np.mean(probabilities[several].argmax(axis=1) != decided))
    model_weight = float(max(1.0 - model_error / baseline_error, LEAST) * np.sqrt(sizes.mean()))

    agreed = (votes.label == consensus[votes.row]).astype(np.float64)
    right = float(np.mean(np.bincount(votes.row, agreed)[several] / sizes[several]))
    wrong = (1.0 - right) / (votes.n_classes - 1)
    of_vote = weights[votes.annotator]
    weight = np.bincount(votes.row, of_vote)[:, np.newaxis]
    by_votes = votes.totals(of_vote) * (right - wrong) + weight * wrong
    return (model_weight * probabilities + by_votes) / (model_weight + weight), model_weight, weights


def estimate_accuracy(
    votes: VoteTable, posterior: Numbers, consensus: Codes, model_weight: float, weights: Numbers
) -> Numbers:
    """Return an estimate of each annotator's accuracy (m,) from class probabilities and agreement with the consensus.

    The mean probability of the votes counts as much as the model, the agreement as much as an average sample's votes.
    """
    sizes = votes.sizes
    likely = votes.mean_by_annotator(posterior[votes.row, votes.label], np.ones(len(votes.row)))
    agreed = (votes.label == consensus[votes.row]).astype(np.float64)
    agrees = votes.mean_by_annotator(agreed, (sizes[votes.row] > 1).astype(np.float64))
    share = float(model_weight / (model_weight + weights.mean() * sizes.mean()))
    return np.asarray(share * likely + (1.0 - share) * agrees)


def best_temperature(votes: VoteTable, probabilities: Numbers) -> float:
    """Return the temperature that minimises the cross-entropy of a model's probabilities (n, c) with the vote shares.

    It is convex in the inverse of the temperature.
    """
    shares = votes.counts / votes.sizes[:, np.newaxis]
    logarithms = np.log(np.maximum(probabilities, SMALLEST))

    def cross_entropy(inverse: float) -> float:
        return -float(np.vdot(shares, log_softmax(inverse * logarithms, axis=1)))

    lowest, highest = TEMPERATURES
    found = minimize_scalar(cross_entropy, bounds=(1.0 / highest, 1.0 / lowest), method="bounded")
    return 1.0 / float(found.x)


def apply_temperature(probabilities: Numbers, temperature: float) -> Numbers:
    """Return probabilities (n, c) to the power 1 / temperature, normalised to sum to 1."""
    return np.asarray(np.exp(log_softmax(np.log(np.maximum(probabilities, SMALLEST)) / temperature, axis=1)))


def pick_columns(matrix: Numbers, columns: Codes) -> Numbers:
    """Return the value of each row (n,) in its column."""
    return np.asarray(matrix[np.arange(len(matrix)), columns])
