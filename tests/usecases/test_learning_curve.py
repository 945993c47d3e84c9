"""The learning curve over HTTP: a point for every fit, whatever asked for it."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from sklearn.datasets import make_blobs

from service.app import create_app
from service.settings import Settings
from service.store import Part, Store
from service.store.files import load_small, write_small
from service.usecases.training import train
from tests.support.calls import get, post
from tests.support.serving import wait_until

PATH = "/projects/p/learning-curve"
X, Y = make_blobs(80, 2, centers=2, cluster_std=2.0, random_state=0)
LABELS = ["spam" if code else "ham" for code in Y]


def make_project(client: FlaskClient, n_labeled: int = 10, **fields: Any) -> None:
    given = [label if i < n_labeled else None for i, label in enumerate(LABELS)]
    post(client, "/fit", 201, project_id="p", X=X.tolist(), y=given, **{"estimator": "gaussian_nb"} | fields)


def label(client: FlaskClient, indices: Sequence[int], labels: Sequence[str] = LABELS, **fields: Any) -> None:
    post(client, "/label", project_id="p", labels=[{"index": i, "label": labels[i]} for i in indices], **fields)


def points(client: FlaskClient) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = get(client, PATH)["points"]
    return found


def test_every_fit_is_a_point(client: FlaskClient) -> None:
    make_project(client, 0)
    assert points(client) == []
    label(client, range(10))
    for start in (10, 20):
        asked = post(client, "/query", project_id="p", batch_size=10, strategy="margin")
        label(client, asked["indices"], query_id=asked["query_id"])
        assert points(client)[-1]["n_labeled"] == start + 10
    first, second, third = points(client)
    assert (first["batch_accuracy"], first["questions"]) == (None, {})
    assert 0 <= second["batch_accuracy"] <= 1 and second["questions"] == {"margin": 10}
    assert [point["model_version"] for point in (first, second, third)] == [1, 2, 3]
    assert third["test_score"] is None
    assert "too low" in get(client, PATH)["bias"]


def test_the_batch_accuracy_is_how_often_the_model_before_was_right(client: FlaskClient) -> None:
    make_project(client, 10)
    predicted = get(client, "/projects/p/predictions")["predictions"]
    indices = range(20, 40)
    label(client, indices)
    right = sum(predicted[i]["label"] == LABELS[i] for i in indices)
    assert points(client)[-1]["batch_accuracy"] == right / 20


def test_only_samples_that_the_model_before_had_not_seen_count(client: FlaskClient) -> None:
    make_project(client, 10)
    wrong = ["ham" if name == "spam" else "spam" for name in LABELS]
    label(client, [0], wrong)
    assert points(client)[-1]["batch_accuracy"] is None
    label(client, [0], refit="never")
    client.delete("/projects/p/labels/1")
    label(client, [1, 50], refit="never")
    label(client, [51], refit="never")
    assert client.delete("/projects/p/labels/51").status_code == 204
    post(client, "/fit", project_id="p")
    predicted = points(client)[-1]["batch_accuracy"]
    assert predicted in (0.0, 1.0), "only the sample 50 is new"
    post(client, "/fit", project_id="p")
    assert points(client)[-1]["batch_accuracy"] is None


def test_the_held_out_score_and_the_estimate_are_those_of_the_time(client: FlaskClient) -> None:
    make_project(client, 10, X_test=X[:20].tolist(), y_test=LABELS[:20])
    label(client, post(client, "/query", project_id="p", batch_size=30, explore=1.0)["indices"])
    last = points(client)[-1]
    assert last["estimate"] == get(client, "/projects/p/evaluation")["accuracy"]
    assert last["test_score"] == get(client, "/projects/p")["test_score"]
    label(client, post(client, "/query", project_id="p", batch_size=2, explore=1.0)["indices"])
    assert points(client)[-1]["estimate"] is None, "two labels more are not worth five fits"


@pytest.mark.parametrize(
    ("query", "strategy"),
    [
        ({"strategy": "entropy"}, "entropy"),
        ({"purpose": "evaluation"}, "random"),
        ({"strategy": "margin", "lease_seconds": 60, "annotator": "ada"}, "margin"),
        ({}, "uherding"),
    ],
    ids=["named", "evaluation", "leased", "auto"],
)
def test_questions_are_counted_by_the_strategy_that_asked(client: FlaskClient, query: Any, strategy: str) -> None:
    make_project(client, 10)
    asked = post(client, "/query", project_id="p", batch_size=5, **query)
    records = [{"index": i, "label": LABELS[i], "query_id": asked["query_id"]} for i in asked["indices"][1:]]
    skip = {"index": asked["indices"][0], "skip": True, "query_id": asked["query_id"]}
    elsewhere = [{"index": i, "label": LABELS[i], "query_id": "ours-1"} for i in range(8, 10)]
    post(client, "/label", project_id="p", labels=[*records, skip, *elsewhere])
    assert points(client)[-1]["questions"] == {strategy: 5}


def test_a_background_fit_is_a_point(client: FlaskClient) -> None:
    make_project(client, 10)
    label(client, range(10, 20), refit="background")
    wait_until(lambda: len(points(client)) == 2)
    assert points(client)[-1]["n_labeled"] == 20


def test_a_model_that_no_longer_predicts_does_not_prevent_the_fit_after_it(store: Store) -> None:
    client = create_app(Settings(data_dir=store.root, log_level="critical")).test_client()
    make_project(client, 10)
    snapshot = store.read("p", Part.MODEL, Part.POOL)
    broken = replace(snapshot, model=object())
    assert train(broken).measures.n_new == 0


def test_a_replaced_pool_starts_another_curve(client: FlaskClient) -> None:
    make_project(client, 10)
    post(client, "/fit", project_id="p", X=X.tolist(), y=LABELS, replace=True)
    assert [point["model_version"] for point in points(client)] == [2]


def test_an_export_keeps_the_curve_and_the_import_adds_its_fit(client: FlaskClient) -> None:
    make_project(client, 10)
    asked = post(client, "/query", project_id="p", batch_size=20, explore=1.0)
    label(client, asked["indices"], query_id=asked["query_id"])
    before = points(client)
    archive = client.get("/projects/p/export").data
    client.delete("/projects/p")
    reply = client.post("/projects/import", data=archive, content_type="application/zip")
    assert reply.status_code == 201, reply.text
    after = points(client)
    assert after[:2] == before
    assert (after[2]["model_version"], after[2]["n_labeled"], after[2]["questions"]) == (3, 30, {})


def test_a_state_of_an_earlier_schema_starts_its_curve_at_the_next_fit(client: FlaskClient, tmp_path: Path) -> None:
    make_project(client, 10)
    state = tmp_path / "data" / "projects" / "p" / "state.joblib"
    record, _ = load_small(state)
    del record["learning_curve"], record["relabeled_since_fit"]
    state.unlink()
    write_small(state, record | {"schema_version": 3})
    there = create_app(Settings(data_dir=tmp_path / "data", log_level="error")).test_client()
    assert points(there) == []
    label(there, range(10, 20))
    assert [point["n_labeled"] for point in points(there)] == [20]


def test_the_curve_as_csv_has_a_column_for_each_value(client: FlaskClient) -> None:
    make_project(client, 10, X_test=X[:20].tolist(), y_test=LABELS[:20])
    asked = post(client, "/query", project_id="p", batch_size=5, strategy="margin")
    label(client, asked["indices"], query_id=asked["query_id"])
    reply = client.get(PATH, headers={"Accept": "text/csv"})
    rows = list(csv.DictReader(io.StringIO(reply.text)))
    assert [row["n_labeled"] for row in rows] == ["10", "15"]
    assert [row["questions.margin"] for row in rows] == ["0", "5"]
    assert float(rows[1]["test_score.accuracy"]) == points(client)[1]["test_score"]["accuracy"]
    assert rows[0]["batch_accuracy"] == ""


@pytest.mark.parametrize(("accept", "start"), [("image/svg+xml", b"<?xml"), ("image/png", b"\x89PNG")])
@pytest.mark.parametrize("n_labeled", [0, 10])
def test_the_curve_is_a_picture(client: FlaskClient, accept: str, start: bytes, n_labeled: int) -> None:
    make_project(client, n_labeled)
    light, dark = (client.get(f"{PATH}?theme={theme}", headers={"Accept": accept}) for theme in ("light", "dark"))
    assert light.status_code == 200 and light.mimetype == accept
    assert light.data.startswith(start) and dark.data.startswith(start) and light.data != dark.data
    assert light.headers["ETag"] != dark.headers["ETag"]
    again = client.get(PATH, headers={"Accept": accept, "If-None-Match": light.headers["ETag"]})
    assert again.status_code == 304


def test_wrong_requests_say_what_is_wrong(client: FlaskClient) -> None:
    get(client, PATH, 404)
    make_project(client)
    assert client.get(f"{PATH}?theme=blue").json["errors"][0]["pointer"] == "/query/theme"
    assert client.get(f"{PATH}?format=svg").json["errors"][0]["pointer"] == "/query/format"
    assert client.get(PATH, headers={"Accept": "text/html"}).status_code == 406
