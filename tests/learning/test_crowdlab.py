"""CROWDLAB: examples worked by hand, and its formulas written out vote by vote."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from service.learning.crowdlab import (
    LEAST,
    VoteTable,
    apply_temperature,
    best_temperature,
    combine_votes,
    estimate_accuracy,
    majority_vote,
    weigh_votes,
)

ANN, BOB, CY = 0, 1, 2


def ballots(*samples, n_classes=2):
    """Votes of samples, each as annotator -> class."""
    votes = [(row, annotator, label) for row, sample in enumerate(samples) for annotator, label in sample.items()]
    row, annotator, label = np.array(votes).T
    return VoteTable(row, annotator, label, len(samples), int(annotator.max()) + 1, n_classes)


THREE = ballots({ANN: 0, BOB: 0, CY: 1}, {ANN: 1, BOB: 1}, {ANN: 0})
P = np.array([[0.8, 0.2], [0.4, 0.6], [0.3, 0.7]])


def test_weights_worked_by_hand():
    # The two samples with several votes have different classes, so a constant guess is wrong half of the time. Ann and
    # Bob each agree with two of three other votes, Cy with none. The model is right twice, and a sample has two votes
    # on average.
    _, model_weight, weights = combine_votes(THREE, P, np.array([0, 1, 0]))
    assert model_weight == pytest.approx(sqrt(2))
    assert weights == pytest.approx([1 - (1 / 3) / 0.5, 1 / 3, LEAST])


def test_probabilities_worked_by_hand():
    # Of the votes on those two samples (2/3 + 1) / 2 agree with the consensus.
    posterior, _, _ = combine_votes(THREE, P, np.array([0, 1, 0]))
    w, right, wrong = sqrt(2), 5 / 6, 1 / 6
    expected = [
        (w * 0.8 + 2 / 3 * right + LEAST * wrong) / (w + 2 / 3 + LEAST),
        (w * 0.4 + 2 / 3 * wrong) / (w + 2 / 3),
        (w * 0.3 + 1 / 3 * right) / (w + 1 / 3),
    ]
    assert posterior[:, 0] == pytest.approx(expected)
    assert posterior.sum(axis=1) == pytest.approx(1)


def test_accuracy_worked_by_hand():
    posterior = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    # Only Ann labelled the third sample, so it does not count for her agreement.
    accuracy = estimate_accuracy(THREE, posterior, np.array([0, 1, 1]), 3.0, np.array([1.0, 0.5, 0.0]))
    share = 3 / (3 + 0.5 * 2)
    expected = [share * (0.9 + 0.8 + 0.6) / 3 + (1 - share) * 1, share * 0.85 + (1 - share), share * 0.1]
    assert accuracy == pytest.approx(expected)


def test_the_temperature_worked_by_hand():
    # Three of four vote for 0, odds of 3; the model's odds are 9, and 3 at a temperature of 2.
    crowd = ballots(*[{0: 0, 1: 0, 2: 0, 3: 1}, {0: 1, 1: 1, 2: 1, 3: 0}] * 3)
    probabilities = np.array([[0.9, 0.1], [0.1, 0.9]] * 3)
    assert best_temperature(crowd, probabilities) == pytest.approx(2, rel=1e-3)
    assert apply_temperature(probabilities, 2.0)[0] == pytest.approx([0.75, 0.25])


def test_a_tie_goes_to_the_model_and_then_to_the_latest():
    tied = ballots({ANN: 0, BOB: 1}, {ANN: 1, BOB: 0}, {ANN: 0, BOB: 1}, n_classes=3)
    probabilities = np.array([[0.1, 0.2, 0.7], [0.2, 0.1, 0.7], [0.1, 0.1, 0.8]])
    assert majority_vote(tied, probabilities, np.array([0, 1, 1])).tolist() == [1, 0, 1]


def test_without_several_votes_all_weights_are_1():
    alone = weigh_votes(ballots({ANN: 0}, {BOB: 1}), P[:2], np.array([0, 1]))
    assert alone.consensus.tolist() == [0, 1]
    assert alone.quality.tolist() == [0.8, 0.6]
    assert (alone.model_weight, alone.weights.tolist(), alone.temperature) == (1, [1, 1], 1)
    assert np.isnan(alone.accuracy).all()


def test_a_single_vote_is_the_consensus_with_lower_quality():
    crowd = ballots(*[{ANN: 0, BOB: 0}, {ANN: 1, BOB: 1}] * 10, {ANN: 1})
    probabilities = np.array([[0.99, 0.01], [0.01, 0.99]] * 10 + [[0.99, 0.01]])
    found = weigh_votes(crowd, probabilities, np.array([0, 1] * 10 + [1]))
    assert found.consensus[-1] == 1
    assert found.quality[-1] < 0.5 < found.quality[:-1].min()


def test_an_annotator_without_overlap_gets_the_average_weight():
    crowd = ballots({ANN: 0, BOB: 0}, {ANN: 1, BOB: 1}, {ANN: 0, BOB: 1}, {CY: 1})
    found = weigh_votes(crowd, np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]]), np.array([0, 1, 1, 1]))
    assert found.weights[CY] == pytest.approx(found.weights[:2].mean())
    assert np.isnan(found.accuracy).tolist() == [False, False, True]


def test_two_annotators_who_are_always_wrong_do_not_outvote_a_right_one():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 60)
    guess = rng.integers(0, 3, (2, 60))
    samples = [{ANN: int(t), BOB: int(b), CY: int(c), 3: int(t)} for t, b, c in zip(truth, *guess, strict=True)]
    samples[0] = {ANN: int(truth[0]), BOB: (int(truth[0]) + 1) % 3, CY: (int(truth[0]) + 1) % 3}
    found = weigh_votes(ballots(*samples, n_classes=3), np.eye(3)[truth] * 0.4 + 0.2, truth)
    assert found.consensus[0] == truth[0]
    assert min(found.accuracy[[ANN, 3]]) > max(found.accuracy[[BOB, CY]])


# The formulas of section 3 of the paper, vote by vote.


def slow_combine(samples, probabilities, consensus, n_annotators):
    several = [i for i, sample in enumerate(samples) if len(sample) > 1]
    most = max(sum(consensus[i] == k for i in several) for k in range(probabilities.shape[1]))
    baseline = max(1 - most / len(several), LEAST)
    agreements = {}
    for j in range(n_annotators):
        met = [(i, o) for i in several if j in samples[i] for o in samples[i] if o != j]
        if met:
            agreements[j] = sum(samples[i][j] == samples[i][o] for i, o in met) / len(met)
    usual = sum(agreements.values()) / len(agreements)
    weights = [max(1 - (1 - agreements.get(j, usual)) / baseline, LEAST) for j in range(n_annotators)]
    model_error = sum(np.argmax(probabilities[i]) != consensus[i] for i in several) / len(several)
    model_weight = max(1 - model_error / baseline, LEAST) * sqrt(sum(map(len, samples)) / len(samples))
    right = sum(sum(said == consensus[i] for said in samples[i].values()) / len(samples[i]) for i in several)
    right /= len(several)
    n_classes = probabilities.shape[1]
    posterior = np.zeros_like(probabilities)
    for i, sample in enumerate(samples):
        for k in range(n_classes):
            heard = [weights[j] * (right if said == k else (1 - right) / (n_classes - 1)) for j, said in sample.items()]
            total = model_weight + sum(weights[j] for j in sample)
            posterior[i, k] = (model_weight * probabilities[i, k] + sum(heard)) / total
    return posterior, model_weight, weights


CROWDS = st.lists(st.dictionaries(st.integers(0, 3), st.integers(0, 2), min_size=1, max_size=4), min_size=1, max_size=8)


@settings(deadline=None, max_examples=200, derandomize=True)
@given(CROWDS, st.integers(0, 2**32 - 1))
def test_the_formulas_hold_for_any_votes(samples, seed):
    assume(any(len(sample) > 1 for sample in samples))
    rng = np.random.default_rng(seed)
    names = {who: nth for nth, who in enumerate(sorted({who for sample in samples for who in sample}))}
    samples = [{names[who]: said for who, said in sample.items()} for sample in samples]
    probabilities = rng.dirichlet(np.ones(3), len(samples))
    consensus = rng.integers(0, 3, len(samples))
    fast = combine_votes(ballots(*samples, n_classes=3), probabilities, consensus)
    for found, expected in zip(fast, slow_combine(samples, probabilities, consensus, len(names)), strict=True):
        assert found == pytest.approx(expected)


@settings(deadline=None, max_examples=200, derandomize=True)
@given(CROWDS, st.sampled_from(["sure and wrong", "knows nothing", "sure and right"]))
def test_qualities_are_probabilities_for_any_votes(samples, model):
    crowd = ballots(*samples, n_classes=3)
    latest = np.array([list(sample.values())[-1] for sample in samples])
    told = {"sure and wrong": np.eye(3)[(latest + 1) % 3], "knows nothing": np.full((len(samples), 3), 1 / 3)}
    found = weigh_votes(crowd, told.get(model, np.eye(3)[latest]), latest)
    assert ((found.quality >= 0) & (found.quality <= 1 + 1e-12)).all()
    assert np.isfinite(found.weights).all()
    assert (found.weights > 0).all()
    assert found.model_weight > 0
    assert (np.isnan(found.accuracy) | ((found.accuracy >= 0) & (found.accuracy <= 1 + 1e-12))).all()
