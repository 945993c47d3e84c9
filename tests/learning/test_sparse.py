"""Sparse pools over HTTP: estimators and strategies accept them, or name those that do."""

from __future__ import annotations

import json
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from scipy import sparse

from service.learning.estimators import ESTIMATORS
from tests.support.calls import get, post
from tests.support.estimators import CLASSIFIERS
from tests.support.strategies import FOR_CLASSES

RNG = np.random.default_rng(0)
KIND = RNG.integers(0, 3, 150)
X = RNG.integers(0, 2, (150, 30)) * RNG.random((150, 30)) + 2 * np.repeat(np.eye(3)[KIND], 10, axis=1)
X[X < 0.5] = 0
Y = [int(kind) if n < 60 else None for n, kind in enumerate(KIND)]
QUICK = {"random_forest": {"n_estimators": 10}, "extra_trees": {"n_estimators": 10}, "mlp": {"max_iter": 50}}
ABLE = [name for name in CLASSIFIERS if ESTIMATORS[name].sparse]


def npz(rows: Any) -> BytesIO:
    file = BytesIO()
    sparse.save_npz(file, sparse.csr_matrix(rows))
    file.seek(0)
    return file


def fit(client: FlaskClient, expect: int = 201, X_test: Any = None, **config: Any) -> Any:
    form: dict[str, Any] = {
        "config": (
            BytesIO(json.dumps({"project_id": "s", "y": Y, "estimator": "logistic_regression"} | config).encode()),
            "c",
            "application/json",
        ),
        "X": (npz(X), "X.npz"),
    }
    if X_test is not None:
        form["X_test"] = X_test
    reply = client.post("/fit", data=form)
    assert reply.status_code == expect, reply.get_data(as_text=True)
    return reply.json


def test_estimators_say_whether_they_learn_from_sparse_pools(client) -> None:
    told = {one["name"]: one["sparse"] for one in get(client, "/estimators")["estimators"]}
    unable = {name for name, able in told.items() if not able}
    assert unable == {"hist_gradient_boosting", "gaussian_nb", "gaussian_process"}


@pytest.mark.parametrize("scale", [False, True])
@pytest.mark.parametrize("name", ABLE)
def test_an_estimator_learns_from_a_sparse_pool(client, name, scale) -> None:
    estimator = {"name": name, "params": {"scale": scale, **QUICK.get(name, {})}}
    held_out = (npz(X[60:]), "X_test.npz")
    score = fit(client, X_test=held_out, y_test=KIND[60:].tolist(), estimator=estimator)["test_score"]
    assert score["accuracy"] > 0.9
    asked = post(client, "/query", project_id="s", strategy="margin", batch_size=5)
    assert asked["strategy"] == "margin"
    assert min(asked["indices"]) >= 60


@pytest.mark.parametrize("name", ["hist_gradient_boosting", "gaussian_nb"])
def test_the_error_for_a_dense_only_estimator_names_the_others(client, name) -> None:
    [error] = fit(client, 422, estimator=name)["errors"]
    assert error["pointer"] == "/estimator"
    assert all(repr(able) in error["detail"] for able in ABLE)
    fit(client)
    refused = post(client, "/fit", 422, project_id="s", estimator=name)
    assert refused["errors"] == [error]
    assert get(client, "/projects/s")["estimator"]["name"] == "logistic_regression"


@pytest.mark.slow
@pytest.mark.parametrize("labelled", [0, 60], ids=["cold", "warm"])
@pytest.mark.parametrize("strategy", FOR_CLASSES)
def test_every_strategy_runs_on_a_sparse_pool(client, strategy, labelled) -> None:
    fit(client, y=[label if n < labelled else None for n, label in enumerate(Y)])
    asked = post(client, "/query", project_id="s", strategy=strategy, batch_size=7)
    assert len(set(asked["indices"])) == 7
    assert min(asked["indices"]) >= labelled


def test_a_sparse_pool_gives_the_answers_of_a_dense_one(client) -> None:
    fit(client)
    post(client, "/fit", 201, project_id="dense", X=X.tolist(), y=Y)
    sparse_, dense = (
        post(client, "/query", project_id=name, strategy="entropy", batch_size=20, random_state=0)
        for name in ("s", "dense")
    )
    assert sparse_["indices"] == dense["indices"]
    assert sparse_["scores"] == pytest.approx(dense["scores"])


def test_a_dense_held_out_set_beside_a_sparse_pool_is_refused(client) -> None:
    held_out = (BytesIO(json.dumps(X[:5].tolist()).encode()), "X_test", "application/json")
    [error] = fit(client, 422, X_test=held_out, y_test=KIND[:5].tolist())["errors"]
    assert error["pointer"] == "/X_test"
    assert error["detail"] == "is dense, but the pool is sparse (CSR)"


def test_a_sparse_pool_of_zeros_is_queried(client) -> None:
    config = (BytesIO(b'{"project_id": "s", "y": [0, 1, null]}'), "c", "application/json")
    made = client.post("/fit", data={"config": config, "X": (npz(np.zeros((3, 4))), "X.npz")})
    assert made.status_code == 201, made.get_data(as_text=True)
    assert post(client, "/query", project_id="s", strategy="margin")["indices"] == [2]
