"""New labels that look like another class, are blank, or have control characters."""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient

from tests.support.calls import get, line_pool, post, post_form

SIMILAR = [
    ("caf\u00e9", "cafe\u0301"),
    ("cat", " cat"),
    ("cat", "Cat"),
    ("cat", "\u200bcat"),
    ("cat", "c\u00adat"),
    ("stra\u00dfe", "STRASSE"),
    ("1", "\uff11"),
    ("caf\u00e9", "cafe\u200d\u0301"),
]
WRONG = ["\u200b", "\u3000", "a\nb", "a\x00b", "\x7f", "\x85x", "a\tb"]


def label(client: FlaskClient, expect: int = 200, **record: Any) -> Any:
    return post(client, "/label", expect, project_id="p", labels=[{"index": 0, **record}], refit="never")


def refused(reply: Any) -> str:
    [error] = reply["errors"]
    return str(error["pointer"])


@pytest.mark.parametrize(("first", "second"), [*SIMILAR, *[(second, first) for first, second in SIMILAR]])
def test_a_label_that_looks_like_a_class_is_refused_until_it_is_confirmed(
    client: FlaskClient, first: str, second: str
) -> None:
    post(client, "/fit", 201, project_id="p", X=line_pool(3), y=[None, first, "dog"])
    before = get(client, "/projects/p")
    problem = label(client, 422, label=second)
    assert refused(problem) == "/labels/0/label"
    assert "looks like" in problem["detail"]
    assert "new_class" in problem["detail"]
    assert get(client, "/projects/p") == before
    label(client, label=second, new_class=True)
    assert get(client, "/projects/p")["classes"][2:] == [second]
    label(client, label=second)  # it is a class now


@pytest.mark.parametrize("missing", ["nan", "NaN", "None", "null", "<NA>", "N/A", " nan ", -1])
def test_a_label_that_looks_like_a_missing_one_is_refused_until_it_is_confirmed(
    client: FlaskClient, missing: str | int
) -> None:
    post(client, "/fit", 201, project_id="p", X=line_pool(3), y=[None, 5, 6] if missing == -1 else [None, "a", "b"])
    before = get(client, "/projects/p")
    problem = label(client, 422, label=missing)
    assert refused(problem) == "/labels/0/label"
    assert "looks like a missing label" in problem["detail"]
    assert get(client, "/projects/p") == before
    label(client, label=missing, new_class=True)
    label(client, label=missing)  # it is a class now
    assert get(client, "/projects/p")["classes"][2:] == [missing]


def test_labels_beside_a_negative_class_may_be_minus_one(client: FlaskClient) -> None:
    post(client, "/fit", 201, project_id="p", X=line_pool(3), y=[None, -2, 6])
    label(client, label=-1)


@pytest.mark.parametrize("setting", ["refuse", "allow", None])
def test_an_import_takes_similar_classes_unless_its_manifest_refuses_them(client: FlaskClient, setting: Any) -> None:
    post(client, "/fit", 201, project_id="p", X=line_pool(3), y=["cat", None, "dog"])
    label(client, label="Cat", new_class=True)
    archive = client.get("/projects/p/export").data
    assert import_project(client, archive).json["similar_labels"] == "refuse"
    reply = import_project(client, with_setting(archive, setting), "r")
    assert reply.status_code == (422 if setting == "refuse" else 201)
    if setting == "refuse":
        assert refused(reply.json) == "/manifest.json/project/classes/2"


def import_project(client: FlaskClient, archive: bytes, name: str = "q") -> Any:
    return client.post(f"/projects/import?project_id={name}", data=archive, content_type="application/zip")


