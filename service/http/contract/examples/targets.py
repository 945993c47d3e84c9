"""Examples of a project of numbers, the prices of flats, and of one with several labels a sample, films."""

from __future__ import annotations

from service.http.contract.examples.example import Example, Json, problem
from service.http.contract.examples.flowers import noted_project
from service.http.contract.examples.loop import query_reply

FLATS: Json = {
    "project_id": "flats",
    "n_samples": 6,
    "n_labeled": 3,
    "n_unlabeled": 3,
    "classes": [],
    "class_counts": [],
    "estimator": {"name": "ridge", "params": {"alpha": None, "scale": True}},
    "consensus": "median",
    "target": "number",
    "test_score": {"rmse": 122.2494, "mae": 105.483, "r2": 0.9042},
}

FILMS: Json = {
    "project_id": "films",
    "n_samples": 5,
    "n_labeled": 4,
    "n_unlabeled": 1,
    "classes": ["comedy", "crime"],
    "class_counts": [2, 2],
    "estimator": {"name": "gaussian_nb", "params": {"var_smoothing": 1e-9, "scale": False}},
    "consensus": "majority",
    "target": "labels",
    "test_score": None,
}

FOR_NUMBERS = (
    "'auto', 'random', 'k_means', 'typiclust', 'prob_cover', 'k_center', 'max_herding', 'discriminative', 'lcmd', "
    "'greedy_x', 'greedy_y', 'improved_greedy', 'committee_variance', 'expected_model_change'"
)

EXAMPLES = (
    Example(
        "fit_project",
        "Labels that are numbers",
        201,
        body={
            "project_id": "flats",
            "target": "number",
            "estimator": "ridge",
            "X": [[52, 2], [75, 3], [31, 1], [98, 4], [64, 2], [120, 5]],
            "y": [780, 1020.5, None, 1260, None, None],
            "X_test": [[45, 2], [110, 4]],
            "y_test": [700, 1490],
        },
        reply=noted_project(1, **FLATS),
    ),
    Example(
        "query_project",
        "Numbers to ask about",
        200,
        body={"project_id": "flats", "batch_size": 2, "strategy": "lcmd"},
        reply=query_reply([2, 5], None, "lcmd", project_id="flats", n_labeled=3, n_unlabeled=3),
    ),
    Example(
        "query_project",
        "A strategy for classes in a project of numbers",
        422,
        body={"project_id": "flats", "strategy": "margin"},
        reply=problem(
            422,
            "Unprocessable Entity",
            f"'margin' is not for target 'number'; use one of {FOR_NUMBERS}",
            "/strategy",
        ),
    ),
    Example(
        "query_project",
        "Predictions of two models of numbers of your own",
        200,
        body={"strategy": "committee_variance", "member_predictions": [[1.5, 2.0, 9.0], [1.6, 2.1, 4.0]]},
        reply=query_reply([2], [6.25], "committee_variance", project_id=None, model_version=None)
        | {"n_labeled": 0, "n_unlabeled": 3},
    ),
    Example(
        "label_project",
        "A number by each of two annotators, whose median counts",
        200,
        body={
            "project_id": "flats",
            "labels": [
                {"index": 2, "label": 520, "annotator": "ada"},
                {"index": 2, "label": 560, "annotator": "bea"},
            ],
        },
        reply={
            "project_id": "flats",
            "n_accepted": 2,
            "n_changed": 2,
            "n_labeled": 4,
            "n_unlabeled": 2,
            "n_skipped": 0,
            "model_version": 2,
            "n_labels_since_fit": 0,
            "test_score": {"rmse": 145.0417, "mae": 127.756, "r2": 0.8652},
        },
    ),
    Example("delete_project", "Numbers that are no longer needed", 204, path={"project_id": "flats"}),
    Example(
        "fit_project",
        "Several labels a sample",
        201,
        body={
            "project_id": "films",
            "target": "labels",
            "estimator": "gaussian_nb",
            "X": [[0.9, 0.1], [0.8, 0.7], [0.1, 0.9], [0.2, 0.1], [0.7, 0.9]],
            "y": [["comedy"], ["comedy", "crime"], ["crime"], [], None],
        },
        reply=noted_project(1, **FILMS),
    ),
    Example(
        "query_project",
        "A film to ask about",
        200,
        body={"project_id": "films", "strategy": "mean_uncertainty"},
        reply=query_reply([4], [0.0], "mean_uncertainty", project_id="films", n_labeled=4, n_unlabeled=1),
    ),
    Example(
        "label_project",
        "A list of classes, one of them new",
        200,
        body={"project_id": "films", "labels": [{"index": 4, "label": ["crime", "drama"]}]},
        reply={
            "project_id": "films",
            "n_accepted": 1,
            "n_changed": 1,
            "n_labeled": 5,
            "n_unlabeled": 0,
            "n_skipped": 0,
            "model_version": 2,
            "n_labels_since_fit": 0,
            "test_score": None,
        },
    ),
    Example("delete_project", "Films that are no longer needed", 204, path={"project_id": "films"}),
)
