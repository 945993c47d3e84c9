"""Projects whose labels are numbers: POST /fit with "target": "number"."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import skops.io
from flask.testing import FlaskClient

from service.app import create_app
from service.domain.number_table import NumberTable
from service.domain.votes import Votes
from service.settings import Settings
from tests.support.calls import get, post
from tests.support.estimators import REGRESSORS
from tests.support.strategies import FOR_NUMBERS

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 3))
TRUTH = X @ [1.0, 2.0, 3.0] + RNG.normal(size=60) / 10
Y = [*TRUTH[:10].tolist(), *[None] * 50]
RIDGE = {"X": X.tolist(), "y": Y, "estimator": "ridge"}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlaskClient]:
    """Return a client of one application for all tests; each makes a project of its own."""
    data: Path = tmp_path_factory.mktemp("numbers")
    yield create_app(Settings(data_dir=data, log_level="error")).test_client()


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """Return the name of this test's project."""
    return "".join(each if each.isalnum() else "-" for each in request.node.name)[-64:].strip("-")


def npy(array: Any) -> io.BytesIO:
    file = io.BytesIO()
    np.save(file, np.asarray(array))
    file.seek(0)
    return file


def fit_form(client: FlaskClient, expect: int = 201, y: Any = None, **config: Any) -> Any:
    form = {
        "config": (io.BytesIO(json.dumps(config).encode()), "config", "application/json"),
        "X": (npy(X), "X.npy", "application/x-npy"),
        "y": (npy(y), "y.npy", "application/x-npy"),
    }
    response = client.post("/fit", data=form, content_type="multipart/form-data")
    assert response.status_code == expect, response.json
    return response.json


def test_numbers_that_are_not_whole_make_a_target_of_numbers(client: FlaskClient, name: str) -> None:
    made = post(client, "/fit", 201, project_id=name, **RIDGE, X_test=X[40:].tolist(), y_test=TRUTH[40:].tolist())
    assert (made["target"], made["consensus"], made["classes"], made["class_counts"]) == ("number", "median", [], [])
    assert set(made["test_score"]) == {"rmse", "mae", "r2"}
    assert made["test_score"]["r2"] > 0.9
    assert get(client, f"/projects/{name}")["target"] == "number"


@pytest.mark.parametrize(
    ("y", "target", "found"),
    [([1, 2, None], None, "class"), ([1, 2, None], "number", "number"), ([1, 2.5, None], None, "number")],
)
def test_whole_numbers_are_classes_unless_the_request_says_otherwise(
    client: FlaskClient, name: str, y: Any, target: str | None, found: str
) -> None:
    fields = {} if target is None else {"target": target}
    made = post(client, "/fit", 201, project_id=name, X=[[0.0], [1.0], [2.0]], y=y, estimator="k_neighbors", **fields)
    assert (made["target"], made["n_labeled"]) == (found, 2)


@pytest.mark.parametrize(
    ("y", "target", "found"),
    [
        (np.where(np.arange(60) < 9, np.round(TRUTH), np.nan), {}, "class"),
        (np.where(np.arange(60) < 9, np.round(TRUTH), np.nan), {"target": "number"}, "number"),
        (np.where(np.arange(60) < 9, TRUTH, np.nan).astype(np.float16), {}, "number"),
        (np.arange(60), {"target": "number"}, "number"),
    ],
)
def test_a_column_of_numbers_is_read_as_a_list_is(
    client: FlaskClient, name: str, y: Any, target: dict[str, str], found: str
) -> None:
    made = fit_form(client, project_id=name, y=y, estimator="k_neighbors", **target)
    assert (made["target"], made["n_labeled"]) == (found, int(np.isfinite(y).sum()))


