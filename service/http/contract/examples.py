"""Examples: a story in requests with their replies, shown in openapi.yaml and at /docs, and executed by a test.

The story is about eight flowers with two measurements each. A model's numbers hold up to rounding; ids and times differ
from run to run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from service import __version__
from service.errors import ImportTargetExists, LabelNotFound, LeaseNotFound, ProjectExists, ProjectNotFound
from service.usecases.evaluation import BIAS, MEASURED_ON, METHOD
from service.usecases.expected_gain import TOO_LITTLE
from service.usecases.learning_curve import BIAS as CURVE_BIAS

Json = Any


@dataclass(frozen=True, slots=True)
class Example:
    """One request and its reply. `parts` makes it a form of JSON parts; without a `reply` the body is not shown.

    `upload` names the operation whose last reply is the body. `form` are the fields of a form of a page.
    """

    operation: str
    title: str
    status: int
    reply: Json = None
    body: Json = None
    parts: Mapping[str, Json] | None = None
    path: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    media_type: str = "application/json"
    upload: str | None = None
    form: Mapping[str, str] | None = None


NO_NOTES: Json = {"notes": []}
FEW_LABELS = "classes with fewer than two labels, which the model can hardly learn"
FLOWERS = [[1.4, 0.2], [1.3, 0.2], [4.7, 1.4], [4.5, 1.5], [1.5, 0.3], [4.9, 1.5], [3.0, 0.8], [2.5, 0.6]]
AUTO = {
    "name": "auto",
    "params": {
        "C": 1.0,
        "max_iter": 1000,
        "n_estimators": 100,
        "pass_seconds": 2.0,
        "class_weight": None,
        "scale": True,
    },
}
REQUEST_ID = "5e3c1b0e2f7c4a1d9b8a7c6d5e4f3a2b"
QUERY_ID = "0f6d1c52a1f34b1c8a55c1c7f0f1d2e3"
DATE = "2026-01-05"
AT = "2026-01-05T09:00:00.000000Z"
TEN_MINUTES_LATER = "2026-01-05T09:10:00.000000Z"
AN_HOUR_LATER = "2026-01-05T10:00:00.000000Z"


def problem(status: int, title: str, detail: str, pointer: str | None = None) -> Json:
    """Return the problem document of an example."""
    body = {"type": "about:blank", "title": title, "status": status}
    if pointer is None:
        return body | {"detail": detail, "request_id": REQUEST_ID}
    wrong = [{"pointer": pointer, "detail": detail}]
    return body | {"detail": f"{pointer}: {detail}", "errors": wrong, "request_id": REQUEST_ID}


def project(version: int, **changes: Json) -> Json:
    """Return the project of the story after its first fit, with `changes`."""
    made = {
        "project_id": "flowers",
        "version": version,
        "n_samples": 8,
        "n_features": 2,
        "feature_names": None,
        "columns": None,
        "text": None,
        "keep_texts": False,
        "n_labeled": 2,
        "n_unlabeled": 6,
        "n_skipped": 0,
        "classes": ["setosa", "versicolor"],
        "class_counts": [1, 1],
        "estimator": AUTO,
        "consensus": "crowdlab",
        "skips_to_drop": 1,
        "similar_labels": "refuse",
        "missing_values": "refuse",
        "calibration": "none",
        "random_state": 0,
        "model_version": 1,
        "model_reason": None,
        "n_labels_since_fit": 0,
        "test_score": {"accuracy": 1.0, "balanced_accuracy": 1.0, "f1_macro": 1.0, "log_loss": 0.1451},
        "fit": {"due": False, "running_since": None, "last_error": None},
        "created_at": AT,
        "updated_at": AT,
    }
    return made | changes


def noted_project(version: int, **changes: Json) -> Json:
    """Return the same as the reply to a request, without notes unless given."""
    return NO_NOTES | project(version, **changes)


def record(index: int, label: str | None, annotator: str | None = None, query_id: str | None = None) -> Json:
    """Return one record of GET /projects/{project_id}/labels."""
    return {
        "index": index,
        "id": None,
        "label": label,
        "skip": label is None,
        "annotator": annotator,
        "query_id": query_id,
        "labeled_at": AT,
        "consensus": label,
        "quality": None,
    }


def annotator(name: str | None, n_labels: int, n_skips: int) -> Json:
    """Return one record of GET /projects/{project_id}/annotators, without samples that others labelled too."""
    return {
        "annotator": name,
        "n_labels": n_labels,
        "n_skips": n_skips,
        "n_shared": 0,
        "agreement": None,
        "accuracy": None,
        "first_at": AT,
        "last_at": AT,
    }


def curve_point(version: int, n_labeled: int, log_loss: float, batch_accuracy: float | None = None) -> Json:
    """Return a point of the story's learning curve; each of its models is right about all held-out flowers."""
    return {
        "model_version": version,
        "fitted_at": AT,
        "n_labeled": n_labeled,
        "test_score": {"accuracy": 1.0, "balanced_accuracy": 1.0, "f1_macro": 1.0, "log_loss": log_loss},
        "estimate": None,
        "batch_accuracy": batch_accuracy,
        "questions": {},
    }


