"""One run: query and label batch after batch through the service, and score the model on the held-out set."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from flask import Flask
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, roc_auc_score

from service.app import create_app
from service.settings import Settings
from service.store import Part, Store
from tests.benchmarks.efficiency.data import MAX_ROWS, Split, split
from tests.support.npy import npy

TREES = 50
MODELS: dict[str, dict[str, Any]] = {
    "logistic_regression": {"name": "logistic_regression"},
    # Half of the service's default number of trees: a run fits hundreds of forests.
    "random_forest": {"name": "random_forest", "params": {"n_estimators": TREES}},
    "auto": {"name": "auto"},
}
DEFAULT, OLD_DEFAULT = "auto", "logistic_regression"
OLD_STRATEGY = "old_auto"
"""The strategy `auto` with its parameters until the default model changed."""
OLD_QUERY = {"strategy": "uherding", "params": {"sharpness": 1.0, "sample": 2000}, "explore": 0.1}
N_QUERIES = {1: 40, 10: 20, 100: 6}
"""Number of queries for each batch size, if the pool is large enough."""
SCORED_EVERY = {1: 5, 10: 1, 100: 1}
MOST_OF_POOL = 0.6
"""Largest labelled share of the pool: later all strategies have the same labels."""
MIN_POINTS = 3
"""A run with fewer points after its start is skipped."""
LABELS_PER_CLASS, MIN_LABELS = 5, 20
"""Labels of a warm start, drawn at random: a rare class may be missing."""

STARTS = ("cold", "warm")
WHOLE_POOL = 0
"""The batch size of a run that labels the whole pool at once, for the full score."""


@dataclass(frozen=True, slots=True)
class Run:
    """The settings of a run. `strategy` is a name, optionally followed by a space and its parameters as JSON."""

    data: str
    model: str
    start: str
    batch_size: int
    strategy: str
    seed: int
    max_rows: int = MAX_ROWS


@dataclass(frozen=True, slots=True)
class Curve:
    """Scores by number of labels; AUC for two classes only."""

    labels: Sequence[int]
    scores: dict[str, Sequence[float]]


def n_queries(run: Run, n_pool: int, n_classes: int) -> int:
    """Return the number of queries of a run, 0 if the pool is too small for its batch size."""
    left = int(MOST_OF_POOL * n_pool) - n_at_start(run, n_classes)
    n = min(N_QUERIES[run.batch_size], left // run.batch_size)
    return n if n >= MIN_POINTS * SCORED_EVERY[run.batch_size] else 0


def n_at_start(run: Run, n_classes: int) -> int:
    """Return the number of labels before the first query."""
    return max(LABELS_PER_CLASS * n_classes, MIN_LABELS) if run.start == "warm" else 0


def execute(run: Run, folder: Path | None) -> Curve:
    """Execute a run. The same run gives the same curve."""
    data = split(run.data, folder, run.seed, run.max_rows)
    if run.batch_size == WHOLE_POOL:
        return curve([(len(data.y), full_score(run, data))])
    rng = np.random.default_rng([run.seed, 1])
    known = rng.choice(len(data.y), n_at_start(run, data.n_classes), replace=False)
    return curve(list(steps(run, data, known)))


def full_score(run: Run, data: Split) -> dict[str, float]:
    """Return the scores of a model trained on the whole pool."""
    with Project(run, data, np.arange(len(data.y))) as project:
        return project.score()


def steps(run: Run, data: Split, known: NDArray[np.int64]) -> Iterator[tuple[int, dict[str, float]]]:
    """Yield the number of labels and the scores, at a warm start and after each measured query."""
    total = n_queries(run, len(data.y), data.n_classes)
    with Project(run, data, known) as project:
        if len(known):
            yield len(known), project.score()
        for number in range(1, total + 1):
            is_scored = number % SCORED_EVERY[run.batch_size] == 0
            n_labeled = project.query_and_label(needs_model=is_scored or run.strategy != "random")
            if is_scored:
                yield n_labeled, project.score()


class Project:
    """A project that is deleted after the run, used through the HTTP API in this process."""

    def __init__(self, run: Run, data: Split, known: NDArray[np.int64]) -> None:
        self.run, self.data = run, data
        self.app, self.store = service()
        self.client = self.app.test_client()
        y = np.full(len(data.y), np.nan)
        y[known] = data.y[known]
        config = {
            "project_id": "run",
            "classes": list(range(data.n_classes)),
            "estimator": MODELS[run.model],
            "random_state": run.seed,
        }
        form = {
            "config": (io.BytesIO(json.dumps(config).encode()), "config.json", "application/json"),
            "X": (io.BytesIO(npy(data.X)), "X.npy", "application/x-npy"),
            "y": (io.BytesIO(npy(y)), "y.npy", "application/x-npy"),
        }
        self.json_of(self.client.post("/fit", data=form))

    def __enter__(self) -> Project:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.delete("/projects/run")

    def query_and_label(self, *, needs_model: bool) -> int:
        """Query once, label the batch, fit if the model is needed, and return the number of labelled samples."""
        query = {"project_id": "run", "batch_size": self.run.batch_size} | query_of(self.run.strategy)
        reply = self.json_of(self.client.post("/query", json=query))
        labels = [{"index": index, "label": int(self.data.y[index])} for index in reply["indices"]]
        refit = "wait" if needs_model else "never"
        result = self.json_of(self.client.post("/label", json={"project_id": "run", "labels": labels, "refit": refit}))
        return int(result["n_labeled"])

    def score(self) -> dict[str, float]:
        """Score the current model on the held-out set; without a model, predict the only known class, or class 0."""
        snapshot = self.store.read("run", Part.MODEL)
        P = np.zeros((len(self.data.y_test), self.data.n_classes))
        if snapshot.model is not None:
            P[:, snapshot.model.classes_] = snapshot.model.predict_proba(self.data.X_test)
        else:
            codes = snapshot.project.labels.codes
            P[:, codes[0] if len(codes) else 0] = 1.0
        return scores_of(self.data.y_test, P)

    def json_of(self, reply: Any) -> Any:
        if reply.status_code >= 400:
            raise RuntimeError(f"{self.run}: {reply.get_data(as_text=True)}")
        return reply.get_json()


def query_of(strategy: str) -> dict[str, Any]:
    """Return the fields of `/query` for a strategy."""
    if strategy == OLD_STRATEGY:
        return OLD_QUERY
    name, _, params = strategy.partition(" ")
    return {"strategy": name, "params": json.loads(params or "{}")}


def scores_of(y: NDArray[np.int64], P: NDArray[np.float64]) -> dict[str, float]:
    """Return the metrics of probabilities (n, c), computed by scikit-learn."""
    guess = P.argmax(axis=1)
    scores = {
        "accuracy": accuracy_score(y, guess),
        "balanced_accuracy": balanced_accuracy_score(y, guess),
        "f1_macro": f1_score(y, guess, average="macro", zero_division=0.0),
    }
    if P.shape[1] == 2:
        scores["auc"] = roc_auc_score(y, P[:, 1])
    return {name: round(float(score), 6) for name, score in scores.items()}


def curve(points: Sequence[tuple[int, dict[str, float]]]) -> Curve:
    """Return the points as a Curve."""
    names = points[0][1]
    return Curve([n for n, _ in points], {name: [scores[name] for _, scores in points] for name in names})


@cache
def service() -> tuple[Flask, Store]:
    """Return the application of this process over a temporary directory, and a store over the same directory."""
    # Thousands of fits would repeat the optimiser's warning that it stopped early.
    warnings.simplefilter("ignore")
    memory = Path("/dev/shm")  # noqa: S108  a directory of our own is made in it
    directory = TemporaryDirectory(prefix="active-query-", dir=memory if memory.is_dir() else None)
    settings = Settings(data_dir=Path(directory.name) / "data", log_level="error")
    app = create_app(settings)
    app.extensions["scratch"] = directory  # it is removed when the process ends
    return app, Store(settings.data_dir, cache_bytes=0, max_projects=10)
