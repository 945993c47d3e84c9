"""Targets of fuzzing: each reader of request bodies, how to send it a body, and valid bodies as seeds."""

from __future__ import annotations

import gzip
import json
import logging
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import scipy.sparse
from flask.testing import FlaskClient
from pyarrow import parquet
from werkzeug.test import TestResponse

from service.app import create_app
from service.settings import Settings
from tests.support.npy import npy
from tests.torture.forms import BOUNDARY, FORM, NDJSON, ZIP, form, part

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

P, PLAIN = "p", "plain"
LIMITS = {"max_body_bytes": 2**22, "max_json_bytes": 2**20, "max_pool_cells": 2**20, "max_projects": 8}
rng = np.random.default_rng(0)
X = rng.normal(size=(12, 3)).astype(np.float32)
QUERY = {"X": X.tolist(), "batch_size": 2, "strategy": "k_center"}
LABELS = {"project_id": P, "labels": [{"index": 3, "label": "ant", "annotator": "ada"}, {"id": "s4", "skip": True}]}
FIT = {
    "project_id": "other",
    "estimator": "logistic_regression",
    "X": X.tolist(),
    "y": ["ant", "bee", *[None] * 10],
    "ids": list("abcdefghijkl"),
    "replace": True,
}


@dataclass(frozen=True)
class Reader:
    """How to send a body, and valid bodies."""

    send: Callable[[FlaskClient, bytes], TestResponse]
    seeds: Callable[[FlaskClient], list[bytes]]


