"""Projects whose samples may have several labels, through HTTP."""

from __future__ import annotations

import json
from dataclasses import replace
from io import BytesIO

import numpy as np
import onnxruntime
import pytest
import skops.io
from scipy import sparse
from sklearn.pipeline import Pipeline

from service.usecases.simulation_queue import SimulationQueue
from service.usecases.simulations import run_simulation
from tests.support.calls import get, line_pool, post, wait_for_simulation
from tests.support.npy import npy

Y = [["a"], ["a", "b"], [], ["b"], ["b", "a"], None]


def make(client, y=Y, n=12, expect=201, **fields):
    """Create a project of n rows [i, 1], of which the first have labels."""
    y = [*y, *[None] * (n - len(y))] if isinstance(y, list) else y
    return post(client, "/fit", expect, project_id="p", X=line_pool(n), y=y, target="labels", **fields)


def errors_of(reply):
    """Return the pointers and details of a problem document."""
    return {error["pointer"]: error["detail"] for error in reply["errors"]}


def test_a_project_of_lists_is_fitted_queried_and_predicted(client):
    project = make(client)
    assert project["target"] == "labels"
    assert (project["classes"], project["class_counts"]) == (["a", "b"], [3, 3])
    assert (project["n_labeled"], project["model_version"], project["consensus"]) == (5, 1, "majority")
    labels = get(client, "/projects/p/labels")["labels"]
    assert [record["label"] for record in labels] == [["a"], ["a", "b"], [], ["b"], ["a", "b"]]
    query = post(client, "/query", project_id="p", batch_size=3)
    assert query["strategy"] == "power" and len(set(query["indices"]) - set(range(5))) == 3
    [first, *_] = get(client, "/projects/p/predictions?probabilities=true")["predictions"]
    assert isinstance(first["label"], list) and len(first["probabilities"]) == 2
    assert 0 <= first["confidence"] <= 1


def test_labels_are_added_by_post_label(client):
    make(client)
    reply = post(
        client, "/label", project_id="p", labels=[{"index": 7, "label": []}, {"index": 8, "label": ["c", "a"]}]
    )
    assert (reply["n_labeled"], reply["n_changed"], reply["model_version"]) == (7, 2, 2)
    assert get(client, "/projects/p")["classes"] == ["a", "b", "c"]
    again = post(client, "/label", project_id="p", labels=[{"index": 8, "label": ["a", "c"]}])
    assert again["n_changed"] == 0


CLASSES = ["a", "b", "c"]
LISTS = [["a"], ["a", "b"], [], ["c"], None, ["b"]]
MATRIX = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 0, 1], [np.nan] * 3, [0, 1, 0]])


def table(kind, y):
    """Return the bytes of a table of columns x, z and label, whose labels are lists, and its media type."""
    pa = pytest.importorskip("pyarrow")
    columns = pa.table({"x": [float(i) for i in range(len(y))], "z": [1.0] * len(y), "label": pa.array(y)})
    out = BytesIO()
    if kind == "parquet":
        pytest.importorskip("pyarrow.parquet").write_table(columns, out)
        return out.getvalue(), "application/vnd.apache.parquet"
    with pa.ipc.new_stream(out, columns.schema) as writer:
        writer.write_table(columns)
    return out.getvalue(), "application/vnd.apache.arrow.stream"


def as_form(y, media_type, **config):
    """Return a form with a pool, and labels in a format."""
    config = {"project_id": "p", "target": "labels", "estimator": "logistic_regression", "X": line_pool(6), **config}
    return {
        "config": (BytesIO(json.dumps(config).encode()), "config", "application/json"),
        "y": (BytesIO(y), "y", media_type),
    }


def npz(matrix):
    out = BytesIO()
    sparse.save_npz(out, sparse.csr_array(np.nan_to_num(matrix)))
    return out.getvalue()


