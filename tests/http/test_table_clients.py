"""Each client's table by default as each part of a request: polars, pandas, DuckDB, pyarrow and factors as of R."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet
import pytest
from flask.testing import FlaskClient

from service.app import create_app
from service.http.media_types import ARROW_FILE, ARROW_STREAM, CSV, NDJSON, PARQUET
from service.settings import Settings
from tests.support.calls import get

COLUMNS: dict[str, list[Any]] = {
    "key": ["a", "b", "c", "d"],
    "age": [1.5, 2.0, 8.0, 9.0],
    "n": [1, 2, 3, 4],
    "old": [False, False, True, True],
    "kind": ["young", None, None, "old"],
}
NAMES = ["age", "n", "old"]
ROWS = [[1.5, 1, 0], [2, 2, 0], [8, 3, 1], [9, 4, 1]]
TRUTH = {**COLUMNS, "kind": ["young", "young", "old", "old"]}

Columns = dict[str, list[Any]]


def in_memory(write: Callable[..., Any], **options: Any) -> bytes:
    """Return what a function writes to a file."""
    out = io.BytesIO()
    write(out, **options)
    return out.getvalue()


def text_in_memory(write: Callable[..., Any], **options: Any) -> bytes:
    """Return what a function writes to a text file."""
    out = io.StringIO()
    write(out, **options)
    return out.getvalue().encode()


def categorical(columns: Columns, kind: Any) -> pl.DataFrame:
    """Return a frame of polars whose text is of another type."""
    return pl.DataFrame(columns).with_columns(pl.col(pl.String).cast(kind))


def categories(columns: Columns) -> pd.DataFrame:
    """Return a frame of pandas whose text is categorical."""
    return pd.DataFrame(columns).astype({name: "category" for name in ("key", "kind") if name in columns})


def enums(columns: Columns) -> pl.DataFrame:
    """Return a frame of polars whose text is Enum."""
    frame = pl.DataFrame(columns)
    texts = [name for name in frame.columns if frame[name].dtype == pl.String]
    return frame.with_columns(pl.col(name).cast(pl.Enum(frame[name].drop_nulls().unique())) for name in texts)


def duckdb_file(columns: Columns, file_format: str) -> bytes:
    """Return what COPY of DuckDB writes."""
    path = PATHS[0] / f"table.{file_format}"
    connection = duckdb.connect()
    connection.register("given", pa.table(columns))
    connection.sql(f"COPY (SELECT * FROM given) TO '{path}' (FORMAT {file_format})")  # noqa: S608 - nothing is sent
    return path.read_bytes()


def duckdb_stream(columns: Columns) -> bytes:
    """Return a result of DuckDB as an Arrow stream."""
    connection = duckdb.connect()
    connection.register("given", pa.table(columns))
    return arrow(connection.sql("SELECT * FROM given").to_arrow_table(), pa.ipc.new_stream)


def arrow(table: pa.Table, make: Callable[..., Any]) -> bytes:
    """Return a table as an Arrow stream or file."""
    out = io.BytesIO()
    with make(out, table.schema) as writer:
        writer.write_table(table)
    return out.getvalue()


def factors(columns: Columns, index: pa.DataType, *, ordered: bool = False) -> pa.Table:
    """Return a table whose text is a factor of R: a dictionary with int32 or int8 indices, maybe ordered."""
    kind = pa.dictionary(index, pa.string(), ordered=ordered)

    def factor(values: list[Any]) -> pa.Array:
        levels = sorted({value for value in values if value is not None})
        codes = pa.array([None if value is None else levels.index(value) for value in values], index)
        return pa.DictionaryArray.from_arrays(codes, pa.array(levels), ordered=ordered).cast(kind)

    return pa.table({n: factor(v) if isinstance(v[0], str) else pa.array(v) for n, v in columns.items()})


def parquet(table: pa.Table) -> bytes:
    """Return a table as Parquet of pyarrow."""
    return in_memory(lambda out: pa.parquet.write_table(table, out))


CLIENTS: dict[str, tuple[str, Callable[[Columns], bytes]]] = {
    "polars parquet": (PARQUET, lambda c: in_memory(pl.DataFrame(c).write_parquet)),
    "polars ipc": (ARROW_FILE, lambda c: in_memory(pl.DataFrame(c).write_ipc)),
    "polars ipc stream": (ARROW_STREAM, lambda c: in_memory(pl.DataFrame(c).write_ipc_stream)),
    "polars csv": (CSV, lambda c: in_memory(pl.DataFrame(c).write_csv)),
    "polars ndjson": (NDJSON, lambda c: in_memory(pl.DataFrame(c).write_ndjson)),
    "polars Categorical": (ARROW_STREAM, lambda c: in_memory(categorical(c, pl.Categorical).write_ipc_stream)),
    "polars Enum": (ARROW_FILE, lambda c: in_memory(enums(c).write_ipc)),
    "pandas parquet": (PARQUET, lambda c: in_memory(pd.DataFrame(c).to_parquet)),
    "pandas feather": (ARROW_FILE, lambda c: in_memory(pd.DataFrame(c).to_feather)),
    "pandas csv": (CSV, lambda c: in_memory(pd.DataFrame(c).to_csv)),
    "pandas json lines": (NDJSON, lambda c: text_in_memory(pd.DataFrame(c).to_json, orient="records", lines=True)),
    "pandas category": (PARQUET, lambda c: in_memory(categories(c).to_parquet)),
    "duckdb parquet": (PARQUET, lambda c: duckdb_file(c, "parquet")),
    "duckdb csv": (CSV, lambda c: duckdb_file(c, "csv")),
    "duckdb json": (NDJSON, lambda c: duckdb_file(c, "json")),
    "duckdb stream": (ARROW_STREAM, duckdb_stream),
    "R factor": (ARROW_STREAM, lambda c: arrow(factors(c, pa.int32()), pa.ipc.new_stream)),
    "R factor int8": (PARQUET, lambda c: parquet(factors(c, pa.int8()))),
    "R ordered factor": (ARROW_FILE, lambda c: arrow(factors(c, pa.int32(), ordered=True), pa.ipc.new_file)),
}

PATHS: list[Path] = []


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlaskClient]:
    """Return a client of one application for all tests of this file."""
    PATHS.append(tmp_path_factory.mktemp("duckdb"))
    yield create_app(Settings(data_dir=tmp_path_factory.mktemp("clients") / "data", log_level="error")).test_client()
    PATHS.clear()


def send(client: FlaskClient, url: str, config: Any, **parts: tuple[str, bytes]) -> Any:
    """Send a form of files, which must be accepted."""
    data = {"config": (io.BytesIO(json.dumps(config).encode()), "config", "application/json")}
    data |= {name: (io.BytesIO(content), name, media_type) for name, (media_type, content) in parts.items()}
    response = client.post(url, data=data)
    assert response.status_code in (200, 201), response.get_data(as_text=True)
    return response.json


def labels(client: FlaskClient) -> list[tuple[Any, Any]]:
    """Return the ids and labels of the labelled samples."""
    return [(record["id"], record["label"]) for record in get(client, "/projects/p/labels")["labels"]]


@pytest.mark.parametrize(("media_type", "write"), CLIENTS.values(), ids=CLIENTS)
def test_a_table_of_each_client_is_read_as_each_part(
    client: FlaskClient, media_type: str, write: Callable[[Columns], bytes]
) -> None:
    def part(columns: Columns, *names: str) -> tuple[str, bytes]:
        return media_type, write({name: columns[name] for name in names or columns})

    config = {"project_id": "p", "replace": True, "estimator": "gaussian_nb"}
    roles = {"id": "key", "label": "kind"}
    whole = send(client, "/fit", {**config, "columns": roles}, X=part(COLUMNS), X_test=part(TRUTH))
    assert (whole["feature_names"], whole["test_score"]["accuracy"]) == (NAMES, 1.0)
    assert labels(client) == [("a", "young"), ("d", "old")]
    more = {**COLUMNS, "key": ["e", "f", "g", "h"]}
    assert send(client, "/projects/p/pool", {}, X=part(more, *reversed(COLUMNS)))["n_labeled"] == 4
    held_out = {"X_test": part(TRUTH, *NAMES), "y_test": part(TRUTH, "kind")}
    split = send(
        client, "/fit", config, X=part(COLUMNS, *NAMES), y=part(COLUMNS, "kind"), ids=part(COLUMNS, "key"), **held_out
    )
    kept = {key: whole[key] for key in ("n_labeled", "classes", "feature_names", "test_score")}
    assert {key: split[key] for key in kept} == kept
    assert labels(client) == [("a", "young"), ("d", "old")]
    with np.load(io.BytesIO(client.get("/projects/p/export").data)) as archive:
        assert np.array_equal(archive["pool-1"], ROWS)
