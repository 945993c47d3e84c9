"""The strategies that cluster uncertain rows, against examples worked by hand."""

import numpy as np
import pytest
from scipy import sparse

from service.learning.pool import Pool
from service.strategies import clustering
from service.strategies.clustering import drop_features
from tests.support.questions import make_question, run_strategy, selected_indices, sparse_pool

NAMES = ["margin_k_means", "cluster_margin", "clue", "drop_query"]


class Model:
    """A model of two classes whose margin score is a function of the features."""

    classes_ = np.arange(2)

    def __init__(self, score):
        self.score = score

    def predict_proba(self, X):
        second = self.score(X.toarray() if sparse.issparse(X) else X) / 2
        return np.column_stack([1 - second, second])


class Sign:
    """A model whose class is whether the features sum to more than 0."""

    classes_ = np.arange(2)

    def predict_proba(self, X):
        is_more = np.asarray(X.sum(axis=1)).ravel() > 0
        return np.column_stack([np.where(is_more, 0.25, 0.75), np.where(is_more, 0.75, 0.25)])


def scored(X, scores):
    """A question about rows of one feature, all different, with these margin scores; any other row has 0."""
    of_row = dict(zip(X[:, 0].tolist(), scores, strict=True))
    return make_question(X, [], Model(lambda rows: np.array([of_row.get(x, 0.0) for x in rows[:, 0].tolist()])))


def column(*values):
    return np.array(values, np.float64)[:, np.newaxis]


def groups(*sizes):
    """Rows of one feature in groups far apart."""
    return column(*[1000 * k + i for k, size in enumerate(sizes) for i in range(size)])


# margin_k_means and clue


@pytest.mark.parametrize(
    ("name", "scores"),
    [("margin_k_means", [0.1, 0.1, 0.8]), ("clue", [0.1, 0.1, 1.0])],
)
def test_cluster_centres_are_weighted_by_uncertainty(name, scores):
    # The mean of 0, 2 and 5 is 2.3; weighted it is 4.2, or for `clue` 3.9 by entropies of 0.29, 0.29 and 1.
    X = column(0, 2, 5)
    assert selected_indices("k_means", make_question(X), 1) == [1]
    assert selected_indices(name, scored(X, scores), 1) == [2]


