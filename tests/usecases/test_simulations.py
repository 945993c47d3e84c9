"""Simulations: the loop of the service, a result with intervals, and jobs that survive their process."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient
from scipy import sparse
from scipy.stats import ttest_rel

from service.app import create_app
from service.backends.cluster import ClusterLink
from service.server.simulation_task import RunOnCluster
from service.settings import Settings
from service.store.simulations import Simulations
from service.usecases import simulations as usecase
from service.usecases.simulation_queue import SimulationQueue
from service.usecases.simulation_result import summarize_runs
from service.usecases.simulations import open_simulation, run_here, run_simulation
from tests.backends.test_backends import Dying, Here
from tests.support.calls import FAST_ESTIMATOR, get, post, wait_for_simulation
from tests.support.npy import npy

RNG = np.random.default_rng(7)
Y = RNG.choice(["ant", "bee", "cat"], 90)
X = np.round(RNG.standard_normal((90, 4)) + np.array([{"ant": 0.0, "bee": 0.8, "cat": 1.6}[y] for y in Y])[:, None], 3)
POOL = {"X": X[:60].tolist(), "y": Y[:60].tolist(), "X_test": X[60:].tolist(), "y_test": Y[60:].tolist()}
SMALL = {**POOL, "strategies": ["margin"], "estimator": "gaussian_nb", "batch_size": 5, "budget": 10, "repeats": 2}


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Flask:
    """The application, which runs simulations in its own process."""
    app = create_app(Settings(data_dir=tmp_path_factory.mktemp("data"), log_level="error"))
    context = app.extensions["active-query"]
    simulations: Simulations = context.store.simulations

    def run(simulation_id: str) -> int:
        run_simulation(simulations, simulation_id)
        return 0

    app.extensions["active-query"] = replace(context, simulations=SimulationQueue(simulations, run))
    return app


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def waiting(tmp_path: Path) -> FlaskClient:
    """A client of an application whose queue does nothing."""
    app = create_app(Settings(data_dir=tmp_path / "data", log_level="error"))
    context = app.extensions["active-query"]
    app.extensions["active-query"] = replace(context, simulations=SimulationQueue(Simulations(tmp_path), lambda _: 0))
    return app.test_client()


def simulations_of(client: FlaskClient) -> Simulations:
    found: Simulations = client.application.extensions["active-query"].store.simulations
    return found


def simulate(client: FlaskClient, **fields: Any) -> Any:
    made = post(client, "/simulate", 202, **fields)
    return wait_for_simulation(client, made["simulation_id"])


def real_loop(client: FlaskClient, strategy: str, fields: dict[str, Any], seed: int) -> list[float]:
    """Return the accuracies of a real project that is labelled as a run of a simulation is."""
    name = f"{strategy}-{fields['estimator']}"
    known = [label if i in fields["initial"] else None for i, label in enumerate(fields["y"])]
    body = {each: fields[each] for each in ("X", "X_test", "y_test", "estimator")}
    made = post(client, "/fit", 201, **body, project_id=name, y=known, random_state=seed)
    accuracies = [made["test_score"]["accuracy"]]
    n_left = fields["budget"]
    while n_left:
        n = min(fields["batch_size"], n_left)
        indices = post(client, "/query", project_id=name, strategy=strategy, batch_size=n)["indices"]
        records = [{"index": index, "label": fields["y"][index]} for index in indices]
        accuracies.append(post(client, "/label", project_id=name, labels=records)["test_score"]["accuracy"])
        n_left -= n
    return accuracies


def test_a_run_has_the_accuracies_of_the_real_loop(client: FlaskClient) -> None:
    names = ["margin", "vote_entropy", "badge", "auto", "random"]
    fields = {**POOL, "initial": [3, 0, 9, 30], "batch_size": 10, "budget": 34, "estimator": FAST_ESTIMATOR}
    found = simulate(client, **fields, strategies=names, repeats=1, random_state=5)
    assert found["status"] == "done", found
    for name, entry in zip(names, found["result"]["strategies"], strict=True):
        assert [point["mean"] for point in entry["curve"]] == real_loop(client, name, fields, 5), name
        assert [point["n_labeled"] for point in entry["curve"]] == [4, 14, 24, 34, 38]


def test_the_labelled_samples_of_a_project_are_simulated(client: FlaskClient) -> None:
    labels = [label if i % 2 else None for i, label in enumerate(POOL["y"])]
    post(client, "/fit", 201, project_id="source", X=POOL["X"], y=labels)
    rest = {name: value for name, value in SMALL.items() if name not in ("X", "y")}
    of_project = simulate(client, project_id="source", **rest)
    sent = simulate(client, **rest, X=POOL["X"][1::2], y=POOL["y"][1::2])
    assert of_project["result"] == sent["result"]
    assert (of_project["project_id"], sent["project_id"]) == ("source", None)
    client.delete("/projects/source")
    assert client.get(f"/simulations/{of_project['simulation_id']}").status_code == 404


WHOLE = {"X": POOL["X"], "y": [round(100 * row[0]) for row in POOL["X"]]}
OF_NUMBERS = {"strategies": ["lcmd"], "estimator": "ridge", "budget": 10, "repeats": 1}


def test_whole_numbers_are_numbers_where_the_request_says_so(client: FlaskClient) -> None:
    post(client, "/fit", 201, project_id="source", target="number", estimator="gaussian_process", **WHOLE)
    of_project = simulate(client, project_id="source", target=500, **OF_NUMBERS)
    sent = simulate(client, **WHOLE, target_type="number", target=500, **OF_NUMBERS)
    assert of_project["result"] == sent["result"]
    assert (of_project["target_type"], sent["target_type"], sent["result"]["target"]) == ("number", "number", 500)
    assert "an RMSE of 500" in sent["result"]["recommendation"]


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({**WHOLE, "target": "number"}, "/target"),
        ({**WHOLE, "target_type": "numbers"}, "/target_type"),
        ({**WHOLE, "target_type": "labels", "strategies": ["mmc"], "estimator": "gaussian_nb"}, "/y/36"),
        ({**WHOLE, "target_type": "class", "estimator": "logistic_regression"}, "/strategies/0"),
        ({"project_id": "p", "target_type": "number"}, "/target_type"),
        ({**WHOLE, "target_type": "number", "estimator": "gaussian_nb"}, "/estimator"),
    ],
)
def test_a_wrong_target_type_is_refused(client: FlaskClient, fields: dict[str, Any], pointer: str) -> None:
    wrong = post(client, "/simulate", 422, **{**OF_NUMBERS, **fields})
    assert wrong["errors"][0]["pointer"] == pointer


def test_the_labelled_samples_of_a_project_of_texts_are_simulated(client: FlaskClient) -> None:
    texts = [f"{'cheap pills' if i % 3 else 'meeting notes'} {i}" for i in range(40)]
    labels = ["spam" if i % 3 else "ham" for i in range(40)]
    post(client, "/fit", 201, project_id="mails", texts=texts, y=labels, estimator=FAST_ESTIMATOR)
    found = simulate(client, project_id="mails", strategies=["margin"], estimator=FAST_ESTIMATOR, budget=10, repeats=1)
    assert found["result"]["strategies"][0]["curve"][-1]["mean"] > 0.9


@pytest.mark.parametrize("connection", [Here, Dying])
def test_runs_on_a_cluster_are_the_same_even_if_it_fails(waiting: FlaskClient, connection: type[Here]) -> None:
    made = post(waiting, "/simulate", 202, **SMALL)["simulation_id"]
    simulations = simulations_of(waiting)
    plan, data = open_simulation(simulations, made)
    on_cluster = RunOnCluster(ClusterLink("cluster", connection), simulations.root.parent, made)
    numbers = list(range(plan.n_runs))
    # Only runs that the cluster does not finish need the data here.
    found = on_cluster(data if connection is Dying else None, plan, numbers)
    assert list(found) == list(run_here(data, plan, numbers))


def npz(rows: np.ndarray) -> bytes:
    file = BytesIO()
    sparse.save_npz(file, sparse.csr_array(rows))
    return file.getvalue()


@pytest.mark.parametrize(("write", "name"), [(npy, "X.npy"), (npz, "X.npz")])
def test_parts_of_a_form_are_the_same_as_json(client: FlaskClient, write: Callable[..., bytes], name: str) -> None:
    config = {"strategies": ["entropy"], "estimator": FAST_ESTIMATOR, "repeats": 2, "budget": 10, "test_size": 0.4}
    parts = {"X": (BytesIO(write(X)), name), "y": (BytesIO(npy(Y)), "y.npy")}
    response = client.post(
        "/simulate", data={"config": (BytesIO(client.application.json.dumps(config).encode()), "c.json"), **parts}
    )
    assert response.status_code == 202, response.text
    assert response.headers["Location"] == f"/simulations/{response.json['simulation_id']}"
    form = wait_for_simulation(client, response.json["simulation_id"])
    assert form["result"] == simulate(client, X=X.tolist(), y=Y.tolist(), **config)["result"]
    assert form["progress"] == {"done": 4, "total": 4}


TABLE = [dict(zip("abcd", row, strict=True), kind=label) for row, label in zip(POOL["X"], POOL["y"], strict=True)]
COLUMNS = {"columns": {"label": "kind", "features": [*"abcd"]}}
OTHERS = {"strategies": ["margin"], "estimator": "gaussian_nb", "budget": 10}


def csv_bytes() -> bytes:
    rows = [",".join(TABLE[0]), *(",".join(map(str, row.values())) for row in TABLE)]
    return "\n".join(rows).encode()


def lines_bytes(rows: list[Any]) -> bytes:
    return b"\n".join(json.dumps(row).encode() for row in rows)


def parquet_bytes() -> bytes:
    parquet = pytest.importorskip("pyarrow.parquet")
    file = BytesIO()
    parquet.write_table(pytest.importorskip("pyarrow").Table.from_pylist(TABLE), file)
    return file.getvalue()


def send_body(client: FlaskClient, media_type: str, body: bytes, **config: Any) -> Any:
    query = {"config": json.dumps({**OTHERS, **config})}
    return client.post("/simulate", data=body, content_type=media_type, query_string=query)


def send_parts(client: FlaskClient, config: dict[str, Any], **parts: tuple[bytes, str]) -> Any:
    files = {name: (BytesIO(data), name, media_type) for name, (data, media_type) in parts.items()}
    config_part = (BytesIO(json.dumps({**OTHERS, **config}).encode()), "config", "application/json")
    return client.post("/simulate", data={"config": config_part, **files})


FORMATS: dict[str, Callable[[FlaskClient], Any]] = {
    "records": lambda client: client.post("/simulate", json={**OTHERS, **COLUMNS, "X": TABLE}),
    "csv body": lambda client: send_body(client, "text/csv", csv_bytes(), **COLUMNS),
    "lines body": lambda client: send_body(client, "application/x-ndjson", lines_bytes(TABLE), **COLUMNS),
    "samples body": lambda client: send_body(
        client,
        "application/x-ndjson",
        lines_bytes([{"x": x, "y": y} for x, y in zip(POOL["X"], POOL["y"], strict=True)]),
    ),
    "csv part": lambda client: send_parts(client, COLUMNS, X=(csv_bytes(), "text/csv")),
    "parquet part": lambda client: send_parts(client, COLUMNS, X=(parquet_bytes(), "application/vnd.apache.parquet")),
    "lines parts": lambda client: send_parts(
        client,
        {},
        X=(lines_bytes(POOL["X"]), "application/x-ndjson"),
        y=(lines_bytes(POOL["y"]), "application/x-ndjson"),
    ),
    "json with ids": lambda client: client.post(
        "/simulate", json={**OTHERS, "X": POOL["X"], "y": POOL["y"], "ids": list(range(60)), "feature_names": [*"abcd"]}
    ),
}


@pytest.mark.parametrize("name", FORMATS)
def test_samples_come_in_all_formats_of_fit(waiting: FlaskClient, name: str) -> None:
    response = FORMATS[name](waiting)
    assert response.status_code == 202, response.text
    _, data = open_simulation(simulations_of(waiting), response.json["simulation_id"])
    np.testing.assert_allclose(data.X, POOL["X"])
    assert [data.y.values[code] for code in data.y.codes] == POOL["y"]


def test_texts_have_the_accuracies_of_the_real_loop(client: FlaskClient) -> None:
    y = [["ham", "spam"][int(i % 3 > 0)] for i in range(40)]
    texts = [f"{'cheap pills' if i % 3 else 'meeting notes'} {i} {'pills' if i % 5 else ''}" for i in range(40)]
    fields = {
        "texts": texts[:30],
        "text": {"n_features": 1024},
        "X_test": texts[30:],
        "y_test": y[30:],
        "estimator": FAST_ESTIMATOR,
    }
    known = [label if i < 4 else None for i, label in enumerate(y[:30])]
    made = post(client, "/fit", 201, project_id="real", y=known, **fields)
    indices = post(client, "/query", project_id="real", strategy="margin", batch_size=6)["indices"]
    records = [{"index": index, "label": y[index]} for index in indices]
    scores = made, post(client, "/label", project_id="real", labels=records)
    found = simulate(
        client, **fields, y=y[:30], strategies=["margin"], initial=[0, 1, 2, 3], batch_size=6, budget=6, repeats=1
    )
    curve = found["result"]["strategies"][0]["curve"]
    assert [point["mean"] for point in curve] == [score["test_score"]["accuracy"] for score in scores]


def test_features_may_be_missing_if_the_request_says_so(client: FlaskClient) -> None:
    rows = [[None, *row[1:]] if i % 7 == 0 else row for i, row in enumerate(POOL["X"])]
    found = simulate(client, **{**SMALL, "X": rows, "missing_values": "allow", "repeats": 1})
    assert found["status"] == "done"


def test_without_a_budget_a_small_pool_is_asked_about_to_its_end(client: FlaskClient) -> None:
    rest = {name: value for name, value in SMALL.items() if name != "budget"}
    found = simulate(client, **{**rest, "repeats": 1, "batch_size": 50})
    assert found["result"]["strategies"][0]["curve"][-1]["n_labeled"] == 60


@pytest.mark.parametrize("labels", [[0, 1], [True, False], ["a", "b"]])
def test_labels_of_each_type_and_a_start_without_a_model(client: FlaskClient, labels: list[Any]) -> None:
    y = [labels[int(value == "ant")] for value in Y]
    found = simulate(
        client,
        X=X.tolist(),
        y=y,
        n_initial=0,
        batch_size=3,
        budget=6,
        strategies=["margin"],
        repeats=1,
        estimator=FAST_ESTIMATOR,
    )
    curve = found["result"]["strategies"][0]["curve"]
    assert [point["n_labeled"] for point in curve] == [0, 3, 6]
    assert curve[0] == {"n_labeled": 0, "mean": None, "low": None, "high": None}


def test_repeats_are_the_same_for_all_strategies_and_again(client: FlaskClient) -> None:
    fields = {**SMALL, "strategies": ["margin", "random", {"name": "k_means", "params": {"sample": 200}}]}
    first, second = simulate(client, **fields), simulate(client, **fields)
    assert first["result"] == second["result"]
    assert len({entry["curve"][0]["mean"] for entry in first["result"]["strategies"]}) == 1
    other = simulate(client, **fields, random_state=9)
    assert other["result"] != first["result"]


def test_labels_saved_has_the_paired_interval_of_the_repeats(waiting: FlaskClient) -> None:
    made = post(waiting, "/simulate", 202, **{**SMALL, "repeats": 4, "target": 0.7})
    plan, _ = open_simulation(simulations_of(waiting), made["simulation_id"])
    n_labeled = [10, 15, 20]
    of = {10: [0.7, 0.8, 0.9], 15: [0.5, 0.7, 0.9], 20: [0.5, 0.6, 0.7], None: [0.5, 0.6, 0.6]}
    margin, random = [10, 10, 15, 10], [15, 20, None, 20]
    runs = [
        {"n_labeled": n_labeled, "accuracy": of[each]} for pair in zip(margin, random, strict=True) for each in pair
    ]
    result = summarize_runs(plan, runs)
    saved = result["strategies"][0]["labels_saved"]
    test = ttest_rel([15, 20, 20, 20], margin)  # one that never reached it counts with its last label
    interval = test.confidence_interval(0.95)
    assert saved == pytest.approx({"mean": 7.5, "low": interval.low, "high": interval.high})
    assert result["strategies"][0]["labels_to_target"]["n_reached"] == 4
    assert result["strategies"][1]["labels_to_target"] == {"mean": None, "low": None, "high": None, "n_reached": 3}
    assert result["strategies"][1]["labels_saved"] is None
    assert result["recommendation"].startswith(
        "Use 'margin': it needs 8 fewer labels than 'random' to reach an accuracy of 70"
    )


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"X": None}, "/X"),
    ({"y": None}, "/y"),
    ({"y": [*POOL["y"][:59], None]}, "/y/59"),
    ({"y": POOL["y"][:59]}, "/y"),
    ({"y": ["ant"] * 60}, "/y"),
    ({"y": ["", *POOL["y"][1:]]}, "/y/0"),
    ({"y_test": None}, "/y_test"),
    ({"X_test": [[1.0, 2.0]] * 30}, "/X_test"),
    ({"y_test": ["ant"]}, "/y_test"),
    ({"test_size": 0.5}, "/test_size"),
    ({"X_test": None, "y_test": None, "test_size": 1}, "/test_size"),
    ({"project_id": "nowhere"}, "/X"),
    ({"strategies": None}, "/strategies"),
    ({"strategies": []}, "/strategies"),
    ({"strategies": "margin"}, "/strategies"),
    ({"strategies": ["margins"]}, "/strategies/0"),
    ({"strategies": ["margin", "margin"]}, "/strategies/1"),
    ({"strategies": ["activelab"]}, "/strategies/0"),
    ({"strategies": [{"name": "k_means", "params": {"sample": -1}}]}, "/strategies/0/params/sample"),
    ({"strategies": [{"name": "margin", "parameters": {}}]}, "/strategies/0/parameters"),
    ({"strategies": [7]}, "/strategies/0"),
    ({"estimator": "perceptron"}, "/estimator"),
    ({"batch_size": 0}, "/batch_size"),
    ({"batch_size": 10_001}, "/batch_size"),
    ({"budget": 0}, "/budget"),
    ({"budget": 61}, "/budget"),
    ({"X_test": None, "y_test": None, "budget": 46}, "/budget"),
    ({"y_test": ["dog", *POOL["y_test"][1:]]}, "/y_test/0"),
    ({"y_test": [1] * 30}, "/y_test/0"),
    ({"X": [[None] * 4, *POOL["X"][1:]]}, "/X/0/0"),
    ({"X": [[1.0]] * 60, "feature_names": ["a", "b"], "X_test": None, "y_test": None}, "/feature_names"),
    ({"ids": ["a"]}, "/ids"),
    ({"texts": ["a"] * 60}, "/texts"),
    ({"text": {}}, "/text"),
    ({"X": None, "texts": ["a b"] * 60}, "/X_test"),
    ({"X": None, "texts": ["a b"] * 60, "text": {"n_features": 0}}, "/text/n_features"),
    ({"X_test": ["a b"] * 30}, "/X_test"),
    ({"missing_values": "drop"}, "/missing_values"),
    ({"columns": {"label": "y"}}, "/columns"),
    ({"target": -0.1}, "/target"),
    ({"estimator": {"name": "svc", "params": {"C": -1}}}, "/estimator/params/C"),
    ({"n_initial": -1}, "/n_initial"),
    ({"n_initial": 60}, "/n_initial"),
    ({"initial": []}, "/initial"),
    ({"initial": [1, 60]}, "/initial/1"),
    ({"initial": [1, 1]}, "/initial/1"),
    ({"initial": [1], "n_initial": 2}, "/n_initial"),
    ({"repeats": 0}, "/repeats"),
    ({"repeats": 101}, "/repeats"),
    ({"target": 1.5}, "/target"),
    ({"random_state": -1}, "/random_state"),
    ({"stratgies": ["margin"]}, "/stratgies"),
]


@pytest.mark.parametrize(("fields", "pointer"), WRONG, ids=[str(fields)[:40] for fields, _ in WRONG])
def test_a_wrong_request_names_the_field_and_stores_nothing(
    client: FlaskClient, fields: dict[str, Any], pointer: str
) -> None:
    before = simulations_of(client).ids()
    body = {name: value for name, value in {**SMALL, **fields}.items() if value is not None}
    problem = post(client, "/simulate", 422, **body)
    assert pointer in [error["pointer"] for error in problem["errors"]], problem
    assert simulations_of(client).ids() == before


def test_a_project_without_labels_or_that_is_missing_is_refused(client: FlaskClient) -> None:
    rest = {name: value for name, value in SMALL.items() if name not in ("X", "y")}
    post(client, "/fit", 201, project_id="bare", X=POOL["X"])
    assert post(client, "/simulate", 422, project_id="bare", **rest)["errors"][0]["pointer"] == "/project_id"
    post(client, "/simulate", 404, project_id="none", **rest)
    assert client.get("/simulations/0").status_code == client.delete("/simulations/0").status_code == 404


def test_a_simulation_is_taken_up_at_the_first_run_that_is_not_done(waiting: FlaskClient) -> None:
    made, again = (post(waiting, "/simulate", 202, **SMALL)["simulation_id"] for _ in range(2))
    simulations, done = simulations_of(waiting), []

    def die_after_two(data: Any, plan: Any, numbers: list[int]) -> Iterator[tuple[int, Any]]:
        with closing(iter(run_here(data, plan, numbers[:2]))) as runs:
            yield from runs
        raise OSError("the process dies")

    def note(data: Any, plan: Any, numbers: list[int]) -> Any:
        done.extend(numbers)
        return run_here(data, plan, numbers)

    with pytest.raises(OSError, match="dies"):
        run_simulation(simulations, made, die_after_two)
    half = get(waiting, f"/simulations/{made}")
    assert (half["status"], half["progress"], half["result"]) == ("queued", {"done": 2, "total": 4}, None)
    run_simulation(simulations, made, note)
    run_simulation(simulations, again)
    assert done == [2, 3]
    assert get(waiting, f"/simulations/{made}")["result"] == get(waiting, f"/simulations/{again}")["result"]


def test_a_cancelled_simulation_stays_until_it_is_deleted(waiting: FlaskClient) -> None:
    path = f"/simulations/{post(waiting, '/simulate', 202, **SMALL)['simulation_id']}"
    assert waiting.delete(path).status_code == 204
    found = get(waiting, path)
    assert (found["status"], found["result"], found["error"]) == ("cancelled", None, None)
    assert found["ended_at"] is not None
    assert [each["status"] for each in get(waiting, "/simulations")["simulations"]] == ["cancelled"]
    assert waiting.delete(path).status_code == 204
    assert waiting.get(path).status_code == waiting.delete(path).status_code == 404
    assert get(waiting, "/simulations") == {"simulations": []}


def test_no_more_simulations_may_wait_than_twenty_and_a_hundred_are_kept(
    waiting: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usecase, "MAX_WAITING", 2)
    monkeypatch.setattr(usecase, "MAX_KEPT", 2)
    ids = [post(waiting, "/simulate", 202, **SMALL)["simulation_id"] for _ in range(2)]
    refused = waiting.post("/simulate", json=SMALL)
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
    for simulation_id in ids:
        waiting.delete(f"/simulations/{simulation_id}")
    newest = post(waiting, "/simulate", 202, **SMALL)["simulation_id"]
    assert [each["simulation_id"] for each in get(waiting, "/simulations")["simulations"]] == [ids[1], newest]


def test_a_failure_is_shown_with_its_reason(client: FlaskClient) -> None:
    equal = [[5.0, 5.0]] * 90  # without variance, by which naive Bayes divides
    found = simulate(client, **{**SMALL, "X": equal[:60], "X_test": equal[60:], "estimator": "gaussian_nb"})
    assert (found["status"], found["result"]) == ("failed", None)
    assert "gaussian_nb cannot learn from these numbers" in found["error"]
    assert 'active_query_simulations_total{outcome="failed"} 1.0' in client.get("/metrics").text


def test_a_process_that_keeps_dying_fails_its_simulation(waiting: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.usecases.simulation_queue.PAUSE_SECONDS", 0.0)
    made = post(waiting, "/simulate", 202, **SMALL)["simulation_id"]
    queue = SimulationQueue(simulations_of(waiting), lambda _: -signal.SIGKILL)
    queue.start()
    found = wait_for_simulation(waiting, made)
    assert found["status"] == "failed"
    assert found["error"] == "its process died 3 times in the same run, the last time with status -9"


def test_the_same_strategy_with_other_parameters_has_another_name(client: FlaskClient) -> None:
    strategies = [{"name": "k_means", "params": {"sample": sample}} for sample in (100, 200)]
    found = simulate(client, **{**SMALL, "strategies": strategies, "repeats": 1})
    assert "'k_means(sample=" in found["result"]["recommendation"]


def test_a_picture_of_the_result(client: FlaskClient, waiting: FlaskClient) -> None:
    path = f"/simulations/{simulate(client, **SMALL)['simulation_id']}"
    svg = client.get(path, headers={"Accept": "image/svg+xml"})
    assert (svg.status_code, svg.mimetype) == (200, "image/svg+xml")
    assert "margin" in svg.text and "2 repeats" in svg.text
    assert client.get(f"{path}?theme=dark", headers={"Accept": "image/png"}).data.startswith(b"\x89PNG")
    assert client.get(path, headers={"Accept": "text/csv"}).status_code == 406
    queued = f"/simulations/{post(waiting, '/simulate', 202, **SMALL)['simulation_id']}"
    assert "the simulation is queued" in waiting.get(queued, headers={"Accept": "image/svg+xml"}).text


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_killed_process_is_started_again_and_a_cancelled_one_ends(tmp_path: Path) -> None:
    client = create_app(Settings(data_dir=tmp_path / "data", log_level="error")).test_client()
    endless = {**SMALL, "strategies": ["margin"], "batch_size": 1, "budget": 45, "repeats": 100}
    path = f"/simulations/{post(client, '/simulate', 202, **endless)['simulation_id']}"
    child = child_at_work(client, path, 1)
    assert os.getpriority(os.PRIO_PROCESS, child) == 19
    assert get(client, path)["status"] == "running"
    os.kill(child, signal.SIGKILL)
    done = get(client, path)["progress"]["done"]
    other = child_at_work(client, path, done + 1)
    assert other != child
    assert client.delete(path).status_code == 204
    deadline = time.monotonic() + 30
    while Path(f"/proc/{other}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{other}").exists()
    assert get(client, path)["status"] == "cancelled"


def child_at_work(client: FlaskClient, path: str, n_done: int) -> int:
    """Return the process of a simulation once so many runs are done."""
    deadline = time.monotonic() + 90
    while get(client, path)["progress"]["done"] < n_done:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    name = path.rpartition("/")[2]
    [child] = [int(p.name) for p in Path("/proc").glob("[0-9]*") if name in read_quietly(p / "cmdline")]
    return child


def read_quietly(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


NUMBERS = {
    "X": X.tolist(),
    "y": (X @ [1.0, 2.0, 0.5, 0.1]).tolist(),
    "strategies": ["lcmd"],
    "estimator": "ridge",
    "batch_size": 5,
    "budget": 10,
    "repeats": 2,
}


def test_numbers_are_simulated_by_their_error(client: FlaskClient) -> None:
    made = post(client, "/simulate", 202, **NUMBERS, target=0.5)
    result = wait_for_simulation(client, made["simulation_id"])["result"]
    assert result["target"] == 0.5
    assert [entry["strategy"] for entry in result["strategies"]] == ["lcmd", "random"]
    for entry in result["strategies"]:
        errors = [point["mean"] for point in entry["curve"]]
        assert errors[-1] < errors[0] < 5
        assert entry["labels_to_target"]["n_reached"] == 2
    assert "RMSE of 0.5" in result["recommendation"]
    assert "RMSE" in client.get(f"/simulations/{made['simulation_id']}/page").text


def test_numbers_of_a_project_are_simulated(client: FlaskClient) -> None:
    name = "of-numbers"
    post(client, "/fit", 201, project_id=name, X=NUMBERS["X"], y=NUMBERS["y"], estimator="ridge")
    fields = {name: value for name, value in NUMBERS.items() if name not in ("X", "y")}
    made = post(client, "/simulate", 202, project_id=name, **fields)
    assert wait_for_simulation(client, made["simulation_id"])["result"]["target"] > 0


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"strategies": ["random", "margin"]}, "/strategies/1"),
        ({"estimator": "svc"}, "/estimator"),
        ({"X_test": [[0.0] * 4], "y_test": ["a"]}, "/y_test/0"),
        ({"y": ["a", "b"] * 45, "strategies": ["lcmd"], "estimator": "gaussian_nb"}, "/strategies/0"),
        ({"y": ["a", "b"] * 45, "strategies": ["margin"], "estimator": "gaussian_nb", "target": 1.5}, "/target"),
    ],
)
def test_what_does_not_fit_the_labels_is_not_simulated(client: FlaskClient, change: Any, pointer: str) -> None:
    assert post(client, "/simulate", 422, **{**NUMBERS, **change})["errors"][0]["pointer"] == pointer
