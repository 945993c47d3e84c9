"""Exploration: a share of the batch in the project's own random order, whose labelled prefix is a uniform sample."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient

from service.strategies import next_in_random_order
from tests.support.calls import end_labels, line_pool, post

N = 60


@pytest.fixture
def project(client: FlaskClient) -> str:
    post(client, "/fit", 201, project_id="p", X=line_pool(N), y=end_labels(N), random_state=4)
    return "p"


def ask(client: FlaskClient, expect: int = 200, **asked: Any) -> Any:
    return post(client, "/query", expect, **{"project_id": "p", "strategy": "margin", **asked})


def order(n: int = N, random_state: int = 4) -> list[int]:
    return next_in_random_order(np.ones(n, bool), n, random_state).tolist()


@pytest.mark.parametrize("explore", [-0.1, 1.1, "0.5", True, None, [0.1], 1e400])
def test_a_wrong_share_is_refused(client, project, explore) -> None:
    if explore == 1e400:
        body = b'{"project_id": "p", "explore": 1e400}'
        assert client.post("/query", data=body, content_type="application/json").status_code in (400, 422)
    else:
        [error] = ask(client, 422, explore=explore)["errors"]
        assert error["pointer"] == "/explore"


@pytest.mark.parametrize(
    ("strategy", "batch_size", "explore", "n_drawn"),
    [
        ("margin", 10, None, 0),
        ("margin", 10, 0, 0),
        ("margin", 10, 0.25, 3),
        ("margin", 10, 1, 10),
        ("margin", 1, 0.5, 1),
        ("margin", 1, 0.4, 0),
        ("k_means", 8, 0.5, 4),
        ("auto", 9, None, 0),
        ("auto", 10, None, 1),
        ("auto", 40, None, 4),
        ("auto", 40, 0, 0),
        ("margin", 1000, 0.5, 29),
    ],
)
def test_a_share_of_the_batch_is_drawn_and_spread_through_it(
    client, project, strategy, batch_size, explore, n_drawn
) -> None:
    given = {} if explore is None else {"explore": explore}
    asked = ask(client, strategy=strategy, batch_size=batch_size, **given)
    n = min(batch_size, N - 2)
    assert len(set(asked["indices"])) == n
    open_ones = [row for row in order() if row not in (0, N - 1)]
    places = [((2 * nth + 1) * n - 1) // (2 * n_drawn) for nth in range(n_drawn)]
    assert [asked["indices"][place] for place in places] == open_ones[:n_drawn]
    assert (asked["fallback_reason"] is None) == (n == batch_size)
    assert (asked["reason"] is None) == (strategy != "auto" and not n_drawn)
    if n_drawn:
        note = f"{n_drawn}, spread through the batch, were drawn for exploration"
        assert asked["reason"].endswith(note)
        assert asked["scores"] is None or [asked["scores"][place] for place in places] == [None] * n_drawn
        assert places[0] < (n + 1) / 2


def test_exploration_does_not_change_the_other_rows(client, project) -> None:
    asked = ask(client, batch_size=10, explore=0.3, random_state=0)["indices"]
    drawn = [asked.pop(place) for place in (8, 4, 1)]
    assert asked == ask(client, batch_size=7, exclude=drawn, random_state=0)["indices"]


def test_consecutive_batches_continue_the_same_order(client, project) -> None:
    drawn: list[int] = []
    for _ in range(5):
        asked = ask(client, batch_size=4, explore=0.5)["indices"]
        drawn += asked[::2]
        labels = [{"index": index, "label": index // (N // 2)} for index in asked]
        post(client, "/label", project_id="p", labels=labels, refit="never")
    places = [order().index(row) for row in drawn]
    assert places == sorted(places)


def test_the_order_is_uniform() -> None:
    firsts = [next_in_random_order(np.ones(5, bool), 1, seed)[0] for seed in range(1000)]
    assert np.abs(np.bincount(firsts, minlength=5) - 200).max() < 60  # one deviation is 13


def test_the_order_of_old_rows_stays_when_the_pool_grows() -> None:
    assert [row for row in order(200_000) if row < 70_000] == order(70_000)


def test_only_open_rows_are_drawn() -> None:
    is_open = np.arange(100) % 3 == 0
    assert next_in_random_order(is_open, 34, 0).tolist() == [row for row in order(100, 0) if row % 3 == 0]


def test_another_seed_gives_another_order() -> None:
    assert order(random_state=1) != order(random_state=2)
