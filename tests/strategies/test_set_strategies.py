"""The strategies that spread a batch, against slow versions of their definitions and examples worked by hand."""

import tracemalloc

import numpy as np
import pytest
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB

from service.learning.pool import Pool, SparseRows
from service.strategies import Question, hybrid, resolve_strategy, select
from service.strategies.engine.greedy import Points
from tests.support.edge_case_pools import GOOD, POOLS
from tests.support.questions import read_only

NAMES = ["k_center", "badge", "ranked_batch"]


def compressed(X):
    X = sparse.csr_array(X)
    return SparseRows(read_only(X.data), read_only(X.indices), read_only(X.indptr), X.shape[1])


def in_segments(X):
    return Pool((read_only(X[:7]), read_only(X[7:11]), read_only(X[11:])))


KINDS = {
    "dense": lambda X: Pool.of(read_only(X)),
    "sparse": lambda X: Pool.of(compressed(X)),
    "segments": in_segments,
    "sparse segments": lambda X: Pool((compressed(X[:9]), compressed(X[9:]))),
}


def question_about(pool, labeled=(), model=None, n_classes_labeled=0):
    pool = pool if isinstance(pool, Pool) else Pool.of(read_only(pool))
    is_open = np.ones(len(pool), bool)
    is_open[list(labeled)] = False
    return Question(pool, read_only(is_open), read_only(np.array(labeled, np.int64)), model, n_classes_labeled)


def ask(name, question, batch_size, seed=0, **params):
    return select(*resolve_strategy(name, params), question, batch_size, np.random.default_rng(seed))


def picked(*args, **params):
    return ask(*args, **params).indices.tolist()


class Table:
    """A model that predicts P[i] for the row X[i] and rows equal to it."""

    def __init__(self, X, P):
        self.classes_ = np.arange(np.shape(P)[1])
        self.answers = {row.tobytes(): answer for row, answer in zip(X, np.asarray(P, np.float64), strict=True)}

    def predict_proba(self, X):
        return np.array([self.answers[row.tobytes()] for row in X])


def learnt(X, n_classes=3):
    rng = np.random.default_rng(5)
    return LogisticRegression(C=0.1).fit(rng.normal(size=(60, X.shape[1])), np.arange(60) % n_classes)


def distances_to_nearest(X, candidates, centers):
    """Squared distances by the plain formula."""
    return [min(sum((X[i] - X[j]) ** 2) ** 0.5 for j in centers) for i in candidates]


# Distances


@pytest.mark.parametrize("offset", [0, 1e4])
@pytest.mark.parametrize("matrix", [np.array, sparse.csr_array])
def test_squared_distances_are_right_and_0_between_equal_rows(offset, matrix):
    X = np.random.default_rng(0).normal(size=(9, 40)) + offset
    squares = Points(matrix(X)).squared_distances(Points(matrix(X[3:])))
    assert squares == pytest.approx(((X[:, np.newaxis] - X[3:]) ** 2).sum(axis=2), rel=1e-4)
    assert (np.diagonal(squares[3:]) == 0).all()


def test_squared_distances_of_products_equal_those_of_explicit_ones():
    rng = np.random.default_rng(0)
    X, G = rng.normal(size=(9, 4)), rng.normal(size=(9, 3))
    E = np.array([np.outer(g, x).ravel() for g, x in zip(G, X, strict=True)])
    assert Points(X, G).squared_distances(Points(X, G)) == pytest.approx(Points(E).squared_distances(Points(E)))


# k_center


def farthest_first(X, labeled, first, batch_size):
    """The definition: one after another, the row farthest from all chosen."""
    chosen = [*labeled, *first]
    while len(chosen) < len(labeled) + batch_size:
        away = distances_to_nearest(X, range(len(X)), chosen)
        chosen.append(int(np.argmax(away)))
    return chosen[len(labeled) :]


def test_k_center_worked_by_hand():
    X = np.array([[0.0], [1.0], [4.0], [9.0], [10.0]])
    # 10 is the farthest from 0; then 4, at distance 4 from 0; then 1 and 9, both at distance 1.
    answers = [picked("k_center", question_about(X, [0]), 4, seed) for seed in range(20)]
    assert {tuple(answer[:2]) for answer in answers} == {(4, 2)}
    assert {tuple(answer[2:]) for answer in answers} == {(1, 3), (3, 1)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("labeled", [[], [3], [0, 4, 20, 33]])
def test_k_center_is_farthest_first(kind, labeled):
    X = np.random.default_rng(1).normal(size=(40, 5))
    answer = picked("k_center", question_about(KINDS[kind](X), labeled), 15)
    assert answer == farthest_first(X, labeled, [] if labeled else answer[:1], 15)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64])
