"""`calibration: "temperature"`: probabilities are calibrated by a temperature that is fitted out of fold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import skops.io
from flask.testing import FlaskClient

from service.learning.calibration import calibration_error, fit_temperature, temper
from tests.support.calls import get, line_pool, post

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_of_miscalibrated_probabilities_is_found(temperature: float) -> None:
    logits = RNG.normal(size=(20_000, 3)) * 2
    P = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    codes = (P.cumsum(axis=1) > RNG.random((len(P), 1))).argmax(axis=1)
    found = fit_temperature(temper(P, 1 / temperature), codes)
    assert found is not None
    assert found.temperature == pytest.approx(temperature, rel=0.05)
    assert found.error_after <= found.error_before + 0.005
    assert found.error_after < 0.02


def test_the_calibration_error_is_the_distance_of_confidence_and_accuracy() -> None:
    P = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.4, 0.6]])
    assert calibration_error(P, np.array([0, 1, 1, 1])) == pytest.approx((0.4 + 0.4) / 2)


@pytest.mark.parametrize("codes", [[0, 1] * 9, [0] * 10 + [*range(1, 12)]])
def test_too_few_rows_of_known_classes_give_no_temperature(codes: list[int]) -> None:
    assert fit_temperature(np.full((len(codes), 12), 1 / 12), np.array(codes)) is None


def noisy(n: int = 120) -> dict[str, Any]:
    """Return a pool whose features repeat each other, which makes naive Bayes overconfident."""
    y = np.arange(n) % 3
    column = RNG.normal(size=(n, 1)) + y[:, np.newaxis]
    X = np.repeat(column, 6, axis=1) + RNG.normal(size=(n, 6)) * 0.1
    labels = [["a", "b", "c"][code] if i < 90 else None for i, code in enumerate(y)]
    return {"X": X.tolist(), "y": labels, "estimator": "gaussian_nb"}


def probabilities(client: FlaskClient, project: str) -> Any:
    page = get(client, f"/projects/{project}/predictions?probabilities=true")
    return np.array([each["probabilities"] for each in page["predictions"]])


def test_predictions_and_queries_are_calibrated_and_the_model_file_is_not(client: FlaskClient) -> None:
    pool = noisy()
    post(client, "/fit", 201, project_id="plain", **pool)
    made = post(client, "/fit", 201, project_id="p", calibration="temperature", **pool)
    assert made["calibration"] == "temperature"
    found = get(client, "/projects/p/report")["calibration"]
    assert (found["n"], found["temperature"] > 1.5, found["error_after"] < found["error_before"]) == (90, True, True)
    assert get(client, "/projects/plain/report")["calibration"] is None
    P = probabilities(client, "p")
    assert np.allclose(P, temper(probabilities(client, "plain"), found["temperature"]), atol=1e-9)
    asked = post(client, "/query", project_id="p", strategy="least_confidence", batch_size=5)
    assert asked["scores"] == pytest.approx((1 - P.max(axis=1))[asked["indices"]].tolist(), abs=1e-6)
    model = skops.io.loads(client.get("/projects/p/model").data)
    assert np.allclose(model.predict_proba(pool["X"]), probabilities(client, "plain"))


def test_the_choice_is_kept_exported_and_can_be_changed(client: FlaskClient) -> None:
    post(client, "/fit", 201, project_id="p", calibration="temperature", **noisy())
    calibrated = probabilities(client, "p")
    assert post(client, "/fit", project_id="p")["calibration"] == "temperature"
    exported = client.get("/projects/p/export").data
    copy = client.post("/projects/import?project_id=q", data=exported, content_type="application/zip").json
    assert copy["calibration"] == "temperature"
    assert np.allclose(probabilities(client, "q"), calibrated)
    assert post(client, "/fit", project_id="p", calibration="none")["calibration"] == "none"
    assert not np.allclose(probabilities(client, "p"), calibrated)


def test_wrong_methods_are_refused_and_few_labels_are_not_calibrated(client: FlaskClient) -> None:
    wrong = post(client, "/fit", 422, project_id="p", X=line_pool(), calibration="platt")
    assert wrong["errors"][0]["pointer"] == "/calibration"
    y = [0, 1, *[None] * 18]
    made = post(client, "/fit", 201, project_id="p", X=line_pool(), y=y, calibration="temperature")
    assert (made["model_version"], made["fit"]["due"]) == (1, False)
    assert get(client, "/projects/p/report")["calibration"] is None


@pytest.mark.parametrize("estimator", ["logistic_regression", "extra_trees", "auto"])
def test_committees_and_fast_predictions_work_with_a_calibrated_model(client: FlaskClient, estimator: str) -> None:
    params = {} if estimator == "logistic_regression" else {"n_estimators": 10}
    pool = noisy() | {"estimator": {"name": estimator, "params": params}}
    post(client, "/fit", 201, project_id="p", calibration="temperature", **pool)
    assert get(client, "/projects/p/report")["calibration"]["n"] == 90
    for strategy in ("entropy", "bald"):
        assert (
            len(post(client, "/query", project_id="p", strategy=strategy, batch_size=3, explain=True)["indices"]) == 3
        )
