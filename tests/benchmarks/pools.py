"""Synthetic pools, and requests that upload, label and query them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.benchmarks.sizes import BATCH, N_CLASSES, WIDTH
from tests.support.serving import Service, Upload

PIECE = 100_000
# The classes overlap: a model reaches about 90 % accuracy.
SPREAD_OF_CENTRES = 0.35


def pieces(n_rows: int, width: int = WIDTH) -> Iterator[NDArray[np.float32]]:
    """Yield a reproducible pool in pieces: row i is drawn around the centre of class i mod 10."""
    rng = np.random.default_rng(1)
    centres = SPREAD_OF_CENTRES * rng.standard_normal((N_CLASSES, width), np.float32)
    for start in range(0, n_rows, PIECE):
        n = min(PIECE, n_rows - start)
        yield rng.standard_normal((n, width), np.float32) + centres[np.arange(start, start + n) % N_CLASSES]


def pool(n_rows: int, width: int = WIDTH) -> NDArray[np.float32]:
    """Return the same pool as one array."""
    return np.concatenate(list(pieces(n_rows, width)))


def form(
    project_id: str, n_rows: int, width: int = WIDTH, estimator: str | dict[str, object] = "logistic_regression"
) -> Upload:
    """Return the multipart form that creates a project; rows are generated while sending."""
    rows = (memoryview(piece).cast("B") for piece in pieces(n_rows, width))
    return Upload({"project_id": project_id, "estimator": estimator}, "<f4", (n_rows, width), rows)


def materialized(upload: Upload) -> Upload:
    """Generate the rows of a form in advance, so that it can be sent repeatedly."""
    upload.rows = list(upload.rows)
    return upload


@contextmanager
def served(directory: Path, **settings: str) -> Iterator[Service]:
    """Run a service over an empty directory, warmed up with each kind of request."""
    service = Service(directory / "data", directory / "log", AQ_LOG_LEVEL="error", **settings)
    try:
        service.start()
        warm_up(service)
        yield service
    finally:
        if service.process is not None:
            service.kill()


def warm_up(service: Service) -> None:
    """Send each kind of request to every worker."""
    for number in range(3 * len(service.workers())):
        create(service, "warm", form("warm", 20_000))
        label(service, "warm", 200)
        query(service, "warm")
        relabel(service, "warm", number)
        query(service, "warm")
        service.call("DELETE", "/projects/warm")


def create(service: Service, project_id: str, upload: Upload) -> None:
    reply = service.call("POST", "/fit", upload, timeout=600)
    if reply.status != 201:
        raise RuntimeError(f"{project_id}: {reply.status} {reply.body!r}")


def label(service: Service, project_id: str, n_labels: int, refit: str = "wait") -> None:
    """Label the first rows with their true classes."""
    service.post("/label", {"project_id": project_id, "labels": label_records(0, n_labels, 0), "refit": refit})


def relabel(service: Service, project_id: str, turn: int, n_labels: int = 1, refit: str = "wait") -> None:
    """Change the labels of the first rows, differently in every turn; with `refit="wait"` this fits a new model."""
    service.post("/label", {"project_id": project_id, "labels": label_records(0, n_labels, turn + 1), "refit": refit})


def label_records(start: int, stop: int, turn: int) -> list[dict[str, Any]]:
    return [{"index": index, "label": (index + turn) % N_CLASSES} for index in range(start, stop)]


def query(service: Service, project_id: str, strategy: str = "margin") -> Any:
    return service.post("/query", {"project_id": project_id, "strategy": strategy, "batch_size": BATCH})