@pytest.mark.parametrize("offset", [0, 1000])
def test_k_center_in_every_type_near_the_origin_and_far(dtype, offset):
    X = (np.random.default_rng(1).normal(size=(60, 4)) * 50 + offset).astype(dtype)
    expected = farthest_first(X.astype(np.float64), [7, 8], [], 12)
    assert picked("k_center", question_about(X, [7, 8]), 12) == expected


@pytest.mark.parametrize("change", [lambda X: X * 2.0**1000, lambda X: X * 2.0**-1000, lambda X: X + 2.0**30])
def test_neither_scale_nor_shift_matters_to_k_center(change):
    X = np.round(np.random.default_rng(2).normal(size=(50, 3)) * 2**10) / 2**10
    expected = picked("k_center", question_about(X, [4]), 20)
    assert picked("k_center", question_about(change(X), [4]), 20) == expected


@pytest.mark.parametrize("scale", [2.0**1000, 2.0**-1000])
def test_scale_does_not_matter_to_badge(scale):
    rng = np.random.default_rng(2)
    X, P = rng.normal(size=(50, 3)), rng.dirichlet([1, 1, 1], 50)
    expected = picked("badge", question_about(X, [], Table(X, P), 3), 20)
    assert picked("badge", question_about(X * scale, [], Table(X * scale, P), 3), 20) == expected


def test_close_rows_stay_distinct_beside_an_outlier():
    X = np.r_[np.random.default_rng(1).normal(size=(30, 3)), [[1e12, 0, 0]]]
    expected = farthest_first(X[:30], [2], [], 8)
    assert picked("k_center", question_about(X, [2]), 9) == [30, *expected]