WRONG = [
    ({"y": ["a", "b"], "target": "number"}, "/y/0", "is a string"),
    ({"y": [True, False], "target": "number"}, "/y/0", "is a boolean"),
    ({"y": [1.5, "b"]}, "/y/1", "must be a number"),
    ({"y": [1.5, True]}, "/y/1", "must be a number"),
    ({"y": [1.5, 1e200]}, "/y/1", "must be a number"),
    ({"y": [1.0, 2.0]}, "/y/0", '"target": "number"'),
    ({"y": [1.5, 2], "target": "class"}, "/y/0", '"target": "number"'),
    ({"y": [1, 2], "X_test": [[1.0]], "y_test": [None], "target": "number"}, "/y_test/0", "must be a label"),
    ({"y": [1, 2], "target": "numbers"}, "/target", "number"),
    ({"y": [1.5, 2], "classes": ["a", "b"]}, "/classes", "only target 'class' or 'labels' has classes"),
    ({"y": [1.5, 2], "consensus": "crowdlab"}, "/consensus", "'median'"),
    ({"y": [1, 2], "consensus": "median"}, "/consensus", "'crowdlab' or 'majority'"),
    ({"y": [1.5, 2], "calibration": "temperature"}, "/calibration", "'none'"),
    ({"y": [1.5, 2], "estimator": "svc"}, "/estimator", "'ridge'"),
    ({"y": [1, 2], "estimator": "ridge"}, "/estimator", "'logistic_regression'"),
    (
        {"y": [1.5, 2], "estimator": {"name": "random_forest", "params": {"class_weight": "balanced"}}},
        "/estimator/params/class_weight",
        "has no meaning",
    ),
]


@pytest.mark.parametrize(("fields", "pointer", "words"), WRONG)
def test_what_does_not_fit_the_target_is_refused(
    client: FlaskClient, name: str, fields: Any, pointer: str, words: str
) -> None:
    refused = post(
        client, "/fit", 422, **{"project_id": name, "X": [[0.0], [1.0]], "estimator": "k_neighbors"} | fields
    )
    assert refused["errors"][0]["pointer"] == pointer
    assert words in refused["errors"][0]["detail"]
    assert client.get(f"/projects/{name}").status_code == 404


def test_an_infinite_number_is_no_label(client: FlaskClient, name: str) -> None:
    refused = fit_form(client, 422, project_id=name, y=np.where(np.arange(60) == 3, np.inf, TRUTH))
    assert refused["errors"][0]["pointer"] == "/y/3"


def test_a_project_keeps_its_target(client: FlaskClient, name: str) -> None:
    post(client, "/fit", 201, project_id=name, **RIDGE)
    refused = post(client, "/fit", 422, project_id=name, target="class")
    assert refused["errors"][0]["pointer"] == "/target"
    assert post(client, "/fit", project_id=name, target="number")["target"] == "number"
    replaced = post(client, "/fit", project_id=name, replace=True, X=[[0.0], [1.0]], y=["a", "b"])
    assert (replaced["target"], replaced["consensus"]) == ("class", "crowdlab")


def test_labels_are_numbers_in_and_out_and_the_median_counts(client: FlaskClient, name: str) -> None:
    post(client, "/fit", 201, project_id=name, X=[[float(i)] for i in range(5)], target="number", estimator="ridge")
    votes = [("ada", 1), ("bea", 2.5), ("cho", 10)]
    labels = [{"index": 0, "annotator": who, "label": label} for who, label in votes]
    reply = post(client, "/label", project_id=name, labels=[*labels, {"index": 3, "label": -4}])
    assert (reply["n_labeled"], reply["model_version"]) == (2, 1)
    records = get(client, f"/projects/{name}/labels")["labels"]
    assert [each["label"] for each in records] == [1.0, 2.5, 10.0, -4.0]
    assert [each["consensus"] for each in records] == [2.5, 2.5, 2.5, -4.0]
    again = post(client, "/label", project_id=name, labels=[{"index": 3, "label": -4.0}])
    assert again["n_changed"] == 0
    post(client, "/label", project_id=name, labels=[{"index": 0, "annotator": "bea", "label": None}])
    samples = get(client, f"/projects/{name}/samples?status=labeled")["samples"]
    assert [each["label"] for each in samples] == [5.5, -4.0]  # the mean of two, which nobody gave


@pytest.mark.parametrize("label", ["a", True])
def test_other_labels_are_refused_in_a_project_of_numbers(client: FlaskClient, name: str, label: Any) -> None:
    post(client, "/fit", 201, project_id=name, X=[[0.0], [1.0]], target="number", estimator="ridge")
    refused = post(client, "/label", 422, project_id=name, labels=[{"index": 0, "label": label}])
    assert refused["errors"][0]["pointer"] == "/labels/0/label"


