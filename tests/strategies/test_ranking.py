"""The shared ranking: order and ties."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.strategies.engine.ranking import top


def ranked(scores, batch_size, seed=0):
    return top(np.array(scores, dtype=np.float64), batch_size, np.random.default_rng(seed)).tolist()


@pytest.mark.parametrize(
    ("scores", "batch_size", "expected"),
    [
        ([0.1, 0.9, 0.5], 1, [1]),
        ([0.1, 0.9, 0.5], 2, [1, 2]),
        ([0.1, 0.9, 0.5], 3, [1, 2, 0]),
        ([0.1, 0.9, 0.5], 9, [1, 2, 0]),
        ([-1.0, 0.0, -2.0], 2, [1, 0]),
        ([5.0], 1, [0]),
        ([], 3, []),
    ],
)
def test_best_come_first(scores, batch_size, expected):
    assert ranked(scores, batch_size) == expected


@given(st.lists(st.integers(-3, 3), max_size=40), st.integers(1, 50), st.integers(0, 9))
def test_agrees_with_a_plain_sort(scores, batch_size, seed):
    positions = ranked(scores, batch_size, seed)
    assert [scores[p] for p in positions] == sorted(scores, reverse=True)[:batch_size]
    assert len(set(positions)) == len(positions)


def test_the_best_of_many_are_in_order():
    scores = np.random.default_rng(0).random(10_000)
    assert ranked(scores, 500) == np.argsort(-scores)[:500].tolist()


def test_same_state_of_the_generator_gives_the_same_order():
    scores = np.random.default_rng(0).integers(0, 5, 1000)
    assert ranked(scores, 100, seed=3) == ranked(scores, 100, seed=3) != ranked(scores, 100, seed=4)


@pytest.mark.parametrize("batch_size", [3, 8])
@pytest.mark.parametrize("worse", [0, 5])
def test_every_tied_row_comes_first_about_equally_often(batch_size, worse):
    scores = [0.1] * worse + [0.5] * 8
    firsts = np.bincount([ranked(scores, batch_size, seed)[0] - worse for seed in range(2000)], minlength=8)
    assert firsts.min() > 185  # 250 are expected, give or take 15
    assert firsts.max() < 315


def test_every_row_tied_at_the_cut_gets_in_about_equally_often():
    scores = [1.0, 0.5, 0.5, 0.5, 0.5, 0.0]
    chosen = np.bincount(np.concatenate([ranked(scores, 3, seed) for seed in range(1000)]), minlength=6)
    assert chosen[0] == 1000
    assert chosen[5] == 0
    assert np.abs(chosen[1:5] - 500).max() < 70  # one deviation is 16


def test_scores_are_not_written_to():
    scores = np.array([0.3, 0.1, 0.2])
    scores.flags.writeable = False
    assert top(scores, 2, np.random.default_rng(0)).tolist() == [0, 2]
