"""AnchorAL, against its definition and examples worked by hand."""

import math

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from service.learning.pool import Pool
from tests.support.questions import TableModel, make_question, run_strategy, selected_indices, sparse_pool

X = np.random.default_rng(3).normal(size=(80, 3))
MODEL = LogisticRegression().fit(X[:30], np.arange(30) % 2)
LINE = np.arange(10.0)[:, np.newaxis]
UNSURE = TableModel([[0.5, 0.5]] * 10)


def in_segments(rows):
    return Pool((rows[:7], rows[7:11], rows[11:]))


def margins(P):
    two = np.sort(P, axis=1)[:, -2:]
    return 1 - (two[:, 1] - two[:, 0])


def subpool_literally(rows, labeled, n_neighbors, subpool):
    """The definition, with every labelled row an anchor: the rows of least mean distance to their anchors."""
    rest = [i for i in range(len(rows)) if i not in labeled]
    distances = {}
    for anchor in labeled:
        for i in sorted(rest, key=lambda i: math.dist(rows[i], rows[anchor]))[:n_neighbors]:
            distances.setdefault(i, []).append(math.dist(rows[i], rows[anchor]))
    return sorted(distances, key=lambda i: np.mean(distances[i]))[:subpool]


@pytest.mark.parametrize(
    ("kind", "standardize", "compared"),
    [
        (Pool.of, False, X),
        (in_segments, False, X),
        (sparse_pool, True, X),
        (Pool.of, True, (X - X.mean(axis=0)) / X.std(axis=0)),
    ],
)
@pytest.mark.parametrize(("n_neighbors", "subpool"), [(4, 1000), (30, 12)])
def test_anchor_al_matches_its_definition(kind, standardize, compared, n_neighbors, subpool):
    labeled = [0, 9, 33, 50]
    near = subpool_literally(compared, labeled, n_neighbors, subpool)
    expected = sorted(near, key=lambda i: -margins(MODEL.predict_proba(X[[i]]))[0])[:3]
    question = make_question(kind(X), labeled, MODEL, 2, codes=np.array([0, 0, 1, 0]))
    asked = {"neighbors": n_neighbors, "subpool": subpool, "standardize": standardize}
    assert selected_indices("anchor_al", question, 3, **asked) == expected


def test_each_class_retrieves_rows_worked_by_hand():
    # Of the rows 0 to 9 on a line, 0 and 1 are of one class and 8 of the other: 2 and 3 are nearest to the first two,
    # 7 and 9 to the third. Row 4 is the most uncertain of all, but no anchor retrieves it.
    P = np.tile([0.9, 0.1], (10, 1))
    P[4], P[9], P[2] = [0.5, 0.5], [0.6, 0.4], [0.7, 0.3]
    question = make_question(LINE, [0, 1, 8], TableModel(P), 2, codes=np.array([0, 0, 1]))
    answer = run_strategy("anchor_al", question, 2, neighbors=2)
    assert answer.indices.tolist() == [9, 2]
    assert answer.scores == pytest.approx([0.8, 0.6])
    assert answer.fallback_reason is None


def test_anchors_of_a_large_class_are_spread():
    # Three quarters of the labelled rows are equal: k-means++ never draws two of them.
    rows = np.concatenate([np.zeros((30, 1)), LINE * 100 + 50, LINE * 100 + 51])
    question = make_question(rows, range(40), TableModel(np.full((1100, 2), 0.5)), 1, codes=np.zeros(40, int))
    for seed in range(5):
        batch = selected_indices("anchor_al", question, 3, seed, anchors=11, neighbors=1)
        assert all(index >= 40 for index in batch)
        assert len(set(rows[batch, 0].tolist())) == 3


def test_a_batch_larger_than_the_subpool_enlarges_it():
    question = make_question(LINE, [0], UNSURE, 1, codes=np.array([0]))
    assert sorted(selected_indices("anchor_al", question, 7, neighbors=1, subpool=1)) == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize(("labeled", "expected"), [([], list(range(10))), ([9], [4, 5, 6, 7, 8])])
def test_all_candidates_are_scored_without_a_labelled_row(labeled, expected):
    question = make_question(LINE, labeled, UNSURE, 2)
    firsts = {selected_indices("anchor_al", question, 1, seed, neighbors=5)[0] for seed in range(60)}
    assert sorted(firsts) == expected
