"""The list of samples: ids, statuses and labels."""

from __future__ import annotations

from typing import Any

import pytest
from flask.testing import FlaskClient

from tests.support.calls import get, line_pool, post

STATUSES = ["labeled", "unlabeled", "labeled", "skipped", "unlabeled", "unlabeled", "labeled", "unlabeled"]


@pytest.fixture(params=[None, "text", "integers"])
def names(request: Any, client: FlaskClient) -> list[Any]:
    """Make a project with labels and skips; return the ids of its samples."""
    names = {None: [None] * 8, "text": [f"n-{i}" for i in range(8)], "integers": list(range(10, 18))}[request.param]
    ids = {} if request.param is None else {"ids": names}
    post(client, "/fit", 201, project_id="p", X=line_pool(8), y=["a", None, "b", *[None] * 5], **ids)
    answers = [{"index": 6, "label": "a", "annotator": "ada"}, {"index": 3, "skip": True}]
    post(client, "/label", project_id="p", labels=answers, refit="never")
    return names


def test_each_sample_has_one_status(client: FlaskClient, names: list[Any]) -> None:
    reply = get(client, "/projects/p/samples")
    assert reply["next"] is None
    labels = ["a", None, "b", None, None, None, "a", None]
    rows = zip(range(8), names, STATUSES, labels, strict=True)
    keys = ("index", "id", "status", "label")
    assert reply["samples"] == [dict(zip(keys, row, strict=True)) for row in rows]
    project = get(client, "/projects/p")
    for status in set(STATUSES):
        found = get(client, f"/projects/p/samples?status={status}")["samples"]
        assert found == [sample for sample in reply["samples"] if sample["status"] == status]
        assert len(found) == project[f"n_{status}"]


@pytest.mark.parametrize("limit", [1, 3, 4, 8, 9])
@pytest.mark.parametrize("status", [None, "unlabeled", "labeled", "skipped"])
def test_the_pages_together_are_all_samples(client: FlaskClient, limit: int, status: str | None) -> None:
    post(client, "/fit", 201, project_id="p", X=line_pool(8), y=["a", None, "b", *[None] * 5])
    wanted, found, after = "" if status is None else f"&status={status}", [], ""
    while True:
        page = get(client, f"/projects/p/samples?limit={limit}{wanted}{after}")
        found += page["samples"]
        if page["next"] is None:
            break
        assert len(page["samples"]) == limit
        after = f"&after={page['next']}"
    assert found == get(client, f"/projects/p/samples?limit=1000{wanted}")["samples"]


WRONG = ["limit=0", "limit=100001", "after=-1", "after=x", "status=open", "status=", "page=1"]


@pytest.mark.parametrize("query", WRONG)
def test_a_wrong_page_is_refused(client: FlaskClient, query: str) -> None:
    post(client, "/fit", 201, project_id="p", X=line_pool(2))
    [error] = get(client, f"/projects/p/samples?{query}", 422)["errors"]
    assert error["pointer"] == "/query/" + query.split("=")[0]
    assert get(client, "/projects/p/samples?after=99") == {"samples": [], "next": None}
