"""Pools that a model can learn from, and how they get into a service and are labelled."""

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
# The classes overlap: a model is right about nine rows of ten, and thousands of rows lie between two classes.
SPREAD_OF_CENTRES = 0.35


def pieces(n_rows: int, width: int = WIDTH) -> Iterator[NDArray[np.float32]]:
    """A pool in pieces, the same every time: row i is drawn around the centre of class i mod 10."""
    rng = np.random.default_rng(1)
    centres = SPREAD_OF_CENTRES * rng.standard_normal((N_CLASSES, width), np.float32)
    for start in range(0, n_rows, PIECE):
        n = min(PIECE, n_rows - start)
        yield rng.standard_normal((n, width), np.float32) + centres[np.arange(start, start + n) % N_CLASSES]


def pool(n_rows: int, width: int = WIDTH) -> NDArray[np.float32]:
    """The same pool whole."""
    return np.concatenate(list(pieces(n_rows, width)))


def form(project_id: str, n_rows: int, width: int = WIDTH) -> Upload:
    """The multipart form that makes a project; its rows are made as they are sent."""
    rows = (memoryview(piece).cast("B") for piece in pieces(n_rows, width))
    return Upload({"project_id": project_id}, "<f4", (n_rows, width), rows)


def made(upload: Upload) -> Upload:
    """Make all rows of a form beforehand, so that it can be sent at once, and again."""
    upload.rows = list(upload.rows)
    return upload


@contextmanager
def served(directory: Path, **settings: str) -> Iterator[Service]:
    """A real service over an empty directory, which has answered each kind of request before it is measured."""
    service = Service(directory / "data", directory / "log", AQ_LOG_LEVEL="error", **settings)
    try:
        service.start()
        warm_up(service)
        yield service
    finally:
        if service.process is not None:
            service.kill()  # nothing is worth a goodbye: the directory goes with it


def warm_up(service: Service) -> None:
    """Let every worker load what it needs for anything at all."""
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
    """Label the first rows with the class that each was drawn from."""
    service.post("/label", {"project_id": project_id, "labels": answers(0, n_labels, 0), "refit": refit})


def relabel(service: Service, project_id: str, turn: int, n_labels: int = 1, refit: str = "wait") -> None:
    """Change the labels of some rows, to others in every turn: with one label and a fit, it makes a new model."""
    service.post("/label", {"project_id": project_id, "labels": answers(0, n_labels, turn + 1), "refit": refit})


def answers(start: int, stop: int, turn: int) -> list[dict[str, Any]]:
    return [{"index": index, "label": (index + turn) % N_CLASSES} for index in range(start, stop)]


def query(service: Service, project_id: str) -> Any:
    return service.post("/query", {"project_id": project_id, "strategy": "margin", "batch_size": BATCH})
