"""The strategies for numbers: the contract of all on edge cases, and each against its definition."""

from __future__ import annotations

import numpy as np
import pytest

from service.learning.estimators import fit, resolve_estimator
from service.learning.external_predictions import ExternalNumbers
from service.learning.number_models import NumberForestCommittee
from service.learning.pool import Pool
from service.strategies import STRATEGIES, Question
from tests.support.edge_case_pools import GOOD, POOLS
from tests.support.questions import make_question, run_strategy, sparse_pool
from tests.support.strategies import FOR_NUMBERS

RNG = np.random.default_rng(3)
FOREST = resolve_estimator("extra_trees", {"n_estimators": 10})
RIDGE = resolve_estimator("ridge", {})


def numbers_for(n):
    return np.sin(np.arange(n)) * 10.0


def learn(spec, X):
    return None if spec is None else fit(spec, X, numbers_for(X.shape[0]), 0, target="number")


def question_about(X, spec, labeled=(0, 7, 8)):
    """Return a question about a pool whose model has learnt the numbers of half of its rows."""
    labeled = [row for row in labeled if len(X) > 9]
    pool = X if isinstance(X, Pool) else Pool.of(X)
    rows = pool.take(np.arange(len(pool)))
    numbers = numbers_for(len(pool))[labeled]
    known = rows[: len(pool) // 2 + 1]  # all that a forest has learnt, its trees would agree on
    model = learn(spec, known) if len(pool) > 1 else None
    return make_question(pool, labeled, model, 0, numbers=numbers, target="number")


def members_question(members, X=None, labeled=()):
    """Return a question about the predictions (m, n) of a caller's members."""
    given = ExternalNumbers(np.asarray(members, np.float64))
    return Question(
        pool=given.model_pool if X is None else Pool.of(np.asarray(X, np.float64)),
        is_open=~np.isin(np.arange(given.members.shape[1]), labeled),
        labeled=np.array(labeled, np.int64),
        model=given.model,
        n_classes_labeled=0,
        committee=given.committee,
        model_pool=given.model_pool,
        committee_pool=given.committee_pool,
        has_features=X is not None,
        numbers=np.zeros(len(labeled)),
        target="number",
        members_sent=True,
    )


NEW = [name for name in FOR_NUMBERS if STRATEGIES[name].function.__module__.endswith("numbers")]
OF_MODEL = {"greedy_y", "improved_greedy", "committee_variance", "expected_model_change"}


@pytest.fixture(scope="module", params=[None, RIDGE, FOREST], ids=["no model", "ridge", "forest"])
def questions(request):
    """Return a question about each pool, with one model or none."""
    found = {pool: question_about(X, request.param) for pool, X in POOLS.items()}
    return found | {"sparse": question_about(sparse_pool(GOOD), request.param)}


# The strategies that need features alone have the contract of those for classes.
@pytest.mark.parametrize("name", ["auto", "random", *NEW])
def test_contract(name, questions):
    is_replaced = questions["good"].model is None and name in OF_MODEL
    for pool, question in list(questions.items())[: 1 if is_replaced else None]:
        n = question.n_open
        for batch_size in (1, n + 5, 6):
            found = run_strategy(name, question, batch_size)
            assert len(found.indices) == len(np.unique(found.indices)) == min(batch_size, n), (pool, batch_size)
            assert np.isin(found.indices, question.candidates).all(), pool
            if found.scores is not None:
                assert np.isfinite(found.scores).all(), pool
                assert (np.diff(found.scores) <= 0).all(), pool
        again = run_strategy(name, question, 6)
        assert again.indices.tolist() == found.indices.tolist(), pool
    assert (found.strategy == "max_herding") == (is_replaced or (question.model is None and name == "auto"))


@pytest.mark.parametrize("name", ["auto", "random", *NEW])
def test_members_of_a_caller(name):
    members = RNG.normal(size=(4, 30))
    question = members_question(members, RNG.normal(size=(30, 2)), labeled=[3, 4])
    found = run_strategy(name, question, 7).indices
    assert len(np.unique(found)) == 7
    assert not np.isin(found, [3, 4]).any()


def standardized(X):
    return (X - X.mean(axis=0)) / X.std(axis=0)


def spread_slowly(squares, labeled, batch_size, *, by_cluster):
    """The definition, over the squared distances (n, n) of all rows."""
    centers, chosen = list(labeled), []
    for _ in range(batch_size):
        open_rows = [row for row in range(len(squares)) if row not in centers]
        nearest = {row: min(centers, key=lambda center: squares[row, center]) for row in open_rows}
        if by_cluster:
            sums = {center: sum(squares[r, c] for r, c in nearest.items() if c == center) for center in centers}
            largest = max(sums, key=sums.get)
            open_rows = [row for row in open_rows if nearest[row] == largest]
        chosen.append(max(open_rows, key=lambda row: squares[row, nearest[row]]))
        centers.append(chosen[-1])
    return chosen


def squares_between(A):
    return np.square(A[:, np.newaxis] - A[np.newaxis]).sum(axis=2)


X = RNG.normal(size=(40, 3)) * [1.0, 10.0, 0.1]
LABELED = [2, 11, 30]


def question(spec):
    return question_about(X, spec, LABELED)


@pytest.mark.parametrize("spec", [RIDGE, FOREST], ids=["features", "trees"])
def test_lcmd_takes_the_farthest_of_the_largest_cluster(spec):
    asked = question(spec)
    if spec is FOREST:
        trees = NumberForestCommittee.of(asked.model).member_predictions(X).T
        squares = squares_between(trees - trees.mean(axis=1, keepdims=True))
    else:
        squares = squares_between(standardized(X))
    found = run_strategy("lcmd", asked, 8).indices.tolist()
    assert found == spread_slowly(squares, LABELED, 8, by_cluster=True)


def test_lcmd_worked_by_hand():
    # Around 0 lie 1, 2 and 3 with the sum 14, around 10 lies 13 with 9: 3 is the farthest, and then 13.
    asked = make_question(
        np.array([[0.0], [1.0], [2.0], [3.0], [10.0], [13.0]]), [0, 4], None, 0, numbers=np.zeros(2), target="number"
    )
    assert run_strategy("lcmd", asked, 2).indices.tolist() == [3, 5]


def test_greedy_x_takes_the_farthest_row():
    squares = squares_between(standardized(X))
    found = run_strategy("greedy_x", question(RIDGE), 8).indices.tolist()
    assert found == spread_slowly(squares, LABELED, 8, by_cluster=False)


def test_greedy_x_starts_at_the_mean():
    first = run_strategy("greedy_x", question_about(X, None, []), 1).indices[0]
    assert first == np.square(standardized(X)).sum(axis=1).argmin()


@pytest.mark.parametrize("name", ["greedy_y", "improved_greedy"])
def test_greedy_strategies_compare_predictions_with_labels(name):
    asked = question(RIDGE)
    y = asked.model.predict(X)
    y[LABELED] = numbers_for(40)[LABELED]
    squares = squares_between(y[:, np.newaxis])
    if name == "improved_greedy":
        squares = squares * squares_between(standardized(X))
    found = run_strategy(name, asked, 8).indices.tolist()
    assert found == spread_slowly(squares, LABELED, 8, by_cluster=False)


def test_committee_variance_and_model_change_of_members():
    members = RNG.normal(size=(5, 20))
    found = run_strategy("committee_variance", members_question(members), 20)
    assert found.indices.tolist() == np.argsort(-members.var(axis=0)).tolist()
    rows = RNG.normal(size=(20, 2))
    lengths = np.sqrt(np.square(standardized(rows)).sum(axis=1) + 1.0)
    expected = lengths * np.abs(members - members.mean(axis=0)).mean(axis=0)
    found = run_strategy("expected_model_change", members_question(members, rows), 20)
    assert found.scores == pytest.approx(np.sort(expected)[::-1])
    assert found.indices.tolist() == np.argsort(-expected).tolist()
