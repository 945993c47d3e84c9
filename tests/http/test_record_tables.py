"""Tables as JSON objects and as whole bodies of CSV: a sample is an object with its columns by name."""

from __future__ import annotations

import io
import json
from typing import Any
from urllib.parse import quote

import pytest
from flask.testing import FlaskClient

from tests.http.test_csv_tables import given
from tests.support.calls import get, post
from tests.usecases.test_columns import pool

ROLES = {"id": "id", "label": "label"}
CONFIG = {"project_id": "p", "estimator": "gaussian_nb", "columns": ROLES}
RECORDS = [
    {"id": "007", "age": 1, "flag": True},
    {"id": "8", "age": 2.5, "flag": False, "label": "cat"},
    {"label": "dog", "flag": True, "id": "9", "age": 3},
]
ROWS = [[1, 1], [2.5, 0], [3, 1]]
CSV_ROWS = "id,age,flag,label\n007,1,true,\n8,2.5,false,cat\n9,3,true,dog\n"


def lines(records: list[Any]) -> bytes:
    """Return JSON lines."""
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def send(client: FlaskClient, url: str, data: Any, expect: int = 200, config: Any = None, kind: str = "lines") -> Any:
    """Send records as lines, as a part of a form, or as a list in JSON; or a body of CSV."""
    query = "" if config is None else f"?config={quote(json.dumps(config))}"
    if kind == "lines":
        body = data if isinstance(data, bytes) else lines(data)
        response = client.post(url + query, data=body, content_type="application/x-ndjson")
    elif kind == "csv":
        response = client.post(url + query, data=data, content_type="text/csv; charset=utf-8")
    elif kind == "json":
        response = client.post(url, json={**(config or {}), "X": data})
    else:
        form = {"config": (io.BytesIO(json.dumps(config or {}).encode()), "config", "application/json")}
        form["X"] = (io.BytesIO(lines(data)), "X", "application/x-ndjson")
        response = client.post(url, data=form)
    assert response.status_code == expect, response.get_data(as_text=True)
    return response.json


@pytest.mark.parametrize("kind", ["lines", "json", "form", "csv"])
def test_records_are_a_whole_project(client: FlaskClient, kind: str) -> None:
    reply = send(client, "/fit", CSV_ROWS if kind == "csv" else RECORDS, 201, CONFIG, kind)
    assert (reply["feature_names"], reply["classes"]) == (["age", "flag"], ["cat", "dog"])
    assert (given(client), pool(client).tolist()) == ([("8", "cat"), ("9", "dog")], ROWS)
    more = "age,id,flag\n4,12,false\n" if kind == "csv" else [{"age": 4, "flag": False, "id": "12"}]
    assert send(client, "/projects/p/pool", more, kind=kind)["n_labeled"] == 2
    assert pool(client)[3].tolist() == [4, 0]


@pytest.mark.parametrize("kind", ["lines", "json", "form"])
def test_a_list_of_numbers_may_be_the_features(client: FlaskClient, kind: str) -> None:
    records = [{"id": n, "x": [n, 1.5], "label": label} for n, label in enumerate(["a", None, "b"])]
    reply = send(client, "/fit", records, 201, CONFIG, kind)
    assert (reply["feature_names"], reply["n_features"], reply["n_labeled"]) == (None, 2, 2)
    assert send(client, "/projects/p/pool", [{"x": [7, 8], "id": 3, "label": "a"}], kind=kind)["n_labeled"] == 3


APPENDED = {
    "lines of samples": ("lines", [{"x": [1, 0], "id": "a", "y": "nan"}, {"x": [1, 0], "id": "b", "y": "cat"}]),
    "lines of records": (
        "lines",
        [{"age": 1, "flag": 0, "id": "a", "label": "nan"}, {"age": 1, "flag": 0, "id": "b", "label": "cat"}],
    ),
    "CSV": ("csv", "age,flag,id,label\n1,0,a,nan\n1,0,b,cat\n"),
}


@pytest.mark.parametrize(("kind", "data"), APPENDED.values(), ids=APPENDED)
def test_a_body_takes_a_missing_label_from_the_query(client: FlaskClient, kind: str, data: Any) -> None:
    send(client, "/fit", RECORDS, 201, CONFIG)
    error = send(client, "/projects/p/pool", data, 422, kind=kind)["errors"][0]
    assert error["pointer"] == "/y/0"
    reply = send(client, "/projects/p/pool", data, 200, {"missing_label": "nan"}, kind)
    assert (reply["n_samples"], reply["n_labeled"], reply["classes"]) == (5, 3, ["cat", "dog"])