def test_a_number_is_no_class(client: FlaskClient, name: str) -> None:
    post(client, "/fit", 201, project_id=name, X=[[0.0], [1.0]])
    refused = post(client, "/label", 422, project_id=name, labels=[{"index": 0, "label": 1.5}])
    assert refused["errors"][0]["pointer"] == "/labels/0/label"
    assert '"target": "number"' in refused["detail"]


def test_missing_labels_of_numbers(client: FlaskClient, name: str) -> None:
    y, rows = [1.5, -1, None, 3, -999.5], [[float(i)] for i in range(5)]
    made = post(client, "/fit", 201, project_id=name, X=rows, y=y, missing_label=-999.5, estimator="ridge")
    assert made["n_labeled"] == 3  # -1 is a number like any other
    appended = post(client, f"/projects/{name}/pool", X=[[7.0], [8.0]], y=[None, 2])
    assert (appended["n_labeled"], appended["n_samples"]) == (4, 7)


def test_an_export_is_imported_with_its_numbers(client: FlaskClient, name: str) -> None:
    post(client, "/fit", 201, project_id=name, **RIDGE, X_test=X[40:].tolist(), y_test=TRUTH[40:].tolist())
    post(client, "/label", project_id=name, labels=[{"index": 9, "label": 7.25, "annotator": who} for who in "ab"])
    before = get(client, f"/projects/{name}")
    archive = client.get(f"/projects/{name}/export").data
    reply = client.post(f"/projects/import?project_id={name}-copy", data=archive, content_type="application/zip")
    assert reply.status_code == 201, reply.json
    assert (reply.json["target"], reply.json["test_score"]) == ("number", before["test_score"])
    path = f"/projects/{name}{{}}/labels"
    assert get(client, path.format("-copy")) == get(client, path.format(""))
    curves = [get(client, f"/projects/{name}{end}/learning-curve")["points"][-1] for end in ("", "-copy")]
    assert curves[0]["test_score"] == curves[1]["test_score"] == before["test_score"]


@pytest.mark.parametrize("estimator", REGRESSORS)
def test_every_estimator_of_numbers_learns_and_predicts(client: FlaskClient, name: str, estimator: str) -> None:
    trees = estimator in ("auto", "random_forest", "extra_trees")
    spec = {"name": estimator, "params": {"n_estimators": 10} if trees else {}}
    made = post(client, "/fit", 201, project_id=name, X=X.tolist(), y=TRUTH.tolist(), estimator=spec)
    assert (made["target"], made["model_version"]) == ("number", 1)
    page = get(client, f"/projects/{name}/predictions")
    assert page["classes"] == []
    predicted = np.array([each["label"] for each in page["predictions"]])
    assert np.corrcoef(predicted, TRUTH)[0, 1] > 0.8
    assert all(each["confidence"] is None for each in page["predictions"])


def test_predicted_numbers_in_every_format(client: FlaskClient, name: str) -> None:
    post(client, "/fit", 201, project_id=name, **RIDGE)
    path = f"/projects/{name}/predictions"
    numbers = [each["label"] for each in get(client, path)["predictions"]]
    column = np.load(io.BytesIO(client.get(path, headers={"Accept": "application/x-npy"}).data))
    assert column == pytest.approx(numbers)
    lines = client.get(path, headers={"Accept": "text/csv"}).text.splitlines()
    assert float(lines[1].split(",")[2]) == pytest.approx(numbers[0])
    assert client.get(path, headers={"Accept": "application/vnd.apache.parquet"}).status_code == 200
    refused = client.get(f"{path}?min_confidence=0.5")
    assert (refused.status_code, refused.json["errors"][0]["pointer"]) == (422, "/query/min_confidence")


def test_a_model_of_numbers_is_evaluated_and_reported(client: FlaskClient, name: str) -> None:
    post(client, "/fit", 201, project_id=name, X=X.tolist(), y=TRUTH.tolist(), estimator="ridge")
    found = get(client, f"/projects/{name}/evaluation")
    assert (found["n"], found["accuracy"]) == (60, None)
    assert found["rmse"]["low"] <= found["rmse"]["value"] <= found["rmse"]["high"] < 1
    assert found["mae"]["value"] <= found["rmse"]["value"]
    assert found["r2"]["value"] > 0.9
    report = get(client, f"/projects/{name}/report")
    assert client.get(f"/projects/{name}/page").status_code == 200
    assert (report["verdict"], report["classes"], report["suspect_labels"]) == ("stop", [], [])
    assert any("RMSE" in reason for reason in report["reasons"])


