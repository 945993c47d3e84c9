"""Projects as resources; health, readiness and metrics."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from service import __version__
from tests.support.calls import end_labels, get, line_pool, post


def test_projects_are_listed_in_pages(client: FlaskClient) -> None:
    names = ["b", "a", "C", "d.1", "e_2"]
    for name in names:
        post(client, "/fit", 201, project_id=name, X=line_pool(2))
    found, after = [], ""
    while True:
        page = get(client, f"/projects?limit=2{after}")
        found += [project["project_id"] for project in page["projects"]]
        if page["next"] is None:
            break
        after = f"&after={page['next']}"
    assert found == sorted(names)


def test_a_page_that_is_just_full_is_the_last(client: FlaskClient) -> None:
    for name in ("a", "b"):
        post(client, "/fit", 201, project_id=name, X=line_pool(2))
    assert get(client, "/projects?limit=2")["next"] is None


def test_no_projects(client: FlaskClient) -> None:
    assert get(client, "/projects") == {"projects": [], "next": None}


def test_an_unreadable_project_does_not_affect_others(client: FlaskClient, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        post(client, "/fit", 201, project_id=name, X=line_pool(), y=end_labels())
    (tmp_path / "data/projects/b/state.joblib").write_bytes(b"\x80")
    assert [project["project_id"] for project in get(client, "/projects")["projects"]] == ["a", "c"]
    problem = get(client, "/projects/b", 500)
    assert problem["detail"].startswith("project 'b': state.joblib cannot be read; run `active-query check")
    post(client, "/label", project_id="c", labels=[{"index": 5, "label": 0}])
    assert client.delete("/projects/b").status_code == 204


def test_a_deleted_project_is_gone_with_its_files(client: FlaskClient, tmp_path: Path) -> None:
    post(client, "/fit", 201, project_id="p", X=line_pool(), y=end_labels())
    response = client.delete("/projects/p")
    assert (response.status_code, response.data) == (204, b"")
    assert list((tmp_path / "data/projects").iterdir()) == []
    get(client, "/projects/p", 404)
    assert client.delete("/projects/p").status_code == 404
    assert post(client, "/fit", 201, project_id="p", X=line_pool(3))["version"] == 1


def test_the_version_grows_with_every_commit_and_ends_the_strong_etag(client: FlaskClient) -> None:
    post(client, "/fit", 201, project_id="p", X=line_pool(), y=end_labels())
    first = client.get("/projects/p").headers["ETag"]
    assert re.fullmatch(r'"[0-9a-f]{8}-1"', first)
    response = client.post("/label", json={"project_id": "p", "labels": [{"index": 5, "label": 0}], "refit": "never"})
    assert response.headers["ETag"] == first.replace("-1", "-2")
    response = client.post("/fit", json={"project_id": "p"})
    assert (response.headers["ETag"], response.json["version"]) == (first.replace("-1", "-3"), 3)


def test_labels_as_csv(client: FlaskClient) -> None:
    names = ['with "quotes"', "with, comma"]
    post(client, "/fit", 201, project_id="p", X=line_pool(2), y=[True, None], ids=names)
    post(client, "/label", project_id="p", labels=[{"id": names[1], "skip": True, "annotator": "a\nb"}])
    response = client.get("/projects/p/labels", headers={"Accept": "text/csv"})
    assert response.mimetype == "text/csv"
    rows = list(csv.DictReader(io.StringIO(response.get_data(as_text=True))))
    records = get(client, "/projects/p/labels")["labels"]
    assert [row["id"] for row in rows] == names
    assert [(row["label"], row["skip"], row["annotator"]) for row in rows] == [
        ("true", "false", ""),
        ("", "true", "a\nb"),
    ]
    assert [row["labeled_at"] for row in rows] == [record["labeled_at"] for record in records]


@pytest.mark.parametrize(
    ("accept", "mimetype"),
    [
        (None, "application/json"),
        ("*/*", "application/json"),
        ("text/*", "text/csv"),
        ("text/csv;q=0.2, application/json", "application/json"),
        ("application/json;q=0.2, text/csv", "text/csv"),
    ],
)
def test_labels_come_in_the_preferred_media_type(client: FlaskClient, accept: str | None, mimetype: str) -> None:
    post(client, "/fit", 201, project_id="p", X=line_pool(), y=end_labels())
    headers = {"Accept": accept} if accept else {}
    assert client.get("/projects/p/labels", headers=headers).mimetype == mimetype


def test_an_unavailable_media_type_is_a_406(client: FlaskClient) -> None:
    post(client, "/fit", 201, project_id="p", X=line_pool(), y=end_labels())
    response = client.get("/projects/p/labels", headers={"Accept": "image/png"})
    assert (response.status_code, response.mimetype) == (406, "application/problem+json")


def test_health_and_readiness(client: FlaskClient) -> None:
    assert get(client, "/healthz") == {"status": "ok", "version": __version__}
    assert get(client, "/readyz") == {"status": "ok"}


def test_the_metrics_count_requests_by_route(client: FlaskClient) -> None:
    get(client, "/projects/secret-plan", 404)
    text = client.get("/metrics").get_data(as_text=True)
    assert 'active_query_requests_total{method="GET",route="/projects/{project_id}",status="404"}' in text
    assert "secret-plan" not in text


def test_every_reply_names_its_request(client: FlaskClient) -> None:
    assert client.get("/healthz", headers={"X-Request-ID": "mine-1"}).headers["X-Request-ID"] == "mine-1"
    ids = {client.get("/healthz").headers["X-Request-ID"] for _ in range(3)}
    assert len(ids) == 3
