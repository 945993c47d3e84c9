"""POST /projects/{id}/pool with samples whose ids the pool has: refused, left out, or replaced."""

from __future__ import annotations

import json
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient
from scipy import sparse

from service.store import Part
from service.store.check import check_project
from tests.support.calls import end_labels, get, line_pool, post
from tests.support.npy import npy

NAMES = [f"row {n}" for n in range(20)]


@pytest.fixture
def named(client: FlaskClient) -> str:
    post(client, "/fit", 201, project_id="n", X=line_pool(), y=end_labels(), ids=NAMES)
    return "n"


def more(client: FlaskClient, expect: int = 200, project: str = "n", **body: Any) -> Any:
    return post(client, f"/projects/{project}/pool", expect, **body)


def rows_of(client: FlaskClient, project: str = "n") -> Any:
    context: Any = client.application.extensions["active-query"]
    pool = context.store.read(project, Part.POOL).pool
    rows = pool.take(np.arange(len(pool)))
    return rows.toarray() if sparse.issparse(rows) else rows


def findings(client: FlaskClient, project: str = "n") -> list[Any]:
    context: Any = client.application.extensions["active-query"]
    return list(check_project(context.store.directory(project)))


def counts(reply: Any) -> tuple[int, int, int, Any]:
    return reply["n_added"], reply["n_ignored"], reply["n_replaced"], reply["indices"]


def csr(X: Any) -> tuple[BytesIO, str]:
    file = BytesIO()
    sparse.save_npz(file, sparse.csr_array(np.array(X)))
    return BytesIO(file.getvalue()), "X.npz"


ROWS = [[50.0, 2.0], [60.0, 3.0], [70.0, 4.0]]
IDS = ["row 7", "new", "row 0"]
FORMS: dict[str, tuple[Any, str | None]] = {
    "JSON": (json.dumps({"X": ROWS, "ids": IDS}), "application/json"),
    "NDJSON": (
        "\n".join(json.dumps({"x": x, "id": i}) for x, i in zip(ROWS, IDS, strict=True)),
        "application/x-ndjson",
    ),
    "CSV": ("id,a,b\nrow 7,50,2\nnew,60,3\nrow 0,70,4\n", "text/csv"),
    "npy": (lambda: (BytesIO(npy(np.array(ROWS, "f4"))), "X.npy"), None),
    "csr": (lambda: csr(ROWS), None),
}


@pytest.mark.parametrize("if_known", ["ignore", "replace"])
@pytest.mark.parametrize(("body", "content_type"), FORMS.values(), ids=FORMS)
def test_known_samples_in_every_format(client, body, content_type, if_known) -> None:
    kind = {} if content_type else {"data": {"config": json.dumps({"project_id": "n", "ids": NAMES})}}
    if not content_type:
        part = csr(line_pool()) if body()[1] == "X.npz" else (BytesIO(npy(np.array(line_pool(), "f4"))), "X.npy")
        assert client.post("/fit", data={**kind["data"], "X": part}).status_code == 201
        form = {"config": json.dumps({"ids": IDS, "if_known": if_known}), "X": body()}
        reply = client.post("/projects/n/pool", data=form)
    else:
        post(client, "/fit", 201, project_id="n", X=line_pool(), ids=NAMES)
        config = {"if_known": if_known} | ({"columns": {"id": "id"}} if content_type == "text/csv" else {})
        if content_type == "application/json":
            reply = client.post("/projects/n/pool", json=json.loads(body) | config)
        else:
            address = f"/projects/n/pool?config={json.dumps(config)}"
            reply = client.post(address, data=body, content_type=content_type)
    assert reply.status_code == 200, reply.text
    replaces = if_known == "replace"
    assert counts(reply.json) == ((1, 0, 2, [7, 20, 0]) if replaces else (1, 2, 0, [7, 20, 0]))
    assert reply.json["n_samples"] == 21
    wanted = np.array([*line_pool(), ROWS[1]])
    if replaces:
        wanted[[7, 0]] = ROWS[0], ROWS[2]
    assert rows_of(client).tolist() == wanted.tolist()
    assert findings(client) == []