def test_lines_of_samples_make_a_project(client: FlaskClient) -> None:
    samples = [{"x": [1, 2], "id": "a", "y": "cat"}, {"x": [3, 4], "id": "b"}]
    reply = send(client, "/fit", samples, 201, {"project_id": "p"})
    assert (reply["n_samples"], reply["n_labeled"], reply["feature_names"]) == (2, 1, None)


@pytest.mark.parametrize("name", ["y", "ids"])
def test_columns_are_lines_of_objects_with_one_value(client: FlaskClient, name: str) -> None:
    form = {"X": (io.BytesIO(lines([[1, 2], [3, 4]])), "X", "application/x-ndjson")}
    form[name] = (io.BytesIO(lines([{"c": "a"}, {"c": "b"}])), name, "application/x-ndjson")
    form["config"] = (io.BytesIO(b'{"project_id": "p"}'), "config", "application/json")
    assert client.post("/fit", data=form).status_code == 201
    form = {"X": (io.BytesIO(lines([[1, 2]])), "X", "application/x-ndjson")}
    form["y"] = (io.BytesIO(lines([{"c": "a", "d": 1}])), "y", "application/x-ndjson")
    response = client.post("/projects/p/pool", data=form)
    assert response.json["errors"] == [{"pointer": "/y", "detail": "has 2 columns; it must have one"}]


ONE = {"id": "a", "age": 1}
WRONG = {
    "text": ([{"id": "a", "city": "Rome"}], "/X", ["'city' of text", '"columns"']),
    "text in a later row": ([ONE, {"id": "b", "age": "old"}], "/X/1/0", ["must be a finite number"]),
    "an object": ([{"id": "a", "place": {"x": 1}}], "/X", ["'place' of objects"]),
    "a missing feature": ([{**ONE, "size": 1}, {**ONE, "id": "b"}], "/X/1/1", ["must be a finite number"]),
    "an additional column": ([ONE, {**ONE, "size": 2}], "/X/1/size", ["is not a column of the first row"]),
    "no object": ([ONE, 3], "/X/1", ["must be an object"]),
    "no columns": ([{"id": "a"}], "/X", ["has no columns of features"]),
    "no ids": ([{"name": 1, "age": 1}], "/columns/id", ["'id' is not a column", "'name'"]),
    "a row without an id": ([ONE, {"age": 1}], "/ids/1", ["must be a string"]),
    "lists of two lengths": ([{"id": 1, "v": [1]}, {"id": 2, "v": [1, 2]}], "/X/1", ["has 2 numbers, but row 0 has 1"]),
}


@pytest.mark.parametrize("kind", ["lines", "json", "form"])
@pytest.mark.parametrize(("records", "pointer", "details"), WRONG.values(), ids=WRONG)
def test_wrong_records_are_refused(client: FlaskClient, kind: str, records: Any, pointer: str, details: Any) -> None:
    config = {**CONFIG, "columns": {"id": "id"}}
    error = send(client, "/fit", records, 422, config, kind)["errors"][0]
    assert error["pointer"] == pointer
    assert all(detail in error["detail"] for detail in details), error
    get(client, "/projects/p", 404)


@pytest.mark.parametrize(("config", "detail"), [("{", "is not JSON"), ("[1]", "must be a JSON object")])
def test_a_wrong_config_in_the_query_is_refused(client: FlaskClient, config: str, detail: str) -> None:
    response = client.post(f"/fit?config={quote(config)}", data=CSV_ROWS, content_type="text/csv")
    (error,) = response.json["errors"]
    assert (response.status_code, error["pointer"]) == (422, "/query/config")
    assert detail in error["detail"]


def test_a_config_in_the_query_is_only_for_tables(client: FlaskClient) -> None:
    problem = post(client, "/fit?config={}", 422, project_id="p", X=[[1]])
    assert problem["errors"][0]["pointer"] == "/query/config"
    both = {"project_id": "p", "X": [[1]]}
    response = client.post(f"/fit?config={quote(json.dumps(both))}", data=CSV_ROWS, content_type="text/csv")
    assert response.json["errors"] == [{"pointer": "/X", "detail": "was sent in the query parameter 'config', too"}]


def test_lines_need_no_extra_and_name_a_broken_line(client: FlaskClient) -> None:
    response = client.post("/projects/p/pool", data=lines([ONE]) + b'{"id":\n', content_type="application/x-ndjson")
    assert (response.status_code, response.json["detail"][:24]) == (400, "line 1 (from 0) is not J")
