"""Predictions of the current model: in pages, as CSV and as .npy."""

from __future__ import annotations

import csv
import io
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from pyarrow import parquet
from sklearn.datasets import load_wine

from service.http.media_types import PARQUET
from service.http.routes import predictions as routes
from service.learning import pool as pools
from service.learning.models import predict_probabilities
from service.store import Part
from service.usecases import predictions as module
from tests.support.calls import get, post

PATH = "/projects/p/predictions"


@pytest.fixture
def project(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """178 wines with ids, 30 of them labelled, in chunks of 20 rows; returns the labels of all."""
    monkeypatch.setattr(pools, "MIN_CHUNK_ROWS", 20)
    monkeypatch.setattr(pools, "CHUNK_CELLS", 1)
    monkeypatch.setattr(module, "CHUNKS_AT_ONCE", 2)
    X, y = load_wine(return_X_y=True)
    names = ["red", "white", "=rosé"]
    truth = [names[code] for code in y]
    given = [label if i % 6 == 0 else None for i, label in enumerate(truth)]
    scaled = {"name": "logistic_regression", "params": {"scale": True}}
    ids = [f"w{i}" for i in range(len(X))]
    post(client, "/fit", 201, project_id="p", X=X.tolist(), y=given, ids=ids, estimator=scaled)
    return truth


def expected(client: FlaskClient) -> np.ndarray:
    """The probabilities of the stored model, computed in one piece."""
    snapshot = client.application.extensions["active-query"].store.read("p", Part.POOL, Part.MODEL)
    return predict_probabilities(snapshot.model, np.asarray(snapshot.pool.segments[0]))


def walk(client: FlaskClient, query: str) -> list[dict[str, Any]]:
    """Read all pages."""
    found: list[dict[str, Any]] = []
    after = ""
    while True:
        page = get(client, f"{PATH}?{query}{after}")
        found += page["predictions"]
        if page["next"] is None:
            return found
        after = f"&after={page['next']}"


def test_pages_hold_every_sample_once_with_the_probabilities_of_the_model(client, project) -> None:
    found = walk(client, "limit=50&probabilities=true")
    assert [record["index"] for record in found] == list(range(len(project)))
    assert [record["id"] for record in found][:2] == ["w0", "w1"]
    P = expected(client)
    np.testing.assert_allclose([record["probabilities"] for record in found], P, rtol=1e-9)
    np.testing.assert_allclose([record["confidence"] for record in found], P.max(axis=1), rtol=1e-9)
    classes = get(client, PATH)["classes"]
    assert [record["label"] for record in found] == [classes[code] for code in P.argmax(axis=1)]
    assert np.mean([record["label"] == truth for record, truth in zip(found, project, strict=True)]) > 0.9


def test_a_page_says_where_the_next_begins(client: FlaskClient, project: list[str]) -> None:
    assert get(client, f"{PATH}?limit=178")["next"] is None
    assert get(client, f"{PATH}?limit=177")["next"] == 176
    assert "probabilities" not in get(client, PATH)["predictions"][0]
    assert get(client, PATH)["model_version"] == 1
    assert get(client, f"{PATH}?after=177") | {"classes": []} == {
        "model_version": 1, "classes": [], "predictions": [], "next": None
    }  # fmt: skip


def test_filters_select_predictions(client: FlaskClient, project: list[str]) -> None:
    P = expected(client)
    sure = [record["index"] for record in walk(client, "min_confidence=0.99&limit=7")]
    assert sure == np.flatnonzero(P.max(axis=1) >= 0.99).tolist()
    assert 0 < len(sure) < len(P)
    unlabeled = [record["index"] for record in walk(client, "unlabeled_only=true")]
    assert unlabeled == [i for i in range(len(P)) if i % 6]
    assert [record["index"] for record in walk(client, "indices=170,3,3,60")] == [3, 60, 170]
    assert walk(client, "indices=6&unlabeled_only=true") == []


def test_csv_equals_json(client: FlaskClient, project: list[str]) -> None:
    response = client.get(f"{PATH}?probabilities=true", headers={"Accept": "text/csv"})
    rows = list(csv.DictReader(io.StringIO(response.get_data(as_text=True))))
    records = walk(client, "probabilities=true")
    assert [(int(row["index"]), row["id"], float(row["confidence"])) for row in rows] == [
        (record["index"], record["id"], record["confidence"]) for record in records
    ]
    classes = get(client, PATH)["classes"]
    assert [[float(row[f"p({label})"]) for label in classes] for row in rows] == [r["probabilities"] for r in records]
    assert len(client.get(f"{PATH}?limit=5", headers={"Accept": "text/csv"}).text.splitlines()) == 6


def test_npy_holds_the_probabilities(client: FlaskClient, project: list[str]) -> None:
    response = client.get(PATH, headers={"Accept": "application/x-npy"})
    P = np.load(io.BytesIO(response.data))
    np.testing.assert_allclose(P, expected(client), rtol=1e-9)
    response = client.get(f"{PATH}?unlabeled_only=true", headers={"Accept": "application/x-npy"})
    assert np.load(io.BytesIO(response.data)).shape == (148, 3)


def test_a_class_that_the_model_has_not_seen_has_probability_zero(client: FlaskClient) -> None:
    X = [[0.0], [1.0], [2.0], [3.0]]
    post(client, "/fit", 201, project_id="p", X=X, y=[True, None, None, False], classes=[False, True])
    post(client, "/fit", 201, project_id="q", X=X, y=["c", None, None, "a"], classes=["a", "b", "c"])
    assert {type(record["label"]) for record in walk(client, "")} == {bool}
    page = get(client, "/projects/q/predictions?probabilities=true")
    assert page["classes"] == ["a", "b", "c"]
    assert all(record["probabilities"][1] == 0 for record in page["predictions"])


@pytest.mark.parametrize(
    ("query", "accept", "status", "pointer"),
    [
        ("limit=0", "application/json", 422, "/query/limit"),
        ("min_confidence=2", "application/json", 422, "/query/min_confidence"),
        ("min_confidence=nan", "application/json", 422, "/query/min_confidence"),
        ("unlabeled_only=1", "application/json", 422, "/query/unlabeled_only"),
        ("indices=1,178", "application/json", 422, "/query/indices"),
        ("indices=", "application/json", 422, "/query/indices"),
        ("indices=-1", "application/json", 422, "/query/indices"),
        ("after=x", "application/json", 422, "/query/after"),
        ("what=1", "application/json", 422, "/query/what"),
        ("limit=5", "application/x-npy", 422, "/query/limit"),
        ("min_confidence=0.5", "application/x-npy", 422, "/query/min_confidence"),
        ("", "image/png", 406, None),
    ],
)
def test_a_wrong_question_is_refused(client, project, query, accept, status, pointer) -> None:
    response = client.get(f"{PATH}?{query}", headers={"Accept": accept})
    assert response.status_code == status
    assert pointer is None or response.json["errors"][0]["pointer"] == pointer


def test_without_a_model_there_are_no_predictions(client: FlaskClient) -> None:
    get(client, PATH, 404)
    post(client, "/fit", 201, project_id="p", X=[[0.0], [1.0]], y=["a", None])
    assert "two classes" in get(client, PATH, 409)["detail"]


@pytest.mark.parametrize(
    "query", ["", "?probabilities=true", "?limit=7&unlabeled_only=true", "?min_confidence=1&indices=0"]
)
def test_parquet_has_the_same_predictions_as_json(client: FlaskClient, project, query: str) -> None:
    response = client.get(PATH + query, headers={"Accept": PARQUET})
    assert (response.status_code, response.mimetype) == (200, PARQUET)
    records = parquet.read_table(io.BytesIO(response.data)).to_pylist()
    wanted = get(client, PATH + query)["predictions"]
    shares = [record.pop("probabilities", []) for record in wanted]
    assert [dict(list(record.items())[:4]) for record in records] == wanted
    assert [list(record.values())[4:] for record in records] == shares


def test_parquet_is_not_offered_without_its_library(client: FlaskClient, project, monkeypatch) -> None:
    monkeypatch.setattr(routes, "find_spec", lambda name: None)
    response = client.get(PATH, headers={"Accept": PARQUET})
    assert (response.status_code, "active-query[arrow]" in response.json["detail"]) == (406, True)


def test_samples_whose_probabilities_are_not_finite_have_no_label(client: FlaskClient) -> None:
    X = [[0.0], [1.0], [1.7e308], [-1.7e308]]
    params = {"name": "logistic_regression", "params": {"C": 1e6}}
    post(client, "/fit", 201, project_id="p", X=X, y=["a", "b", None, None], estimator=params)
    found = walk(client, "probabilities=true")
    assert [record["label"] for record in found[:2]] == ["a", "b"]
    assert all((record["label"] is None) == (record["confidence"] is None) for record in found)
