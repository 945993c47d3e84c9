"""The project of the examples: eight flowers with two measurements each."""

from __future__ import annotations

from service.http.contract.examples.example import AT, Json

NO_NOTES: Json = {"notes": []}
TWO_ADDED: Json = {"n_added": 2, "n_ignored": 0, "n_replaced": 0, "indices": None}
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
        "n_removed": 0,
        "n_skipped": 0,
        "classes": ["setosa", "versicolor"],
        "class_counts": [1, 1],
        "estimator": AUTO,
        "consensus": "crowdlab",
        "skips_to_drop": 1,
        "similar_labels": "refuse",
        "missing_values": "refuse",
        "target": "class",
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


DUE = {"due": True, "running_since": None, "last_error": None}
PROJECT_PATH = {"project_id": "flowers"}