def test_known_samples_are_refused_without_another_word(client, named) -> None:
    for body in ({}, {"if_known": "refuse"}):
        [error] = more(client, 422, X=ROWS[:2], ids=["a", "row 7"], **body)["errors"]
        assert error["pointer"] == "/ids/1"
        assert "is in the pool already" in error["detail"]
    assert counts(more(client, X=ROWS[:1], ids=["a"])) == (1, 0, 0, None)
    assert counts(more(client, X=ROWS[:1], ids=["b"], if_known="refuse")) == (1, 0, 0, [21])


WRONG = {
    "another word": ({"ids": ["a"], "if_known": "keep"}, "/if_known", "must be 'refuse' or"),
    "an id twice": ({"X": ROWS[:2], "ids": ["row 7", "row 7"], "if_known": "replace"}, "/ids/1", "ids must be unique"),
    "ids of another type": ({"ids": [7], "if_known": "ignore"}, "/ids/0", "each id of this project is a string"),
    "no ids": ({"if_known": "ignore"}, "/ids", "is required"),
    "another width": ({"X": [[1.0]], "ids": ["row 1"], "if_known": "replace"}, "/X", "has 1 columns"),
    "a wrong label of a new one": ({"ids": ["a"], "y": ["text"], "if_known": "replace"}, "/y/0", "is a string"),
}


@pytest.mark.parametrize(("body", "pointer", "detail"), WRONG.values(), ids=WRONG)
def test_wrong_requests_change_nothing(client, named, body, pointer, detail) -> None:
    before = get(client, "/projects/n")
    [error] = more(client, 422, **{"X": ROWS[:1]} | body)["errors"]
    assert (error["pointer"], detail in error["detail"]) == (pointer, True), error
    assert get(client, "/projects/n") == before


def test_a_project_without_ids_knows_no_samples(client) -> None:
    post(client, "/fit", 201, project_id="p", X=line_pool())
    [error] = more(client, 422, "p", X=ROWS, if_known="ignore")["errors"]
    assert error["pointer"] == "/if_known"
    assert counts(more(client, project="p", X=ROWS, if_known="refuse")) == (3, 0, 0, [20, 21, 22])


def test_nothing_is_committed_when_all_are_left_out(client, named) -> None:
    reply = more(client, X=ROWS[:1], ids=["row 3"], y=["of another type"], if_known="ignore")
    assert counts(reply) == (0, 1, 0, [3])
    assert reply["version"] == 1


def test_a_replaced_sample_keeps_its_label_and_the_model_is_fitted_again(client, named) -> None:
    reply = more(client, X=[[5.0, 9.0]], ids=["row 0"], y=[1], if_known="replace")
    assert (reply["n_labeled"], reply["class_counts"], reply["fit"]["due"]) == (2, [1, 1], True)
    [first, _] = get(client, "/projects/n/labels")["labels"]
    assert (first["index"], first["id"], first["label"]) == (0, "row 0", 0)
    model = post(client, "/fit", project_id="n")
    post(client, "/fit", 201, project_id="same", X=[[5.0, 9.0], *line_pool()[1:]], y=end_labels(), ids=NAMES)
    asked = [
        post(client, "/query", project_id=name, strategy="margin", batch_size=20, random_state=0)["scores"]
        for name in ("n", "same")
    ]
    assert model["fit"]["due"] is False
    assert asked[0] == asked[1]


def test_a_replaced_sample_without_a_label_leaves_the_model(client, named) -> None:
    reply = more(client, X=[[0.1, 1.0]], ids=["row 9"], if_known="replace")
    assert (reply["model_version"], reply["fit"]["due"]) == (1, False)


def test_scores_of_replaced_rows_are_not_used_again(client, named) -> None:
    more(client, X=line_pool(3), ids=["x", "y", "z"])
    body = {"project_id": "n", "strategy": "margin", "batch_size": 1, "random_state": 0}
    for sample in ("row 3", "x"):
        nearest = post(client, "/query", **body)["ids"]
        more(client, X=[[9.5, 1.0]], ids=[sample], if_known="replace")
        more(client, X=[[0.0, 1.0]], ids=nearest, if_known="replace")
        assert post(client, "/query", **body)["ids"] == [sample]
        more(client, X=[[0.0, 1.0]], ids=[sample], if_known="replace")