def with_setting(archive: bytes, setting: str | None) -> bytes:
    """Return an archive whose manifest has this `similar_labels`, or none as in those of earlier versions."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name == "manifest.json":
                manifest = json.loads(data)
                manifest["project"].pop("similar_labels", None)
                manifest["project"] |= {} if setting is None else {"similar_labels": setting}
                data = json.dumps(manifest).encode()
            new.writestr(name, data)
    return out.getvalue()


@pytest.mark.parametrize("field", ["y", "y_test", "classes", "pool", "npy"])
def test_two_similar_labels_in_one_request_are_refused(client: FlaskClient, field: str) -> None:
    pair = ["cat", "Cat"]
    post(client, "/fit", 201, project_id="p", X=line_pool(2))
    if field == "pool":
        reply = post(client, "/projects/p/pool", 422, X=line_pool(2), y=pair)
    elif field == "npy":
        reply = post_form(client, 422, config={"project_id": "q"}, X=np.array(line_pool(2)), y=np.array(pair[::-1]))
        assert refused(reply) in ("/y/0", "/y/1")
        return
    else:
        more = {"X_test": line_pool(2)} if field == "y_test" else {}
        reply = post(client, "/fit", 422, project_id="q", X=line_pool(2), **more, **{field: pair})
    assert refused(reply) == f"/{'y' if field == 'pool' else field}/1"
    assert client.get("/projects/q").status_code == 404
    assert get(client, "/projects/p")["classes"] == []


@pytest.mark.parametrize("text", WRONG)
def test_blank_labels_and_control_characters_are_refused_everywhere(client: FlaskClient, text: str) -> None:
    fit = {"project_id": "p", "X": line_pool(2), "similar_labels": "allow"}
    assert refused(post(client, "/fit", 422, **fit, y=["a", text], missing_label=None)) == "/y/1"
    held_out = {"X_test": line_pool(2), "y_test": ["a", text]}
    assert refused(post(client, "/fit", 422, **fit, **held_out)) == "/y_test/1"
    assert refused(post(client, "/fit", 422, **fit, classes=["a", text])) == "/classes/1"
    post(client, "/fit", 201, **fit)
    assert refused(label(client, 422, label=text, new_class=True)) == "/labels/0/label"
    assert refused(post(client, "/projects/p/pool", 422, X=line_pool(2), y=["a", text])) == "/y/1"
    query = {"X": line_pool(2), "strategy": "k_center", "y": ["a", text]}
    assert refused(post(client, "/query", 422, **query)) == "/y/1"


def test_the_project_may_allow_similar_labels_and_an_import_keeps_that(client: FlaskClient) -> None:
    made = post(client, "/fit", 201, project_id="p", X=line_pool(3), y=["O", "o", None], similar_labels="allow")
    assert (made["classes"], made["similar_labels"]) == (["O", "o"], "allow")
    archive = client.get("/projects/p/export").get_data()
    imported = client.post("/projects/import?project_id=q", data=io.BytesIO(archive), content_type="application/zip")
    assert (imported.status_code, imported.json["similar_labels"]) == (201, "allow")
    assert post(client, "/projects/q/pool", X=line_pool(1), y=[" o"])["classes"] == ["O", "o", " o"]
    assert post(client, "/fit", project_id="q", similar_labels="refuse")["classes"] == ["O", "o", " o"]
    assert refused(post(client, "/projects/q/pool", 422, X=line_pool(1), y=["o "])) == "/y/0"


def test_an_unknown_value_is_refused(client: FlaskClient) -> None:
    assert refused(post(client, "/fit", 422, project_id="p", X=line_pool(2), similar_labels="yes")) == "/similar_labels"
    post(client, "/fit", 201, project_id="p", X=line_pool(2))
    assert post(client, "/fit", project_id="p")["similar_labels"] == "refuse"
    assert refused(label(client, 422, label="a", new_class="yes")) == "/labels/0/new_class"


@pytest.mark.parametrize("pair", [[1, 2], [True, False], ["a", "b"], ["\u00e9", "e"], ["x y", "xy"]])
def test_labels_that_look_different_are_classes(client: FlaskClient, pair: list[Any]) -> None:
    made = post(client, "/fit", 201, project_id="p", X=line_pool(2), y=pair)
    assert len(made["classes"]) == 2
