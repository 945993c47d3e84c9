"""Uncertainty herding, against loops over its definition and an example worked by hand."""

import math

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from service.learning.pool import Pool
from service.strategies.engine.greedy import Points
from service.strategies.engine.pairs import squares_to_nearest_of
from service.strategies.herding import heaviest
from tests.support.questions import (
    TableModel,
    make_question,
    question_from_probabilities,
    run_strategy,
    selected_indices,
    sparse_pool,
)

X = np.random.default_rng(3).normal(size=(50, 3))
MODEL = LogisticRegression().fit(X[:30], np.arange(30) % 3)


def similarity(a, b, width):
    return math.exp(-sum((a - b) ** 2) / (2 * width**2))


def herd_literally(X, P, labeled, batch_size, sharpness=1):
    """The definition: greedily the largest sum over all candidates of uncertainty times the best similarity."""
    width = min(math.dist(X[i], X[j]) for i in labeled for j in labeled if math.dist(X[i], X[j]) > 0)
    rest = [i for i in range(len(X)) if i not in labeled]
    unsure = {i: (1 - (sorted(P[i])[-1] - sorted(P[i])[-2])) ** sharpness for i in rest}
    chosen = []

    def covered(centers):
        return sum(unsure[i] * max(similarity(X[i], X[j], width) for j in centers) for i in rest)

    while len(chosen) < batch_size:
        left = [i for i in rest if i not in chosen]
        chosen.append(max(left, key=lambda i: covered([*labeled, *chosen, i])))
    return chosen


@pytest.mark.parametrize(
    ("kind", "standardize", "compared"),
    [(Pool.of, False, X), (Pool.of, True, (X - X.mean(axis=0)) / X.std(axis=0)), (sparse_pool, True, X)],
)
@pytest.mark.parametrize(
    ("labeled", "sharpness", "power"),
    [([0, 9], 4, 1), ([4, 5, 30, 31, 49], 1, 1), ([0, 9], 0.5, 0.5), (range(30), 4, 1.2), (range(30), 1.1, 1.1)],
)
def test_uherding_matches_its_definition(kind, standardize, compared, labeled, sharpness, power):
    expected = herd_literally(compared, MODEL.predict_proba(X), list(labeled), 10, power)
    assert (
        selected_indices(
            "uherding",
            make_question(kind(X), list(labeled), MODEL, 3),
            10,
            standardize=standardize,
            sharpness=sharpness,
        )
        == expected
    )


@pytest.mark.parametrize(("batch_size", "power"), [(1, 4), (2, 1)])
def test_the_power_of_the_uncertainty_is_lower_in_batches_while_labels_are_few(batch_size, power):
    labeled, P = [0, 6], MODEL.predict_proba(X)
    assert herd_literally(X, P, labeled, 1, 1) != herd_literally(X, P, labeled, 1, 4)
    expected = herd_literally(X, P, labeled, batch_size, power)
    question = make_question(X, labeled, MODEL, 3)
    assert selected_indices("uherding", question, batch_size, standardize=False) == expected


def test_a_column_of_large_numbers_does_not_dominate():
    P = np.full((60, 2), 0.5)
    large = np.c_[X, np.random.default_rng(0).normal(size=50) * 1e9]
    model = TableModel(P)
    model.predict_proba = lambda Z: P[: len(Z)]
    plain, standard = (
        selected_indices("uherding", make_question(large, [0], model), 5, standardize=s) for s in (False, True)
    )
    by_itself = selected_indices("uherding", make_question(large[:, 3:], [0], model), 5)
    assert plain == by_itself
    assert standard != by_itself


def test_equal_labelled_rows_do_not_set_the_width():
    repeated = np.concatenate([X, X[:1]])
    labeled = [0, 9, 50]
    expected = herd_literally(repeated, MODEL.predict_proba(repeated), labeled, 6)
    assert selected_indices("uherding", make_question(repeated, labeled, MODEL, 3), 6, sharpness=1) == expected


def test_two_nearly_equal_labelled_rows_do_not_reduce_it_to_margin():
    # Thirty near copies of the most uncertain row: one of them is enough.
    rng = np.random.default_rng(0)
    rows = np.concatenate([rng.normal(size=(300, 2)), rng.normal(size=(30, 2)) * 0.01])
    rows[:7] = [[3, 0], [-3, 1], [3, 2], [-3, 3], [3, 4], [-3, 5], [3.001, 4]]
    P = 1 / (1 + np.exp(-2 * rows[:, 0]))
    model = TableModel(np.c_[1 - P, P])
    model.predict_proba = lambda Z: np.c_[1 / (1 + np.exp(2 * Z[:, 0])), 1 / (1 + np.exp(-2 * Z[:, 0]))]
    for labeled in (range(6), range(7)):
        batch = selected_indices("uherding", make_question(rows, list(labeled), model), 9)
        assert sum(row >= 300 for row in batch) <= 1
    assert sum(row >= 300 for row in selected_indices("margin", make_question(rows, [0, 1], model), 9)) > 5


