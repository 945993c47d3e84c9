"""The columns of a pool have names, and later tables follow them."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
import scipy.sparse
from flask.testing import FlaskClient
from werkzeug.datastructures import FileStorage
from werkzeug.test import encode_multipart

from service.http.media_types import ARROW_FILE, ARROW_STREAM, NPY, PARQUET
from service.store.staging import Staging
from service.usecases.columns import order_columns
from tests.support.calls import end_labels, get, line_pool, post
from tests.support.npy import npy
from tests.usecases.test_transfer import members_of, packed

AGE = np.r_[np.linspace(-1.5, -0.5, 30), np.linspace(0.5, 1.5, 30)]
NOISE = np.tile([-0.5, 0.5, 0.0], 20)
TRUTH = ["young"] * 30 + ["old"] * 30
Y = [label if i % 3 == 0 else None for i, label in enumerate(TRUTH)]
POOL = {"age": AGE, "noise": NOISE}
SWAPPED = {"noise": NOISE, "age": AGE}
NEW = {"noise": np.array([-2.0, 2.0]), "age": np.array([1.0, -1.0])}


def write(columns: Any, media_type: str) -> bytes:
    """Return a table as a file of a media type."""
    table, out = pa.table(columns) if isinstance(columns, dict) else columns, io.BytesIO()
    if media_type == PARQUET:
        pa.parquet.write_table(table, out)
    else:
        make = pa.ipc.new_file if media_type == ARROW_FILE else pa.ipc.new_stream
        with make(out, table.schema) as writer:
            writer.write_table(table)
    return out.getvalue()


def send(
    client: FlaskClient, url: str, expect: int, config: Any = None, media_type: str = PARQUET, **parts: Any
) -> Any:
    """Send a form: arrays as .npy, lists as JSON, tables as files of the media type."""
    data: dict[str, Any] = {}
    if config is not None:
        data["config"] = (io.BytesIO(json.dumps(config).encode()), "config", "application/json")
    for name, value in parts.items():
        if isinstance(value, list):
            data[name] = (io.BytesIO(json.dumps(value).encode()), name, "application/json")
        elif isinstance(value, np.ndarray):
            data[name] = (io.BytesIO(npy(value)), name, NPY)
        else:
            data[name] = (io.BytesIO(write(value, media_type)), name, media_type)
    response = client.post(url, data=data)
    assert response.status_code == expect, response.get_data(as_text=True)
    return response.json


def fit(client: FlaskClient, X: Any, expect: int = 201, media_type: str = PARQUET, **parts: Any) -> Any:
    """Create the project `p` of a table, with labels for a third of it."""
    config = {"project_id": "p", "estimator": "logistic_regression"} | parts.pop("config", {})
    return send(client, "/fit", expect, config, media_type, X=X, **{"y": Y} | parts)


def append(client: FlaskClient, X: Any, expect: int = 200, media_type: str = PARQUET, project_id: str = "p") -> Any:
    """Append rows to a project."""
    return send(client, f"/projects/{project_id}/pool", expect, None, media_type, X=X)


def pool(client: FlaskClient, project_id: str = "p") -> Any:
    """Return all rows of a pool."""
    with ZipFile(io.BytesIO(client.get(f"/projects/{project_id}/export").data)) as archive:
        names = sorted(name for name in archive.namelist() if name.startswith("pool-"))
        return np.concatenate([np.load(io.BytesIO(archive.read(name))) for name in names])


@pytest.mark.parametrize("media_type", [PARQUET, ARROW_STREAM, ARROW_FILE])
def test_columns_of_a_held_out_set_are_put_in_the_order_of_the_pool(client: FlaskClient, media_type: str) -> None:
    reply = fit(client, POOL, media_type=media_type, X_test=SWAPPED, y_test=TRUTH)
    assert reply["feature_names"] == ["age", "noise"]
    assert reply["test_score"]["accuracy"] == 1.0
    reply = send(client, "/fit", 200, {"project_id": "p"}, media_type, X_test=SWAPPED, y_test=TRUTH)
    assert reply["test_score"]["accuracy"] == 1.0


@pytest.mark.parametrize("media_type", [PARQUET, ARROW_STREAM, ARROW_FILE])
def test_columns_of_an_append_are_put_in_the_order_of_the_pool(client: FlaskClient, media_type: str) -> None:
    fit(client, POOL)
    reply = append(client, NEW, media_type=media_type)
    assert (reply["n_samples"], reply["feature_names"]) == (62, ["age", "noise"])
    assert get(client, "/projects")["projects"][0]["feature_names"] == ["age", "noise"]
    assert np.array_equal(pool(client)[60:], np.c_[NEW["age"], NEW["noise"]])


def test_many_rows_are_put_in_order(tmp_path: Path) -> None:
    X = np.random.default_rng(0).normal(size=(9_000, 300)).astype("f4")
    staging, names = Staging(tmp_path), tuple(f"f{i}" for i in range(300))
    backwards = replace(staging.rows(X[:, ::-1]), names=names[::-1])
    rows = order_columns("/X", backwards, names, staging)
    assert rows.names == names
    assert np.array_equal(rows.open(), X)


def test_rows_without_names_go_by_position(client: FlaskClient) -> None:
    fit(client, POOL, X_test=np.c_[AGE, NOISE], y_test=TRUTH)
    rows = np.array([[1.0, -2.0], [-1.0, 2.0]])
    append(client, rows)
    append(client, {"x": pa.array(rows.tolist())})
    post(client, "/projects/p/pool", X=rows.tolist())
    assert np.array_equal(pool(client)[60:], np.tile(rows, (3, 1)))


def test_a_pool_without_names_takes_tables_by_position(client: FlaskClient) -> None:
    assert fit(client, np.c_[AGE, NOISE])["feature_names"] is None
    append(client, NEW)
    assert get(client, "/projects/p")["feature_names"] is None
    assert get(client, "/projects")["projects"][0]["feature_names"] is None
    assert np.array_equal(pool(client)[60:], np.c_[NEW["noise"], NEW["age"]])


def test_a_table_of_one_column_of_lists_has_no_names(client: FlaskClient) -> None:
    assert fit(client, {"x": pa.array(np.c_[AGE, NOISE].tolist())})["feature_names"] is None


WRONG = {
    "missing": ({"age": NEW["age"]}, ["lacks columns of the pool: 'noise'"]),
    "additional": ({**NEW, "height": NEW["age"]}, ["has columns that the pool lacks: 'height'"]),
    "other": (
        {"height": NEW["age"], "weight": NEW["age"]},
        ["lacks columns of the pool: 'age', 'noise'", "has columns that the pool lacks: 'height', 'weight'"],
    ),
    "repeated": (pa.table([NEW["age"], NEW["age"]], ["age", "age"]), ["repeats column names: 'age'"]),
}


@pytest.mark.parametrize(("table", "details"), WRONG.values(), ids=WRONG)
def test_other_columns_are_refused_by_name(client: FlaskClient, table: Any, details: list[str]) -> None:
    fit(client, POOL)
    before = get(client, "/projects/p")
    problem = append(client, table, 422)
    assert problem["errors"] == [{"pointer": "/X", "detail": detail} for detail in details]
    problem = send(client, "/fit", 422, {"project_id": "p"}, X_test=table, y_test=["young", "old"])
    assert problem["errors"] == [{"pointer": "/X_test", "detail": detail} for detail in details]
    assert get(client, "/projects/p") == before


def test_a_long_list_of_wrong_columns_is_cut(client: FlaskClient) -> None:
    fit(client, POOL)
    (error,) = append(client, {**NEW, **{f"f{i}": NEW["age"] for i in range(50)}}, 422)["errors"]
    assert error["detail"].endswith("'f18', 'f19' and 30 more")


@pytest.mark.parametrize(
    ("names", "detail"),
    [
        (["age", "age"], "repeats column names: 'age'"),
        (["age", ""], "has a column whose name is not 1 to 256 characters long"),
        (["age", "n" * 257], "has a column whose name is not 1 to 256 characters long"),
    ],
)
def test_a_pool_with_wrong_names_is_refused(client: FlaskClient, names: list[str], detail: str) -> None:
    assert fit(client, pa.table([AGE, NOISE], names), 422)["errors"] == [{"pointer": "/X", "detail": detail}]
    get(client, "/projects/p", 404)


def test_names_are_given_in_fit(client: FlaskClient) -> None:
    given = {"project_id": "p", "X": line_pool(), "y": end_labels(), "feature_names": ["x", "one"]}
    assert post(client, "/fit", 201, **given)["feature_names"] == ["x", "one"]
    append(client, {"one": np.array([1.0]), "x": np.array([20.0])})
    assert np.array_equal(pool(client)[20], [20.0, 1.0])
    assert post(client, "/fit", project_id="p")["feature_names"] == ["x", "one"]
    del given["feature_names"]
    assert post(client, "/fit", **given, replace=True)["feature_names"] is None


def test_names_given_beside_a_table_order_it(client: FlaskClient) -> None:
    reply = fit(client, SWAPPED, config={"feature_names": ["age", "noise"]}, X_test=SWAPPED, y_test=TRUTH)
    assert (reply["feature_names"], reply["test_score"]["accuracy"]) == (["age", "noise"], 1.0)
    assert np.array_equal(pool(client), np.c_[AGE, NOISE])
    (error,) = fit(client, POOL, 422, config={"feature_names": ["age"], "replace": True})["errors"]
    assert error == {"pointer": "/X", "detail": "has columns that the pool lacks: 'noise'"}


@pytest.mark.parametrize(
    ("names", "pointer", "detail"),
    [
        (["x"], "/feature_names", "has 1 entries, but X has 2 columns"),
        (["x", "x"], "/feature_names/1", "is the same as entry 0; names must be unique"),
        (["x", ""], "/feature_names/1", "must be a string of 1 to 256 characters"),
        ("x", "/feature_names", "must be a non-empty list of strings"),
    ],
)
def test_wrong_given_names_are_refused(client: FlaskClient, names: Any, pointer: str, detail: str) -> None:
    problem = post(client, "/fit", 422, project_id="p", X=line_pool(), feature_names=names)
    assert problem["errors"] == [{"pointer": pointer, "detail": detail}]


def test_names_without_a_pool_are_refused(client: FlaskClient) -> None:
    fit(client, POOL)
    problem = post(client, "/fit", 422, project_id="p", feature_names=["a", "b"])
    assert problem["errors"] == [{"pointer": "/feature_names", "detail": "is allowed only together with X"}]


def test_a_copy_keeps_the_names(client: FlaskClient) -> None:
    fit(client, POOL)
    archive = client.get("/projects/p/export").data
    url = "/projects/import?project_id=copy"
    response = client.post(url, data=io.BytesIO(archive), content_type="application/zip")
    assert (response.status_code, response.json["feature_names"]) == (201, ["age", "noise"])
    append(client, NEW, project_id="copy")
    assert np.array_equal(pool(client, "copy")[60:], np.c_[NEW["age"], NEW["noise"]])


def test_an_archive_with_too_few_names_is_refused(client: FlaskClient) -> None:
    fit(client, POOL)
    members = members_of(client.get("/projects/p/export").data)
    manifest = json.loads(members["manifest.json"])
    manifest["project"]["feature_names"] = ["age"]
    data = packed(members | {"manifest.json": json.dumps(manifest).encode()})
    url = "/projects/import?project_id=copy"
    response = client.post(url, data=data, content_type="application/zip")
    (error,) = response.json["errors"]
    assert error["detail"] == "has 1 entries, but n_features is 2"
    assert error["pointer"].endswith("/project/feature_names")


FLAGS = np.array([[True, False, True], [False, False, True]] * 4)
TABLES = {
    "columns": pa.table({f"f{i}": FLAGS[:, i] for i in range(3)}),
    "lists": pa.table({"x": pa.array(FLAGS.tolist())}),
    "lists of one length": pa.table({"x": pa.array(FLAGS.tolist(), pa.list_(pa.bool_(), 3))}),
}


@pytest.mark.parametrize("X", [FLAGS, np.asfortranarray(FLAGS), FLAGS.tolist(), *TABLES.values()])
@pytest.mark.parametrize("media_type", [PARQUET, ARROW_STREAM, ARROW_FILE])
def test_booleans_count_as_0_and_1(client: FlaskClient, X: Any, media_type: str) -> None:
    y = [1, 0, *[None] * 6]
    reply = fit(client, X, media_type=media_type, y=y, X_test=X, y_test=[1, 0] * 4)
    assert reply["test_score"]["accuracy"] == 1.0
    append(client, X, media_type=media_type)
    assert np.array_equal(pool(client), np.tile(FLAGS.astype(float), (2, 1)))
    assert len(send(client, "/query", 200, {"strategy": "k_means", "batch_size": 2}, media_type, X=X)["indices"]) == 2


def test_booleans_in_lines_and_sparse_rows_count_as_0_and_1(client: FlaskClient) -> None:
    lines = b"".join(json.dumps({"x": row}).encode() + b"\n" for row in FLAGS.tolist())
    post(client, "/fit", 201, project_id="p", X=FLAGS.tolist())
    assert client.post("/projects/p/pool", data=lines, content_type="application/x-ndjson").status_code == 200
    part = b"".join(json.dumps(row).encode() + b"\n" for row in FLAGS.tolist())
    form = {"X": (io.BytesIO(part), "X", "application/x-ndjson")}
    assert client.post("/projects/p/pool", data=form).status_code == 200
    assert np.array_equal(pool(client), np.tile(FLAGS.astype(float), (3, 1)))
    file = io.BytesIO()
    scipy.sparse.save_npz(file, scipy.sparse.csr_matrix(FLAGS))
    form = {
        "config": (io.BytesIO(b'{"project_id": "s"}'), "config", "application/json"),
        "X": (io.BytesIO(file.getvalue()), "X", "application/x-npz"),
    }
    assert client.post("/fit", data=form).status_code == 201


def test_booleans_beside_numbers_take_their_type(client: FlaskClient) -> None:
    fit(client, {"age": AGE, "flag": AGE > 0})
    assert np.array_equal(pool(client), np.c_[AGE, AGE > 0])


def test_other_bytes_of_booleans_count_as_1(client: FlaskClient) -> None:
    send(client, "/fit", 201, {"project_id": "p"}, X=np.array([[0, 2], [255, 1]], np.uint8).view(bool))
    assert np.array_equal(pool(client), [[0, 1], [1, 1]])


def with_pandas_index(columns: dict[str, Any], *, name: str | None) -> pa.Table:
    """Return the table of a pandas DataFrame whose rows were shuffled, so that it has an index."""
    frame = pd.DataFrame(columns).sample(frac=1, random_state=0).rename_axis(name)
    return pa.Table.from_pandas(frame)


INDEX_NOTE = "X: the index of the pandas table was left out: "


@pytest.mark.parametrize("media_type", [PARQUET, ARROW_STREAM, ARROW_FILE])
def test_notes_name_a_pandas_index_that_was_left_out(client: FlaskClient, media_type: str) -> None:
    table = with_pandas_index(POOL, name=None)
    reply = fit(client, table, media_type=media_type, X_test=table, y_test=TRUTH)
    note = INDEX_NOTE + "'__index_level_0__'"
    assert reply["notes"] == [note, note.replace("X:", "X_test:")]
    assert (reply["feature_names"], reply["n_features"]) == (["age", "noise"], 2)
    reply = append(client, with_pandas_index(POOL, name="row"), media_type=media_type)
    assert reply["notes"] == [INDEX_NOTE + "'row'"]
    assert "notes" not in get(client, "/projects/p")


@pytest.mark.parametrize("name", ["label", "Target", "CLASS", "y"])
def test_notes_name_a_feature_that_is_named_like_a_label(client: FlaskClient, name: str) -> None:
    note = f"X: '{name}' is a feature, but is named like a label"
    assert fit(client, {"age": AGE, name: NOISE})["notes"] == [note]
    assert append(client, {"age": AGE, name: NOISE})["notes"] == [note]
    given = {"project_id": "given", "X": line_pool(), "feature_names": ["age", name]}
    assert post(client, "/fit", 201, **given)["notes"] == [note]


def test_notes_are_empty_without_anything_to_note(client: FlaskClient) -> None:
    assert fit(client, POOL)["notes"] == []
    assert post(client, "/fit", project_id="p")["notes"] == []
    assert append(client, NEW)["notes"] == []
    assert post(client, "/projects/p/pool", X=[[1, 2]])["notes"] == []
    response = client.post("/projects/p/pool", data=b'{"x": [1, 2]}', content_type="application/x-ndjson")
    assert response.json["notes"] == []


def test_a_repeated_request_has_the_same_notes(client: FlaskClient, tmp_path: Path) -> None:
    table = FileStorage(io.BytesIO(write({"age": AGE, "label": NOISE}, PARQUET)), "X", content_type=PARQUET)
    boundary, form = encode_multipart({"X": table})
    pool = {"project_id": "p", "X": line_pool(), "feature_names": ["age", "label"]}
    requests = {
        "/fit": {"json": pool},
        "/projects/p/pool": {"data": form, "content_type": f"multipart/form-data; boundary={boundary}"},
    }
    for url, body in requests.items():
        for is_kept in (True, True, False):
            if not is_kept:  # as if the process had died between the commit and the reply
                for reply in (tmp_path / "data/replies").iterdir():
                    reply.unlink()
            response = client.post(url, headers={"Idempotency-Key": "k" + url}, **body)
            assert response.json["notes"] == ["X: 'label' is a feature, but is named like a label"]
