"""Integers as ids: they come in by every format, and come back as integers everywhere."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from flask.testing import FlaskClient

from tests.support.calls import end_labels, get, line_pool, post
from tests.support.npy import npy

IDS = [7, -3, 12, 2**62, 0]


def arrow(values: Any) -> bytes:
    out = io.BytesIO()
    table = pa.table({"id": values})
    with pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table)
    return out.getvalue()


def parquet(values: Any) -> bytes:
    out = io.BytesIO()
    pa.parquet.write_table(pa.table({"id": values}), out)
    return out.getvalue()


FORMATS = {
    "json": ("application/json", json.dumps(IDS).encode()),
    "ndjson": ("application/x-ndjson", "\n".join(map(str, IDS)).encode()),
    "npy": ("application/x-npy", npy(np.array(IDS))),
    "npy, big-endian": ("application/x-npy", npy(np.array(IDS, ">i8"))),
    "arrow": ("application/vnd.apache.arrow.stream", arrow(pa.array(IDS))),
    "arrow, categories": ("application/vnd.apache.arrow.stream", arrow(pa.array(IDS).dictionary_encode())),
    "parquet": ("application/vnd.apache.parquet", parquet(pa.array(IDS))),
}

OTHERS = {
    "a boolean": ([True, False], "/ids/0", "a string of 1 to 256 characters or an integer"),
    "a whole float": ([1.0, 2.0], "/ids/0", "a string of 1 to 256 characters or an integer"),
    "null": ([1, None], "/ids/1", "a string of 1 to 256 characters or an integer"),
    "65 bits": ([1, 2**63], "/ids/1", "must fit 64 bits"),
    "an integer and its text": ([12, "12"], "/ids/1", "is a string, but the first id is an integer"),
    "text and its integer": (["12", 12], "/ids/1", "is an integer, but the first id is a string"),
    "an integer twice": ([5, 5], "/ids/1", "ids must be unique"),
}


def send_ids(client: FlaskClient, media_type: str, data: bytes, n: int = 5) -> Any:
    return client.post(
        "/fit",
        data={
            "config": (io.BytesIO(b'{"project_id": "p"}'), "config", "application/json"),
            "X": (io.BytesIO(npy(np.eye(n, 2))), "X", "application/x-npy"),
            "ids": (io.BytesIO(data), "ids", media_type),
        },
    )


def ids_of(client: FlaskClient) -> list[Any]:
    reply = post(client, "/query", project_id="p", batch_size=100, strategy="random")
    return [name for _, name in sorted(zip(reply["indices"], reply["ids"], strict=True))]


@pytest.mark.parametrize(("media_type", "data"), FORMATS.values(), ids=FORMATS)
def test_integers_come_back_as_integers_from_every_format(client: FlaskClient, media_type: str, data: bytes) -> None:
    assert send_ids(client, media_type, data).status_code == 201
    assert ids_of(client) == IDS


@pytest.mark.parametrize(("ids", "pointer", "problem"), OTHERS.values(), ids=OTHERS)
def test_what_is_no_integer_and_no_text_is_refused(
    client: FlaskClient, ids: list[Any], pointer: str, problem: str
) -> None:
    [error] = post(client, "/fit", 422, project_id="p", X=line_pool(2), ids=ids)["errors"][:1]
    assert error["pointer"] == pointer
    assert problem in error["detail"]


@pytest.mark.parametrize("values", [np.array([1.5, 2.5]), np.array([True, False]), np.array([1, 2**63], np.uint64)])
def test_columns_of_other_numbers_are_refused(client: FlaskClient, values: Any) -> None:
    for media_type, data in (("application/x-npy", npy(values)), ("application/vnd.apache.parquet", parquet(values))):
        reply = send_ids(client, media_type, data, n=2)
        assert reply.status_code == 422
        assert reply.json["errors"][0]["pointer"].startswith("/ids")


def test_integers_come_back_as_integers_from_every_endpoint(client: FlaskClient) -> None:
    post(client, "/fit", 201, project_id="p", X=line_pool(6), y=end_labels(6), ids=[10, 11, 12, 13, 14, 15])
    lines = b'{"x": [6, 1], "id": 16}\n{"x": [7, 1], "id": 0}'
    assert client.post("/projects/p/pool", data=lines, content_type="application/x-ndjson").status_code == 200
    post(client, "/label", project_id="p", labels=[{"id": 0, "label": 1, "annotator": "ada"}])
    archive = client.get("/projects/p/export").data
    reply = client.post("/projects/import?project_id=q", data=archive, content_type="application/zip")
    assert reply.status_code == 201, reply.json
    for name in "pq":
        labels = get(client, f"/projects/{name}/labels")["labels"]
        assert [record["id"] for record in labels] == [10, 15, 0]
        assert "\r\n7,0,1," in client.get(f"/projects/{name}/labels", headers={"Accept": "text/csv"}).text
        predictions = get(client, f"/projects/{name}/predictions")["predictions"]
        assert [record["id"] for record in predictions] == [10, 11, 12, 13, 14, 15, 16, 0]
        query = {"project_id": name, "batch_size": 2, "annotator": "ada", "lease_seconds": 60, "explain": True}
        reply = post(client, "/query", **query)
        assert all(type(each) is int for each in reply["ids"])
        assert all(type(each["nearest_labeled"]["id"]) is int for each in reply["explanations"])
        assert get(client, f"/projects/{name}/leases")["leases"][0]["ids"] == reply["ids"]


@pytest.mark.parametrize(("own", "other"), [([1, 2], ["1", "2"]), (["1", "2"], [1, 2])])
def test_ids_of_the_other_type_are_refused_with_both_types(
    client: FlaskClient, own: list[Any], other: list[Any]
) -> None:
    post(client, "/fit", 201, project_id="p", X=line_pool(2), ids=own)
    before = get(client, "/projects/p")
    append = post(client, "/projects/p/pool", 422, X=line_pool(1), ids=other[:1])
    label = post(client, "/label", 422, project_id="p", labels=[{"id": other[0], "label": "a"}])
    for reply, pointer in ((append, "/ids/0"), (label, "/labels/0/id")):
        assert reply["errors"][0]["pointer"] == pointer
        assert "is a string" in reply["detail"] or "is an integer" in reply["detail"]
        assert "each id of this project is a" in reply["detail"]
    assert get(client, "/projects/p") == before
    post(client, "/fit", project_id="p", X=line_pool(2), ids=other, replace=True)
    assert ids_of(client) == other


@pytest.mark.parametrize("ids", [list("abcdef"), [5, 4, 3, 2, 1, 0]])
def test_a_query_names_its_candidates_by_id(client: FlaskClient, ids: list[Any]) -> None:
    post(client, "/fit", 201, project_id="p", X=line_pool(6), y=end_labels(6), ids=ids)

    def indices(expect: int = 200, **fields: Any) -> Any:
        reply = post(client, "/query", expect, project_id="p", batch_size=6, strategy="random", **fields)
        return sorted(reply["indices"]) if expect == 200 else reply["errors"]

    assert indices(exclude_ids=[ids[2], ids[3], ids[3]]) == [1, 4]
    assert indices(exclude_ids=[ids[2]], exclude=[1]) == [3, 4]
    assert indices(candidate_ids=[ids[2], ids[0]]) == [2]
    assert indices(candidate_ids=[ids[2]], candidates=[3]) == [2, 3]
    assert indices(candidate_ids=[]) == []
    assert indices(candidate_ids=ids, exclude_ids=ids[:4], annotator="ada", lease_seconds=9) == [4]
    other = "x" if ids[0] == "a" else 99
    for field in ("exclude_ids", "candidate_ids"):
        [error] = indices(422, **{field: [ids[1], other]})
        assert (error["pointer"], error["detail"]) == (f"/{field}/1", "is not an id of the pool")
        [error] = indices(422, **{field: [1 if ids[0] == "a" else "1"]})
        assert "each id of this project is a" in error["detail"]
        assert post(client, "/query", 422, X=line_pool(2), **{field: ids})["errors"][0]["pointer"] == f"/{field}"


def test_a_project_without_ids_takes_none(client: FlaskClient) -> None:
    post(client, "/fit", 201, project_id="p", X=line_pool(6), y=end_labels(6))
    [error] = post(client, "/query", 422, project_id="p", exclude_ids=["a"])["errors"]
    assert error["pointer"] == "/exclude_ids"
