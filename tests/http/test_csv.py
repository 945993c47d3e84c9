"""CSV for spreadsheets: formulas are escaped, and numbers are unchanged."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest
from flask.testing import FlaskClient

from service.http.csv_writer import csv_value
from tests.support.calls import get, line_pool, post

FORMULAS = ["=1+1", "+cmd", "-x", "@SUM(A1)", "\tx", "\rx", "=cmd|' /C calc'!A0", "-", "+", "--1", "-1-1", "=-1"]
PLAIN = ["cat", "a=b", "'=1", "-1", "+1", "-1.5e-3", " =1", "1", "é"]


@pytest.mark.parametrize("text", FORMULAS)
def test_an_apostrophe_precedes_a_formula(text: str) -> None:
    assert csv_value(text, "spreadsheet") == f"'{text}"
    assert csv_value(text, "none") == text


@pytest.mark.parametrize("value", [*PLAIN, -5, -0.5, -1e-300])
def test_other_values_are_written_as_they_are(value: object) -> None:
    assert csv_value(value, "spreadsheet") == str(value)


@pytest.fixture
def project(client: FlaskClient) -> FlaskClient:
    """A project whose id, classes and annotator are formulas."""
    ids = [f"=id{n}" for n in range(6)]
    post(client, "/fit", 201, project_id="p", X=line_pool(6), y=["=low", *[None] * 4, "-high"], ids=ids)
    post(client, "/label", project_id="p", labels=[{"index": 2, "label": "=low", "annotator": "@ada"}])
    return client


def rows(client: FlaskClient, path: str, **query: str) -> tuple[list[dict[str, Any]], str]:
    reply = client.get(f"/projects/p/{path}", query_string=query, headers={"Accept": "text/csv"})
    assert reply.status_code == 200
    return list(csv.DictReader(io.StringIO(reply.get_data(as_text=True)))), reply.headers["X-CSV-Safe"]


@pytest.mark.parametrize("path", ["labels", "predictions"])
def test_csv_is_safe_unless_the_raw_values_are_asked_for(project: FlaskClient, path: str) -> None:
    (first, *_), safe = rows(project, path)
    assert (first["id"], first["label"], safe) == ("'=id0", "'=low", "spreadsheet")
    (first, *_), safe = rows(project, path, safe="none")
    assert (first["id"], first["label"], safe) == ("=id0", "=low", "none")


def test_the_annotator_is_safe_too(project: FlaskClient) -> None:
    assert rows(project, "labels")[0][1]["annotator"] == "'@ada"


def test_json_holds_the_raw_values(project: FlaskClient) -> None:
    assert get(project, "/projects/p/labels")["labels"][0]["label"] == "=low"


@pytest.mark.parametrize("path", ["labels", "predictions"])
@pytest.mark.parametrize("safe", ["", "excel", "None"])
def test_another_way_to_be_safe_is_refused(project: FlaskClient, path: str, safe: str) -> None:
    reply = get(project, f"/projects/p/{path}?safe={safe}", 422)
    assert reply["errors"][0]["pointer"] == "/query/safe"
