"""Requests to the application in this process, and small pools for them."""

from __future__ import annotations

import json
import time
from io import BytesIO
from typing import Any

import numpy as np
from flask.testing import FlaskClient

from tests.support.npy import npy

FAST_ESTIMATOR = "logistic_regression"
"""Estimator of projects whose test is not about the estimator: the default takes ten times as long to fit."""


def post(client: FlaskClient, path: str, expect: int = 200, **body: Any) -> Any:
    """POST JSON and return the reply, whose status must be the one expected.

    A project created without an estimator gets the fast one.
    """
    if path == "/fit" and "X" in body:
        body.setdefault("estimator", FAST_ESTIMATOR)
    response = client.post(path, json=body)
    assert response.status_code == expect, response.get_data(as_text=True)
    return response.json


def get(client: FlaskClient, path: str, expect: int = 200) -> Any:
    """GET JSON, whose status must be the one expected."""
    response = client.get(path)
    assert response.status_code == expect, response.get_data(as_text=True)
    return response.json


def wait_for_simulation(client: FlaskClient, simulation_id: str, seconds: float = 120) -> Any:
    """Return a simulation once it has ended."""
    deadline = time.monotonic() + seconds
    while (found := get(client, f"/simulations/{simulation_id}"))["ended_at"] is None:
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
    return found


def post_form(client: FlaskClient, expect: int = 201, **parts: Any) -> Any:
    """POST /fit as a multipart form: arrays as .npy parts, everything else as JSON.

    A project created without an estimator gets the fast one.
    """
    data = {}
    if "X" in parts:
        parts["config"] = {"estimator": FAST_ESTIMATOR} | parts["config"]
    for name, value in parts.items():
        if isinstance(value, np.ndarray):
            data[name] = (BytesIO(npy(value)), f"{name}.npy", "application/x-npy")
        else:
            data[name] = (BytesIO(json.dumps(value).encode()), name, "application/json")
    response = client.post("/fit", data=data)
    assert response.status_code == expect, response.get_data(as_text=True)
    return response.json


def line_pool(n: int = 20) -> list[list[float]]:
    """Return a pool of n rows [i, 1]."""
    return [[float(i), 1.0] for i in range(n)]


def end_labels(n: int = 20, low: Any = 0, high: Any = 1) -> list[Any]:
    """Return labels for `line_pool` with only the first and last row labelled."""
    return [low, *[None] * (n - 2), high]
