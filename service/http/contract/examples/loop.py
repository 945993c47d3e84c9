"""Examples of a project that is fitted, asked for samples, and labelled."""

from __future__ import annotations

from service.errors import LeaseNotFound, ProjectExists, ProjectNotFound
from service.http.contract.examples.example import (
    AN_HOUR_LATER,
    AT,
    QUERY_ID,
    TEN_MINUTES_LATER,
    Example,
    Json,
    problem,
)
from service.http.contract.examples.flowers import FEW_LABELS, FLOWERS, PROJECT_PATH, noted_project


def query_reply(indices: list[int], scores: list[float] | None, strategy: str, **changes: Json) -> Json:
    """Return the reply to a query after the first fit of the story, with `changes`."""
    reply = {
        "project_id": "flowers",
        "query_id": QUERY_ID,
        "indices": indices,
        "ids": None,
        "texts": None,
        "urls": None,
        "features": None,
        "scores": scores,
        "strategy": strategy,
        "fallback_reason": None,
        "reason": None,
        "model_version": 1,
        "n_labeled": 2,
        "n_unlabeled": 6,
        "n_labels_since_fit": 0,
        "classes": None,
        "explanations": None,
        "lease_expires_at": None,
    }
    return reply | changes


NO_PROJECT = {"project_id": None, "model_version": None}
"""Fields of the reply to a query without a project."""

LEASE = {
    "query_id": QUERY_ID,
    "annotator": "ada",
    "indices": [6],
    "ids": None,
    "leased_at": AT,
    "expires_at": TEN_MINUTES_LATER,
}

LEASE_PATH = {"project_id": "flowers", "query_id": QUERY_ID}
"""`query_id` is that of the previous reply."""


