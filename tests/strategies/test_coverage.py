"""The strategies that cover the pool, against loops over their definitions and examples worked by hand."""

import math

import numpy as np
import pytest
from scipy import sparse

from service.learning.pool import Pool, SparseRows
from service.strategies import coverage, herding
from service.strategies.coverage import cover_greedily, mean_neighbor_distances, squared_radius_for
from service.strategies.engine import greedy, pairs
from service.strategies.engine.features import rank_within_clusters
from service.strategies.engine.greedy import Points
from tests.support.questions import make_question, run_strategy, selected_indices, sparse_pool

NAMES = ["typiclust", "prob_cover", "max_herding"]

X = np.random.default_rng(3).normal(size=(60, 3))
SCALE = 2.0 ** math.floor(math.log2(np.abs(X).max()))
"""The unit of the computed distances."""

LABELED = [[], [5], [0, 9, 30, 31]]


def in_segments(X):
    return Pool((X[:7], X[7:11], X[11:]))


KINDS = [Pool.of, sparse_pool, in_segments]


def blobs(*sizes):
    """Clusters far apart, one below the other."""
    rng = np.random.default_rng(1)
    return np.concatenate([rng.normal(size=(size, 2)) + np.array([1000 * k, 0]) for k, size in enumerate(sizes)])


# typiclust


def typical_first(X, rows):
    """The definition: by the mean distance to the 20 nearest other rows."""

    def away(i):
        return np.mean(sorted(math.dist(X[i], X[j]) for j in rows if j != i)[:20])

    return sorted(rows, key=away)


@pytest.mark.parametrize("kind", KINDS)
def test_typiclust_takes_the_most_typical_row_of_the_biggest_clusters_without_a_label(kind):
    X = blobs(40, 50, 30, 60)
    expected = [typical_first(X, range(first, last))[0] for first, last in [(120, 180), (0, 40), (90, 120)]]
    assert selected_indices("typiclust", make_question(kind(X), [45]), 3) == expected


def test_typiclust_returns_to_the_cluster_with_the_fewest_labels(monkeypatch):
    monkeypatch.setattr(coverage, "MAX_CLUSTERS", 2)
    X = blobs(40, 50)
    small, big = typical_first(X, range(40)), typical_first(X, range(40, 90))
    small, big = [i for i in small if i != 5], [i for i in big if i not in (60, 61)]
    assert selected_indices("typiclust", make_question(X, [5, 60, 61]), 4) == [small[0], big[0], small[1], big[1]]


def test_typiclust_leaves_clusters_of_fewer_than_five_rows_for_last(monkeypatch):
    monkeypatch.setattr(coverage, "MAX_CLUSTERS", 3)
    answer = selected_indices("typiclust", make_question(blobs(20, 4, 30), [0, 24]), 52)
    assert sorted(answer[-4:]) == [20, 21, 22, 23]


