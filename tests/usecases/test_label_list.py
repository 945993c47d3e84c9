"""The list of labels, a page at a time."""

from __future__ import annotations

from typing import Any

import pytest
from flask.testing import FlaskClient

from tests.support.calls import get, line_pool, post


@pytest.fixture
def records(client: FlaskClient) -> list[Any]:
    """Make a project with labels of several annotators on some samples; return the whole list."""
    post(client, "/fit", 201, project_id="p", X=line_pool(8), y=["a", None, "b", None, None, None, None, "a"])
    some = [(1, "ada", "a"), (1, "bob", "b"), (1, "eve", "a"), (4, "bob", "b"), (5, "ada", "a"), (5, "eve", "b")]
    labels = [{"index": index, "annotator": who, "label": label} for index, who, label in some]
    post(client, "/label", project_id="p", labels=[*labels, {"index": 6, "skip": True}], refit="never")
    reply = get(client, "/projects/p/labels")
    assert reply["next"] is None
    found: list[Any] = reply["labels"]
    assert len(found) == 10
    return found


@pytest.mark.parametrize("limit", [1, 2, 3, 9, 10, 11])
def test_the_pages_together_are_the_whole_list(client: FlaskClient, records: list[Any], limit: int) -> None:
    pages, after = [], ""
    while True:
        page = get(client, f"/projects/p/labels?limit={limit}{after}")
        pages.append(page["labels"])
        if page["next"] is None:
            break
        after = f"&after={page['next']}"
    assert [record for page in pages for record in page] == records
    assert [len(page) for page in pages[:-1]] == [limit] * (len(pages) - 1)
    assert 1 <= len(pages[-1]) <= limit


def test_a_page_may_start_after_any_sample(client: FlaskClient, records: list[Any]) -> None:
    for after in range(8):
        page = get(client, f"/projects/p/labels?after={after}")
        assert page["labels"] == [record for record in records if record["index"] > after]
    assert get(client, "/projects/p/labels?after=99&limit=5") == {"labels": [], "next": None}


def test_a_page_as_csv_has_the_same_records(client: FlaskClient, records: list[Any]) -> None:
    text = client.get("/projects/p/labels?limit=3&after=1", headers={"Accept": "text/csv"}).text
    assert [line.split(",")[0] for line in text.split()] == ["index", "2", "4", "5"]


def test_a_project_without_labels_has_an_empty_page(client: FlaskClient) -> None:
    post(client, "/fit", 201, project_id="p", X=line_pool(2))
    assert get(client, "/projects/p/labels?limit=5") == {"labels": [], "next": None}


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "limit=100001", "after=-1", "after=ada", "after=1.", "after="])
def test_a_wrong_page_is_refused(client: FlaskClient, records: list[Any], query: str) -> None:
    [error] = get(client, f"/projects/p/labels?{query}", 422)["errors"]
    assert error["pointer"] == "/query/" + query.split("=")[0]
