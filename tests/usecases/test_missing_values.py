"""`missing_values`: features that are NaN or null are refused, or learnt from and imputed."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from typing import Any
from zipfile import ZipFile

import numpy as np
import pyarrow as pa
import pytest
from flask.testing import FlaskClient
from numpy.typing import NDArray
from pyarrow import parquet
from scipy import sparse
from sklearn.impute import SimpleImputer

from service.app import create_app
from service.learning.estimators import ESTIMATORS
from service.learning.missing_values import column_medians
from service.learning.pool import Pool
from service.settings import Settings
from tests.support.calls import get, post
from tests.support.estimators import CLASSIFIERS
from tests.support.npy import npy

ALLOW = '"missing_values": "allow"'
NAN = float("nan")
QUICK = {
    "random_forest": {"n_estimators": 10},
    "extra_trees": {"n_estimators": 10},
    "hist_gradient_boosting": {"max_iter": 10},
    "mlp": {"max_iter": 20},
}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> FlaskClient:
    return create_app(Settings(data_dir=tmp_path_factory.mktemp("data"), log_level="error")).test_client()


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """Return a project id for this test alone."""
    return f"p{abs(hash(request.node.name)):x}"[:40]


def rows(missing: bool = True) -> list[list[Any]]:
    return [[0.5, 1.0], [None if missing else 2.0, 2.0], [4.0, 3.0], [5.0, 4.0]]


def table(values: list[list[Any]], *types: Any) -> Any:
    columns = [pa.array(*column) for column in zip(zip(*values, strict=True), types, strict=True)]
    return pa.table(columns, names=["a", "b"])


def arrow(table: Any, make: Any = pa.ipc.new_stream) -> bytes:
    file = io.BytesIO()
    with make(file, table.schema) as writer:
        writer.write_table(table)
    return file.getvalue()


def as_parquet(table: Any) -> bytes:
    file = io.BytesIO()
    parquet.write_table(table, file)
    return file.getvalue()


def npz(values: list[list[Any]]) -> bytes:
    file = io.BytesIO()
    sparse.save_npz(file, sparse.csr_array(np.array(values, np.float64)))
    return file.getvalue()


def as_integers(values: list[list[Any]]) -> list[list[Any]]:
    return [[cell if cell is None else int(cell) for cell in row] for row in values]


FORMATS: Mapping[str, tuple[str, Callable[[list[list[Any]]], bytes]]] = {
    "JSON": ("application/json", lambda v: json.dumps(v).encode()),
    "NDJSON": ("application/x-ndjson", lambda v: "\n".join(map(json.dumps, v)).encode()),
    "npy": ("application/x-npy", lambda v: npy(np.array(v, np.float32))),
    "npy in Fortran order": ("application/x-npy", lambda v: npy(np.asfortranarray(np.array(v, np.float64)))),
    "npz": ("application/x-npz", npz),
    "Arrow stream": ("application/vnd.apache.arrow.stream", lambda v: arrow(table(v, pa.float64(), pa.float64()))),
    "Arrow file of lists": (
        "application/vnd.apache.arrow.file",
        lambda v: (
            arrow(pa.table({"x": pa.array(v, pa.list_(pa.int32()))}), pa.ipc.new_file)
            if all(cell is None or cell == int(cell) for row in v for cell in row)
            else arrow(pa.table({"x": pa.array(v, pa.list_(pa.float32()))}), pa.ipc.new_file)
        ),
    ),
    "Parquet of integers": (
        "application/vnd.apache.parquet",
        lambda v: as_parquet(table(as_integers(v), pa.int64(), pa.int16())),
    ),
    "NaN in Parquet": (
        "application/vnd.apache.parquet",
        lambda v: as_parquet(pa.table({str(k): column for k, column in enumerate(np.array(v, np.float32).T)})),
    ),
}


def send(client: FlaskClient, url: str, config: Any, **parts: tuple[str, bytes]) -> Any:
    """Send a form of `config` and arrays in a format."""
    data: dict[str, Any] = {"config": (io.BytesIO(json.dumps(config).encode()), "config", "application/json")}
    data |= {name: (io.BytesIO(body), name, media_type) for name, (media_type, body) in parts.items()}
    return client.post(url, data=data)


def problem(response: Any) -> tuple[str, str]:
    assert response.status_code == 422, response.get_data(as_text=True)
    (error,) = response.json["errors"]
    return error["pointer"], error["detail"]


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_and_operation_refuses_a_missing_value_unless_the_project_allows_it(
    client: FlaskClient, name: str, kind: str
) -> None:
    media_type, write = FORMATS[kind]
    whole, part = (media_type, write(rows(missing=False))), (media_type, write(rows()))
    config = {"project_id": name, "y": ["a", None, "b", None]}
    new = json.loads(json.dumps(config | {"missing_values": "allow"}))
    for parts, pointer in (({"X": part}, "/X/1/0"), ({"X": whole, "X_test": part}, "/X_test/1/0")):
        tested = {"y_test": ["a", "a", "b", "b"]} if "X_test" in parts else {}
        at, detail = problem(send(client, "/fit", config | tested, **parts))
        assert (at, detail.split(";")[0], ALLOW in detail) == (pointer, "must be a finite number", True)
    get(client, f"/projects/{name}", 404)
    made = send(client, "/fit", new | {"y_test": ["a", "a", "b", "b"]}, X=part, X_test=part)
    assert (made.status_code, made.json["missing_values"]) == (201, "allow"), made.json
    assert made.json["test_score"]["accuracy"] >= 0.75
    appended = send(client, f"/projects/{name}/pool", {}, X=part)
    assert (appended.status_code, appended.json["n_samples"]) == (200, 8), appended.json
    for strategy in ("margin", "k_center"):
        assert len(post(client, "/query", project_id=name, strategy=strategy, batch_size=6)["indices"]) == 6


@pytest.mark.parametrize("field", ["X", "X_test"])
def test_an_infinite_value_is_refused_all_the_same(client: FlaskClient, name: str, field: str) -> None:
    bad = np.array([[NAN, 1.0], [1.0, np.inf]], np.float16)
    parts = {"X": npy(np.ones((2, 2))), field: npy(bad)}
    config = {"project_id": name, "missing_values": "allow"} | ({"y_test": [1, 2]} if field == "X_test" else {})
    response = send(client, "/fit", config, **{part: ("application/x-npy", body) for part, body in parts.items()})
    assert problem(response) == (f"/{field}/1/1", "must be a finite number")


def test_lines_of_samples_may_lack_values_where_the_project_allows_it(client: FlaskClient, name: str) -> None:
    lines = '{"x": [1, 2]}\n{"x": [null, 3]}\n'
    post(client, "/fit", 201, project_id=name, X=rows(missing=False))
    path, media_type = f"/projects/{name}/pool", "application/x-ndjson"
    assert problem(client.post(path, data=lines, content_type=media_type))[0] == "/1/x/0"
    post(client, "/fit", project_id=name, missing_values="allow")
    assert client.post(path, data=lines, content_type=media_type).json["n_samples"] == 6


@pytest.mark.parametrize("body", [{"X": [[1, None], [2, 3]]}, {"probabilities": [[None, 1.0]]}])
def test_a_query_about_its_own_arrays_takes_no_missing_values(client: FlaskClient, body: Any) -> None:
    (error,) = post(client, "/query", 422, strategy="random", **body)["errors"]
    assert error["detail"] == "must be a finite number"
    (field,) = body
    as_npy = send(
        client,
        "/query",
        {"strategy": "random"},
        **{field: ("application/x-npy", npy(np.array(body[field], np.float64)))},
    )
    assert problem(as_npy) == (error["pointer"], "must be a finite number")


def test_a_model_that_takes_no_missing_values_is_not_asked_about_them(client: FlaskClient, name: str) -> None:
    post(client, "/fit", 201, project_id=name, X=rows(missing=False), y=[1, None, None, 2])
    body = {"project_id": name, "missing_values": "allow"}
    client.post("/fit", json=body, headers={"Prefer": "respond-async"})
    post(client, f"/projects/{name}/pool", X=rows())
    assert len(post(client, "/query", project_id=name, strategy="margin", batch_size=6)["indices"]) == 6


N = 40
RNG = np.random.default_rng(0)


def gappy_pool() -> NDArray[np.float64]:
    """Return rows of two classes with gaps: columns 2 and 3 are missing everywhere, or in the labelled rows; row 9."""
    X = RNG.normal(size=(N, 5)) + np.where(np.arange(N) % 2, 4.0, 0.0)[:, np.newaxis]
    X[RNG.random(X.shape) < 0.2] = NAN
    X[:, 2] = NAN
    X[:24, 3] = NAN
    X[24:, 3] = RNG.normal(size=N - 24)
    X[9] = NAN
    return X


GAPPY = gappy_pool()
LABELS = [["even", "odd"][i % 2] if i < 24 else None for i in range(N)]


@pytest.mark.parametrize("estimator", CLASSIFIERS)
def test_every_estimator_learns_from_and_predicts_rows_with_gaps(
    client: FlaskClient, name: str, estimator: str
) -> None:
    spec = {"name": estimator, "params": QUICK.get(estimator, {})}
    X = np.where(np.isnan(GAPPY), None, GAPPY).tolist()
    made = post(
        client,
        "/fit",
        201,
        project_id=name,
        X=X,
        y=LABELS,
        estimator=spec,
        missing_values="allow",
        X_test=[[None] * 5, [4.0, None, None, 0.0, None], [0.1, 0.2, None, None, 0.1]],
        y_test=["odd", "odd", "even"],
    )
    assert made["model_version"] == 1
    predictions = get(client, f"/projects/{name}/predictions")["predictions"]
    truth = [["even", "odd"][i % 2] for i in range(N)]
    assert len(predictions) == N
    assert sum(p["label"] == t for p, t in zip(predictions, truth, strict=True)) >= 0.8 * N
    for strategy in ("margin", "bald", "badge", "typiclust"):
        reply = post(client, "/query", project_id=name, strategy=strategy, batch_size=4, explain=True)
        assert len(reply["indices"]) == 4
        assert all(e["predicted_label"] in ("even", "odd") for e in reply["explanations"])
        assert all(e["nearest_labeled"]["distance"] >= 0 for e in reply["explanations"])


def test_an_evaluation_is_made_of_rows_with_gaps(client: FlaskClient, name: str) -> None:
    X, y = np.where(np.isnan(GAPPY), None, GAPPY).tolist(), [["even", "odd"][i % 2] for i in range(N)]
    post(client, "/fit", 201, project_id=name, X=X, y=y, missing_values="allow")
    assert get(client, f"/projects/{name}/evaluation")["accuracy"]["value"] >= 0.8


@pytest.mark.parametrize("estimator", [name for name in CLASSIFIERS if ESTIMATORS[name].sparse])
def test_sparse_rows_may_lack_values(client: FlaskClient, name: str, estimator: str) -> None:
    X = sparse.csr_array(np.where(np.abs(np.nan_to_num(GAPPY, nan=9)) < 0.5, 0.0, GAPPY))
    file = io.BytesIO()
    sparse.save_npz(file, X)
    config = {
        "project_id": name,
        "y": LABELS,
        "missing_values": "allow",
        "estimator": {"name": estimator, "params": QUICK.get(estimator, {})},
    }
    made = send(client, "/fit", config, X=("application/x-npz", file.getvalue()))
    assert (made.status_code, made.json["model_version"]) == (201, 1), made.json
    for strategy in ("entropy", "k_center"):
        assert len(post(client, "/query", project_id=name, strategy=strategy, batch_size=40)["indices"]) == 16


def test_the_choice_is_kept_and_can_only_be_widened(client: FlaskClient, name: str) -> None:
    post(client, "/fit", 201, project_id=name, X=rows(missing=False), y=[1, None, None, 2])
    assert get(client, f"/projects/{name}")["missing_values"] == "refuse"
    post(client, "/fit", project_id=name, missing_values="allow")
    post(client, f"/projects/{name}/pool", X=rows())
    assert post(client, "/fit", project_id=name)["missing_values"] == "allow"
    narrowed = post(client, "/fit", 422, project_id=name, missing_values="refuse")
    assert narrowed["errors"][0]["pointer"] == "/missing_values"
    assert (
        post(client, "/fit", 422, project_id=name, missing_values="drop")["errors"][0]["pointer"] == "/missing_values"
    )
    asked = post(client, "/query", project_id=name, strategy="margin", batch_size=5)
    exported = client.get(f"/projects/{name}/export").data
    with ZipFile(io.BytesIO(exported)) as archive:
        pools = [np.load(archive.open(m)) for m in archive.namelist() if m.startswith("pool-")]
    assert sum(int(np.isnan(pool).sum()) for pool in pools) == 1
    copy = client.post(f"/projects/import?project_id={name}-copy", data=exported, content_type="application/zip")
    assert (copy.status_code, copy.json["missing_values"]) == (201, "allow"), copy.json
    again = post(client, "/query", project_id=f"{name}-copy", strategy="margin", batch_size=5)
    assert again["indices"] == asked["indices"]
    replaced = post(client, "/fit", project_id=name, X=rows(missing=False), replace=True)
    assert replaced["missing_values"] == "refuse"


@pytest.mark.parametrize("n_rows", [1, 2, 7, 40])
@pytest.mark.parametrize("make", [np.asarray, sparse.csr_array], ids=["dense", "sparse"])
def test_medians_equal_those_of_scikit_learn(make: Any, n_rows: int) -> None:
    X = np.where(RNG.random((n_rows, 5)) < 0.4, 0.0, GAPPY[:n_rows])
    wanted = SimpleImputer(strategy="median", keep_empty_features=True).fit(X).statistics_
    assert np.allclose(column_medians(make(X)), wanted)


def test_distances_use_the_medians_of_the_pool_and_models_its_own_rows() -> None:
    pool = Pool((GAPPY[:15], GAPPY[15:]), allows_missing=True)
    medians = column_medians(GAPPY)
    assert np.array_equal(pool.imputed.take(np.array([9, 39]))[0], medians)
    assert np.isnan(pool.take(np.array([9]))).all()
    assert Pool.of(GAPPY).medians is None