def bodies():
    """Return requests that send LISTS in several formats, by name."""
    with_classes = {"classes": CLASSES}
    lines = "\n".join(
        json.dumps({"x": row, **({} if y is None else {"y": y})}) for row, y in zip(line_pool(6), LISTS, strict=True)
    )
    config = json.dumps({"project_id": "p", "target": "labels", "estimator": "logistic_regression"})
    return {
        "npy": {"data": as_form(npy(MATRIX), "application/x-npy", **with_classes)},
        "fortran npy": {"data": as_form(npy(np.asfortranarray(MATRIX)), "application/x-npy", **with_classes)},
        "json column": {"data": as_form(json.dumps(LISTS).encode(), "application/json")},
        "line column": {"data": as_form("\n".join(map(json.dumps, LISTS)).encode(), "application/x-ndjson")},
        "lines": {"data": lines, "content_type": "application/x-ndjson", "query_string": {"config": config}},
    }


@pytest.mark.parametrize("name", list(bodies()))
def test_labels_are_read_from_each_format(client, name):
    reply = client.post("/fit", **bodies()[name])
    assert reply.status_code == 201, reply.json
    given = {record["index"]: record["label"] for record in get(client, "/projects/p/labels")["labels"]}
    assert given == {index: label for index, label in enumerate(LISTS) if label is not None}


@pytest.mark.parametrize("kind", ["arrow", "parquet"])
def test_labels_are_a_column_of_lists_in_tables(client, kind):
    data, media_type = table(kind, LISTS)
    config = {"project_id": "p", "target": "labels", "columns": {"label": "label"}, "estimator": "logistic_regression"}
    form = {"config": (BytesIO(json.dumps(config).encode()), "config", "application/json")}
    reply = client.post("/fit", data={**form, "X": (BytesIO(data), "X", media_type)})
    assert reply.status_code == 201, reply.json
    assert reply.json["class_counts"] == [2, 2, 1]


def test_labels_are_a_sparse_matrix_without_unlabelled_rows(client):
    reply = client.post("/fit", data=as_form(npz(MATRIX), "application/x-npz", classes=CLASSES))
    assert reply.status_code == 201, reply.json
    assert (reply.json["n_labeled"], reply.json["class_counts"]) == (6, [2, 2, 1])


def test_labels_in_csv_are_json_lists(client):
    config = {"project_id": "p", "target": "labels", "columns": {"label": "y"}, "estimator": "logistic_regression"}

    def fit(cell):
        text = f'x,y\n1,"[""a""]"\n2,{cell}\n3,[]\n4,\n'
        return client.post("/fit", data=text, content_type="text/csv", query_string={"config": json.dumps(config)})

    wrong = fit("a;b")
    assert wrong.status_code == 422 and "JSON list" in errors_of(wrong.json)["/y/1"]
    assert fit('"[""a"",""b""]"').json["class_counts"] == [2, 1]


def test_an_indicator_matrix_needs_the_classes_of_its_columns(client):
    for classes, pointer in [({}, "/y"), ({"classes": ["a"]}, "/y")]:
        reply = client.post("/fit", data=as_form(npy(MATRIX), "application/x-npy", **classes))
        assert reply.status_code == 422 and list(errors_of(reply.json)) == [pointer]
    reply = client.post("/fit", data=as_form(npy(MATRIX + 0.5), "application/x-npy", classes=CLASSES))
    assert next(iter(errors_of(reply.json))) == "/y/0/0"


@pytest.mark.parametrize(
    ("y", "pointer", "words"),
    [
        ([["a", "a"], []], "/y/0/1", "listed twice"),
        ([["a"], "b"], "/y/1", "list of classes"),
        ([["a"], [1]], "/y/1/0", "is an integer, but the first class is a string"),
        ([[True], [1]], "/y/1/0", "is an integer, but the first class is a boolean"),
        ([["a"], [1.5]], "/y/1/0", "must be a label"),
        ([["a"], [["b"]]], "/y/1/0", "must be a label"),
        ([["a"], [""]], "/y/1/0", "1 to 256"),
        ([["a"], [" "]], "/y/1", "blank"),
        ([["a"], ["nan"]], "/y/1", "missing label"),
        ([["a"], ["A"]], "/y/1", "looks like"),
        (["a", "b"], "/y/0", "list of classes"),
        ([1.5, 2.5], "/y/0", "list of classes"),
    ],
)
def test_a_wrong_label_is_refused_where_it_stands(client, y, pointer, words):
    found = errors_of(make(client, y, expect=422))
    assert words in found[pointer]
    get(client, "/projects/p", expect=404)