def test_typiclust_takes_one_of_each_cluster_if_all_are_small():
    answer = selected_indices("typiclust", make_question(blobs(*[3] * 7)), 7)
    assert sorted(i // 3 for i in answer) == list(range(7))


def test_typiclust_takes_each_distinct_row_before_any_twice():
    X = np.repeat(np.arange(5.0)[:, np.newaxis], [30, 10, 25, 5, 20], axis=0)
    assert X[selected_indices("typiclust", make_question(X), 9), 0].tolist()[:5] == [0, 2, 4, 1, 3]


def test_typicality_uses_the_mean_distance_to_the_nearest_of_the_cluster():
    Z, labels = X, np.arange(len(X)) % 2
    labels[0] = 7
    expected = [0.0]
    for i in range(1, len(X)):
        others = [math.dist(Z[i], Z[j]) for j in np.flatnonzero(labels == labels[i]) if j != i]
        expected.append(np.mean(sorted(others)[:20]))
    assert mean_neighbor_distances(Z, labels) == pytest.approx(expected)


def test_ranks_within_clusters_worked_by_hand():
    labels, order = np.array([4, 1, 4, 4, 1]), np.array([3, 1, 0, 4, 2])
    assert rank_within_clusters(labels, order).tolist() == [1, 0, 2, 0, 1]


def test_typiclust_notes_samples_and_fewer_clusters(monkeypatch):
    question = make_question(np.random.default_rng(0).normal(size=(600, 4)), range(200))
    monkeypatch.setattr("service.strategies.engine.features.STEP_WORK", 200 * 4 * 50)
    assert run_strategy("typiclust", question, 20, sample=100).fallback_reason == (
        "typiclust considered a sample of 100 of the 400 candidates and considered a sample of 100 of the 200 labelled "
        "rows and found 50 clusters: more would be slow"
    )


# prob_cover


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("labeled", LABELED)
def test_prob_cover_always_takes_the_row_that_covers_most(kind, labeled):
    near = np.array([[math.dist(a, b) <= 1.0 for b in X] for a in X])
    near[:, labeled] = False
    covered = near[labeled].any(axis=0)
    for choice in selected_indices("prob_cover", make_question(kind(X), labeled), 20, delta=1.0):
        more = (near & ~covered).sum(axis=1)
        more[labeled] = 0
        assert more[choice] == more.max()
        covered |= near[choice]


def test_prob_cover_worked_by_hand():
    # Three rows are within 1 of the row at 11, and four of the row at 1, but two of these are near the labelled at -1.
    X = np.array([[-1.0], [0.0], [0.0], [1.0], [2.0], [10.0], [11.0], [12.0], [20.0]])
    assert selected_indices("prob_cover", make_question(X, [0]), 2, delta=1.0)[0] == 6
    assert selected_indices("prob_cover", make_question(X, [0]), 3, delta=1.0)[1] in (3, 4)
    assert selected_indices("prob_cover", make_question(X, [0]), 3, delta=1.0)[2] == 8


def test_prob_cover_draws_the_rest_once_all_is_covered_with_a_note():
    answers = [run_strategy("prob_cover", make_question(blobs(30, 20)), 6, seed, delta=500) for seed in range(20)]
    assert {answer.fallback_reason for answer in answers} == {
        "prob_cover covered all with 2 rows and drew the other 4 at random"
    }
    assert {tuple(answer.indices[:2] < 30) for answer in answers} == {(True, False)}
    assert len({i for answer in answers for i in answer.indices[2:].tolist()}) > 30


def test_the_radius_covers_half_with_as_many_random_rows_as_labels():
    away = sorted(min(math.dist(a, b) for b in X[:10]) for a in X[10:])
    radius = math.sqrt(squared_radius_for(Points(X), 0.5, 10))
    assert radius == pytest.approx(away[25])
    assert (
        squared_radius_for(Points(X), 0.8, 10)
        > squared_radius_for(Points(X), 0.5, 10)
        > squared_radius_for(Points(X), 0.5, 20)
    )
    assert squared_radius_for(Points(X), 0.5, 30) == squared_radius_for(
        Points(X), 0.5, 1000
    )  # half of the rows at most
    assert squared_radius_for(Points(X[:1]), 0.5, 1) == 0


def test_prob_cover_shrinks_its_balls_as_labels_are_added():
    # A thousand rows on a line: with delta = null the middle of the ball, then finer and finer.
    line = np.linspace(0, 1, 1001)[:, np.newaxis]
    answer = selected_indices("prob_cover", make_question(line), 40)
    gaps = np.diff(np.sort(line[answer, 0]))
    assert gaps.min() > 0.004
    assert gaps.max() < 0.1


def test_updated_counts_equal_recomputed_counts():
    Z = np.random.default_rng(2).normal(size=(700, 2))
    near = ((Z[:, np.newaxis] - Z) ** 2).sum(axis=2) <= 0.04
    covered = np.zeros(700, bool)
    for choice in cover_greedily(Points(Z), covered.copy(), 0.04, 60, np.uint64(0)):
        counts = (near & ~covered).sum(axis=1)
        assert counts[choice] == counts.max()
        covered |= near[choice]


# max_herding


def similarity_of_all(X, width):
    return np.array([[math.exp(-(math.dist(a, b) ** 2) / (2 * width**2)) for b in X] for a in X])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("labeled", LABELED)
def test_max_herding_always_takes_the_row_that_adds_most_similarity(kind, labeled, monkeypatch):
    monkeypatch.setattr(greedy, "N_CONTENDERS", 4)
    width = 0.8
    monkeypatch.setattr(herding, "median_pair_distance", lambda points, rng: 2 * width / SCALE)
    similarity = similarity_of_all(X, width)
    similarity[:, labeled] = 0
    best = similarity[labeled].max(axis=0, initial=0)
    for choice in selected_indices("max_herding", make_question(kind(X), labeled), 25, standardize=False):
        gains = np.maximum(similarity - best, 0).sum(axis=1)
        gains[labeled] = 0
        assert gains[choice] == pytest.approx(gains.max(), abs=1e-6)
        best = np.maximum(best, similarity[choice])


def test_max_herding_worked_by_hand():
    # Three rows at 0 and one each at 1, 10 and 30; the width is far below 9. First comes 0, then 30 or 10 (a tie); with
    # a label at 31, the row at 30 adds less.
    X = np.array([[0.0], [0.0], [0.0], [1.0], [10.0], [30.0], [31.0]])
    assert selected_indices("max_herding", make_question(X, [6]), 2)[0] in (0, 1, 2)
    assert selected_indices("max_herding", make_question(X, [6]), 2)[1] == 4


def test_the_width_is_a_share_of_the_median_distance():
    expected = np.median([math.dist(a, b) for a in X for b in X])
    assert herding.median_pair_distance(Points(X), np.random.default_rng(0)) == pytest.approx(expected, rel=0.03)
    assert herding.median_pair_distance(Points(np.zeros((5, 2))), np.random.default_rng(0)) == 1


def test_a_wider_kernel_reaches_farther_rows():
    line = np.concatenate([np.linspace(0, 1, 60), np.linspace(9, 10, 50)])[:, np.newaxis]
    (narrow,), (wide,) = (
        selected_indices("max_herding", make_question(line), 1, bandwidth=width) for width in (0.05, 5)
    )
    assert 0.2 < line[narrow, 0] < 0.8
    assert line[wide, 0] == pytest.approx(1.0)


def test_fewer_references_than_requested_are_noted(monkeypatch):
    question = make_question(np.random.default_rng(0).normal(size=(500, 4)))
    assert run_strategy("max_herding", question, 10, references=100).fallback_reason is None
    monkeypatch.setattr(pairs, "WORK", 20 * (500 + 100 * 10) * 300)
    reason = "max_herding used 300 references: more would be slow"
    answer = run_strategy("max_herding", question, 10)
    assert answer.fallback_reason == reason
    assert len(set(answer.indices.tolist())) == 10


# All of these strategies


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("change", [lambda X: X * 2.0**1000, lambda X: X * 2.0**-1000, lambda X: X + 2.0**20])
def test_neither_scale_nor_shift_matters(name, change):
    grid = np.round(X * 2**10) / 2**10
    expected = selected_indices(name, make_question(grid, [4, 7]), 20)
    assert selected_indices(name, make_question(change(grid), [4, 7]), 20) == expected


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_equal_rows_are_taken_about_equally_often(name):
    question = make_question(np.ones((8, 3)), [7])
    firsts = [selected_indices(name, question, 1, seed)[0] for seed in range(700)]
    assert np.abs(np.bincount(firsts, minlength=7) - 100).max() < 40  # one deviation is 9


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_is_considered_with_a_note(name, monkeypatch):
    question = make_question(np.random.default_rng(0).normal(size=(500, 4)), [3])
    answer = run_strategy(name, question, 10, sample=100)
    assert answer.fallback_reason == f"{name} considered a sample of 100 of the 499 candidates"
    assert len({*answer.indices.tolist()} - {3}) == 10
    monkeypatch.setattr(pairs, "WORK", 20 * 150**2)
    assert "a sample of 150 of the 499 candidates" in run_strategy(name, question, 2).fallback_reason


@pytest.mark.parametrize("name", NAMES)
def test_many_labels_make_the_sample_smaller(name, monkeypatch):
    question = make_question(np.random.default_rng(0).normal(size=(900, 4)), range(400))
    monkeypatch.setattr(pairs, "WORK", 20 * 200**2)
    size = 200 if name == "typiclust" else 100
    assert f"a sample of {size} of the 500 candidates" in run_strategy(name, question, 2).fallback_reason


@pytest.mark.parametrize("name", NAMES)
def test_wide_sparse_rows_are_folded_with_a_note(name):
    rng = np.random.default_rng(0)
    centers = sparse.random_array((4, 50_000), density=0.001, rng=rng, format="csr") * 10
    noise = sparse.random_array((200, 50_000), density=0.0001, rng=rng, format="csr")
    rows = sparse.csr_array(sparse.vstack([centers[[n // 50]] for n in range(200)], format="csr") + noise)
    pool = Pool.of(SparseRows(rows.data, rows.indices, rows.indptr, 50_000))
    answer = run_strategy(name, make_question(pool, [60]), 3)
    assert sorted(answer.indices // 50) == [0, 2, 3]
    assert "folded the 50000 sparse features into 1024 columns" in answer.fallback_reason