@pytest.mark.parametrize("name", ["margin_k_means", "clue"])
def test_the_cluster_of_largest_total_uncertainty_comes_first(name):
    X = groups(9, 3, 5)
    scores = [0.1] * 9 + [0.9] * 3 + [0.7] * 5
    answer = selected_indices(name, scored(X, scores), 3)
    assert (X[answer, 0] // 1000).tolist() == [2, 1, 0]


def test_margin_k_means_considers_beta_times_the_batch():
    X, scores = groups(10, 10, 10), [0.9, *[0.5] * 9, 0.8, *[0.6] * 9, 0.7, *[0.1] * 9]
    assert selected_indices("margin_k_means", scored(X, scores), 2, beta=1) == [0, 10]
    looked_at = selected_indices(
        "margin_k_means", scored(X, scores), 2, beta=6
    )  # the twelve best: 0, 20 and all of the second
    assert looked_at[0] in range(10, 20)
    assert looked_at[1] in (0, 20)


def test_margin_k_means_over_certain_rows_is_unweighted_k_means():
    answer = selected_indices("margin_k_means", scored(groups(5, 9, 7), [0.0] * 21), 3)
    assert answer == [9, 17, 2]


def test_margin_k_means_bounds_its_candidates_with_a_note(monkeypatch):
    monkeypatch.setattr(clustering, "MAX_UNSURE", 30)
    question = scored(groups(100), np.linspace(0, 1, 100))
    answer = run_strategy("margin_k_means", question, 4)
    assert answer.indices.min() >= 70
    assert answer.fallback_reason == "margin_k_means considered the 30 rows of smallest margin instead of 40"
    assert selected_indices("margin_k_means", question, 35) == list(range(99, 64, -1))


def test_margin_k_means_fills_up_by_margin_if_clustering_is_too_slow(monkeypatch):
    monkeypatch.setattr("service.strategies.engine.features.STEP_WORK", 40 * 2)
    answer = run_strategy("margin_k_means", scored(groups(100), np.linspace(0, 1, 100)), 4)
    assert answer.indices[2:].tolist() == [99, 98]
    reason = "margin_k_means took 2 of the batch by margin alone: more than 2 clusters would be slow"
    assert answer.fallback_reason == reason


# cluster_margin


def test_cluster_margin_worked_by_hand():
    # Five rows of the first group are uncertain, two of the second and one of the third. The batch is four of these
    # eight: one of each group, the smallest group first, then another of the second.
    X = groups(20, 20, 20, 20)
    scores = np.full(80, 0.1)
    scores[[0, 1, 2, 3, 4, 20, 21, 40]] = 0.9
    drawn = [selected_indices("cluster_margin", scored(X, scores), 4, seed, beta=2) for seed in range(40)]
    assert {tuple(i // 20 for i in answer) for answer in drawn} == {(2, 1, 0, 1)}
    assert {answer[2] for answer in drawn} == {0, 1, 2, 3, 4}


# drop_query


@pytest.mark.parametrize("kind", [Pool.of, sparse_pool])
def test_drop_query_takes_the_middles_of_the_rows_that_flip(kind):
    # The first two groups sum to more than 0, but not without their first feature; the third never flips.
    X = np.array([[9.0, -1.0, -2.0, 0.0]] * 9 + [[90.0, -1.0, -1.0, -1.0]] * 11 + [[1.0, 2.0, 3.0, 4.0]] * 30)
    X = np.concatenate([X, -X[20:]])
    answer = run_strategy("drop_query", make_question(kind(X), [], Sign()), 2, times=30, rate=0.6)
    assert [i // 9 > 0 for i in answer.indices] == [True, False]
    assert answer.fallback_reason is None


def test_drop_query_fills_up_by_flips_and_margin_with_a_note():
    scores = [0.1, 0.7, 0.3, 0.9]
    answer = run_strategy("drop_query", scored(column(1, 2, 3, 4), scores), 3, rate=1e-9)
    assert answer.indices.tolist() == [3, 1, 2]
    assert answer.fallback_reason == (
        "drop_query found 0 rows that flip and filled the batch by number of flips, then by margin"
    )


def test_a_row_that_flips_sometimes_comes_before_one_that_never_does():
    X = np.array([[1.0, 1.0], [2.0, -1.0], [3.0, 1.0], [1.0, 3.0]])
    assert selected_indices("drop_query", make_question(X, [], Sign()), 1, times=50, rate=0.3) == [1]


@pytest.mark.parametrize("matrix", [np.array, sparse.csr_array])
def test_dropout_keeps_the_mean(matrix):
    X = drop_features(matrix(np.full((400, 50), 2.0)), 0.75, np.random.default_rng(0))
    values, counts = np.unique(X.toarray() if sparse.issparse(X) else X, return_counts=True)
    assert values.tolist() == [0, 8]
    assert counts / counts.sum() == pytest.approx([0.75, 0.25], abs=0.01)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_dropout_keeps_type_and_range_and_leaves_its_input_alone(dtype):
    limit = np.finfo(dtype).max
    X = np.full((20, 20), -limit, dtype)
    out = drop_features(X, 0.5, np.random.default_rng(0))
    assert out.dtype == dtype
    assert set(np.unique(out).tolist()) == {-limit, 0}
    assert (-limit == X).all()


def test_dropout_of_integers_has_fractions():
    out = drop_features(np.full((9, 9), 1, np.uint8), 0.6, np.random.default_rng(0))
    assert sorted(set(out.ravel().tolist())) == [0, 2.5]


# All of these strategies


@pytest.mark.parametrize("name", ["cluster_margin", "clue", "drop_query"])
def test_a_sample_is_considered_with_a_note(name):
    answer = run_strategy(name, scored(groups(300), np.linspace(0, 1, 300)), 5, sample=100)
    assert answer.fallback_reason.startswith(f"{name} considered a sample of 100 of the 300 candidates")
    assert len(set(answer.indices.tolist())) == 5


@pytest.mark.parametrize("name", NAMES)
def test_rows_without_finite_probabilities_come_last_with_a_note(name):
    scores = [0.5, np.nan, 0.2, np.nan, 0.9, 0.3]
    for batch_size in (3, 5, 6):
        answer = run_strategy(name, scored(groups(6), scores), batch_size)
        assert {0, 2, 4, 5} >= {*answer.indices[:4].tolist()}
        assert f"{name} put 2 rows last, as the model has no finite probabilities for them" in answer.fallback_reason


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_equal_rows_are_taken_about_equally_often(name):
    question = make_question(np.ones((7, 2)), [], Model(lambda rows: np.full(len(rows), 0.5)))
    firsts = [selected_indices(name, question, 1, seed)[0] for seed in range(700)]
    assert np.abs(np.bincount(firsts, minlength=7) - 100).max() < 40  # one deviation is 9