@pytest.mark.parametrize(
    ("label", "pointer", "words"),
    [
        (["a", "a"], "/labels/0/label/1", "listed twice"),
        (["a", 1], "/labels/0/label/1", "is an integer"),
        ([1], "/labels/0/label", "integer"),
        ("a", "/labels/0/label", "list of classes"),
        (0.5, "/labels/0/label", "list of classes"),
        (["B"], "/labels/0/label", "looks like"),
        (["None"], "/labels/0/label", "missing label"),
    ],
)
def test_a_wrong_record_changes_nothing(client, label, pointer, words):
    make(client)
    reply = post(client, "/label", 422, project_id="p", labels=[{"index": 7, "label": label}])
    assert words in errors_of(reply)[pointer]
    assert get(client, "/projects/p")["version"] == 1


def test_a_record_confirms_new_classes_that_look_like_others(client):
    make(client)
    post(client, "/label", project_id="p", labels=[{"index": 7, "label": ["B", "None"], "new_class": True}])
    assert get(client, "/projects/p")["classes"] == ["a", "b", "B", "None"]


def test_declared_classes_refuse_others(client):
    make(client, classes=["b", "a"])
    reply = post(client, "/label", 422, project_id="p", labels=[{"index": 7, "label": ["a", "z"]}])
    assert "declared classes" in errors_of(reply)["/labels/0/label"]


def test_lists_are_refused_where_a_label_is_one_class(client):
    reply = post(client, "/fit", 422, project_id="p", X=line_pool(2), y=[["a"], ["b"]])
    assert '"target": "labels"' in errors_of(reply)["/y/0"]
    post(client, "/fit", 201, project_id="p", X=line_pool(2), y=["a", "b"])
    reply = post(client, "/label", 422, project_id="p", labels=[{"index": 0, "label": ["a"]}])
    assert '"target": "labels"' in errors_of(reply)["/labels/0/label"]


MARGINALS = [[0.5, 0.5], [0.9, 0.9], [0.1, 0.2], [0.6, 0.1]]


@pytest.mark.parametrize("strategy", ["auto", "power", "mean_uncertainty", "binary_minimum", "random"])
def test_arrays_take_marginals(client, strategy):
    fields = {"probabilities": MARGINALS, "strategy": strategy, "batch_size": 2, "explain": True}
    reply = post(client, "/query", **fields, target="labels")
    assert len(reply["indices"]) == 2
    assert isinstance(reply["explanations"][0]["predicted_label"], list)
    if strategy == "mean_uncertainty":
        assert reply["indices"][0] == 0
        assert post(client, "/query", **fields)["indices"] == reply["indices"]


@pytest.mark.parametrize("strategy", ["mmc", "adaptive"])
def test_arrays_of_marginals_need_labels_for_some_strategies(client, strategy):
    reply = post(client, "/query", 422, probabilities=MARGINALS, strategy=strategy)
    assert "mean_uncertainty" in errors_of(reply)["/y"]
    y = [["a"], ["a", "b"], None, None]
    assert len(post(client, "/query", probabilities=MARGINALS, strategy=strategy, y=y, batch_size=9)["indices"]) == 2


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"probabilities": MARGINALS}, "/probabilities/1"),
        ({"probabilities": [[0.5, 1.5]], "target": "labels"}, "/probabilities/0/1"),
        ({"probabilities": MARGINALS, "target": "number"}, "/target"),
        ({"probabilities": MARGINALS, "target": "labels", "y": ["a", None, None, None]}, "/y/0"),
        ({"probabilities": MARGINALS, "target": "labels", "strategy": "margin"}, "/strategy"),
        ({"X": [[1], [2]], "y": [["a"], None], "target": "class"}, "/target"),
    ],
)
def test_wrong_arrays_are_refused(client, fields, pointer):
    assert pointer in errors_of(post(client, "/query", 422, **fields))


def test_marginals_of_your_own_model_replace_those_of_a_project(client):
    make(client, n=9)
    reply = post(
        client, "/query", project_id="p", probabilities=MARGINALS * 2 + [[0.5, 0.5]], strategy="mean_uncertainty"
    )
    assert reply["indices"] == [8]