def test_the_gain_of_numbers_is_by_how_much_the_error_falls(client: FlaskClient, name: str) -> None:
    known = [*TRUTH[:40].tolist(), *[None] * 20]
    test = {"X_test": X[40:].tolist(), "y_test": TRUTH[40:].tolist()}
    post(client, "/fit", 201, project_id=name, X=X.tolist(), y=[*known[:6], *[None] * 54], estimator="ridge", **test)
    for start in (6, 10, 20, 30):
        records = [{"index": index, "label": known[index]} for index in range(start, min(start + 10, 40))]
        post(client, "/label", project_id=name, labels=records)
    details = [event["details"] for event in get(client, f"/projects/{name}/events")["events"]]
    assert [each.get("target") for each in details if "model_version" in each] == ["number"] * 5
    report = get(client, f"/projects/{name}/report")
    gain = report["expected_gain"]
    assert 0 <= gain["low"] <= gain["next_batch"] <= gain["high"] < 1
    assert "held-out" in gain["measured_on"]
    assert any("lower the RMSE by" in reason for reason in report["reasons"])
    assert "RMSE" in client.get(f"/projects/{name}/page").text


def test_a_strategy_for_classes_is_refused_with_those_for_numbers(client: FlaskClient, name: str) -> None:
    post(client, "/fit", 201, project_id=name, **RIDGE)
    refused = post(client, "/query", 422, project_id=name, strategy="margin")
    assert refused["errors"][0]["pointer"] == "/strategy"
    assert "'max_herding'" in refused["detail"]


@pytest.mark.slow
def test_a_million_numbers_take_little_memory_and_time() -> None:
    numbers = RNG.normal(size=1_000_000)
    table = NumberTable.empty().with_numbers(numbers)
    votes = Votes.anonymous(np.arange(len(numbers)), table.codes_of(numbers), 0)
    assert table.n_bytes == 8 * len(numbers)
    assert len(table.with_numbers(np.array([0.5, numbers[7]]))) == len(numbers) + 1
    assert len(table.resolve(votes).labeled) == len(numbers)


@pytest.fixture(scope="module")
def asked_about(client: FlaskClient) -> str:
    """Return the name of a project of numbers with a forest."""
    spec = {"name": "extra_trees", "params": {"n_estimators": 10}}
    post(client, "/fit", 201, project_id="asked", X=X.tolist(), y=Y, estimator=spec)
    return "asked"


@pytest.mark.parametrize("strategy", FOR_NUMBERS)
def test_every_strategy_for_numbers_asks_and_explains(client: FlaskClient, asked_about: str, strategy: str) -> None:
    asked = {"project_id": asked_about, "strategy": strategy, "batch_size": 5}
    plain = post(client, "/query", **asked)
    assert len(set(plain["indices"])) == 5
    assert min(plain["indices"]) >= 10
    explained = post(client, "/query", **asked, explain=True)
    assert explained["indices"] == plain["indices"]
    predictions = get(client, f"/projects/{asked_about}/predictions")["predictions"]
    for index, each in zip(plain["indices"], explained["explanations"], strict=True):
        assert each["predicted_label"] == pytest.approx(predictions[index]["label"])
        assert each["nearest_labeled"]["label"] == Y[each["nearest_labeled"]["index"]]
        assert each["probabilities"] is None
        assert each["scores"] is None or each["scores"].keys() == {"committee_variance"}


def test_auto_asks_by_the_trees_of_a_forest(client: FlaskClient, asked_about: str) -> None:
    asked = {"project_id": asked_about, "batch_size": 3, "random_state": 0}
    auto = post(client, "/query", **asked)
    assert (auto["strategy"], auto["indices"]) == ("lcmd", post(client, "/query", **asked, strategy="lcmd")["indices"])