def test_uherding_worked_by_hand():
    # Rows 0 and 1 are labelled, so the width is 1. The rows at 5 and 6 gain 0.4 + 0.4 * exp(-1/2) = 0.64 each from
    # both; the row at 20 gains 0.6, and the row at 2, which is near 1, gains 0.9 - 0.9 * exp(-1/2) = 0.35.
    P = np.array([[1.0, 0.0]] * 21)
    for row, doubt in ((2, 0.9), (5, 0.4), (6, 0.4), (20, 0.6)):
        P[row] = [1 - doubt / 2, doubt / 2]
    question = question_from_probabilities(P, labeled=[0, 1])
    answers = [selected_indices("uherding", question, 2, seed, sharpness=1) for seed in range(20)]
    assert {first for first, _ in answers} <= {5, 6}
    assert {second for _, second in answers} == {20}


@pytest.mark.parametrize("labeled", [[], [7]])
def test_uherding_is_max_herding_if_the_model_is_certain(labeled):
    question = make_question(X, labeled, None, 1)
    assert selected_indices("uherding", question, 8) == selected_indices("max_herding", question, 8)


@pytest.mark.parametrize("scale", [2.0**1000, 2.0**-1000])
def test_scale_does_not_matter(scale):
    class Scaled:
        classes_ = MODEL.classes_

        def predict_proba(self, Z):
            return MODEL.predict_proba(Z / scale)

    expected = selected_indices("uherding", make_question(X, [0, 9], MODEL, 3), 8)
    assert selected_indices("uherding", make_question(X * scale, [0, 9], Scaled(), 3), 8) == expected


def test_rows_without_finite_probabilities_count_as_certain_with_a_note():
    P = [[0.5, 0.5], [0.9, 0.1], [math.nan, 0.5], [0.6, 0.4]]
    answer = run_strategy("uherding", question_from_probabilities(P, labeled=[0]), 3)
    assert answer.indices[0] == 3
    assert "no finite probabilities for 1 of the 3 candidates" in answer.fallback_reason
    assert answer.fallback_reason.endswith("count as certain")


def test_uherding_notes_its_sample(monkeypatch):
    X = np.random.default_rng(0).normal(size=(500, 3))
    question = make_question(X, [0, 1], MODEL, 3)
    assert run_strategy("uherding", question, 10, sample=100).fallback_reason == (
        "uherding considered a sample of 100 of the 498 candidates"
    )
    assert run_strategy("uherding", question, 20, sample=100).fallback_reason == (
        "uherding considered a sample of 200 of the 498 candidates"
    )
    monkeypatch.setattr("service.strategies.herding.PAIRS_A_TURN", 498 * 3 * 150)
    assert run_strategy("uherding", question, 5).fallback_reason == "uherding used 150 references: more would be slow"


@pytest.mark.parametrize("n_kept", [0, 30, 1000])
def test_similarities_that_are_not_kept_are_computed_again(n_kept, monkeypatch):
    rows = np.random.default_rng(0).normal(size=(300, 3))
    expected = selected_indices("uherding", make_question(rows, [0, 9], MODEL, 3), 12)
    monkeypatch.setattr("service.strategies.herding.KEPT_CELLS", n_kept * 298)
    assert selected_indices("uherding", make_question(rows, [0, 9], MODEL, 3), 12) == expected


def test_only_the_most_uncertain_rows_are_chosen(monkeypatch):
    monkeypatch.setattr("service.strategies.herding.LISTED", 100)
    # Of 400 rows on a line, the first 100 are the most uncertain; the others are sure, but far from any label.
    P = np.where(np.arange(400)[:, np.newaxis] < 100, [0.6, 0.4], [0.9, 0.1])
    batch = selected_indices("uherding", question_from_probabilities(P, labeled=[0, 1]), 5)
    assert max(batch) < 102


@pytest.mark.parametrize("n_others", [1, 700])
@pytest.mark.parametrize("outlier", [1.0, 2.0**60])
def test_squares_to_the_nearest_row_are_exact(n_others, outlier):
    rng = np.random.default_rng(0)
    others, X = rng.normal(size=(n_others, 3)), rng.normal(size=(600, 3))
    X[:5], others[-1], X[7] = others[0], outlier * others[-1], 2 * outlier * X[7]
    found = squares_to_nearest_of(Points(X), Points(others))
    assert found == pytest.approx(np.square(X[:, np.newaxis] - others).sum(axis=2).min(axis=1))
    assert n_others == 1 or (found[:5] == 0).all()


def test_references_with_a_ten_thousandth_of_the_weight_are_left_out():
    assert heaviest(np.array([0.4, 5e-5, 0.6, 0, 6e-5, 1e-5])).tolist() == [0, 2, 4]
    assert heaviest(np.zeros(3)).tolist() == [0, 1, 2]
