"""Suspect labels: those that models fitted without them contradict with confidence."""

from __future__ import annotations

import numpy as np
import pytest

from service.learning.confident_learning import find_suspects


def test_the_rows_whose_labels_were_flipped_come_first():
    rng = np.random.default_rng(0)
    true = np.arange(300, dtype=np.int32) % 3
    P = np.full((300, 3), 0.1)
    P[np.arange(300), true] = 0.8
    P = (P + rng.uniform(0, 0.02, P.shape)) / (P + 0.01).sum(axis=1, keepdims=True)
    flipped = rng.choice(300, 20, replace=False)
    given = true.copy()
    given[flipped] = (true[flipped] + 1) % 3
    rows, suggested = find_suspects(P, given)
    assert sorted(rows.tolist()) == sorted(flipped.tolist())
    assert (suggested == true[rows]).all()
    own = P[rows, given[rows]]
    assert (np.diff(own) >= 0).all(), "the most suspect row comes first"


@pytest.mark.parametrize(
    ("P", "codes"),
    [
        ([[0.9, 0.1], [0.2, 0.8]] * 5, [0, 1] * 5),
        ([[0.5, 0.5], [0.5, 0.5]] * 5, [0, 1] * 5),
        ([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]] * 5, [0, 0] * 5),
        ([[0.9, 0.1]] * 10, [0] * 9 + [1]),
        ([[0.7, 0.3]] * 6 + [[0.3, 0.7]] * 6, [0] * 5 + [1] * 7),
    ],
    ids=["right", "undecided", "one class", "a class with one label", "a model that is not sure"],
)
def test_labels_that_nothing_contradicts_are_not_suspect(P, codes):
    assert len(find_suspects(np.array(P), np.array(codes, np.int32))[0]) == 0