def test_predictions_of_a_callers_members(client: FlaskClient, asked_about: str) -> None:
    members = RNG.normal(size=(4, 60))
    wanted = np.argsort(-members.var(axis=0))
    asked = {"strategy": "committee_variance", "member_predictions": members.tolist()}
    alone = post(client, "/query", **asked, batch_size=3)
    assert (alone["indices"], alone["n_unlabeled"]) == (wanted[:3].tolist(), 60)
    within = post(client, "/query", **asked, project_id=asked_about, batch_size=3)
    assert within["indices"] == wanted[wanted >= 10][:3].tolist()
    form = {
        "config": (io.BytesIO(b'{"batch_size": 3, "strategy": "committee_variance"}'), "config", "application/json"),
        "member_predictions": (npy(members), "m.npy", "application/x-npy"),
    }
    assert client.post("/query", data=form, content_type="multipart/form-data").json["indices"] == alone["indices"]
    chosen = post(client, "/query", member_predictions=members.tolist(), explain=True)
    assert (chosen["strategy"], chosen["classes"]) == ("lcmd", None)
    assert chosen["explanations"][0]["predicted_label"] == pytest.approx(members[:, chosen["indices"][0]].mean())


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"member_predictions": [[1.0, 2.0]], "strategy": "margin"}, "/strategy"),
        ({"X": [[1.0], [2.0]], "y": [1.5, None], "strategy": "margin"}, "/strategy"),
        ({"X": [[1.0], [2.0]], "y": ["a", None], "strategy": "lcmd"}, "/y/0"),
        ({"X": [[1.0], [2.0]], "y": [1.5, None], "strategy": "greedy_y"}, "/member_predictions"),
        ({"X": [[1.0], [2.0]], "y": [1.5, None], "strategy": "committee_variance"}, "/member_predictions"),
        ({"member_predictions": [[1.0, 2.0]], "X": [[1.0]]}, "/member_predictions"),
        ({"member_predictions": [[1.0, 2.0], [1.0]]}, "/member_predictions/1"),
        ({"member_predictions": [[1e200, 2.0]]}, "/member_predictions/0"),
        ({"member_predictions": [[1.0]], "probabilities": [[0.5, 0.5]]}, "/member_predictions"),
        ({"project_id": "asked", "probabilities": [[0.5, 0.5]] * 60}, "/probabilities"),
        ({"project_id": "asked", "member_predictions": [[1.0]]}, "/member_predictions"),
    ],
)
def test_arrays_that_do_not_fit_numbers_are_refused(
    client: FlaskClient, asked_about: str, fields: Any, pointer: str
) -> None:
    assert post(client, "/query", 422, **fields)["errors"][0]["pointer"] == pointer


def test_numbers_of_arrays_without_a_model(client: FlaskClient) -> None:
    rows = {"X": X.tolist(), "y": Y}
    assert post(client, "/query", **rows)["strategy"] == "max_herding"
    assert post(client, "/query", **rows, strategy="lcmd")["n_labeled"] == 10
    whole = post(client, "/query", X=[[0.0], [1.0], [5.0]], y=[1, None, None], strategy="lcmd")
    assert (whole["indices"], whole["strategy"]) == ([2], "lcmd")


def test_lists_say_for_which_targets_everything_is(client: FlaskClient) -> None:
    strategies = {each["name"]: each["targets"] for each in get(client, "/strategies")["strategies"]}
    estimators = {each["name"]: each["targets"] for each in get(client, "/estimators")["estimators"]}
    assert (strategies["margin"], strategies["lcmd"]) == (["class"], ["number"])
    assert {"class", "number"} <= {*strategies["random"]} & {*estimators["auto"]}
    assert estimators["ridge"] == ["number"]


@pytest.mark.parametrize("kind", ["csv", "ndjson", "parquet", "rows"])
def test_numbers_in_tables(client: FlaskClient, name: str, kind: str) -> None:
    rows = [{"a": float(i), "b": float(i % 3), "target": y} for i, y in enumerate([1.5, None, -2.0, 4, 1e-3])]
    columns = {"columns": {"features": ["a", "b"], "label": "target"}, "project_id": name, "estimator": "ridge"}
    if kind == "rows":
        made = client.post("/fit", json={"X": rows, **columns})
    elif kind == "ndjson":
        lines = "\n".join(json.dumps({"x": [row["a"], row["b"]], "y": row["target"]}) for row in rows)
        config = json.dumps({"project_id": name, "estimator": "ridge"})
        made = client.post("/fit", query_string={"config": config}, data=lines, content_type="application/x-ndjson")
    else:
        file, frame = io.BytesIO(), pd.DataFrame(rows)
        if kind == "csv":
            frame.to_csv(file, index=False)
        else:
            frame.to_parquet(file)
        media_type = {"csv": "text/csv", "parquet": "application/vnd.apache.parquet"}[kind]
        config = io.BytesIO(json.dumps(columns).encode())
        form = {
            "config": (config, "config", "application/json"),
            "X": (io.BytesIO(file.getvalue()), "X", media_type),
        }
        made = client.post("/fit", data=form, content_type="multipart/form-data")
    assert made.status_code == 201, made.json
    assert (made.json["target"], made.json["n_labeled"], made.json["n_features"]) == ("number", 4, 2)
    labels = [each["label"] for each in get(client, f"/projects/{name}/labels")["labels"]]
    assert labels == [1.5, -2.0, 4.0, 0.001]