@pytest.mark.parametrize(("n", "d"), [(30_000, 2), (5000, 30)])
def test_k_center_over_many_blocks_and_turns(n, d):
    X = np.sort(np.random.default_rng(4).normal(size=(n, d)).astype(np.float32), axis=0)
    labeled = list(range(0, n, n // 50))
    away = np.full(n, np.inf)
    expected = []
    for k in range(len(labeled) + 60):
        center = labeled[k] if k < len(labeled) else int(away.argmax())
        expected.append(center)
        away = np.minimum(away, np.linalg.norm(X.astype(np.float64) - X[center], axis=1))
    assert picked("k_center", question_about(X, labeled), 60) == expected[len(labeled) :]


@pytest.mark.parametrize("kind", KINDS)
def test_k_center_takes_each_distinct_row_before_any_twice(kind):
    X = np.random.default_rng(0).normal(size=(6, 40))[np.arange(60) % 6] + 1e4
    answer = picked("k_center", question_about(KINDS[kind](X)), 20)
    assert {i % 6 for i in answer[:6]} == set(range(6))
    assert len(set(answer)) == 20


@pytest.mark.parametrize("name", NAMES)
def test_equal_rows_are_taken_about_equally_often(name):
    X = np.ones((8, 3))
    question = question_about(X, [7], Table(X, [[0.6, 0.4]] * 8), 2)
    firsts = [ask(name, question, 1, seed).indices[0] for seed in range(700)]
    assert np.abs(np.bincount(firsts, minlength=7) - 100).max() < 40  # one deviation is 9


# badge


def embeddings(X, P):
    """The definition: for each row the products (c * d) of p - e_y and x."""
    g = P - np.eye(P.shape[1])[P.argmax(axis=1)]
    return np.array([np.outer(g_row, x).ravel() for g_row, x in zip(g, X, strict=True)])


def seeded_k_means(E, batch_size, rng):
    """K-means++ over explicit embeddings from the longest on, with the draws that `badge` makes."""
    rng.integers(2**64, size=2, dtype=np.uint64)  # the seed that breaks ties
    chosen = [int(np.linalg.norm(E, axis=1).argmax())]
    while len(chosen) < batch_size:
        squares = np.array([min(sum((e - E[j]) ** 2) for j in chosen) for e in E])
        chosen.append(int((squares / rng.standard_exponential(len(E))).argmax()))
    return chosen


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_classes", [2, 4])
def test_badge_is_k_means_plus_plus_on_the_embeddings(kind, n_classes):
    X = np.random.default_rng(1).normal(size=(50, 4)) + 1
    model = learnt(X, n_classes)
    E = embeddings(X, model.predict_proba(X))
    for seed in range(10):
        expected = seeded_k_means(E, 12, np.random.default_rng(seed))
        assert picked("badge", question_about(KINDS[kind](X), [], model, n_classes), 12, seed) == expected


def test_badge_over_many_blocks_and_turns():
    X = np.random.default_rng(1).normal(size=(9000, 20)).astype(np.float32)
    model = learnt(X)
    E = embeddings(X, model.predict_proba(X))
    rng = np.random.default_rng(0)
    rng.integers(2**64, size=2, dtype=np.uint64)
    expected = [int(np.linalg.norm(E, axis=1).argmax())]
    away = np.full(len(E), np.inf)
    for _ in range(30):
        away = np.minimum(away, ((E - E[expected[-1]]) ** 2).sum(axis=1))
        expected.append(int((away / rng.standard_exponential(len(E))).argmax()))
    assert picked("badge", question_about(X, [], model, 3), 31) == expected


def test_badge_draws_in_proportion_to_the_squared_distance():
    # p - e_y is (-1/2, 1/2), and 0 in the last row. The first row is the longest. The squared distances to it are
    # |x - x'|^2 / 2, and |x'|^2 / 2 for the last row, so the others are drawn as 10 : 8 : 16.
    X = np.array([[4.0, 0.0], [1.0, 1.0], [2.0, 2.0], [0.0, 3.0]])
    question = question_about(X, [], Table(X, [[0.5, 0.5], [0.5, 0.5], [0.5, 0.5], [1.0, 0.0]]), 2)
    drawn = [picked("badge", question, 2, seed) for seed in range(1000)]
    assert {first for first, _ in drawn} == {0}
    shares = np.bincount([second for _, second in drawn], minlength=4) / 1000
    assert shares == pytest.approx(np.array([0, 10, 8, 16]) / 34, abs=0.06)  # one deviation is 0.015


def test_badge_asks_for_each_embedding_before_any_twice():
    X = np.repeat([[1.0, 0.0], [0.0, 1.0], [3.0, 3.0]], 10, axis=0)
    answer = picked("badge", question_about(X, [], Table(X, np.full((30, 2), 0.5)), 2), 12)
    assert {i // 10 for i in answer[:3]} == {0, 1, 2}


# ranked_batch


def ranked_literally(X, P, labeled, batch_size, uncertainty):
    """The definition; the share of unlabelled rows shrinks with each chosen row."""
    labeled, chosen = list(labeled), []
    while len(chosen) < batch_size:
        unlabeled = [i for i in range(len(X)) if i not in labeled]
        share = len(unlabeled) / (len(unlabeled) + len(labeled))
        away = distances_to_nearest(X, unlabeled, labeled)
        scores = [
            share * (1 - 1 / (1 + d)) + (1 - share) * uncertainty(P[i]) for i, d in zip(unlabeled, away, strict=True)
        ]
        chosen.append(unlabeled[int(np.argmax(scores))])
        labeled.append(chosen[-1])
    return chosen


UNCERTAINTY = {
    "least_confidence": lambda p: 1 - max(p),
    "margin": lambda p: 1 - (sorted(p)[-1] - sorted(p)[-2]),
    "entropy": lambda p: -sum(p * np.log(p)) / np.log(len(p)),
}


@pytest.mark.parametrize("scorer", UNCERTAINTY)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_labeled", [1, 20, 33])
def test_ranked_batch_matches_its_definition(scorer, kind, n_labeled):
    X = np.random.default_rng(8).normal(size=(45, 4))
    model, labeled = learnt(X), range(n_labeled)
    expected = ranked_literally(X, model.predict_proba(X), labeled, 12, UNCERTAINTY[scorer])
    question = question_about(KINDS[kind](X), labeled, model, 3)
    assert picked("ranked_batch", question, 12, scorer=scorer) == expected


def test_ranked_batch_worked_by_hand():
    # Row 0 is labelled. Similarities of 1, 3, -3 are 1/2, 1/4, 1/4; a is 3/4: .375 + .125, .5625 + .025, .5625.
    # Then a is 2/4: .25 + .25 for 1 and .375 for -3, which would win if a were still 3/4.
    X = np.array([[0.0], [1.0], [3.0], [-3.0]])
    model = Table(X, [[1.0, 0.0], [0.5, 0.5], [0.9, 0.1], [1.0, 0.0]])
    assert picked("ranked_batch", question_about(X, [0], model, 2), 3) == [2, 1, 3]


def test_ranked_batch_uses_least_confidence_by_default():
    X = np.random.default_rng(8).normal(size=(45, 4))
    question = question_about(X, range(30), learnt(X), 3)
    assert picked("ranked_batch", question, 9) == picked("ranked_batch", question, 9, scorer="least_confidence")
    assert picked("ranked_batch", question, 9) != picked("ranked_batch", question, 9, scorer="entropy")


def test_ranked_batch_of_one_class_is_by_distance_alone():
    question = question_about(GOOD, [0, 3], None, 1)
    assert picked("ranked_batch", question, 8) == picked("k_center", question, 8)


@pytest.mark.parametrize("kind", KINDS)
def test_ranked_batch_without_labels_starts_at_the_row_of_least_mean_distance(kind):
    X = np.random.default_rng(9).normal(size=(45, 4))
    away = np.sqrt(((X[:, np.newaxis] - X) ** 2).sum(axis=2))
    chosen = [int(away.mean(axis=1).argmin())]
    while len(chosen) < 6:
        nearest = away[:, chosen].min(axis=1)
        nearest[chosen] = -1
        chosen.append(int(nearest.argmax()))
    assert picked("ranked_batch", question_about(KINDS[kind](X)), 6) == chosen


def test_ranked_batch_compares_a_sample_of_a_large_pool(monkeypatch):
    monkeypatch.setattr(hybrid, "MEAN_WORK", 45 * 4 * 40)
    X = np.random.default_rng(9).normal(size=(45, 4))
    selection = ask("ranked_batch", question_about(X), 6)
    assert len(set(selection.indices.tolist())) == 6
    assert "least mean distance to 40 candidates drawn at random" in selection.fallback_reason


# All of these strategies


def test_rows_without_finite_probabilities_come_last_or_count_as_certain_with_a_note():
    X = np.arange(1.0, 9.0)[:, np.newaxis]
    P = [[0.6, 0.4]] * 4 + [[np.nan, 1.0]] * 2 + [[0.5, np.inf]] * 2
    answer = ask("badge", question_about(X, [], Table(X, P), 2), 8)
    assert set(answer.indices[:4].tolist()) == {0, 1, 2, 3}
    reason = "the model has no finite probabilities for 4 of the 8 candidates considered (their features overflow): "
    assert answer.fallback_reason == reason + "these come last"
    answer = ask("ranked_batch", question_about(X, [0], Table(X, P), 2), 7)
    assert answer.fallback_reason == reason.replace("8", "7") + "these count as certain"
    assert answer.indices[0] == 7  # the farthest: 7/8 * 7/8, where the row at 4 has 7/8 * 3/4 + 1/8 * 0.4


@pytest.mark.parametrize("name", NAMES)
def test_a_model_that_overflows_everywhere_still_gets_an_answer(name):
    X = GOOD * 1e300
    model = GaussianNB().fit(GOOD, np.arange(len(GOOD)) % 3)
    answer = ask(name, question_about(X, [0], model, 3), 39)
    assert sorted(answer.indices) == list(range(1, 40))


@pytest.mark.parametrize("name", NAMES)
def test_a_requested_sample_is_considered_with_a_note(name):
    X = np.random.default_rng(0).normal(size=(500, 3))
    question = question_about(X, [0], learnt(X), 3)
    answer = ask(name, question, 20, sample=100)
    assert answer.fallback_reason == f"{name} considered a sample of 100 of the 499 candidates"
    assert len({*answer.indices.tolist()} - {0}) == 20
    assert ask(name, question, 200, sample=100).fallback_reason.endswith("a sample of 200 of the 499 candidates")
    assert ask(name, question, 20, sample=499).fallback_reason is None


@pytest.mark.parametrize("name", NAMES)
def test_the_sample_is_bounded_by_the_work(name, monkeypatch):
    X = np.random.default_rng(0).normal(size=(500, 4))
    monkeypatch.setattr("service.strategies.engine.greedy.WORK", 150 * 10 * (4 + 16))
    answer = ask(name, question_about(X, [3], learnt(X), 3), 10 - (name != "badge"))
    assert answer.fallback_reason == f"{name} considered a sample of 150 of the 499 candidates"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("pool", [pool for pool in POOLS if pool != "float16"])  # scipy has no such sparse matrix
@pytest.mark.parametrize("n_classes", [1, 3])
def test_sparse_pools_keep_the_contract(name, pool, n_classes):
    X = POOLS[pool]
    labeled = [1] if len(X) > 1 else []
    question = question_about(Pool.of(compressed(X)), labeled, learnt(X) if n_classes == 3 else None, n_classes)
    for batch_size in (1, len(X) + 3, 6):
        answer = ask(name, question, batch_size)
        assert len(np.unique(answer.indices)) == len(answer.indices) == min(batch_size, question.n_open)
        assert np.isin(answer.indices, question.candidates).all()
        assert answer.scores is None
    assert answer.indices.tolist() == picked(name, question, 6)


@pytest.mark.parametrize("name", NAMES)
def test_a_sparse_pool_stays_sparse(name):
    # Dense, it would take 2 GB.
    d = 2**20
    X = sparse.random_array((250, d), density=20 / d, format="csr", rng=np.random.default_rng(0))
    pool = Pool.of(SparseRows(X.data, X.indices, X.indptr, d))
    model = LogisticRegression(max_iter=3).fit(X[:20], np.arange(20) % 2)
    tracemalloc.start()
    answer = ask(name, question_about(pool, [0], model, 2), 30)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(set(answer.indices.tolist())) == 30
    assert peak < 60e6