EXAMPLES = (
    Example(
        "fit_project",
        "A pool with two labels and a held-out set",
        201,
        body={
            "project_id": "flowers",
            "X": FLOWERS,
            "y": ["setosa", None, "versicolor", None, None, None, None, None],
            "X_test": [[1.6, 0.2], [4.4, 1.3]],
            "y_test": ["setosa", "versicolor"],
        },
        reply=noted_project(1, notes=[f'{FEW_LABELS}: "setosa" (1), "versicolor" (1)']),
    ),
    Example(
        "fit_project",
        "A pool for an existing project",
        409,
        body={"project_id": "flowers", "X": FLOWERS},
        reply=problem(
            409,
            "Conflict",
            str(ProjectExists("flowers")),
        ),
    ),
    Example(
        "query_project",
        "The next two samples",
        200,
        body={"project_id": "flowers", "batch_size": 2, "strategy": "margin"},
        reply=query_reply([6, 7], [0.984, 0.7027], "margin"),
    ),
    Example(
        "query_project",
        "Why this sample",
        200,
        body={"project_id": "flowers", "strategy": "badge", "explain": True},
        reply=query_reply(
            [6],
            None,
            "badge",
            classes=["setosa", "versicolor"],
            explanations=[
                {
                    "chosen_by": "strategy",
                    "predicted_label": "setosa",
                    "probabilities": [0.508, 0.492],
                    "scores": {"least_confidence": 0.492, "margin": 0.984, "ratio": 0.9686, "entropy": 0.9998},
                    "nearest_labeled": {"index": 0, "id": None, "label": "setosa", "distance": 1.7088},
                    "cluster": {"n_candidates": 6, "n_looked_at": 6, "share": 1.0},
                }
            ],
        ),
    ),
    Example(
        "query_project",
        "A sample leased to an annotator",
        200,
        body={"project_id": "flowers", "strategy": "margin", "annotator": "ada", "lease_seconds": 600},
        reply=query_reply([6], [0.984], "margin", lease_expires_at=TEN_MINUTES_LATER),
    ),
    Example("list_project_leases", "All leases", 200, path=PROJECT_PATH, reply={"leases": [LEASE]}),
    Example(
        "renew_lease",
        "One more hour",
        200,
        path=LEASE_PATH,
        body={"lease_seconds": 3600},
        reply=LEASE | {"expires_at": AN_HOUR_LATER},
    ),
    Example("release_lease", "Released early", 204, path=LEASE_PATH),
    Example(
        "release_lease",
        "A lease that was released",
        404,
        path=LEASE_PATH,
        reply=problem(
            404,
            "Not Found",
            str(LeaseNotFound(QUERY_ID)),
        ),
    ),
    Example(
        "query_project",
        "A misspelt parameter of the strategy",
        422,
        body={"project_id": "flowers", "strategy": "power", "params": {"beat": 2}},
        reply=problem(
            422,
            "Unprocessable Entity",
            "'beat' is not a parameter of strategy 'power': beta, scorer; did you mean 'beta'?",
            "/params/beat",
        ),
    ),
    Example(
        "query_project",
        "Probabilities of your own model, without a project",
        200,
        body={"probabilities": [[0.9, 0.1], [0.5, 0.5], [0.7, 0.3]], "batch_size": 2, "strategy": "margin"},
        reply=query_reply([1, 2], [1.0, 0.6], "margin", **NO_PROJECT, n_labeled=0, n_unlabeled=3),
    ),
    Example(
        "query_project",
        "The same with labels, as a form",
        200,
        parts={
            "config": {"strategy": "entropy"},
            "probabilities": [[0.9, 0.1], [0.5, 0.5], [0.7, 0.3]],
            "y": [None, "rose", None],
        },
        reply=query_reply([2], [0.8813], "entropy", **NO_PROJECT, n_labeled=1, n_unlabeled=2),
    ),
    Example(
        "query_project",
        "A row that does not sum to 1",
        422,
        body={"probabilities": [[0.9, 0.1], [0.9, 0.3]]},
        reply=problem(422, "Unprocessable Entity", "must sum to 1, within 0.01, and sums to 1.2", "/probabilities/1"),
    ),
    Example(
        "query_project",
        "An unknown project",
        404,
        body={"project_id": "trees"},
        reply=problem(404, "Not Found", str(ProjectNotFound("trees"))),
    ),
    Example(
        "label_project",
        "A label, and a sample that cannot be labelled",
        200,
        body={
            "project_id": "flowers",
            "query_id": QUERY_ID,
            "labels": [
                {"index": 6, "label": "versicolor", "annotator": "ada"},
                {"index": 7, "skip": True, "annotator": "ada"},
            ],
        },
        reply={
            "project_id": "flowers",
            "n_accepted": 2,
            "n_changed": 2,
            "n_labeled": 3,
            "n_unlabeled": 4,
            "n_skipped": 1,
            "model_version": 2,
            "n_labels_since_fit": 0,
            "test_score": {"accuracy": 1.0, "balanced_accuracy": 1.0, "f1_macro": 1.0, "log_loss": 0.1308},
        },
    ),
    Example(
        "label_project",
        "A sample beyond the pool",
        422,
        body={"project_id": "flowers", "labels": [{"index": 8, "label": "setosa"}]},
        reply=problem(422, "Unprocessable Entity", "must be from 0 to 7", "/labels/0/index"),
    ),
    Example(
        "label_project",
        "A label for an earlier version",
        412,
        body={"project_id": "flowers", "labels": [{"index": 5, "label": "setosa"}]},
        headers={"If-Match": '"0f6d1c52-2"'},
    ),
    Example(
        "fit_project",
        "Another estimator for the same project",
        200,
        body={"project_id": "flowers", "estimator": {"name": "k_neighbors", "params": {"n_neighbors": 1}}},
        reply=noted_project(
            4,
            notes=[f'{FEW_LABELS}: "setosa" (1)'],
            n_labeled=3,
            n_unlabeled=4,
            n_skipped=1,
            class_counts=[1, 2],
            estimator={
                "name": "k_neighbors",
                "params": {"n_neighbors": 1, "weights": "uniform", "metric": "euclidean", "scale": True},
            },
            model_version=3,
            test_score={"accuracy": 1.0, "balanced_accuracy": 1.0, "f1_macro": 1.0, "log_loss": 0.0},
        ),
    ),
)
