"""Examples of what a project holds and how good its model is."""

from __future__ import annotations

from service.http.contract.examples.example import AT, DATE, QUERY_ID, Example, Json, problem
from service.http.contract.examples.flowers import PROJECT_PATH
from service.usecases import lure
from service.usecases.evaluation import BIAS, MEASURED_ON, METHOD
from service.usecases.expected_gain import TOO_LITTLE
from service.usecases.learning_curve import BIAS as CURVE_BIAS


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
    "lure": {
        "n": 0,
        "n_pool": 8,
        "measured_on": lure.MEASURED_ON,
        "bias": lure.BIAS,
        "reason": lure.too_few(0),
        "accuracy": None,
    },
    **dict.fromkeys(("f1_micro", "lrap", "hamming_loss", "rmse", "mae", "r2"), None),
}


EXAMPLES = (
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
)
