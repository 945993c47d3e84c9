"""A client for labeling tools, to be copied. Needs only numpy."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]


class ServiceError(Exception):
    """The service rejected a request or cannot be reached."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Number of labels of a project, and its model's accuracy on the held-out rows (NaN without a model)."""

    n_labeled: int
    accuracy: float


class Client:
    """A service at a URL. Thread-safe; `key` is the token of an API key, if the service requires one.

    Every method raises ServiceError.
    """

    def __init__(self, url: str, timeout: float = 60.0, key: str | None = None) -> None:
        self.url = urlsplit(url.rstrip("/"))
        self.timeout = timeout
        self.headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        if self.url.scheme not in ("http", "https"):
            raise ServiceError(f"{url!r} is not a URL: it must start with http:// or https://")

    def fit(
        self,
        project_id: str,
        X: Matrix,
        y: Sequence[int | None],
        X_test: Matrix,
        y_test: Sequence[int],
        estimator: Mapping[str, Any],
        random_state: int,
    ) -> Progress:
        """Create a project with the pool `X` (n, d) and labels `y` (n,), None = unlabelled."""
        body = {
            "project_id": project_id,
            "X": X.tolist(),
            "y": list(y),
            "X_test": X_test.tolist(),
            "y_test": list(y_test),
            "estimator": dict(estimator),
            "random_state": random_state,
        }
        return progress_of(self.send("POST", "/fit", body))

    def query(self, project_id: str, strategy: str, batch_size: int) -> list[int]:
        """Return the indices of the samples to label next, most useful first."""
        body = {"project_id": project_id, "strategy": strategy, "batch_size": batch_size}
        indices: list[int] = self.send("POST", "/query", body)["indices"]
        return indices

    def label(self, project_id: str, labels: Mapping[int, int]) -> Progress:
        """Send the labels by index, and wait for the new model."""
        records = [{"index": index, "label": label} for index, label in labels.items()]
        return progress_of(self.send("POST", "/label", {"project_id": project_id, "labels": records}))

    def delete(self, project_id: str) -> None:
        """Delete the project."""
        self.send("DELETE", f"/projects/{project_id}")

    def send(self, method: str, path: str, body: object = None) -> Any:
        """Send a request on a new connection and return the parsed reply, None if it has no body."""
        secure = self.url.scheme == "https"
        connect = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        content = None if body is None else json.dumps(body).encode()
        headers = self.headers if content is None else self.headers | {"Content-Type": "application/json"}
        try:
            with closing(connect(self.url.netloc, timeout=self.timeout)) as connection:
                connection.request(method, self.url.path + path, content, headers)
                response = connection.getresponse()
                reply = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise ServiceError(f"{self.url.geturl()} does not answer: {error!r}") from error
        if response.status >= 400:
            raise ServiceError(f"{method} {path}: {response.status} {response.reason}: {problem_detail(reply)}")
        return json.loads(reply) if reply else None


def progress_of(reply: Mapping[str, Any]) -> Progress:
    """Return the progress in a reply to /fit or /label."""
    score = reply["test_score"]
    return Progress(reply["n_labeled"], score["accuracy"] if score else float("nan"))


def problem_detail(reply: bytes) -> str:
    """Return the `detail` of a problem document, or the beginning of another body."""
    try:
        return str(json.loads(reply)["detail"])
    except (ValueError, KeyError, TypeError):
        return reply[:200].decode(errors="replace")
