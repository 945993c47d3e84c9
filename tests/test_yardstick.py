"""The yardstick: the service must query the same samples as a plain scikit-learn loop."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from service.demo.comparisons import yardstick
from tests.support.calls import post, wait_for_simulation

N_QUERIES = 20
KILLED_AFTER = 10


@pytest.fixture(scope="module")
def dataset():
    return yardstick(0)


def plain_loop(dataset, choose):
    """Query, label and fit with scikit-learn alone; return the samples, and the accuracies before and after each.

    `choose` picks one of the remaining rows by their probabilities (n, c).
    """
    X, y, n_labeled = dataset.X, dataset.y, dataset.n_labeled
    model = LogisticRegression(max_iter=2000, random_state=42)
    labeled, remaining = list(range(n_labeled)), list(range(n_labeled, len(X)))
    model.fit(X[labeled], y[labeled])
    queried, accuracies = [], [model.score(dataset.X_test, dataset.y_test)]
    for _ in range(N_QUERIES):
        index = remaining.pop(choose(model.predict_proba(X[remaining])))
        queried.append(index)
        labeled.append(index)
        model.fit(X[labeled], y[labeled])
        accuracies.append(model.score(dataset.X_test, dataset.y_test))
    return queried, accuracies


def least_confident(probabilities):
    return int(np.argmin(probabilities.max(axis=1)))


def fit_request(dataset):
    """Return the request that creates the project."""
    labels = dataset.y.tolist()
    return {
        "project_id": "yardstick",
        "X": dataset.X.tolist(),
        "y": labels[: dataset.n_labeled] + [None] * (len(labels) - dataset.n_labeled),
        "X_test": dataset.X_test.tolist(),
        "y_test": dataset.y_test.tolist(),
        "estimator": {"name": "logistic_regression", "params": {"max_iter": 2000}},
        "random_state": 42,
    }


def query_and_label(service, dataset):
    """Query one sample, label it and wait for the fit; return the sample and the new accuracy."""
    result = service.post("/query", {"project_id": "yardstick", "strategy": "least_confidence"})
    assert result["strategy"] == "least_confidence"
    assert result["fallback_reason"] is None
    (index,) = result["indices"]
    label = {"index": index, "label": int(dataset.y[index]), "query_id": result["query_id"]}
    labeled = service.post("/label", {"project_id": "yardstick", "labels": [label]})
    assert labeled["n_labels_since_fit"] == 0
    return index, labeled["test_score"]["accuracy"]


def test_the_plain_loop_learns(dataset):
    _, accuracies = plain_loop(dataset, least_confident)
    assert (dataset.n_labeled, len(dataset.X), len(dataset.X_test)) == (90, 900, 100)
    assert (accuracies[0], accuracies[-1]) == (0.88, 0.91)


@pytest.mark.slow
def test_the_service_queries_what_the_plain_loop_queries_although_it_is_killed_halfway(serve, dataset):
    service = serve(AQ_WORKERS="2")
    created = service.post("/fit", fit_request(dataset), expect=201)
    queried, accuracies = [], [created["test_score"]["accuracy"]]
    for n in range(N_QUERIES):
        if n == KILLED_AFTER:
            service.kill()
            service.start()
        index, accuracy = query_and_label(service, dataset)
        queried.append(index)
        accuracies.append(accuracy)
    assert (queried, accuracies) == plain_loop(dataset, least_confident)
    assert (accuracies[0], accuracies[-1]) == (0.88, 0.91)


def test_one_simulation_has_the_accuracies_of_the_plain_loop(client, dataset):
    body = {
        "X": dataset.X.tolist(),
        "y": dataset.y.tolist(),
        "X_test": dataset.X_test.tolist(),
        "y_test": dataset.y_test.tolist(),
        "initial": list(range(dataset.n_labeled)),
        "strategies": ["least_confidence"],
        "estimator": {"name": "logistic_regression", "params": {"max_iter": 2000}},
        "batch_size": 1,
        "budget": N_QUERIES,
        "repeats": 1,
        "random_state": 42,
    }
    simulated = post(client, "/simulate", 202, **body)
    result = wait_for_simulation(client, simulated["simulation_id"])["result"]
    accuracies = [point["mean"] for point in result["strategies"][0]["curve"]]
    assert accuracies == plain_loop(dataset, least_confident)[1]
    assert (accuracies[0], accuracies[-1]) == (0.88, 0.91)


def test_random_queries_do_not_improve_the_model_on_average(client, dataset):
    last = []
    for seed in range(50):
        client.post("/fit", json={**fit_request(dataset), "replace": True})
        # Random selection needs no model in between, so one query asks for the whole batch.
        query = {"project_id": "yardstick", "strategy": "random", "batch_size": N_QUERIES, "random_state": seed}
        indices = client.post("/query", json=query).json["indices"]
        labels = [{"index": index, "label": int(dataset.y[index])} for index in indices]
        labeled = client.post("/label", json={"project_id": "yardstick", "labels": labels}).json
        last.append(labeled["test_score"]["accuracy"])
    # Measured: a mean of 0.880 over these fifty seeds, 0.83 to 0.91 each, with a standard deviation of 0.015.
    assert np.mean(last) == pytest.approx(0.88, abs=0.01)
