"""Examples of simulations."""

from __future__ import annotations

from service.http.contract.examples.example import AT, QUERY_ID, Example, problem
from service.http.contract.examples.flowers import FLOWERS

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
    "recommendation": "No strategy is surely better than 'random': the best, 'margin', needs 1 fewer label than "
    "'random' to reach an accuracy of 75.0 % (95 % interval -12 to 14, 2 repeats); simulate more repeats.",
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
    "target_type": "class",
    "created_at": AT,
    "ended_at": AT,
}

NEW_SIMULATION = SIMULATION | {
    "status": "queued",
    "progress": {"done": 0, "total": 4},
    "ended_at": None,
    "result": None,
}


EXAMPLES = (
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
    Example(
        "fit_project",
        "A pool that is labelled already",
        201,
        body={"project_id": "meadow", "X": FLOWERS * 2, "y": ["setosa", "setosa", "versicolor", "versicolor"] * 4},
    ),
    Example(
        "simulate_on_page",
        "From the form of a page",
        303,
        path={"project_id": "meadow"},
        form={"strategies": "margin", "batch_size": "1", "budget": "2", "repeats": "1"},
    ),
    Example("delete_simulation", "A simulation that has ended", 204, path=SIMULATION_PATH),
)