def test_each_class_goes_by_the_majority_of_annotators(client):
    make(client)
    labels = [["a", "b"], ["a"], ["b", "a"]]
    records = [{"index": 9, "label": label, "annotator": name} for label, name in zip(labels, "xyz", strict=True)]
    post(client, "/label", project_id="p", labels=records)
    assert {record["consensus"][0] for record in get(client, "/projects/p/labels?after=8")["labels"]} == {"a"}
    assert [record["consensus"] for record in get(client, "/projects/p/labels?after=8")["labels"]] == [["a", "b"]] * 3
    post(client, "/label", project_id="p", labels=[{"index": 9, "label": [], "annotator": "x"}])
    assert get(client, "/projects/p/labels?after=8")["labels"][0]["consensus"] == ["a"]


def test_an_export_is_imported_with_the_same_labels(client):
    make(client, X_test=line_pool(3), y_test=[["a"], [], ["b"]])
    archive = client.get("/projects/p/export").get_data()
    reply = client.post("/projects/import?project_id=copy", data=archive, content_type="application/zip")
    assert reply.status_code == 201, reply.json
    assert (reply.json["target"], reply.json["test_score"]) == ("labels", get(client, "/projects/p")["test_score"])
    assert get(client, "/projects/copy/labels")["labels"] == get(client, "/projects/p/labels")["labels"]
    query = {"batch_size": 3, "strategy": "mmc"}
    ours, copy = (post(client, "/query", project_id=name, **query)["indices"] for name in ("p", "copy"))
    assert ours == copy


def test_merged_classes_are_one_in_each_list(client):
    make(client, X_test=line_pool(3), y_test=[["a"], [], ["a", "b"]])
    project = post(client, "/projects/p/classes", rename={"b": "a"})
    assert (project["classes"], project["class_counts"], project["model_version"]) == (["a"], [4], 2)
    labels = [record["label"] for record in get(client, "/projects/p/labels")["labels"]]
    assert labels == [["a"], ["a"], [], ["a"], ["a"]]


@pytest.mark.parametrize(
    ("fields", "pointer", "words"),
    [
        ({"estimator": "ridge"}, "/estimator", "'logistic_regression'"),
        ({"calibration": "temperature"}, "/calibration", "'none'"),
        ({"consensus": "crowdlab"}, "/consensus", "'majority'"),
    ],
)
def test_settings_for_other_targets_are_refused(client, fields, pointer, words):
    assert words in errors_of(make(client, expect=422, **fields))[pointer]


# Of classes a, b and c, the last of which all samples have: rows of float32, so that ONNX reads the same.
RANDOM_ROWS = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32).astype(np.float64)
OF_SIGNS = [[*(each for each, is_in in zip("ab", row > 0.2, strict=False) if is_in), "c"] for row in RANDOM_ROWS]
TREES = {"n_estimators": 10}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("estimator", "params"),
    [
        ("auto", TREES),
        ("auto", {**TREES, "class_weight": "balanced"}),
        ("logistic_regression", {"scale": True}),
        ("extra_trees", TREES),
        ("k_neighbors", {}),
        ("gaussian_nb", {}),
        ("hist_gradient_boosting", {"max_iter": 5}),
    ],
)
def test_a_model_of_lists_is_exported(client, estimator, params):
    fields = {"X": RANDOM_ROWS.tolist(), "y": OF_SIGNS, "estimator": {"name": estimator, "params": params}}
    post(client, "/fit", 201, project_id="p", target="labels", **fields)
    predictions = get(client, "/projects/p/predictions?probabilities=true")["predictions"]
    wanted = np.array([each["probabilities"] for each in predictions])
    data = client.get("/projects/p/model").data
    model = skops.io.loads(data, trusted=skops.io.get_untrusted_types(data=data))
    marginals = model.predict_proba(RANDOM_ROWS) if hasattr(model, "predict_proba") else model.predict(RANDOM_ROWS)
    assert marginals == pytest.approx(wanted, abs=1e-6)
    last = model[-1] if isinstance(model, Pipeline) else model
    lists = [last.classes_[each].tolist() for each in marginals >= last.thresholds_]
    assert lists == [each["label"] for each in predictions]
    reply = client.get("/projects/p/model?format=onnx")
    if estimator == "hist_gradient_boosting" or (estimator == "auto" and len(params) == 1):
        assert (reply.status_code, "skops takes all" in reply.json["detail"]) == (422, True)
        return
    session = onnxruntime.InferenceSession(reply.data)
    assert session.run(None, {"X": RANDOM_ROWS.astype(np.float32)})[-1] == pytest.approx(wanted, abs=1e-4)
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["classes"]) == ["a", "b", "c"]
    assert json.loads(facts["thresholds"]) == last.thresholds_.tolist()


