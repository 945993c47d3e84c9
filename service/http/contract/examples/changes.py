"""Examples of labels, pools and classes that change, of a copy, and of a project fitted in the background."""

from __future__ import annotations

from service.errors import ImportTargetExists, LabelNotFound
from service.http.contract.examples.example import AT, QUERY_ID, Example, problem
from service.http.contract.examples.flowers import (
    DUE,
    FLOWERS,
    NO_NOTES,
    PROJECT_PATH,
    TWO_ADDED,
    noted_project,
    project,
)

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

REMOVED = {
    "project_id": "flowers",
    "n_labeled": 2,
    "n_skipped": 0,
    "model_version": None,
    "n_labels_since_fit": 2,
}

EXAMPLES = (
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
            reply={**GROWN, **NO_NOTES, **TWO_ADDED, "version": 7, "n_labels_since_fit": 2, "fit": DUE},
        )
        for title in ("Two more flowers, one with a label", "Sent again because no reply arrived")
    ),
    Example(
        "remove_samples",
        "A flower that was measured twice",
        200,
        path=PROJECT_PATH,
        body={"indices": [7]},
        reply={**REMOVED, "n_changed": 1, "n_removed": 1, "n_unlabeled": 7},
    ),
    Example(
        "remove_samples",
        "A sample beyond the pool",
        422,
        path=PROJECT_PATH,
        body={"indices": [10]},
        reply=problem(422, "Unprocessable Entity", "must be from 0 to 9", "/indices/0"),
    ),
    Example(
        "restore_samples",
        "It was another flower",
        200,
        path=PROJECT_PATH,
        body={"indices": [7]},
        reply={**REMOVED, "n_changed": 1, "n_removed": 0, "n_unlabeled": 8},
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
        reply={**GROWN, "project_id": "copy", "version": 9, "model_version": 4, "n_labels_since_fit": 0},
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
            "version": 10,
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
)
