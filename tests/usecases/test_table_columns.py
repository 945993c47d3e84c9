"""One table is the whole project: `columns` say which are features, ids and labels."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from flask.testing import FlaskClient

from service.http.media_types import ARROW_FILE, ARROW_STREAM, PARQUET
from tests.usecases.test_columns import get, post, send, with_pandas_index
from tests.usecases.test_transfer import members_of, packed

KINDS = [PARQUET, ARROW_STREAM, ARROW_FILE]
AGE = np.array([1.0, 2.0, 8.0, 9.0])
TABLE = {
    "key": pa.array(["a", "b", "c", "d"]),
    "age": AGE,
    "is_old": np.array([False, False, True, True]),
    "kind": pa.array(["young", None, None, "old"]),
}
NO_TEXTS = {"text": None, "url": None}
ROLES = {"id": "key", "label": "kind"}
FEATURES = np.c_[AGE, [0, 0, 1, 1]]


def fit(client: FlaskClient, X: Any, expect: int = 201, media_type: str = PARQUET, **more: Any) -> Any:
    """Create the project `p` of one table."""
    columns = more.pop("columns", ROLES)
    parts = {name: more.pop(name) for name in ("X_test", "y", "ids", "y_test") if name in more}
    config = {"project_id": "p", "estimator": "gaussian_nb", "columns": columns, **more}
    return send(client, "/fit", expect, config, media_type, X=X, **parts)


def append(client: FlaskClient, X: Any, expect: int = 200, config: Any = None, **parts: Any) -> Any:
    """Append a table to the project `p`."""
    return send(client, "/projects/p/pool", expect, config, parts.pop("media_type", PARQUET), X=X, **parts)


def given_labels(client: FlaskClient) -> list[tuple[str, Any]]:
    """Return the ids and labels of the labelled samples."""
    return [(record["id"], record["label"]) for record in get(client, "/projects/p/labels")["labels"]]


FEW_LABELS = 'classes with fewer than two labels, which the model can hardly learn: "old" (1), "young" (1)'


@pytest.mark.parametrize("media_type", KINDS)
def test_ids_labels_and_features_come_from_one_table(client: FlaskClient, media_type: str) -> None:
    reply = fit(client, TABLE, media_type=media_type, X_test={**TABLE, "kind": ["young", "young", "old", "old"]})
    assert (reply["feature_names"], reply["classes"]) == (["age", "is_old"], ["old", "young"])
    assert reply["columns"] == {"features": None, "id": "key", "label": "kind", **NO_TEXTS}
    assert (reply["test_score"]["accuracy"], reply["notes"]) == (1.0, [FEW_LABELS])
    assert given_labels(client) == [("a", "young"), ("d", "old")]
    assert sorted(post(client, "/query", project_id="p", batch_size=2)["ids"]) == ["b", "c"]


@pytest.mark.parametrize("media_type", KINDS)
def test_later_tables_need_no_columns(client: FlaskClient, media_type: str) -> None:
    fit(client, TABLE)
    swapped = {"kind": ["old", None], "is_old": [True, False], "key": ["e", "f"], "age": [7.0, 3.0]}
    reply = append(client, swapped, media_type=media_type)
    assert (reply["n_samples"], reply["n_labeled"], reply["columns"]["id"]) == (6, 3, "key")
    assert given_labels(client)[-1] == ("e", "old")
    unlabeled = {"age": [5.0], "is_old": [True], "key": ["g"]}
    assert append(client, unlabeled)["n_labeled"] == 3
    held_out = {"age": AGE, "kind": ["young", "young", "old", "old"], "is_old": TABLE["is_old"]}
    reply = send(client, "/fit", 200, {"project_id": "p"}, media_type, X_test=held_out)
    assert reply["test_score"]["accuracy"] == 1.0


def test_listed_features_leave_out_other_columns(client: FlaskClient) -> None:
    columns = {**ROLES, "features": ["is_old", "age"]}
    reply = fit(client, {**TABLE, "note": ["x"] * 4, "height": AGE}, columns=columns)
    assert (reply["feature_names"], reply["notes"]) == (["is_old", "age"], [FEW_LABELS])
    reply = append(client, {"age": [1.0], "note": ["y"], "key": ["e"], "is_old": [False]})
    assert (reply["n_samples"], reply["columns"]) == (5, {**columns, **NO_TEXTS})


def test_features_may_be_one_column_of_lists(client: FlaskClient) -> None:
    table = {"id": [1, 2, 3, 4], "vector": FEATURES.tolist(), "y": ["a", None, None, "b"]}
    reply = fit(client, table, columns={"id": "id", "label": "y"})
    assert (reply["feature_names"], reply["n_features"], reply["n_labeled"]) == (None, 2, 2)
    assert append(client, {"vector": [[1.0, 2.0]], "id": [7]})["n_samples"] == 5


def test_a_pandas_index_may_be_the_ids(client: FlaskClient) -> None:
    frame = with_pandas_index({"age": AGE, "kind": ["a", "b", "a", "b"], "key": list("wxyz")}, name=None)
    frame = frame.to_pandas().set_index("key")
    table = pa.Table.from_pandas(frame)
    reply = fit(client, table)
    assert (reply["feature_names"], reply["notes"]) == (["age"], [])
    assert sorted(name for name, _ in given_labels(client)) == list("wxyz")


def test_columns_are_kept_and_changed(client: FlaskClient) -> None:
    fit(client, TABLE)
    kept = {"features": None, "id": "key", "label": "kind", **NO_TEXTS}
    assert get(client, "/projects/p")["columns"] == kept
    assert get(client, "/projects")["projects"][0]["columns"] == kept
    assert post(client, "/fit", project_id="p")["columns"] == kept
    archive = io.BytesIO(client.get("/projects/p/export").data)
    copy = client.post("/projects/import?project_id=copy", data=archive, content_type="application/zip")
    assert copy.json["columns"] == kept
    changed = post(client, "/fit", project_id="p", columns={"id": "key"})["columns"]
    assert changed == {"features": None, "id": "key", "label": None, **NO_TEXTS}
    assert post(client, "/fit", project_id="p", X=[[1]], replace=True)["columns"] is None


def test_columns_of_an_append_hold_for_it_alone(client: FlaskClient) -> None:
    fit(client, TABLE)
    other = {"name": ["e"], "age": [7.0], "is_old": [True], "class": ["old"]}
    reply = append(client, other, config={"columns": {"id": "name", "label": "class"}})
    assert (reply["n_labeled"], reply["columns"]["id"]) == (3, "key")


WITH_NOTE = {**TABLE, "note": ["x"] * 4}
WRONG = {
    "text among the features": (WITH_NOTE, ROLES, {}, "/X", ["'note'", "string", '"columns"']),
    "text in a named feature": (WITH_NOTE, {"features": ["age", "note"]}, {}, "/X", ["'note'", "string", '"columns"']),
    "a date": ({**TABLE, "on": pa.array([0] * 4, pa.date32())}, ROLES, {}, "/X", ["'on'", "date32", '"columns"']),
    "no such id": (TABLE, {"id": "name"}, {}, "/columns/id", ["'name' is not a column", "'key', 'age'"]),
    "no such label": (TABLE, {"id": "key", "label": "y"}, {}, "/columns/label", ["'y' is not a column"]),
    "no such feature": (TABLE, {"features": ["size"]}, {}, "/X", ["has no column 'size'"]),
    "no features": ({"a": ["x"] * 4}, {"label": "a"}, {}, "/X", ["has no columns of features"]),
    "ids twice": (TABLE, ROLES, {"ids": list("abcd")}, "/ids", ["is the column 'key' of X, too"]),
    "labels twice": (TABLE, ROLES, {"y": list("abcd")}, "/y", ["is the column 'kind' of X, too"]),
    "one column, two roles": (
        TABLE,
        {"id": "key", "label": "key"},
        {},
        "/columns/label",
        ["'key' is named in 'id', too"],
    ),
    "an unknown role": (TABLE, {"lable": "key"}, {}, "/columns/lable", ["did you mean 'label'?"]),
    "a list": (TABLE, ["key"], {}, "/columns", ["must be an object"]),
    "no name": (TABLE, {"id": 3}, {}, "/columns/id", ["must be a string"]),
    "rows without names": (FEATURES, ROLES, {}, "/columns", ["needs a table with named columns"]),
    "repeated ids": ({**TABLE, "key": ["a"] * 4}, ROLES, {}, "/ids/1", ["is the same as entry 0"]),
    "wrong labels": ({**TABLE, "kind": [0.5] * 4}, ROLES, {"target": "class"}, "/y/0", ["must be a label"]),
}


@pytest.mark.parametrize(("table", "columns", "parts", "pointer", "details"), WRONG.values(), ids=WRONG)
def test_wrong_columns_are_refused(
    client: FlaskClient, table: Any, columns: Any, parts: Any, pointer: str, details: list[str]
) -> None:
    error = fit(client, table, 422, columns=columns, **parts)["errors"][0]
    assert error["pointer"] == pointer
    assert all(detail in error["detail"] for detail in details), error
    get(client, "/projects/p", 404)


def test_an_unlabelled_row_of_the_held_out_set_is_refused(client: FlaskClient) -> None:
    error = fit(client, TABLE, 422, X_test=TABLE)["errors"][0]
    assert error["pointer"] == "/y_test/1"


def test_columns_beside_json_need_a_table(client: FlaskClient) -> None:
    error = post(client, "/fit", 422, project_id="p", X=[[1, 2]], columns=ROLES)["errors"][0]
    assert error["pointer"] == "/columns"


def test_an_archive_with_wrong_columns_is_refused(client: FlaskClient) -> None:
    fit(client, TABLE)
    members = members_of(client.get("/projects/p/export").data)
    manifest = json.loads(members["manifest.json"])
    manifest["project"]["columns"] = {"features": None, "id": 7, "label": None}
    data = packed(members | {"manifest.json": json.dumps(manifest).encode()})
    response = client.post("/projects/import?project_id=copy", data=data, content_type="application/zip")
    (error,) = response.json["errors"]
    assert error["pointer"].endswith("/project/columns/id")
    del manifest["project"]["columns"]  # as earlier versions wrote it
    data = packed(members | {"manifest.json": json.dumps(manifest).encode()})
    response = client.post("/projects/import?project_id=copy", data=data, content_type="application/zip")
    assert (response.status_code, response.json["columns"]) == (201, None)
