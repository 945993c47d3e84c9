"""Votes: tables that can be checked by eye, and a slow, literal implementation of the rules to compare with."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.domain.votes import ANNOTATOR_BITS, ANONYMOUS, EVERYBODY, SKIP, Votes, cast_votes, resolve_votes

A, B, C = 0, 1, 2
ANN, BOB, CY, DEE = 0, 1, 2, 3


def given_in_turn(*votes):
    """The votes after one-record requests (annotator, code) about sample 7, a second apart, and what each changed."""
    kept, changes = Votes.empty(), []
    for at, (annotator, code) in enumerate(votes):
        kept, n_changed = cast_votes(kept, Votes.from_rows([(7, code, annotator, b"")], at))
        changes.append(n_changed)
    return kept, changes


def outcome(votes):
    """The resolved code of sample 7: a class, SKIP, or None without votes."""
    resolved = resolve_votes(votes)
    if 7 in resolved.skipped:
        return SKIP
    return int(resolved.code_of(np.array([7]))[0]) if 7 in resolved.labeled else None


MAJORITY = [
    ("one vote", [(ANN, A)], A),
    ("two against one", [(ANN, A), (BOB, B), (CY, A)], A),
    ("two against a later one", [(ANN, A), (CY, A), (BOB, B)], A),
    ("one each: the later", [(ANN, A), (BOB, B)], B),
    ("one each, the other way round", [(BOB, B), (ANN, A)], A),
    ("two each: whose last vote is the latest", [(ANN, A), (BOB, B), (CY, B), (DEE, A)], A),
    ("two each, the other one", [(ANN, A), (BOB, B), (DEE, A), (CY, B)], B),
    ("two each, the latest by the first in the list", [(DEE, A), (BOB, B), (CY, B), (ANN, A)], A),
    ("three ways: the latest", [(ANN, A), (BOB, C), (CY, B)], B),
    ("a change of mind makes the majority", [(ANN, A), (BOB, B), (CY, A), (ANN, B)], B),
    ("a change of mind is the latest word", [(ANN, A), (BOB, B), (ANN, C), (BOB, A)], A),
    ("the same again is not a later word", [(ANN, A), (BOB, B), (ANN, A)], B),
]

NOBODY_IN_PARTICULAR = [
    ("stands alone", [(ANONYMOUS, A)], A, 1),
    ("replaces itself", [(ANONYMOUS, A), (ANONYMOUS, B)], B, 1),
    ("replaces all others", [(ANN, A), (BOB, A), (CY, A), (ANONYMOUS, B)], B, 1),
    ("is replaced by the first name", [(ANONYMOUS, A), (ANN, B)], B, 1),
    ("is replaced even by one who agrees", [(ANONYMOUS, A), (ANN, A)], A, 1),
    ("changes nothing when it agrees with the majority", [(ANN, A), (BOB, A), (CY, B), (ANONYMOUS, A)], A, 3),
    ("counts no more once a name has spoken", [(ANONYMOUS, A), (ANN, B), (BOB, A)], A, 2),
]

SKIPS = [
    ("anonymous skips", [(ANONYMOUS, SKIP)], SKIP),
    ("a name skips", [(ANN, SKIP)], SKIP),
    ("all skip", [(ANN, SKIP), (BOB, SKIP)], SKIP),
    ("one labels before", [(ANN, A), (BOB, SKIP)], A),
    ("one labels after", [(BOB, SKIP), (ANN, A)], A),
    ("a label outweighs any number of skips", [(ANN, SKIP), (BOB, SKIP), (CY, A)], A),
    ("the only one who labelled skips now", [(ANN, A), (BOB, SKIP), (ANN, SKIP)], SKIP),
    ("an anonymous skip replaces all labels", [(ANN, A), (BOB, A), (ANONYMOUS, SKIP)], SKIP),
    ("a name's skip leaves a label without a name", [(ANONYMOUS, A), (ANN, SKIP)], A),
    ("an anonymous label replaces a skip", [(ANONYMOUS, SKIP), (ANONYMOUS, A)], A),
]

CHANGES = [
    ("the same again", [(ANN, A), (ANN, A)], [1, 0]),
    ("the same anonymous label again", [(ANONYMOUS, A), (ANONYMOUS, A)], [1, 0]),
    ("another label", [(ANN, A), (ANN, B), (ANN, A)], [1, 1, 1]),
    ("a second opinion", [(ANN, A), (BOB, A)], [1, 1]),
    ("a skip again", [(ANN, SKIP), (ANN, SKIP)], [1, 0]),
    ("an anonymous skip of a sample that all skipped", [(ANN, SKIP), (BOB, SKIP), (ANONYMOUS, SKIP)], [1, 1, 0]),
    ("an anonymous skip of a sample that one labelled", [(ANN, SKIP), (BOB, A), (ANONYMOUS, SKIP)], [1, 1, 1]),
]


@pytest.mark.parametrize(("votes", "expected"), [row[1:] for row in MAJORITY], ids=[row[0] for row in MAJORITY])
def test_the_majority_decides_and_the_latest_of_a_tie(votes, expected):
    assert outcome(given_in_turn(*votes)[0]) == expected


@pytest.mark.parametrize(
    ("votes", "expected", "n_kept"),
    [row[1:] for row in NOBODY_IN_PARTICULAR],
    ids=[row[0] for row in NOBODY_IN_PARTICULAR],
)
def test_an_anonymous_label(votes, expected, n_kept):
    kept, _ = given_in_turn(*votes)
    assert outcome(kept) == expected
    assert len(kept) == n_kept


@pytest.mark.parametrize(("votes", "expected"), [row[1:] for row in SKIPS], ids=[row[0] for row in SKIPS])
def test_a_sample_is_skipped_if_all_its_votes_are_skips(votes, expected):
    assert outcome(given_in_turn(*votes)[0]) == expected


@pytest.mark.parametrize(("votes", "expected"), [row[1:] for row in CHANGES], ids=[row[0] for row in CHANGES])
def test_a_repeated_vote_changes_nothing(votes, expected):
    assert given_in_turn(*votes)[1] == expected


def test_a_repeated_vote_keeps_its_time():
    kept, _ = given_in_turn((ANN, A), (BOB, B), (ANN, A))
    assert kept.at.tolist() == [0, 1]


def test_no_votes_give_no_labels():
    resolved = resolve_votes(Votes.empty())
    assert (len(resolved.labeled), len(resolved.skipped)) == (0, 0)
    assert resolved.code_of(np.array([0, 5])).tolist() == [SKIP, SKIP]


def test_far_samples_and_many_annotators_stay_apart():
    far, last = 2**40, 2**ANNOTATOR_BITS - 2
    kept, _ = cast_votes(
        Votes.empty(), Votes.from_rows([(far, A, last, b""), (far + 1, B, ANONYMOUS, b""), (far + 1, C, 0, b"")][:2], 1)
    )
    kept, _ = cast_votes(kept, Votes.from_rows([(far, B, 0, b"")], 2))
    assert kept.index.tolist() == [far, far, far + 1]
    assert kept.annotator.tolist() == [0, last, ANONYMOUS]


def test_query_ids_of_any_length_are_kept_whole():
    kept, _ = cast_votes(Votes.empty(), Votes.from_rows([(1, A, ANN, b"x")], 1))
    kept, _ = cast_votes(kept, Votes.from_rows([(2, A, ANN, b"y" * 64), (3, A, ANN, b"")], 2))
    assert kept.query.tolist() == [b"x", b"y" * 64, b""]


def test_the_order_of_records_about_one_sample_counts_as_time():
    for order in ([(0, B, ANN, b""), (0, A, BOB, b"")], [(0, A, BOB, b""), (0, B, ANN, b"")]):
        votes, _ = cast_votes(Votes.empty(), Votes.from_rows(order, 5))
        assert resolve_votes(votes).codes.tolist() == [order[1][1]]
        assert votes.at.max() == 6


def test_where_times_tie_no_class_is_favoured():
    n = 2_000
    index, both = np.repeat(np.arange(n), 2), np.tile([A, B], n).astype(np.int32)
    votes = Votes(index, both, np.tile([ANN, BOB], n).astype(np.int32), np.full(2 * n, 7), np.zeros(2 * n, "S1"))
    codes = resolve_votes(votes).codes
    assert 0.45 < np.mean(codes == A) < 0.55
    swapped = Votes(index, both, np.tile([BOB, ANN], n).astype(np.int32), votes.at, votes.query)
    assert resolve_votes(swapped).codes.tolist() == codes.tolist()


def test_an_anonymous_skip_counts_for_everyone():
    rows = [(0, SKIP, ANN, b""), (0, SKIP, BOB, b""), (1, SKIP, ANONYMOUS, b""), (2, SKIP, ANN, b""), (2, A, BOB, b"")]
    votes, _ = cast_votes(Votes.empty(), Votes.from_rows(rows, 1))
    assert votes.majority.skipped.tolist() == [0, 1]
    assert votes.skip_counts.tolist() == [2, EVERYBODY]


# The rules again, over a dictionary: sample -> annotator -> (code, time, query id).


def slow_outcomes(said, index):
    """The possible labels of a sample: {SKIP} if it is skipped, empty without votes."""
    votes = said.get(index, {}).values()
    labels = [(code, at) for code, at, _ in votes if code != SKIP]
    if not labels:
        return {SKIP} if votes else set()
    count = {code: sum(other == code for other, _ in labels) for code, _ in labels}
    leading = [(at, code) for code, at in labels if count[code] == max(count.values())]
    return {code for at, code in leading if at == max(leading)[0]}


def slow_cast(said, rows, at, resolved):
    """Cast one request's votes, and return the number of changes. `resolved` holds the labels before."""
    n_changed = 0
    for nth, (index, code, annotator, query) in enumerate(rows):
        votes = said.setdefault(index, {})
        if annotator in votes and votes[annotator][0] == code:
            continue
        if annotator == ANONYMOUS and resolved.get(index) == code:
            continue
        if annotator == ANONYMOUS:
            votes.clear()
        if code != SKIP or votes.get(ANONYMOUS, (SKIP,))[0] == SKIP:
            votes.pop(ANONYMOUS, None)
        votes[annotator] = (code, at + sum(other[0] == index for other in rows[:nth]), query)
        n_changed += 1
    return n_changed


