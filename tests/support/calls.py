"""Small calls to the application in this process, so that a test says what it asks and what it expects."""

from __future__ import annotations

import json
from io import BytesIO
from typing import Any

import numpy as np
from flask.testing import FlaskClient

from tests.support.npy import npy


def post(client: FlaskClient, path: str, expect: int = 200, **body: Any) -> Any:
    """POST JSON; the status must be the one expected."""
    response = client.post(path, json=body)
    assert response.status_code == expect, response.get_data(as_text=True)
    return response.json


def get(client: FlaskClient, path: str, expect: int = 200) -> Any:
    """GET JSON; the status must be the one expected."""
    response = client.get(path)
    assert response.status_code == expect, response.get_data(as_text=True)
    return response.json


def post_form(client: FlaskClient, expect: int = 201, **parts: Any) -> Any:
    """POST /fit as a form: arrays as .npy, everything else as JSON."""
    data = {}
    for name, value in parts.items():
        if isinstance(value, np.ndarray):
            data[name] = (BytesIO(npy(value)), f"{name}.npy", "application/x-npy")
        else:
            data[name] = (BytesIO(json.dumps(value).encode()), name, "application/json")
    response = client.post("/fit", data=data)
    assert response.status_code == expect, response.get_data(as_text=True)
    return response.json


def line_pool(n: int = 20) -> list[list[float]]:
    """A pool of n rows on a line: row i lies at i."""
    return [[float(i), 1.0] for i in range(n)]


def end_labels(n: int = 20, low: Any = 0, high: Any = 1) -> list[Any]:
    """Labels for `line`: one at each end."""
    return [low, *[None] * (n - 2), high]