def test_all_labels_the_same_give_no_model(client):
    assert make(client, [["a"], ["a"]])["model_version"] is None
    reply = post(client, "/query", project_id="p", strategy="mmc")
    assert "all labels are the same" in reply["fallback_reason"]
    assert "two different labels" in get(client, "/projects/p/report")["reasons"][0]


def test_the_evaluation_and_thresholds_come_from_uniform_samples(client):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 2))
    lists = [
        [name for name, is_in in zip("ab", row > 0.8, strict=True) if is_in] for row in X + rng.normal(size=(60, 2)) / 4
    ]
    fields = {"project_id": "p", "target": "labels", "estimator": "gaussian_nb"}
    post(client, "/fit", 201, X=X.tolist(), y=lists, **fields)
    found = get(client, "/projects/p/evaluation")
    assert found["n"] == 60 and found["accuracy"]["value"] > 0.5
    powered = found["accuracy_prediction_powered"]
    assert powered["low"] <= found["accuracy"]["value"] <= powered["high"]
    for name in ("f1_micro", "f1_macro", "lrap"):
        assert 0.5 < found[name]["low"] <= found[name]["value"] <= found[name]["high"] <= 1
    assert found["hamming_loss"]["value"] < 0.2
    assert "micro-averaged F1" in client.get("/projects/p/page").text
    assert client.get("/projects/p/learning-curve", headers={"Accept": "image/svg+xml"}).status_code == 200


def test_the_report_has_suspect_lists_and_the_expected_gain_of_f1(client):
    row = int(np.argmax(np.abs(RANDOM_ROWS[:55, 0])))
    wrong = ["a", *OF_SIGNS[row]] if "a" not in OF_SIGNS[row] else OF_SIGNS[row][1:]
    known = [*OF_SIGNS[:row], wrong, *OF_SIGNS[row + 1 : 55], *[None] * 5]
    post(client, "/fit", 201, project_id="p", target="labels", X=RANDOM_ROWS.tolist(), y=known, estimator="gaussian_nb")
    asked = post(client, "/query", project_id="p", purpose="evaluation", batch_size=4)["indices"]
    records = [{"index": index, "label": OF_SIGNS[index]} for index in asked]
    post(client, "/label", project_id="p", labels=records)
    report = get(client, "/projects/p/report")
    [suspect, *_] = report["suspect_labels"]
    assert (suspect["index"], suspect["given"], suspect["suggested"]) == (row, wrong, OF_SIGNS[row])
    assert suspect["quality"] < 0.2
    gain = report["expected_gain"]
    assert 0 <= gain["low"] <= gain["next_batch"] <= gain["high"] < 1
    assert any("F1 (micro)" in reason for reason in report["reasons"])
    assert get(client, "/projects/p/learning-curve")["points"][-1]["estimate"]["value"] > 0.5


@pytest.mark.parametrize("lists", [[[1, 2], [2], []], [[True], [False, True], []], [["x"], [], ["y", "x"]]])
def test_classes_of_each_type_come_back_as_they_came(client, lists):
    make(client, lists)
    given = [record["label"] for record in get(client, "/projects/p/labels")["labels"]]
    assert given == [sorted(one) for one in lists]
    assert [type(each) for one in given for each in one] == [type(each) for one in lists for each in one]


def test_appended_labels_may_be_an_indicator_matrix_of_the_classes(client):
    make(client)
    form = {
        "X": (BytesIO(npy(np.ones((2, 2)))), "X", "application/x-npy"),
        "y": (BytesIO(npy(np.array([[1, 0], [0, 1]]))), "y", "application/x-npy"),
    }
    reply = client.post("/projects/p/pool", data=form)
    assert reply.status_code == 200, reply.json
    labels = get(client, "/projects/p/labels?after=11")["labels"]
    assert [record["label"] for record in labels] == [["a"], ["b"]]