def without_clashes(rows):
    """At most one vote for each sample and annotator, and no other on a sample with an anonymous one."""
    kept = {}
    for index, code, annotator, query in rows:
        if (index, ANONYMOUS) in kept or (annotator == ANONYMOUS and any(index == other for other, _ in kept)):
            continue
        kept[index, annotator] = (index, code, annotator, query)
    return list(kept.values())


ROW = st.tuples(
    st.integers(0, 2),
    st.sampled_from([SKIP, A, B, C]),
    st.sampled_from([ANONYMOUS, ANN, BOB, CY, DEE]),
    st.sampled_from([b"", b"q", b"query-17"]),
)
REQUESTS = st.lists(st.lists(ROW, min_size=1, max_size=6).map(without_clashes), max_size=12)


@settings(max_examples=300, derandomize=True)
@given(REQUESTS)
def test_votes_follow_the_rules(requests):
    votes, said = Votes.empty(), {}
    for at, rows in zip(range(0, 10_000, 100), requests, strict=False):
        before = resolve_votes(votes)
        resolved = {**dict(zip(before.labeled.tolist(), before.codes.tolist(), strict=True))}
        resolved |= dict.fromkeys(before.skipped.tolist(), SKIP)
        votes, n_changed = cast_votes(votes, Votes.from_rows(rows, at))
        assert n_changed == slow_cast(said, rows, at, resolved)
        kept = zip(votes.index, votes.annotator, votes.code, votes.at, votes.query, strict=True)
        assert [(int(i), int(a), (int(c), int(t), bytes(q))) for i, a, c, t, q in kept] == [
            (index, annotator, said[index][annotator]) for index in sorted(said) for annotator in sorted(said[index])
        ]
        after = resolve_votes(votes)
        for index in range(3):
            outcomes = slow_outcomes(said, index)
            assert (index in after.labeled) == bool(outcomes - {SKIP})
            assert (index in after.skipped) == (outcomes == {SKIP})
            assert after.code_of(np.array([index]))[0] in outcomes or outcomes <= {SKIP}


@settings(max_examples=50, derandomize=True)
@given(REQUESTS, st.randoms(use_true_random=False))
def test_the_order_of_samples_in_a_request_does_not_matter(requests, random):
    votes = shuffled = Votes.empty()
    for at, rows in zip(range(0, 10_000, 100), requests, strict=False):
        votes, _ = cast_votes(votes, Votes.from_rows(rows, at))
        samples = random.sample(range(3), 3)
        rows = sorted(rows, key=lambda row: samples.index(row[0]))
        shuffled, _ = cast_votes(shuffled, Votes.from_rows(rows, at))
    for column in ("index", "code", "annotator", "at", "query"):
        assert np.array_equal(getattr(votes, column), getattr(shuffled, column))
