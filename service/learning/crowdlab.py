"""CROWDLAB: what the labels that several people gave come to, with a model as one more voice.

Goh, Tkachenko & Mueller 2022, arXiv:2210.06812. A class is as likely as the weighted mean of what the model and each
vote say of it. Weights tell how much better than "always the most frequent class" one does on the samples that
have several votes: an annotator in agreeing with the others, the model in predicting the consensus. The probabilities
are first calibrated by temperature, as in Goh & Mueller 2023, arXiv:2301.11856.
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
"""No weight is less, however bad the voice, and no share that is divided by."""

SMALLEST = 1e-30
"""A probability of 0 is taken for this one where its logarithm is needed."""

TEMPERATURES = 0.1, 8.0
"""Between these the temperature is looked for; below 1 the probabilities become sharper."""


@dataclass(frozen=True, slots=True, eq=False)
class VoteTable:
    """v votes as parallel columns (v,): annotator `who`, 0..m-1, says class `said`, 0..c-1, of sample `row`, 0..n-1.

    Every sample has a vote, and at most one of each annotator.
    """

    row: Codes
    who: Codes
    said: Codes
    n_samples: int
    n_annotators: int
    n_classes: int

    @property
    def sizes(self) -> Codes:
        """How many votes each sample has (n,)."""
        return np.bincount(self.row, minlength=self.n_samples)

    def totals(self, weights: Numbers) -> Numbers:
        """Return the sums of the weights (v,) of the votes for each class of each sample (n, c)."""
        cells = self.row * self.n_classes + self.said
        sums = np.bincount(cells, weights, minlength=self.n_samples * self.n_classes)
        return np.asarray(sums, np.float64).reshape(self.n_samples, -1)

    @property
    def counts(self) -> Numbers:
        """How many votes there are for each class of each sample (n, c)."""
        return self.totals(np.ones(len(self.row)))

    def mean_by_annotator(self, values: Numbers, weights: Numbers) -> Numbers:
        """Return the weighted mean of what stands at the votes of each annotator (m,), NaN without any weight."""
        sums = np.bincount(self.who, weights * values, minlength=self.n_annotators)
        total = np.bincount(self.who, weights, minlength=self.n_annotators)
        means = np.full(self.n_annotators, np.nan)
        np.divide(sums, total, out=means, where=total > 0)
        return means


@dataclass(frozen=True, slots=True, eq=False)
class ConsensusEstimate:
    """What the votes come to: the consensus (n,), how likely it is right (n,), and what each voice counts.

    `accuracy` (m,) is an estimate of each annotator's, NaN for those whose samples nobody else labelled.
    """

    consensus: Codes
    quality: Numbers
    model_weight: float
    weights: Numbers
    accuracy: Numbers
    temperature: float


def weigh_votes(ballots: VoteTable, probabilities: Numbers, latest: Codes) -> ConsensusEstimate:
    """Return what the votes come to, given a model's probabilities (n, c) of samples that it was not trained on.

    `latest` (n,) is the class to take where votes and model leave a tie. A single vote stands: there is nothing to
    weigh, though its quality tells when model and vote contradict one another. Where no sample has two votes nothing
    can be said of anybody: all weights are 1, the temperature too, and the quality is what the model gives the label.
    """
    single = ballots.sizes == 1
    majority = majority_vote(ballots, probabilities, latest)
    if single.all():
        ones, unknown = np.ones(ballots.n_annotators), np.full(ballots.n_annotators, np.nan)
        return ConsensusEstimate(majority, pick_columns(probabilities, majority), 1.0, ones, unknown, 1.0)
    temperature = best_temperature(ballots, probabilities)
    probabilities = apply_temperature(probabilities, temperature)
    posterior, _, _ = combine_votes(ballots, probabilities, majority)
    consensus = np.where(single, majority, most_likely(posterior, majority))
    # Once more with the better consensus, as the authors do.
    posterior, model_weight, weights = combine_votes(ballots, probabilities, consensus)
    return ConsensusEstimate(
        consensus,
        pick_columns(posterior, consensus),
        model_weight,
        weights,
        estimate_accuracy(ballots, posterior, consensus, model_weight, weights),
        temperature,
    )


def majority_vote(ballots: VoteTable, probabilities: Numbers, latest: Codes) -> Codes:
    """Return the class with the most votes (n,); of those that tie the model's likeliest, then `latest`."""
    counts = ballots.counts
    leads = counts == counts.max(axis=1, keepdims=True)
    return most_likely(np.where(leads, probabilities, -1.0), latest)


