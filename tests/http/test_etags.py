"""If-Match and If-None-Match: a stale caller changes nothing, and a current copy is not sent again."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from service.domain.preconditions import Preconditions
from service.domain.project import Project
from service.errors import PreconditionFailed
from service.http.routes import Context
from service.store import Store
from service.usecases import append, fit
from service.usecases.label import LabelRequest, SubmittedLabel, label_project
from tests.support.calls import end_labels, get, line_pool, post

READERS = ["/projects/p", "/projects/p/labels", "/projects/p/events", "/projects/p/annotators", "/projects/p/export"]

Write = Callable[..., TestResponse]


def call(method: str, path: str, **body: Any) -> Write:
    """Return a function that sends a request with some headers."""
    return lambda client, **headers: client.open(path, method=method, json=body or None, headers=headers)


WRITES = {
    "fit": call("POST", "/fit", project_id="p"),
    "replace": call("POST", "/fit", project_id="p", X=line_pool(4), replace=True),
    "label": call("POST", "/label", project_id="p", labels=[{"index": 5, "label": 0}]),
    "label, no change": call("POST", "/label", project_id="p", labels=[{"index": 0, "label": 0}]),
    "append": call("POST", "/projects/p/pool", X=[[50, 1]]),
    "retract": call("DELETE", "/projects/p/labels/0"),
    "delete": call("DELETE", "/projects/p"),
}


@pytest.fixture
def tag(client: FlaskClient) -> str:
    """The ETag of project p, whose model was fitted to two labels."""
    post(client, "/fit", 201, project_id="p", X=line_pool(), y=end_labels())
    return client.get("/projects/p").headers["ETag"]


@pytest.mark.parametrize("name", WRITES)
@pytest.mark.parametrize(
    "condition",
    [
        lambda tag: {"If-Match": '"0-1"'},
        lambda tag: {"If-Match": f"W/{tag}"},
        lambda tag: {"If-Match": tag.replace("-1", "-2")},
        lambda tag: {"If-Match": f'"{"0" * 8}{tag[9:]}'},
        lambda tag: {"If-None-Match": tag},
        lambda tag: {"If-None-Match": f'"x", W/{tag}'},
        lambda tag: {"If-None-Match": "*"},
        lambda tag: {"If-Match": tag, "If-None-Match": "*"},
    ],
    ids=["another", "weak", "newer", "of another project", "known", "weakly known", "must not be", "both"],
)
def test_a_failed_precondition_changes_nothing(
    client: FlaskClient, tag: str, name: str, condition: Callable[[str], dict[str, str]]
) -> None:
    before = get(client, "/projects/p")
    response = WRITES[name](client, **condition(tag))
    assert (response.status_code, response.mimetype) == (412, "application/problem+json")
    assert tag in response.json["detail"]
    assert get(client, "/projects/p") == before


@pytest.mark.parametrize("name", WRITES)
@pytest.mark.parametrize("form", ["{}", "*", ' , "a,b" ,{},, W/"c"', '"", {}'])
def test_a_precondition_that_holds_lets_the_request_through(
    client: FlaskClient, tag: str, name: str, form: str
) -> None:
    response = WRITES[name](client, **{"If-Match": form.replace("{}", tag), "If-None-Match": '"another"'})
    assert response.status_code in (200, 204), response.json


def test_a_project_that_is_not_there_matches_nothing(client: FlaskClient) -> None:
    create = {"project_id": "p", "X": line_pool(4)}
    for body in (create, {**create, "replace": True}, {"project_id": "p"}):
        for value in ("*", '"0-1"'):
            response = client.post("/fit", json=body, headers={"If-Match": value})
            assert (response.status_code, "there is no such project" in response.json["detail"]) == (412, True)
    get(client, "/projects/p", 404)
    assert client.post("/fit", json=create, headers={"If-None-Match": "*"}).status_code == 201
    assert client.delete("/projects/q", headers={"If-Match": "*"}).status_code == 404


def test_an_import_checks_preconditions(client: FlaskClient, tag: str) -> None:
    archive = client.get("/projects/p/export").data

    def take_in(name: str, **headers: str) -> int:
        return client.post(
            f"/projects/import{name}", data=archive, content_type="application/zip", headers=headers
        ).status_code

    for name in ("", "?project_id=p"):
        assert [take_in(name, **{"If-None-Match": "*"}), take_in(name)] == [412, 409]
    assert take_in("?project_id=q", **{"If-Match": "*"}) == 412
    assert take_in("?project_id=q", **{"If-None-Match": "*"}) == 201


def test_a_recreated_project_has_another_tag(client: FlaskClient, tag: str) -> None:
    client.delete("/projects/p")
    post(client, "/fit", 201, project_id="p", X=line_pool(), y=end_labels())
    assert client.get("/projects/p").headers["ETag"] != tag
    assert WRITES["delete"](client, **{"If-Match": tag}).status_code == 412


@pytest.mark.parametrize("path", READERS)
def test_a_current_copy_gets_a_304(client: FlaskClient, tag: str, path: str) -> None:
    assert client.get(path).headers["ETag"] == tag
    for known in (tag, f"W/{tag}", f'"x", {tag}', "*"):
        response = client.get(path, headers={"If-None-Match": known})
        assert (response.status_code, response.data, response.headers["ETag"]) == (304, b"", tag)
        assert "Content-Type" not in response.headers
    assert client.get(path, headers={"If-None-Match": '"x"'}).status_code == 200
    assert client.get(path, headers={"If-Match": tag}).status_code == 200
    assert client.get(path, headers={"If-Match": '"x"', "If-None-Match": tag}).status_code == 412
    assert client.get(path, headers={"If-None-Match": "x"}).status_code == 422
    WRITES["label"](client)
    assert client.get(path, headers={"If-None-Match": tag}).status_code == 200


def test_csv_and_json_have_tags_of_their_own(client: FlaskClient, tag: str) -> None:
    as_csv = {"Accept": "text/csv"}
    of_csv = client.get("/projects/p/labels", headers=as_csv).headers["ETag"]
    assert of_csv == f'{tag[:-1]}-csv"'
    unchanged = client.get("/projects/p/labels", headers=as_csv | {"If-None-Match": of_csv})
    assert (unchanged.status_code, unchanged.headers["Vary"]) == (304, "Accept")
    for header, known in ((as_csv, tag), ({}, of_csv)):
        assert client.get("/projects/p/labels", headers=header | {"If-Match": known}).status_code == 412
        assert client.get("/projects/p/labels", headers=header | {"If-None-Match": known}).status_code == 200


def test_a_304_does_not_hide_a_due_fit(client: FlaskClient) -> None:
    post(client, "/fit", 201, project_id="p", X=line_pool(), y=end_labels())
    post(client, "/label", project_id="p", labels=[{"index": 5, "label": 0}], refit="never")
    tag = client.get("/projects/p").headers["ETag"]
    response = client.get("/projects/p", headers={"If-None-Match": tag})
    assert (response.status_code, response.json["fit"]["due"]) == (200, True)
    assert client.get("/projects/p/labels", headers={"If-None-Match": tag}).status_code == 304


def test_other_posts_refuse_conditions(client: FlaskClient, tag: str) -> None:
    for header in ("If-Match", "If-None-Match"):
        problem = client.post("/query", json={"project_id": "p"}, headers={header: tag})
        assert (problem.status_code, problem.json["errors"][0]["pointer"]) == (422, f"/headers/{header}")


def test_one_of_concurrent_writers_wins(client: FlaskClient, tag: str) -> None:
    start = Barrier(4)

    def write(label: int) -> int:
        seen = client.application.test_client().get("/projects/p").headers["ETag"]
        start.wait()
        answers = {"project_id": "p", "labels": [{"index": 5, "label": label}], "refit": "never"}
        return client.application.test_client().post("/label", json=answers, headers={"If-Match": seen}).status_code

    with ThreadPoolExecutor(4) as threads:
        for round_ in range(4):
            labels = range(4 * round_, 4 * round_ + 4)
            assert sorted(threads.map(write, labels)) == [200, 412, 412, 412]


def interrupted(store: Store, act: Callable[[Preconditions], object]) -> None:
    """Act on a project that is changed between a check of preconditions and the commit."""
    seen = store.read("p").project
    looked: list[Project] = []

    class Late(Preconditions):
        """Pass the first check; another request has written by then."""

        def check(self, project: Project | None) -> None:
            Preconditions.check(self, project)
            if not looked:
                assert project is not None
                looked.append(project)
                label_project(store, LabelRequest("p", [SubmittedLabel(seen.version + 5, None, 1)], "never"))

    with pytest.raises(PreconditionFailed):
        act(Late(if_match=frozenset({f'"{seen.tag}"'})))
    assert store.read("p").project.version == seen.version + 1


def test_preconditions_are_checked_under_the_lock(client: FlaskClient, tag: str) -> None:
    context: Context = client.application.extensions["active-query"]
    store = context.store
    again = fit.FitRequest("p")
    with store.stage() as staging:
        X = staging.rows(np.array(line_pool(3)))
        interrupted(store, lambda preconditions: fit.fit_project(store, staging, again, preconditions))
        interrupted(
            store,
            lambda preconditions: fit.fit_project(store, staging, replace(again, X=X, replace=True), preconditions),
        )
        interrupted(
            store,
            lambda preconditions: append.append_samples(
                store, staging, append.AppendRequest("p", X), 99, preconditions
            ),
        )
    answers = LabelRequest("p", [SubmittedLabel(3, None, 0)], "never")
    interrupted(store, lambda preconditions: label_project(store, answers, preconditions=preconditions))
