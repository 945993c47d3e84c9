"""Strategies for samples with several labels, against values worked by hand and slow versions of their definitions."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from service.learning.estimators import fit, resolve_estimator
from service.strategies import STRATEGIES
from service.strategies.multilabel import Inconsistency, SizeLoss
from service.strategies.uncertainty import binary_minimum, mean_uncertainty
from tests.strategies.test_strategies import check_selection
from tests.support.edge_case_pools import POOLS
from tests.support.questions import TableModel, make_question, run_strategy, selected_indices

P = np.array([[0.5, 0.0], [0.9, 0.8], [0.6, 0.3], [0.0, 1.0]])


def question(P, sizes=(), **known):
    """Return a question about rows whose feature is their number; the first rows have labels of these sizes."""
    X = np.arange(len(P), dtype=np.float64)[:, np.newaxis]
    return make_question(
        X, range(len(sizes)), TableModel(P), label_sizes=np.array(sizes, np.int64), target="labels", **known
    )


@pytest.mark.parametrize(
    ("scorer", "expected"),
    [(mean_uncertainty, [0.5, 0.3, 0.7, 0.0]), (binary_minimum, [1.0, 0.4, 0.8, 0.0])],
)
def test_scores_worked_by_hand(scorer, expected):
    assert scorer(P) == pytest.approx(expected)
    assert scorer(P.astype(np.float32)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    "scorer", [mean_uncertainty, binary_minimum, Inconsistency(0.5, 1.0), SizeLoss((1,), ((),), (0.0,))]
)
def test_a_row_with_nan_has_no_score(scorer):
    assert np.isnan(scorer(np.array([[np.nan, 0.5], [0.5, np.nan]]))).all()


def test_adaptive_weighs_separation_and_the_number_of_classes():
    # 2p - 1: [0, -1], [0.8, 0.6], [0.2, -0.4], [-1, 1]; classes with p > 1/2: 0, 2, 1, 1.
    separations = np.array([1.0 + 0.0, 0.6 + 1.0, 0.2 + 0.4, 1.0 + 1.0])
    sizes = np.array([0, 2, 1, 1])
    for beta in (0.0, 0.3, 1.0):
        expected = separations**-beta * np.abs(sizes - 1.25) ** (1 - beta)
        assert Inconsistency(beta, 1.25)(P) == pytest.approx(expected)
    assert np.isfinite(Inconsistency(1.0, 0.0)(np.array([[0.5, 0.5 + 1e-12]]))).all()


def test_mmc_sums_the_losses_of_the_predicted_number_of_classes():
    assert SizeLoss((1,), ((),), (0.0,))(P) == pytest.approx([0.5 + 0.0, 0.1 + 0.8, 0.4 + 0.3, 0.0])
    assert SizeLoss((0,), ((),), (0.0,))(P) == pytest.approx([0.5, 1.7, 0.9, 1.0])
    assert SizeLoss((9,), ((),), (0.0,))(P) == pytest.approx([0.5 + 1.0, 0.1 + 0.2, 0.4 + 0.7, 1.0])


@pytest.mark.parametrize("n_sizes", [2, 3])
def test_mmc_learns_the_number_of_classes_from_the_labelled_rows(n_sizes):
    rng = np.random.default_rng(0)
    P = rng.random((60, 4))
    sizes = np.arange(30) % n_sizes
    ranked = -np.sort(-P, axis=1)
    predicted = LogisticRegression(max_iter=200).fit(ranked[:30], sizes).predict(ranked[30:])
    expected = [
        sum(1 - p if rank < size else p for rank, p in enumerate(row))
        for row, size in zip(ranked[30:], predicted, strict=True)
    ]
    best = 30 + np.argsort(expected)[::-1][:5]
    assert selected_indices("mmc", question(P, sizes), 5) == best.tolist()


@pytest.mark.parametrize("name", ["mean_uncertainty", "binary_minimum", "mmc", "adaptive", "power"])
def test_rows_without_finite_marginals_come_last(name):
    P = np.random.default_rng(1).random((12, 3))
    P[5] = np.nan
    selection = run_strategy(name, question(P, [0, 1]), 10)
    assert selection.indices[-1] == 5
    assert "no finite probabilities for 1" in selection.fallback_reason


LABELS_STRATEGIES = [name for name, strategy in STRATEGIES.items() if "labels" in strategy.targets]


@cache
def of_marginals(name, n_columns):
    """Return a model of three classes, learnt on good rows; the last of them is constant."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, n_columns))
    return fit(resolve_estimator(name, {}), X, X[:, :1] > [0, 0.5, 9], 0, target="labels")


@pytest.mark.slow
@pytest.mark.parametrize("name", LABELS_STRATEGIES)
@pytest.mark.parametrize("model", [None, "logistic_regression", "gaussian_nb"])
def test_every_strategy_of_labels_selects_from_every_pool(name, model):
    for pool in POOLS if model or name == "auto" else ["good"]:
        X = POOLS[pool]
        labeled = [0, 7, 8] if len(X) > 2 else []
        fitted = None if model is None else of_marginals(model, X.shape[1])
        sizes = np.array([0, 2, 1][: len(labeled)], np.int64)
        about = make_question(X, labeled, fitted, 3, target="labels", label_sizes=sizes)
        for batch_size in (1, len(X) + 5):
            selection = run_strategy(name, about, batch_size)
            check_selection(selection, about, min(batch_size, len(about.candidates)), f"{batch_size} rows of {pool}")
        assert run_strategy(name, about, len(X) + 5).indices.tolist() == selection.indices.tolist()


def test_power_draws_by_the_mean_uncertainty():
    P = np.full((400, 2), 0.99)
    P[::4] = [0.5, 0.99]
    drawn = np.array(selected_indices("power", question(P), 50))
    assert (drawn % 4 == 0).all()