class Service:
    """An application with two small projects that keeps its last unhandled exception."""

    def __init__(self, root: Path) -> None:
        self.client = create_app(Settings(data_dir=root, log_level="critical", **LIMITS)).test_client()
        self.bug: BaseException | None = None
        y, names = ["ant", "bee", *[None] * 10], [f"s{row}" for row in range(12)]
        test = {"X_test": X[:2].tolist(), "y_test": ["ant", "bee"]}
        pool = {"X": X.tolist(), "estimator": "logistic_regression"}
        for body in ({"project_id": P, "y": y, "ids": names, **test}, {"project_id": PLAIN}):
            assert self.client.post("/fit", json=pool | body).status_code == 201

    def keep_exception(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            self.bug = record.exc_info[1]

    def send(self, reader: Reader, data: bytes) -> TestResponse:
        """Send a body, and delete any project that it created."""
        reply = reader.send(self.client, data)
        if reply.status_code == 201:
            for project in self.client.get("/projects").json["projects"]:
                if project["project_id"] not in (P, PLAIN):
                    self.client.delete(f"/projects/{project['project_id']}")
        return reply


@contextmanager
def serving(root: Path) -> Iterator[Service]:
    """Yield an application whose unhandled exceptions are kept, not logged."""
    service, handler = Service(root), logging.Handler()
    handler.emit = service.keep_exception  # type: ignore[method-assign]
    with pytest.MonkeyPatch.context() as patches:
        logger = logging.getLogger("service.http.problems")
        for name, value in (("handlers", [handler]), ("propagate", False), ("level", logging.ERROR)):
            patches.setattr(logger, name, value)
        yield service


@contextmanager
def without_checksums() -> Iterator[None]:
    """Ignore the checksums of zip archives, so that changed bytes reach the reader."""
    with pytest.MonkeyPatch.context() as patches:
        patches.setattr(zipfile.ZipExtFile, "_update_crc", lambda self, data: None)
        yield


def post_to(path: str, headers: dict[str, str]) -> Callable[[FlaskClient, bytes], TestResponse]:
    return lambda client, data: client.post(path, data=data, headers=headers)


def as_part(name: str, media_type: str, config: dict[str, Any]) -> Callable[[FlaskClient, bytes], TestResponse]:
    """Send a body as one part of a query, which stores nothing."""
    begin = part("config", "application/json", json.dumps(config).encode())

    def send(client: FlaskClient, data: bytes) -> TestResponse:
        body = begin + part(name, media_type, data) + f"--{BOUNDARY}--\r\n".encode()
        return client.post("/query", data=body, headers=FORM)

    return send


def table(*columns: Any) -> pa.Table:
    return pa.table({f"c{number}": column for number, column in enumerate(columns)})


TABLES = [table(*X.T), table(X.astype(np.float64).tolist()), table(X[:, 0].astype(np.int16), X[:, 1])]


def arrow(of: pa.Table, make: Callable[..., Any]) -> bytes:
    out = BytesIO()
    with make(out, of.schema) as writer:
        writer.write_table(of, max_chunksize=5)
    return out.getvalue()


def parquet_of(of: pa.Table, **options: Any) -> bytes:
    out = BytesIO()
    parquet.write_table(of, out, row_group_size=5, **options)
    return out.getvalue()


def sparse() -> bytes:
    out = BytesIO()
    scipy.sparse.save_npz(out, scipy.sparse.random_array((12, 9), density=0.3, rng=rng, format="csr"), compressed=False)
    return out.getvalue()


def jsons(*documents: Any) -> list[bytes]:
    return [json.dumps(document).encode() for document in documents]


def lines(*records: Any) -> bytes:
    return b"\n".join(jsons(*records))


JSON = {"Content-Type": "application/json"}
CONFIG = {"batch_size": 2, "strategy": "random"}
QUERIES = jsons(
    QUERY,
    {"probabilities": [[0.5, 0.5], [0.1, 0.9]], "member_probabilities": [[[0.5, 0.5], [0, 1]]] * 2, "strategy": "bald"},
    {"project_id": P, "exclude": [0, 1], "candidates": [2, 3, 4], "params": {}, "explain": True, "overlap": 2},
    {"project_id": P, "annotator": "ada", "lease_seconds": 1, "random_state": 3, "explore": 0.5},
)
READERS: dict[str, Reader] = {
    "json of fit": Reader(
        post_to("/fit", JSON),
        lambda _: jsons(FIT, {"project_id": P, "estimator": {"name": "svc", "params": {"C": 2.0}}}),
    ),
    "json of query": Reader(post_to("/query", JSON), lambda _: QUERIES),
    "json of label": Reader(post_to("/label", JSON), lambda _: jsons(LABELS, {**LABELS, "refit": "never"})),
    "npy": Reader(
        as_part("X", "application/x-npy", CONFIG),
        lambda _: [
            npy(X),
            npy(np.asfortranarray(X.astype(">f8"))),
            npy(X.astype(np.float16)),
            npy((X * 9).astype(np.int8)),
        ],
    ),
    "npy of labels": Reader(
        as_part("y", "application/x-npy", {**CONFIG, "X": X.tolist()}),
        lambda _: [
            npy(np.array(["a", "b", "c"] * 4)),
            npy(np.array([0, 1, np.nan] * 4)),
            npy(np.array([True, False] * 6)),
        ],
    ),
    "npy of members": Reader(
        as_part("member_probabilities", "application/x-npy", {**CONFIG, "strategy": "vote_entropy"}),
        lambda _: [npy(np.full((3, 4, 2), 0.5)), npy(np.full((2, 3, 5), 0.2, np.float32))],
    ),
    "csr": Reader(as_part("X", "application/x-npz", CONFIG), lambda _: [sparse()]),
    "ndjson": Reader(
        as_part("X", "application/x-ndjson", CONFIG), lambda _: [lines(*X.tolist()), lines([1, 2], [3, 4])]
    ),
    "records": Reader(
        post_to(f"/projects/{PLAIN}/pool", NDJSON),
        lambda _: [lines({"x": [1, 2, 3], "y": "ant"}, {"x": [1, 2, 3.5]})],
    ),
    "arrow stream": Reader(
        as_part("X", "application/vnd.apache.arrow.stream", CONFIG),
        lambda _: [arrow(each, pa.ipc.new_stream) for each in TABLES],
    ),
    "arrow file": Reader(
        as_part("X", "application/vnd.apache.arrow.file", CONFIG),
        lambda _: [arrow(each, pa.ipc.new_file) for each in TABLES],
    ),
    "parquet": Reader(
        as_part("X", "application/vnd.apache.parquet", CONFIG),
        lambda _: [
            parquet_of(each, compression=kind) for each in TABLES for kind in ("none", "snappy", "zstd", "gzip")
        ],
    ),
    "form": Reader(
        post_to("/query", FORM), lambda _: [form(CONFIG, X=npy(X)), form(CONFIG, X=npy(X), y=npy(np.arange(12)))]
    ),
    "gzip": Reader(
        post_to("/query", {**JSON, "Content-Encoding": "gzip"}), lambda _: [gzip.compress(each) for each in QUERIES]
    ),
    "zstd": Reader(
        post_to("/query", {**JSON, "Content-Encoding": "zstd"}), lambda _: [zstd.compress(each) for each in QUERIES]
    ),
    "archive": Reader(
        post_to("/projects/import?project_id=copy", ZIP), lambda client: [client.get(f"/projects/{P}/export").data]
    ),
}