def test_texts_and_addresses_are_replaced(client) -> None:
    texts = ["a red fox", "a blue bird", "a red hen", "a blue whale"]
    urls = [f"/{n}" for n in range(4)]
    post(client, "/fit", 201, project_id="t", texts=texts, urls=urls, ids=list("abcd"), y=["r", "b", None, None])
    reply = more(
        client, 200, "t", texts=["a red rose", "green"], urls=["/rose", "/g"], ids=["c", "e"], if_known="replace"
    )
    assert counts(reply) == (1, 0, 1, [2, 4])
    asked = post(client, "/query", project_id="t", batch_size=9, include=["text", "url"])
    shown = {i: (t, u) for i, t, u in zip(asked["ids"], asked["texts"], asked["urls"], strict=True)}
    assert shown == {"c": ("a red rose", "/rose"), "d": ("a blue whale", "/3"), "e": ("green", "/g")}
    assert reply["fit"]["due"] is True
    assert findings(client, "t") == []


def test_a_replacement_in_an_earlier_segment(client) -> None:
    post(client, "/fit", 201, project_id="n", X=line_pool(300), ids=[str(n) for n in range(300)])
    more(client, X=line_pool(3), ids=["a", "b", "c"])
    post(client, "/query", project_id="n", strategy="k_center", batch_size=2)
    more(client, X=[[1e30, 5.0], [2.0, 2.0]], ids=["299", "b"], if_known="replace")
    rows = rows_of(client)
    assert (rows[299].tolist(), rows[301].tolist(), rows[300].tolist()) == ([1e30, 5.0], [2.0, 2.0], [0.0, 1.0])
    assert findings(client) == []


@pytest.mark.parametrize(
    ("dtype", "value", "stored"),
    [("f4", 0.5, "f4"), ("f4", 0.1, "f8"), ("i8", 3.0, "i8"), ("i2", 0.25, "f4"), ("i8", 0.25, None)],
)
def test_a_replacement_loses_no_digits(client, dtype, value, stored) -> None:
    pool = (BytesIO(npy(np.array([[1, 2], [3, 4]], dtype))), "X.npy")
    config = json.dumps({"project_id": "n", "ids": ["a", "b"]})
    assert client.post("/fit", data={"config": config, "X": pool}).status_code == 201
    given = np.array([[value, 1]], "f4" if stored == "f4" else "f8")
    form = {
        "config": json.dumps({"ids": ["b"], "if_known": "replace"}),
        "X": (BytesIO(npy(given)), "X.npy"),
    }
    reply = client.post("/projects/n/pool", data=form)
    assert reply.status_code == (200 if stored else 422), reply.text
    if stored:
        rows = rows_of(client)
        assert (rows.dtype.str[1:], rows[1, 0], rows[0].tolist()) == (stored, given[0, 0], [1, 2])


def test_a_request_sent_again_replies_the_same(client, named) -> None:
    def send() -> Any:
        body = {"X": ROWS, "ids": ["row 7", "new", "row 5"], "if_known": "replace"}
        return client.post("/projects/n/pool", json=body, headers={"Idempotency-Key": "once"})

    first = send()
    context: Any = client.application.extensions["active-query"]
    for path in context.store.replies.root.rglob("*"):
        if path.is_file():
            path.unlink()  # as if the process had died after the commit
    again = send()
    assert counts(again.json) == counts(first.json) == (1, 0, 2, [7, 20, 5])
    assert again.json["version"] == 2
    events = get(client, "/projects/n/events")["events"]
    assert [event["kind"] for event in events] == ["create", "append"]
    assert events[1]["details"]["replaced"] == {"index": [7, 5]}


def test_a_copy_has_the_replaced_samples(client, named) -> None:
    more(client, X=ROWS, ids=IDS, if_known="replace")
    archive = client.get("/projects/n/export").data
    made = client.post("/projects/import?project_id=copy", data=archive, content_type="application/zip")
    assert made.status_code == 201, made.text
    assert rows_of(client, "copy").tolist() == rows_of(client).tolist()
