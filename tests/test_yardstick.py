"""The yardstick: a plain loop with scikit-learn, and the service must ask the very same questions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

N_QUESTIONS = 20
KILLED_AFTER = 10


@dataclass(frozen=True)
class Task:
    """A pool whose first rows are labelled, what an annotator would say of the others, and a held-out set."""

    X: np.ndarray
    y: np.ndarray
    n_labeled: int
    X_test: np.ndarray
    y_test: np.ndarray


@pytest.fixture(scope="module")
def task():
    X, y = make_classification(
        n_samples=1000,
        n_features=10,
        n_informative=5,
        n_redundant=0,
        n_classes=2,
        n_clusters_per_class=1,
        flip_y=0.1,
        random_state=42,
    )
    X_rest, X_test, y_rest, y_test = train_test_split(X, y, test_size=0.1, random_state=42, stratify=y)
    X_known, X_pool, y_known, y_pool = train_test_split(
        X_rest, y_rest, train_size=0.1, random_state=42, stratify=y_rest
    )
    return Task(np.vstack([X_known, X_pool]), np.concatenate([y_known, y_pool]), len(X_known), X_test, y_test)


def plain_loop(task, choose):
    """Ask, label and fit with scikit-learn alone; return the questions, and the accuracies before and after each.

    `choose` picks one of the remaining rows by their probabilities (n, c).
    """
    model = LogisticRegression(max_iter=2000, random_state=42)
    known, remaining = list(range(task.n_labeled)), list(range(task.n_labeled, len(task.X)))
    model.fit(task.X[known], task.y[known])
    questions, accuracies = [], [model.score(task.X_test, task.y_test)]
    for _ in range(N_QUESTIONS):
        question = remaining.pop(choose(model.predict_proba(task.X[remaining])))
        questions.append(question)
        known.append(question)
        model.fit(task.X[known], task.y[known])
        accuracies.append(model.score(task.X_test, task.y_test))
    return questions, accuracies


def least_confident(probabilities):
    return int(np.argmin(probabilities.max(axis=1)))


def creation(task):
    """The request that makes the project."""
    labels = task.y.tolist()
    return {
        "project_id": "yardstick",
        "X": task.X.tolist(),
        "y": labels[: task.n_labeled] + [None] * (len(labels) - task.n_labeled),
        "X_test": task.X_test.tolist(),
        "y_test": task.y_test.tolist(),
        "estimator": {"name": "logistic_regression", "params": {"max_iter": 2000}},
        "random_state": 42,
    }


def ask_and_answer(service, task):
    """Ask one question, label it and wait for the fit; return the question and the new accuracy."""
    asked = service.post("/query", {"project_id": "yardstick", "strategy": "least_confidence"})
    assert asked["strategy"] == "least_confidence"
    assert asked["fallback_reason"] is None
    (question,) = asked["indices"]
    answer = {"index": question, "label": int(task.y[question]), "query_id": asked["query_id"]}
    labeled = service.post("/label", {"project_id": "yardstick", "labels": [answer]})
    assert labeled["n_labels_since_fit"] == 0
    return question, labeled["test_score"]["accuracy"]


def test_the_plain_loop_learns(task):
    _, accuracies = plain_loop(task, least_confident)
    assert (task.n_labeled, len(task.X), len(task.X_test)) == (90, 900, 100)
    assert (accuracies[0], accuracies[-1]) == (0.88, 0.91)


def test_the_service_asks_what_the_plain_loop_asks_although_it_is_killed_in_the_middle(serve, task):
    service = serve(AQ_WORKERS="2")
    created = service.post("/fit", creation(task), expect=201)
    questions, accuracies = [], [created["test_score"]["accuracy"]]
    for n in range(N_QUESTIONS):
        if n == KILLED_AFTER:
            service.kill()
            service.start()
        question, accuracy = ask_and_answer(service, task)
        questions.append(question)
        accuracies.append(accuracy)
    assert (questions, accuracies) == plain_loop(task, least_confident)
    assert (accuracies[0], accuracies[-1]) == (0.88, 0.91)


def test_random_questions_teach_nothing_on_average(client, task):
    last = []
    for seed in range(50):
        client.post("/fit", json={**creation(task), "replace": True})
        # What is drawn at random needs no model in between, so all questions are asked at once.
        asking = {"project_id": "yardstick", "strategy": "random", "batch_size": N_QUESTIONS, "random_state": seed}
        questions = client.post("/query", json=asking).json["indices"]
        answers = [{"index": question, "label": int(task.y[question])} for question in questions]
        labeled = client.post("/label", json={"project_id": "yardstick", "labels": answers}).json
        last.append(labeled["test_score"]["accuracy"])
    # Measured: 0.880 over these fifty seeds, 0.83 to 0.91 each; with a standard deviation of 0.015 the mean of other
    # fifty would lie within 0.005 of theirs.
    assert np.mean(last) == pytest.approx(0.88, abs=0.01)