EVALUATION = {
    "n": 2,
    "method": METHOD,
    "measured_on": MEASURED_ON,
    "bias": BIAS,
    "reason": "2 samples of the random order are labelled, and 20 are needed: "
    'POST /query with "purpose": "evaluation" asks for the next ones.',
    "model_version": 3,
    **dict.fromkeys(("accuracy", "accuracy_prediction_powered", "balanced_accuracy", "f1_macro", "log_loss"), None),
}


def query_reply(indices: list[int], scores: list[float] | None, strategy: str, **changes: Json) -> Json:
    """Return the reply to a query after the first fit of the story, with `changes`."""
    reply = {
        "project_id": "flowers",
        "query_id": QUERY_ID,
        "indices": indices,
        "ids": None,
        "texts": None,
        "urls": None,
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

REPLACED = project(
    6,
    n_labeled=1,
    n_unlabeled=7,
    classes=["setosa"],
    class_counts=[1],
    estimator={"name": "gaussian_nb", "params": {"var_smoothing": 1e-9, "scale": False}},
    model_version=None,
    n_labels_since_fit=1,
    test_score=None,
)
GROWN = REPLACED | {
    "n_samples": 10,
    "n_labeled": 2,
    "n_unlabeled": 8,
    "classes": ["setosa", "versicolor"],
    "class_counts": [1, 1],
}
DUE = {"due": True, "running_since": None, "last_error": None}
PROJECT_PATH = {"project_id": "flowers"}

SIMULATION_RESULT = {
    "target": 0.75,
    "strategies": [
        {
            "strategy": "margin",
            "params": {},
            "curve": [
                {"n_labeled": 2, "mean": 0.75, "low": 0.0, "high": 1.0},
                {"n_labeled": 4, "mean": 1.0, "low": 1.0, "high": 1.0},
                {"n_labeled": 6, "mean": 1.0, "low": 1.0, "high": 1.0},
            ],
            "labels_to_target": {"mean": 3.0, "low": 2.0, "high": 6.0, "n_reached": 2},
            "labels_saved": {"mean": 1.0, "low": -11.7062, "high": 13.7062},
        },
        {
            "strategy": "random",
            "params": {},
            "curve": [
                {"n_labeled": 2, "mean": 0.75, "low": 0.0, "high": 1.0},
                {"n_labeled": 4, "mean": 0.75, "low": 0.0, "high": 1.0},
                {"n_labeled": 6, "mean": 0.75, "low": 0.0, "high": 1.0},
            ],
            "labels_to_target": {"mean": None, "low": None, "high": None, "n_reached": 1},
            "labels_saved": None,
        },
    ],
    "recommendation": "No strategy is surely better than 'random': the best, 'margin', needs 1 label fewer than "
    "'random' to an accuracy of 75.0 % (95 % interval -12 to 14, 2 repeats); simulate more repeats.",
}
SIMULATION_PATH = {"simulation_id": QUERY_ID}
SIMULATION = {
    "simulation_id": QUERY_ID,
    "status": "done",
    "progress": {"done": 4, "total": 4},
    "error": None,
    "project_id": None,
    "strategies": [{"name": "margin", "params": {}}, {"name": "random", "params": {}}],
    "estimator": {
        "name": "logistic_regression",
        "params": {"C": 1.0, "max_iter": 1000, "class_weight": None, "scale": False},
    },
    "batch_size": 2,
    "budget": 4,
    "repeats": 2,
    "random_state": 0,
    "created_at": AT,
    "ended_at": AT,
}
NEW_SIMULATION = SIMULATION | {
    "status": "queued",
    "progress": {"done": 0, "total": 4},
    "ended_at": None,
    "result": None,
}

STORY = (
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
    Example(
        "list_project_labels",
        "All labels",
        200,
        path=PROJECT_PATH,
        reply={
            "labels": [
                record(0, "setosa"),
                record(2, "versicolor"),
                record(6, "versicolor", "ada", QUERY_ID),
                record(7, None, "ada", QUERY_ID),
            ],
            "next": None,
        },
    ),
    Example(
        "list_project_labels",
        "The first two labels",
        200,
        path=PROJECT_PATH,
        query={"limit": "2"},
        reply={"labels": [record(0, "setosa"), record(2, "versicolor")], "next": "2"},
    ),
    Example(
        "list_project_labels",
        "All labels as CSV",
        200,
        path=PROJECT_PATH,
        headers={"Accept": "text/csv"},
        media_type="text/csv",
        reply="index,id,label,skip,annotator,query_id,labeled_at,consensus,quality\r\n"
        f"0,,setosa,false,,,{AT},setosa,\r\n"
        f"2,,versicolor,false,,,{AT},versicolor,\r\n"
        f"6,,versicolor,false,ada,{QUERY_ID},{AT},versicolor,\r\n"
        f"7,,,true,ada,{QUERY_ID},{AT},,\r\n",
    ),
    Example(
        "list_project_samples",
        "The first three samples",
        200,
        path=PROJECT_PATH,
        query={"limit": "3"},
        reply={
            "samples": [
                {"index": 0, "id": None, "status": "labeled", "label": "setosa"},
                {"index": 1, "id": None, "status": "unlabeled", "label": None},
                {"index": 2, "id": None, "status": "labeled", "label": "versicolor"},
            ],
            "next": 2,
        },
    ),
    Example(
        "list_project_samples",
        "The skipped samples",
        200,
        path=PROJECT_PATH,
        query={"status": "skipped"},
        reply={"samples": [{"index": 7, "id": None, "status": "skipped", "label": None}], "next": None},
    ),
    Example(
        "list_project_annotators",
        "All annotators",
        200,
        path=PROJECT_PATH,
        reply={"annotators": [annotator(None, 2, 0), annotator("ada", 1, 1)]},
    ),
    Example(
        "list_project_predictions",
        "Two predictions",
        200,
        path=PROJECT_PATH,
        query={"indices": "4,5", "probabilities": "true"},
        reply={
            "model_version": 3,
            "classes": ["setosa", "versicolor"],
            "predictions": [
                {"index": 4, "id": None, "label": "setosa", "confidence": 1.0, "probabilities": [1.0, 0.0]},
                {"index": 5, "id": None, "label": "versicolor", "confidence": 1.0, "probabilities": [0.0, 1.0]},
            ],
            "next": None,
        },
    ),
    Example(
        "list_project_predictions",
        "An index beyond the pool",
        422,
        path=PROJECT_PATH,
        query={"indices": "8"},
        reply=problem(422, "Unprocessable Entity", "8 must be from 0 to 7", "/query/indices"),
    ),
    Example("get_model", "The model of scikit-learn", 200, path=PROJECT_PATH, media_type="application/x-skops"),
    Example(
        "evaluate_project",
        "Too few labels to evaluate the model",
        200,
        path=PROJECT_PATH,
        reply=EVALUATION,
    ),
    Example(
        "show_learning_curve",
        "The curve after three fits",
        200,
        path=PROJECT_PATH,
        reply={
            "bias": CURVE_BIAS,
            "points": [
                curve_point(1, 2, log_loss=0.1451),
                curve_point(2, 3, log_loss=0.1308, batch_accuracy=0.0),
                curve_point(3, 3, log_loss=0.0),
            ],
        },
    ),
    Example(
        "show_report",
        "Too few labels to stop",
        200,
        path=PROJECT_PATH,
        reply={
            "verdict": "continue",
            "reasons": [
                "Too few fits to say whether predictions still change: 1 of 3.",
                f"How much more labels would add is unknown. {TOO_LITTLE}",
                "The model is right about 100.0 % of the held-out set.",
                'Classes with fewer than 5 labels: "setosa", "versicolor".',
            ],
            "stabilizing_predictions": {"kappa": 0.5294, "threshold": 0.99, "n_models": 1},
            "expected_gain": {"next_batch": None, "low": None, "high": None, "n_labels": 1, "measured_on": TOO_LITTLE},
            "classes": [
                {"label": "setosa", "n_labeled": 1, "share": 0.3333},
                {"label": "versicolor", "n_labeled": 2, "share": 0.6667},
            ],
            "annotators": [annotator(None, 2, 0), annotator("ada", 1, 1)],
            "evaluation": EVALUATION,
            "calibration": None,
            "labels_per_day": [
                {
                    "date": DATE,
                    "n_labels": 3,
                    "annotators": [{"annotator": None, "n_labels": 2}, {"annotator": "ada", "n_labels": 1}],
                }
            ],
            "suspect_labels": [],
        },
    ),
    Example("show_projects", "All projects", 200),
    Example("show_project", "The flowers", 200, path=PROJECT_PATH),
    Example(
        "simulate_on_page",
        "Too few flowers",
        422,
        path=PROJECT_PATH,
        form={"strategies": "margin", "batch_size": "1", "budget": "0", "repeats": "1"},
    ),
    Example("sign_in", "With a key", 303, form={"key": "aq_a-key"}),
    Example("sign_out", "At the end of the day", 303),
    Example("retract_label", "Take back the skip", 204, path={"project_id": "flowers", "index": "7"}),
    Example(
        "retract_label",
        "A sample without a label",
        404,
        path={"project_id": "flowers", "index": "7"},
        reply=problem(404, "Not Found", str(LabelNotFound(7))),
    ),
    Example(
        "retract_label_by_id",
        "A project without ids",
        404,
        path={"project_id": "flowers", "sample_id": "iris-7"},
        reply=problem(404, "Not Found", str(LabelNotFound("iris-7"))),
    ),
    Example(
        "list_project_events",
        "The latest event",
        200,
        path=PROJECT_PATH,
        query={"after": "4"},
        reply={
            "events": [
                {
                    "version": 5,
                    "at": AT,
                    "kind": "retract",
                    "incarnation": QUERY_ID,
                    "details": {"retracted": {"index": [7], "annotator": ["ada"]}},
                }
            ],
            "next": None,
        },
    ),
    Example(
        "fit_project",
        "A new pool that replaces the old one, as a form",
        200,
        parts={
            "config": {"project_id": "flowers", "replace": True, "estimator": "gaussian_nb"},
            "X": FLOWERS,
            "y": ["setosa", None, None, None, None, None, None, None],
        },
        reply=REPLACED | NO_NOTES,
    ),
    Example(
        "get_project",
        "The project as it is",
        200,
        path=PROJECT_PATH,
        reply=REPLACED,
    ),
    Example(
        "list_projects",
        "A page past the last project",
        200,
        query={"limit": "10", "after": "flowers"},
        reply={"projects": [], "next": None},
    ),
    *(
        Example(
            "append_samples",
            title,
            200,
            path=PROJECT_PATH,
            body={"X": [[1.5, 0.4], [4.6, 1.4]], "y": [None, "versicolor"]},
            headers={"Idempotency-Key": "5f0c-two-more-flowers"},
            reply={**GROWN, **NO_NOTES, "version": 7, "n_labels_since_fit": 2, "fit": DUE},
        )
        for title in ("Two more flowers, one with a label", "Sent again because no reply arrived")
    ),
    Example(
        "append_samples",
        "Rows of another width",
        422,
        path=PROJECT_PATH,
        body={"X": [[1.5]]},
        reply=problem(422, "Unprocessable Entity", "has 1 columns, but the pool has 2", "/X"),
    ),
    Example(
        "fit_project",
        "A project that is fitted in the background",
        202,
        body={
            "project_id": "bees",
            "X": FLOWERS,
            "y": ["worker", None, "drone", None, None, None, None, None],
            "ids": [f"bee-{number}" for number in range(8)],
        },
        headers={"Prefer": "respond-async"},
        reply=noted_project(
            1,
            project_id="bees",
            classes=["drone", "worker"],
            model_version=None,
            n_labels_since_fit=2,
            test_score=None,
            fit=DUE,
        ),
    ),
    Example(
        "replace_labels",
        "The labels as they should be",
        200,
        path={"project_id": "bees"},
        body={
            "labels": [
                {"id": "bee-0", "label": "worker"},
                {"id": "bee-2", "label": "drone"},
                {"id": "bee-3", "skip": True},
            ],
            "refit": "never",
        },
    ),
    Example("retract_label_by_id", "Take back a label", 204, path={"project_id": "bees", "sample_id": "bee-2"}),
    Example("export_project", "The whole project", 200, path=PROJECT_PATH, media_type="application/zip"),
    Example(
        "import_project",
        "A name that is taken",
        409,
        query={"project_id": "flowers"},
        upload="export_project",
        reply=problem(
            409,
            "Conflict",
            str(ImportTargetExists("flowers")),
        ),
    ),
    Example(
        "import_project",
        "The project under another name",
        201,
        query={"project_id": "copy"},
        upload="export_project",
        reply={**GROWN, "project_id": "copy", "version": 7, "model_version": 4, "n_labels_since_fit": 0},
    ),
    Example(
        "rename_project_classes",
        "A class gets its full name",
        200,
        path={"project_id": "copy"},
        body={"rename": {"setosa": "Iris setosa"}},
        reply={
            **GROWN,
            "project_id": "copy",
            "version": 8,
            "classes": ["Iris setosa", "versicolor"],
            "model_version": 4,
            "n_labels_since_fit": 0,
        },
    ),
    Example(
        "rename_project_classes",
        "A class that does not exist",
        422,
        path={"project_id": "copy"},
        body={"rename": {"versicolour": "Iris versicolor"}},
        reply=problem(
            422,
            "Unprocessable Entity",
            "'versicolour' is not a class of this project: did you mean 'versicolor'? GET /projects/copy lists all",
            "/rename/versicolour",
        ),
    ),
    Example("delete_project", "The copy", 204, path={"project_id": "copy"}),
    Example(
        "simulate",
        "Compare margin with random queries",
        202,
        body={
            "X": FLOWERS,
            "y": ["setosa", "setosa", "versicolor", "versicolor", "setosa", "versicolor", "versicolor", "setosa"],
            "X_test": [[2.7, 0.7], [4.4, 1.3]],
            "y_test": ["setosa", "versicolor"],
            "strategies": ["margin"],
            "estimator": "logistic_regression",
            "n_initial": 2,
            "batch_size": 2,
            "budget": 4,
            "repeats": 2,
        },
        reply=NEW_SIMULATION,
    ),
    Example(
        "simulate",
        "More labels at the start than samples",
        422,
        body={"X": FLOWERS[:3], "y": ["setosa", "setosa", "versicolor"], "strategies": ["margin"], "n_initial": 3},
        reply=problem(
            422,
            "Unprocessable Entity",
            "leaves nothing to ask: there are 3 samples, of which 1 are held out",
            "/n_initial",
        ),
    ),
    Example("show_simulation", "The simulation in a browser", 200, path=SIMULATION_PATH),
    Example(
        "get_simulation", "Its result", 200, path=SIMULATION_PATH, reply=SIMULATION | {"result": SIMULATION_RESULT}
    ),
    Example("list_simulations", "All simulations", 200, reply={"simulations": [SIMULATION]}),
    Example("delete_simulation", "A simulation that has ended", 204, path=SIMULATION_PATH),
    Example("list_strategies", "All strategies", 200),
    Example("list_estimators", "All estimators", 200),
    Example("get_health", "The process is alive", 200, reply={"status": "ok", "version": __version__}),
    Example("get_readiness", "The data directory is writable", 200, reply={"status": "ok"}),
    Example("get_metrics", "All metrics", 200, media_type="text/plain"),
    Example("get_openapi", "The contract", 200, media_type="application/yaml"),
    Example("get_docs", "The reference", 200, media_type="text/html"),
    Example("get_guide", "The guide to training", 200, path={"page": "training"}, media_type="text/html"),
    Example("delete_project", "The end", 204, path=PROJECT_PATH),
    Example(
        "get_project",
        "A deleted project",
        404,
        path=PROJECT_PATH,
        reply=problem(404, "Not Found", str(ProjectNotFound("flowers"))),
    ),
)
"""The requests in the order in which they are sent."""
