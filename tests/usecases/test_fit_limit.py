"""Fits in a process of their own, which ends at AQ_FIT_SECONDS."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient

from service.app import create_app
from service.learning.fit_time import SECONDS
from service.settings import Settings
from service.usecases import training
from tests.support.calls import get, post
from tests.support.serving import wait_until

X = np.random.default_rng(0).normal(size=(60, 3))
Y = [int(x) for x in X[:, 0] + X[:, 1] > 0]


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Run each fit that could be long in a process, and return the time limits of the processes."""
    seconds: list[float] = []
    run = training.run_in_process

    def counted(*arguments: Any, **options: Any) -> Any:
        seconds.append(options["seconds"])
        return run(*arguments, **options)

    monkeypatch.setattr(training, "PROCESS_SECONDS", 1e-9)
    monkeypatch.setattr(training, "run_in_process", counted)
    return seconds


def predictions(client: FlaskClient, project_id: str) -> Any:
    found = get(client, f"/projects/{project_id}/predictions?probabilities=true")["predictions"]
    assert "probabilities" in found[0]
    return found


def test_a_process_fits_the_same_model(client: FlaskClient, runs: list[float], monkeypatch: Any) -> None:
    body = {"X": X.tolist(), "y": Y, "estimator": "svc", "calibration": "temperature"}
    post(client, "/fit", 201, project_id="process", **body)
    assert runs == [600]
    monkeypatch.setattr(training, "PROCESS_SECONDS", 10)
    post(client, "/fit", 201, project_id="thread", **body)
    assert len(runs) == 1
    assert predictions(client, "process") == predictions(client, "thread")


@pytest.mark.parametrize(
    ("target", "answers"), [("class", ["a", "b"]), ("labels", [["a"], []]), ("number", [0.5, 2.5])]
)
def test_a_project_can_be_sent_to_a_process(client: FlaskClient, target: str, answers: list[Any]) -> None:
    post(client, "/fit", 201, project_id="p", X=X.tolist(), target=target, estimator="k_neighbors")
    labels = [{"index": i, "label": answers[i % 2], "annotator": name} for i in range(20) for name in ("ada", "bob")]
    post(client, "/label", project_id="p", labels=labels)
    project = client.application.extensions["active-query"].store.read("p").project
    sent = pickle.loads(pickle.dumps(project))
    models = [training.learn(each, X[:20], None).classifier for each in (project, sent)]
    predict = "predict" if target == "number" else "predict_proba"
    assert np.array_equal(*(getattr(model, predict)(X) for model in models))


def test_a_quick_estimator_starts_no_process(client: FlaskClient, runs: list[float]) -> None:
    post(client, "/fit", 201, project_id="p", X=X.tolist(), y=Y, estimator="gaussian_nb")
    assert runs == []


@pytest.mark.slow
def test_a_fit_that_fails_in_a_process_says_why(client: FlaskClient, runs: list[float], monkeypatch: Any) -> None:
    monkeypatch.setitem(SECONDS, "gaussian_nb", lambda *_: 60.0)
    reply = client.post("/fit", json={"project_id": "p", "X": [[5.0]] * 60, "y": Y, "estimator": "gaussian_nb"})
    assert (reply.status_code, len(runs)) == (422, 1)
    assert "gaussian_nb cannot learn from these numbers" in reply.json["detail"]


@pytest.fixture
def short(tmp_path: Path, runs: list[float]) -> FlaskClient:
    """A service with a time limit in which no process fits, and a project p."""
    client = create_app(Settings(data_dir=tmp_path / "data", log_level="critical", fit_seconds=0.05)).test_client()
    post(client, "/fit", 201, project_id="p", X=X.tolist(), estimator="svc")
    return client


def test_a_request_to_fit_that_takes_too_long_changes_nothing(short: FlaskClient) -> None:
    body = {"project_id": "new", "X": X.tolist(), "y": Y, "estimator": "svc"}
    problem = short.post("/fit", json=body)
    assert problem.status_code == 422
    assert problem.json["detail"] == (
        "the fit with svc took longer than AQ_FIT_SECONDS=0.05 allows: logistic_regression is quick, and extra_trees "
        "would take about 1 s of one core; or raise the limit"
    )
    assert short.get("/projects/new").status_code == 404


@pytest.mark.parametrize("refit", ["wait", "background"])
def test_labels_stay_when_their_fit_takes_too_long(short: FlaskClient, runs: list[float], refit: str) -> None:
    labels = [{"index": i, "label": y} for i, y in enumerate(Y)]
    post(short, "/label", project_id="p", labels=labels, refit=refit)
    store = short.application.extensions["active-query"].store
    wait_until(lambda: not store.read("p").project.fit_is_wanted and store.fitting_since("p") is None)
    found = get(short, "/projects/p")
    assert (found["n_labeled"], found["model_version"], found["fit"]["due"]) == (60, None, True)
    assert "svc took longer than AQ_FIT_SECONDS=0.05" in found["fit"]["last_error"]
    assert len(runs) == 1, "it is not repeated"
    post(short, "/fit", project_id="p", estimator="logistic_regression")
    assert get(short, "/projects/p")["fit"] == {"due": False, "running_since": None, "last_error": None}
