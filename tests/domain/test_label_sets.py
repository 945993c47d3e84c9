"""Tables of sets of classes, and the set that several annotators agree on."""

from __future__ import annotations

import numpy as np
import pytest

from service.domain.label_sets import LabelSetTable
from service.domain.votes import SKIP, Votes

TABLE = LabelSetTable(((), (0,), (0, 2), (1, 2)))


def votes_on(sample, codes, at):
    """Return votes of annotators 0, 1, ... on a sample."""
    n = len(codes)
    annotators = np.arange(n, dtype=np.int32)
    return Votes(np.full(n, sample), np.array(codes, np.int32), annotators, np.array(at), np.zeros(n, "S1"))


def agreed(*sets):
    """Return what annotators agree on who vote one after the other; None is a skip."""
    table = LabelSetTable().with_sets(one for one in sets if one is not None)
    votes = votes_on(7, [SKIP if one is None else table.code_of[one] for one in sets], range(len(sets)))
    table = table.completed(votes)
    labels = table.resolve(votes)
    return [table.sets[code] for code in labels.codes] or labels.skipped.tolist()


@pytest.mark.parametrize(
    ("sets", "expected"),
    [
        ([(0, 1)], (0, 1)),
        ([(0, 1), (0, 1)], (0, 1)),
        ([(0, 1), (1, 2), (1,)], (1,)),
        ([(0, 1), (1, 2), (0, 2)], (0, 1, 2)),
        ([(0,), (1,), (2,)], ()),
        ([(0, 1), ()], ()),
        ([(), (0, 1)], (0, 1)),
        ([(0, 1), (1, 2)], (1, 2)),
        ([(0,), None], (0,)),
        ([(), (), (3,)], ()),
    ],
)
def test_each_class_goes_by_the_majority_and_by_the_latest_vote_on_a_tie(sets, expected):
    assert agreed(*sets) == [expected]


def test_a_sample_with_skips_alone_is_skipped():
    assert agreed(None, None) == [7]


def test_votes_of_one_time_that_tie_favour_neither_side():
    table = LabelSetTable(((), (3,)))
    n_with = sum(table.resolve(votes_on(sample, [0, 1], [5, 5])).codes[0] for sample in range(200))
    assert 60 < n_with < 140


def test_many_samples_at_once_equal_each_alone():
    rng = np.random.default_rng(0)
    sets = [tuple(np.flatnonzero(rng.random(4) < 0.5).tolist()) for _ in range(60)]
    table = LabelSetTable().with_sets(sets)
    index, annotator = np.repeat(np.arange(20), 3), np.tile(np.arange(3, dtype=np.int32), 20)
    votes = Votes(index, table.codes_of(sets), annotator, rng.integers(5, size=60), np.zeros(60, "S1"))
    whole = table.completed(votes)
    for sample in range(20):
        alone = whole.resolve(votes.take(index == sample))
        assert alone.codes == whole.resolve(votes).codes[sample]


def test_indicators_mark_the_classes_of_each_code():
    mask = TABLE.indicators(np.array([2, 0, 3, 2], np.int32), 4)
    assert mask.astype(int).tolist() == [[1, 0, 1, 0], [0, 0, 0, 0], [0, 1, 1, 0], [1, 0, 1, 0]]


def test_a_fit_needs_two_different_labels():
    votes = Votes.anonymous(np.arange(3), np.array([1, 1, 1], np.int32), 0)
    assert not TABLE.can_fit(TABLE.resolve(votes))
    assert TABLE.can_fit(TABLE.resolve(Votes.anonymous(np.arange(2), np.array([1, 0], np.int32), 0)))


def test_a_table_is_the_same_after_it_was_written():
    assert LabelSetTable.of_plain(*TABLE.to_plain()).sets == TABLE.sets
    assert LabelSetTable.of_plain(*LabelSetTable().to_plain()).sets == ()