def test_decimals_in_csv_are_classes_where_the_request_says_so(client: FlaskClient, name: str) -> None:
    config = io.BytesIO(
        json.dumps(
            {"project_id": name, "target": "class", "estimator": "gaussian_nb", "columns": {"label": "v"}}
        ).encode()
    )
    table = io.BytesIO(b"a,v\n1,1.5\n2,2.5\n")
    form = {"config": (config, "c", "application/json"), "X": (table, "X", "text/csv")}
    made = client.post("/fit", data=form, content_type="multipart/form-data")
    assert made.json["classes"] == ["1.5", "2.5"]


def test_the_spread_of_several_labels_is_shown(client: FlaskClient, name: str) -> None:
    post(client, "/fit", 201, project_id=name, X=[[0.0], [1.0]], target="number", estimator="ridge")
    labels = [{"index": 0, "annotator": who, "label": label} for who, label in (("a", 1), ("b", 2), ("c", 6))]
    post(client, "/label", project_id=name, labels=[*labels, {"index": 1, "skip": True, "annotator": "a"}])
    path = f"/projects/{name}/labels"
    assert [each["spread"] for each in get(client, path)["labels"]] == [*[pytest.approx(np.std([1, 2, 6]))] * 3, None]
    assert client.get(path, headers={"Accept": "text/csv"}).text.splitlines()[0].endswith(",consensus,quality,spread")
    annotators = get(client, f"/projects/{name}/annotators")["annotators"]
    assert [each["agreement"] for each in annotators] == [None, None, None]


def test_the_curve_has_the_error_and_the_report_whether_predictions_change(client: FlaskClient, name: str) -> None:
    post(client, "/fit", 201, project_id=name, X=X.tolist(), y=TRUTH.tolist(), estimator="ridge")
    for index in range(3):
        post(client, "/label", project_id=name, labels=[{"index": index, "label": TRUTH[index] + 0.01}])
    points = get(client, f"/projects/{name}/learning-curve")["points"]
    assert points[0]["estimate"]["low"] <= points[0]["estimate"]["value"] < 1
    assert points[-1]["batch_accuracy"] is None
    found = get(client, f"/projects/{name}/report")["stabilizing_predictions"]
    assert found["n_models"] == 3
    assert 0.99 < found["kappa"] <= 1


@pytest.mark.parametrize("estimator", REGRESSORS)
def test_models_of_numbers_are_exported(client: FlaskClient, name: str, estimator: str) -> None:
    trees = estimator in ("auto", "random_forest", "extra_trees")
    spec = {"name": estimator, "params": {"n_estimators": 10} if trees else {}}
    rows = X.astype(np.float32).astype(np.float64)
    post(client, "/fit", 201, project_id=name, X=rows.tolist(), y=TRUTH.tolist(), estimator=spec)
    predicted = [each["label"] for each in get(client, f"/projects/{name}/predictions")["predictions"]]
    data = client.get(f"/projects/{name}/model?format=skops").data
    model = skops.io.loads(data, trusted=skops.io.get_untrusted_types(data=data))
    assert model.predict(rows) == pytest.approx(predicted)
    response = client.get(f"/projects/{name}/model?format=onnx")
    if estimator in ("hist_gradient_boosting", "gaussian_process"):  # whose float32 results are others
        assert response.status_code == 422
        return
    assert response.status_code == 200, response.json
    found = onnxruntime.InferenceSession(response.data).run(None, {"X": rows.astype(np.float32)})[0]
    assert np.ravel(found) == pytest.approx(predicted, rel=1e-3, abs=1e-3)
