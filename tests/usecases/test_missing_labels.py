"""`missing_label`: labels that look like a missing one are refused, read as unlabelled, or taken as classes."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from flask.testing import FlaskClient
from pyarrow import parquet

from tests.support.calls import get, line_pool, post
from tests.support.npy import npy

SPELLINGS = ["nan", "NaN", "None", "null", "<NA>", "N/A", "", "  ", " nan "]


def arrow(values: list[Any]) -> bytes:
    file = io.BytesIO()
    table = pa.table({"y": values})
    with pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    return file.getvalue()


def as_parquet(values: list[Any]) -> bytes:
    file = io.BytesIO()
    parquet.write_table(pa.table({"y": values}), file)
    return file.getvalue()


FORMATS = {
    "application/json": lambda values: json.dumps(values).encode(),
    "application/x-ndjson": lambda values: "\n".join(map(json.dumps, values)).encode(),
    "application/x-npy": lambda values: npy(np.array(values)),
    "application/vnd.apache.arrow.stream": arrow,
    "application/vnd.apache.parquet": as_parquet,
}


def send(client: FlaskClient, path: str, media_type: str, y: list[Any], **config: Any) -> Any:
    """Send a form with `y` in a format."""
    data = {
        "config": (io.BytesIO(json.dumps(config).encode()), "config", "application/json"),
        "X": (io.BytesIO(npy(np.array(line_pool(len(y))))), "X", "application/x-npy"),
        "y": (io.BytesIO(FORMATS[media_type](y)), "y", media_type),
    }
    return client.post(path, data=data)


@pytest.mark.parametrize("media_type", FORMATS)
@pytest.mark.parametrize(("y", "missing"), [(["a", "nan", "b", "nan"], "nan"), ([0, -1, 1, -1], -1)])
def test_every_format_and_operation_refuses_or_reads_it(
    client: FlaskClient, media_type: str, y: list[Any], missing: Any
) -> None:
    post(client, "/fit", 201, project_id="old", X=line_pool())
    calls = [
        ("/fit", {"project_id": "new", "estimator": "logistic_regression"}),
        ("/projects/old/pool", {}),
        ("/query", {"strategy": "k_center", "batch_size": 4}),
    ]
    for path, config in calls:
        response = send(client, path, media_type, y, **config)
        assert (response.status_code, response.json["errors"][0]["pointer"]) == (422, "/y/1")
        assert f'"missing_label": {json.dumps(missing)} reads it as unlabelled' in response.json["errors"][0]["detail"]
        response = send(client, path, media_type, y, missing_label=missing, **config)
        assert response.status_code in (200, 201), response.json
        assert response.json["n_labeled"] == 2
    assert get(client, "/projects/new")["classes"] == [y[0], y[2]]
    assert get(client, "/projects/old")["n_samples"] == 24


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_each_spelling_is_refused_at_its_first_row_and_changes_nothing(client: FlaskClient, spelling: str) -> None:
    y = ["a", "b", spelling, spelling]
    problem = post(client, "/fit", 422, project_id="p", X=line_pool(4), y=y)
    assert [error["pointer"] for error in problem["errors"]] == ["/y/2"]
    assert client.get("/projects/p").status_code == 404
    made = post(client, "/fit", 201, project_id="p", X=line_pool(4), y=y, missing_label=spelling)
    assert (made["classes"], made["n_unlabeled"]) == (["a", "b"], 2)


@pytest.mark.parametrize("spelling", ["nan", "NaN", "None", "null", "<NA>", "N/A", -1])
def test_null_takes_it_as_a_class_that_later_requests_may_use(client: FlaskClient, spelling: Any) -> None:
    y = ["a", spelling] if isinstance(spelling, str) else [1, spelling]
    made = post(client, "/fit", 201, project_id="p", X=line_pool(2), y=y, missing_label=None)
    assert (sorted(made["classes"]), made["n_unlabeled"]) == (sorted(y), 0)
    assert post(client, "/projects/p/pool", X=line_pool(2), y=y)["n_labeled"] == 4


def test_blank_text_is_never_a_class(client: FlaskClient) -> None:
    problem = post(client, "/fit", 422, project_id="p", X=line_pool(2), y=["a", " "], missing_label=None)
    assert problem["errors"][0]["pointer"] == "/y/1"
    assert "cannot be a class" in problem["errors"][0]["detail"]


@pytest.mark.parametrize("y", [["Nan", "NA", "none"], [-1, -2], [1, -1, -2], [True, False], [None, 0, 1]])
def test_other_labels_are_classes(client: FlaskClient, y: list[Any]) -> None:
    made = post(client, "/fit", 201, project_id="p", X=line_pool(len(y)), y=y)
    assert len(made["classes"]) == len(y) - y.count(None)


def test_declared_classes_are_classes(client: FlaskClient) -> None:
    fit = {"project_id": "p", "X": line_pool(2), "y": [-1, 1], "classes": [-1, 1]}
    assert post(client, "/fit", 201, **fit)["n_labeled"] == 2


@pytest.mark.parametrize("y_test", [["a", "nan"], ["a", " "]])
def test_a_held_out_row_needs_a_label(client: FlaskClient, y_test: list[str]) -> None:
    fit = {"project_id": "p", "X": line_pool(2), "y": ["a", "b"], "X_test": line_pool(2), "y_test": y_test}
    for missing in ({}, {"missing_label": y_test[1]}):
        problem = post(client, "/fit", 422, **fit, **missing)
        assert [error["pointer"] for error in problem["errors"]] == ["/y_test/1"]


@pytest.mark.parametrize("missing", [0.5, [], {}, "x" * 257, 2**63])
def test_a_value_that_is_no_label_is_refused(client: FlaskClient, missing: Any) -> None:
    problem = post(client, "/fit", 422, project_id="p", X=line_pool(2), y=["a", "b"], missing_label=missing)
    assert problem["errors"][0]["pointer"] == "/missing_label"


def test_a_value_of_another_type_than_the_labels_is_refused(client: FlaskClient) -> None:
    problem = post(client, "/fit", 422, project_id="p", X=line_pool(2), y=[0, 1], missing_label="-1")
    assert problem["errors"][0]["pointer"] == "/missing_label"


def test_blank_text_among_labels_of_another_type_is_refused(client: FlaskClient) -> None:
    problem = post(client, "/fit", 422, project_id="p", X=line_pool(3), y=["", 1, "a"], missing_label="")
    assert problem["errors"][0]["pointer"] == "/y/1"
