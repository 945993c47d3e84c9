"""The features of the samples that a query returns, on request."""

from __future__ import annotations

import json
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from scipy import sparse

from tests.support.calls import post


def npz(rows: list[list[float]]) -> bytes:
    file = BytesIO()
    sparse.save_npz(file, sparse.csr_matrix(rows))
    return file.getvalue()


def send(client: FlaskClient, path: str, rows: list[list[Any]], *, is_sparse: bool, **fields: Any) -> None:
    """Send a pool, or more rows of it, as JSON or as CSR."""
    if is_sparse:
        data = {"config": (BytesIO(json.dumps(fields).encode()), "config", "application/json")}
        response = client.post(path, data={**data, "X": (BytesIO(npz(rows)), "X.npz", "application/x-npz")})
    else:
        response = client.post(path, json={"X": rows, **fields})
    response.close()
    assert response.status_code < 300, response.json


POOLS = {
    "integers": ([[1, 2], [3, 4]], [[5, 6]], {}),
    "missing values": ([[1.5, None], [3.0, 4.0]], [[None, 6.0]], {"missing_values": "allow"}),
    "sparse": ([[0.0, 1.5], [3.0, 0.0]], [[0.0, 6.0]], {}),
}


@pytest.mark.parametrize("name", POOLS)
def test_features_come_back_on_request(client: FlaskClient, name: str) -> None:
    first, second, fields = POOLS[name]
    is_sparse = name == "sparse"
    send(client, "/fit", first, is_sparse=is_sparse, project_id="p", estimator="logistic_regression", **fields)
    send(client, "/projects/p/pool", second, is_sparse=is_sparse)
    rows = [*first, *second]
    for more in ({}, {"annotator": "ada", "lease_seconds": 60}):
        chosen = post(client, "/query", project_id="p", batch_size=3, include=["features"], **more)
        assert chosen["features"] == [rows[index] for index in chosen["indices"]]
    plain = post(client, "/query", project_id="p", batch_size=3, annotator="ada")
    assert (plain["features"], plain["indices"]) == (None, chosen["indices"])


def test_features_of_texts_are_refused(client: FlaskClient) -> None:
    post(client, "/fit", 201, project_id="p", texts=["a", "b"], estimator="logistic_regression")
    problem = post(client, "/query", 422, project_id="p", include=["text", "features"])
    detail = "'features' is not stored: this project was made of texts"
    assert problem["errors"] == [{"pointer": "/include/1", "detail": detail}]


def test_a_reply_has_a_million_features_at_most(client: FlaskClient) -> None:
    post(client, "/fit", 201, project_id="p", X=np.zeros((2, 500_001), int).tolist())
    asked = {"project_id": "p", "strategy": "random", "include": ["features"]}
    problem = post(client, "/query", 422, batch_size=2, **asked)
    assert problem["errors"][0]["detail"].endswith("batch_size may be 1")
    assert len(post(client, "/query", batch_size=1, **asked)["features"][0]) == 500_001