def most_likely(probabilities: Numbers, otherwise: Codes) -> Codes:
    """Return the class of the highest number in each row, and `otherwise` where there are several."""
    is_highest = probabilities == probabilities.max(axis=1, keepdims=True)
    return np.where(is_highest.sum(axis=1) == 1, is_highest.argmax(axis=1), otherwise)


def combine_votes(ballots: VoteTable, probabilities: Numbers, consensus: Codes) -> tuple[Numbers, float, Numbers]:
    """Return the probabilities (n, c) by all voices together, the model's weight and the annotators' (m,)."""
    sizes = ballots.sizes
    several = sizes > 1
    decided = consensus[several]
    baseline_error = max(1.0 - np.bincount(decided).max() / len(decided), LEAST)
    others = np.asarray(sizes[ballots.row] - 1, np.float64)
    same = np.asarray(ballots.counts[ballots.row, ballots.said] - 1, np.float64)
    agreement = ballots.mean_by_annotator(same / np.maximum(others, 1.0), others)
    agreement = np.where(np.isnan(agreement), np.nanmean(agreement), agreement)
    weights = np.maximum(1.0 - (1.0 - agreement) / baseline_error, LEAST)
    model_error = float(np.mean(probabilities[several].argmax(axis=1) != decided))
    model_weight = float(max(1.0 - model_error / baseline_error, LEAST) * np.sqrt(sizes.mean()))

    agreed = (ballots.said == consensus[ballots.row]).astype(np.float64)
    right = float(np.mean(np.bincount(ballots.row, agreed)[several] / sizes[several]))
    wrong = (1.0 - right) / (ballots.n_classes - 1)
    of_vote = weights[ballots.who]
    weight = np.bincount(ballots.row, of_vote)[:, np.newaxis]
    heard = ballots.totals(of_vote) * (right - wrong) + weight * wrong
    return (model_weight * probabilities + heard) / (model_weight + weight), model_weight, weights


def estimate_accuracy(
    ballots: VoteTable, posterior: Numbers, consensus: Codes, model_weight: float, weights: Numbers
) -> Numbers:
    """Return an estimate of each annotator's accuracy (m,): of being likely right, and of agreeing with the consensus.

    The one counts as much as the model, the other as much as the votes of a usual sample.
    """
    sizes = ballots.sizes
    likely = ballots.mean_by_annotator(posterior[ballots.row, ballots.said], np.ones(len(ballots.row)))
    agreed = (ballots.said == consensus[ballots.row]).astype(np.float64)
    agrees = ballots.mean_by_annotator(agreed, (sizes[ballots.row] > 1).astype(np.float64))
    share = float(model_weight / (model_weight + weights.mean() * sizes.mean()))
    return np.asarray(share * likely + (1.0 - share) * agrees)


def best_temperature(ballots: VoteTable, probabilities: Numbers) -> float:
    """Return the temperature at which a model's probabilities (n, c) are nearest the shares of the votes.

    Near in cross-entropy, which is convex in the inverse of the temperature.
    """
    shares = ballots.counts / ballots.sizes[:, np.newaxis]
    logarithms = np.log(np.maximum(probabilities, SMALLEST))

    def cross_entropy(inverse: float) -> float:
        return -float(np.vdot(shares, log_softmax(inverse * logarithms, axis=1)))

    coldest, hottest = TEMPERATURES
    found = minimize_scalar(cross_entropy, bounds=(1.0 / hottest, 1.0 / coldest), method="bounded")
    return 1.0 / float(found.x)


def apply_temperature(probabilities: Numbers, temperature: float) -> Numbers:
    """Return probabilities (n, c) to the power 1 / temperature, and their sum as 1 again."""
    return np.asarray(np.exp(log_softmax(np.log(np.maximum(probabilities, SMALLEST)) / temperature, axis=1)))


def pick_columns(matrix: Numbers, columns: Codes) -> Numbers:
    """Return the number of each row (n,) that stands in its column."""
    return np.asarray(matrix[np.arange(len(matrix)), columns])