def test_replies_in_other_formats_have_lists(client):
    make(client)
    lines = client.get("/projects/p/labels", headers={"Accept": "text/csv"}).get_data(as_text=True).splitlines()
    assert '"[""a"",""b""]"' in lines[2]
    parquet = pytest.importorskip("pyarrow.parquet")
    reply = client.get("/projects/p/predictions", headers={"Accept": "application/vnd.apache.parquet"})
    labels = parquet.read_table(BytesIO(reply.get_data()))["label"].to_pylist()
    assert labels == [record["label"] for record in get(client, "/projects/p/predictions")["predictions"]]
    npy_reply = client.get("/projects/p/predictions", headers={"Accept": "application/x-npy"})
    assert np.load(BytesIO(npy_reply.get_data())).shape == (12, 2)


def test_a_refit_keeps_the_target(client):
    make(client)
    assert post(client, "/fit", project_id="p")["target"] == "labels"
    assert list(errors_of(post(client, "/fit", 422, project_id="p", target="class"))) == ["/target"]
    replaced = post(client, "/fit", 201, project_id="q", X=line_pool(2), y=["a", "b"])
    assert replaced["target"] == "class"
    again = post(client, "/fit", project_id="q", X=line_pool(2), y=[["a"], []], target="labels", replace=True)
    assert (again["target"], again["class_counts"]) == ("labels", [1])


def test_a_sparse_pool_is_fitted_and_queried(client):
    X = sparse.random_array((30, 20), density=0.2, rng=np.random.default_rng(0), format="csr")
    out = BytesIO()
    sparse.save_npz(out, X)
    lists = [["a"] if i % 2 else ["b"] if i % 3 else [] for i in range(12)] + [None] * 18
    config = {"project_id": "p", "target": "labels", "y": lists}
    form = {"config": (BytesIO(json.dumps(config).encode()), "c", "application/json")}
    reply = client.post("/fit", data={**form, "X": (BytesIO(out.getvalue()), "X", "application/x-npz")})
    assert reply.status_code == 201 and reply.json["model_version"] == 1, reply.json
    for strategy in ("auto", "mmc", "adaptive"):
        assert len(post(client, "/query", project_id="p", strategy=strategy, batch_size=4)["indices"]) == 4


def test_strategies_and_estimators_say_their_targets(client):
    strategies = {one["name"]: one["targets"] for one in get(client, "/strategies")["strategies"]}
    assert strategies["mmc"] == ["labels"] and strategies["power"] == ["class", "labels"]
    assert "labels" in strategies["k_center"] and "labels" not in strategies["margin"]
    estimators = {one["name"]: one["targets"] for one in get(client, "/estimators")["estimators"]}
    assert "labels" in estimators["auto"] and "labels" not in estimators["ridge"]


def run_in_this_process(app):
    """Let simulations run without a process of their own."""
    context = app.extensions["active-query"]
    simulations = context.store.simulations
    queue = SimulationQueue(simulations, lambda simulation_id: run_simulation(simulations, simulation_id) or 0)
    app.extensions["active-query"] = replace(context, simulations=queue)


@pytest.mark.parametrize("source", ["project", "arrays"])
def test_a_simulation_takes_lists(app, client, source):
    run_in_this_process(app)
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 2))
    lists = [[name for name, is_in in zip("ab", row > 0, strict=True) if is_in] for row in X]
    samples = {"X": X.tolist(), "y": lists}
    if source == "project":
        post(client, "/fit", 201, project_id="p", target="labels", **samples)
        samples = {"project_id": "p"}
    plan = {"estimator": "gaussian_nb", "budget": 10, "batch_size": 5, "n_initial": 5, "repeats": 1}
    wrong = post(client, "/simulate", 422, strategies=["margin"], **samples, **plan)
    assert list(errors_of(wrong)) == ["/strategies/0"]
    made = post(client, "/simulate", 202, strategies=["mmc"], **samples, **plan)
    found = wait_for_simulation(client, made["simulation_id"])
    assert (found["status"], found["error"]) == ("done", None)
    assert 0 < found["result"]["strategies"][0]["curve"][-1]["mean"] <= 1
