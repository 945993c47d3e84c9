"""LURE: the accuracy on the pool from samples that `power` drew."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from sklearn.datasets import make_classification

from service.domain.draws import MAX_CELLS, Draw, Draws
from service.learning.lure import Drawn, lure_accuracy
from service.store import Store
from service.strategies.sampling import chances_of
from tests.support.calls import get, post

PATH = "/projects/p/evaluation"
N = 150


def drawn_in_order(weights: Sequence[float], order: Sequence[int], wrong: Sequence[int], known: int = 0) -> Drawn:
    """The draws of some rows by weight, where `known` other rows, predicted wrongly, were labelled before."""
    n, positions = len(weights), np.array(order, np.int64)
    is_wrong = np.array(wrong, bool)[positions]
    before = np.cumsum(is_wrong) - is_wrong
    log_q = chances_of(np.log(weights), positions).log_q
    none = np.zeros(len(order), np.int64)
    return Drawn(n - np.arange(len(order)), log_q, is_wrong, none.astype(bool), before + known, none)


@pytest.mark.parametrize("known", [0, 2])
def test_the_mean_over_all_orders_of_drawing_is_the_accuracy(known: int) -> None:
    weights, wrong = [8.0, 4.0, 1.0, 2.0, 1.0], [1, 1, 0, 0, 0]
    mean = 0.0
    for order in permutations(range(5), 3):
        drawn = drawn_in_order(weights, order, wrong, known)
        mean += np.exp(drawn.log_q.sum()) * lure_accuracy(drawn, 5 + known, (-np.inf, np.inf)).value
    assert mean == pytest.approx(1 - (2 + known) / (5 + known), abs=1e-9)


def test_it_is_the_formula_of_the_paper() -> None:
    weights, wrong, order = np.arange(1.0, 9), [0, 1, 0, 0, 1, 0, 0, 1], [7, 2, 4, 6]
    drawn = drawn_in_order(weights, order, wrong)
    m, n, big_m = np.arange(1, 5), 8, 4
    v = 1 + (n - big_m) / (n - m) * (1 / ((n - m + 1) * np.exp(drawn.log_q)) - 1)
    assert lure_accuracy(drawn, n, (0.0, 1.0)).value == pytest.approx(1 - np.mean(v * drawn.is_wrong))


def test_skipped_draws_count_for_the_samples_that_cannot_be_labelled() -> None:
    none, dropped = np.zeros(4, np.int64), np.array([True, False, True, False])
    drawn = Drawn(100 - np.arange(4), -np.log(100.0 - np.arange(4)), ~dropped & [0, 1, 0, 0], dropped, none, none)
    # Half of the pool cannot be labelled, and a quarter is wrong.
    assert lure_accuracy(drawn, 100, (0.0, 1.0)).value == pytest.approx(0.5, abs=0.03)


def test_probabilities_of_draws_add_up_to_one_at_each_turn() -> None:
    log_weights = np.array([0.0, -np.inf, -700.0, -2_000.0, 5.0])
    first = [np.exp(chances_of(log_weights, np.array([row])).log_q) for row in (0, 2, 3, 4)]
    assert np.sum(first) == pytest.approx(1.0)
    every = chances_of(log_weights, np.array([4, 0, 2, 3, 1]))
    assert every.log_q[1:] == pytest.approx([0, 0, 0], abs=1e-12)
    assert every.is_drawable.tolist() == [True, False, True, True, True]


@pytest.fixture
def labels(client: FlaskClient) -> list[int]:
    """A project of two overlapping classes, twenty of its samples labelled; the labels of all."""
    X, y = make_classification(N, 4, n_informative=3, n_redundant=0, flip_y=0.1, random_state=1)
    given = [label if i < 20 else None for i, label in enumerate(y.tolist())]
    post(client, "/fit", 201, project_id="p", X=X.tolist(), y=given, random_state=3, estimator="logistic_regression")
    return y.tolist()


def ask(client: FlaskClient, n: int = 15, **query: Any) -> Any:
    return post(client, "/query", project_id="p", batch_size=n, **{"strategy": "power", **query})


def answer(client: FlaskClient, labels: list[int], batch: Any, rows: slice = slice(None), **more: Any) -> None:
    given = {"query_id": batch["query_id"], **more}
    post(
        client,
        "/label",
        project_id="p",
        labels=[{"index": i, "label": labels[i], **given} for i in batch["indices"][rows]],
    )


def n_counted(client: FlaskClient) -> int:
    return int(get(client, PATH)["lure"]["n"])


def test_batches_with_fits_between_them_give_an_estimate(client: FlaskClient, labels: list[int]) -> None:
    assert get(client, PATH)["lure"]["accuracy"] is None
    for _ in range(2):
        answer(client, labels, ask(client))
    found = get(client, PATH)["lure"]
    assert (found["n"], found["n_pool"], found["reason"]) == (30, N, None)
    assert 0 < found["accuracy"]["low"] < found["accuracy"]["value"] < found["accuracy"]["high"] <= 1
    assert "high" in found["bias"] and "power" in found["measured_on"]


@pytest.mark.parametrize(
    ("change", "n"),
    [
        ("nothing", 30),
        ("one later in the batch is answered first", 22),
        ("no query_id", 15),
        ("one is skipped", 30),
        ("the seed of another batch", 15),
        ("candidates", 15),
        ("explored with it", 28),
        ("labels from elsewhere between", 30),
        ("an earlier label is retracted", 0),
        ("an earlier label is corrected", 30),
        ("the pool grows", 0),
        ("another strategy", 15),
    ],
)
def test_draws_count_as_far_as_they_stand_for_the_pool(
    client: FlaskClient, labels: list[int], change: str, n: int
) -> None:
    answer(client, labels, ask(client, random_state=5))
    if change == "labels from elsewhere between":
        answer(client, labels, ask(client, strategy="margin"))
    query = {
        "the seed of another batch": {"random_state": 5},
        "candidates": {"candidates": list(range(60, 140))},
        "explored with it": {"explore": 0.13},
        "another strategy": {"strategy": "margin"},
    }.get(change, {"random_state": 6})
    batch = ask(client, **query)
    if change == "one later in the batch is answered first":
        answer(client, labels, batch, slice(8, None))
        answer(client, labels, batch, slice(7))
    elif change == "no query_id":
        answer(client, labels, {**batch, "query_id": "another-tool"})
    elif change == "one is skipped":
        post(
            client,
            "/label",
            project_id="p",
            labels=[{"index": batch["indices"][0], "skip": True}],
            query_id=batch["query_id"],
        )
        answer(client, labels, batch, slice(1, None))
    else:
        answer(client, labels, batch)
    if change == "an earlier label is retracted":
        assert client.delete("/projects/p/labels/3").status_code == 204
    if change == "an earlier label is corrected":
        post(client, "/label", project_id="p", labels=[{"index": 3, "label": 1 - labels[3]}])
    if change == "the pool grows":
        post(client, "/projects/p/pool", X=[[0.0] * 4])
    assert n_counted(client) == n


def test_leases_of_two_annotators_count(client: FlaskClient, labels: list[int]) -> None:
    batches = [ask(client, annotator=name, lease_seconds=60) for name in ("ada", "bob")]
    assert not set(batches[0]["indices"]) & set(batches[1]["indices"])
    answer(client, labels, batches[1], annotator="bob")
    assert n_counted(client) == 0, "ada's samples were not open for bob, and have no label yet"
    answer(client, labels, batches[0], annotator="ada")
    assert n_counted(client) == 30


def test_a_query_is_recorded_once_and_gives_the_same_answer(
    client: FlaskClient, labels: list[int], store: Store
) -> None:
    batches = [ask(client) for _ in range(2)]
    assert batches[0] == batches[1]
    assert [draw.query_id for draw in store.draws("p").all] == [batches[0]["query_id"]]


def test_draws_end_with_their_pool(client: FlaskClient, labels: list[int], store: Store) -> None:
    answer(client, labels, ask(client))
    post(client, "/fit", project_id="p", X=[[float(i)] for i in range(9)], y=[0, 1] + [None] * 7, replace=True)
    assert n_counted(client) == 0
    ask(client, 2)
    assert len(store.draws("p").all) == 1


def test_a_damaged_file_counts_as_no_draws(client: FlaskClient, labels: list[int], store: Store) -> None:
    batch = ask(client)
    (store.directory("p") / "draws.joblib").write_bytes(b"rubbish")
    answer(client, labels, batch)
    assert n_counted(client) == 0
    answer(client, labels, ask(client))
    assert n_counted(client) == 15


def test_the_oldest_draws_are_dropped_beyond_the_limit() -> None:
    draws, rows = Draws("pool"), np.arange(MAX_CELLS // 8)
    for nth in range(8):
        draw = Draw(rows, np.zeros(len(rows)), np.arange(nth, dtype=np.int64), 10**6)
        draws = draws.with_draw(str(nth), (nth,), draw)
    assert [draw.query_id for draw in draws.all] == ["5", "6", "7"]
    assert draws.others.tolist() == list(range(7))
    assert [draw.added.tolist() for draw in draws.all] == [[4], [5], [6]]
