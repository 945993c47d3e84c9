"""Notes on what makes a model worse."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from service.learning.advice import notes_on_fit
from service.learning.estimators import resolve_estimator
from tests.support.calls import post

ROWS = np.random.default_rng(0).normal(size=(40, 3))
CODES = np.arange(40) % 2
LINEAR = ("logistic_regression", {})


@pytest.mark.parametrize(
    ("estimator", "X", "noted"),
    [
        (LINEAR, ROWS, False),
        (LINEAR, ROWS * [1000, 1, 1], True),
        (LINEAR, ROWS[:, :2] * [1, 1e-4], True),
        (LINEAR, (ROWS * [1000, 1, 1]).astype(np.float16), True),
        (LINEAR, np.int32(ROWS * [100_000, 10, 10]), True),
        (LINEAR, sparse.csr_array(ROWS * [1000, 1, 1]), True),
        (LINEAR, ROWS * [1000, 0, 0], False),
        (LINEAR, ROWS * 0, False),
        (LINEAR, np.column_stack([ROWS] * 10 + [CODES * 1e-9]), False),
        (LINEAR, ROWS * [1e307, 1, 1], True),
        (("logistic_regression", {"scale": True}), ROWS * [1000, 1, 1], False),
        (("auto", {}), ROWS * [1000, 1, 1], False),
        (("auto", {"scale": False}), ROWS * [1000, 1, 1], True),
        (("svc", {"kernel": "linear", "scale": False}), ROWS * [1000, 1, 1], True),
        (("svc", {"scale": False}), ROWS * [1000, 1, 1], False),
        (("extra_trees", {}), ROWS * [1000, 1, 1], False),
    ],
)
def test_features_of_unequal_scale_are_noted_for_unscaled_linear_models(estimator, X, noted):
    notes = notes_on_fit(resolve_estimator(*estimator), X, CODES, ["a", "b"])
    assert [note.split(":")[0] for note in notes] == ["features"] * noted


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([20, 20, 2], []),
        ([20, 20, 1], ['classes with fewer than two labels, which the model can hardly learn: "c" (1)']),
        (
            [1, 1, 0],
            ['classes with fewer than two labels, which the model can hardly learn: "a" (1), "b" (1), "c" (0)'],
        ),
        ([297, 100, 3], ['classes with under 1 % of the labels, which the model seldom predicts: "c" (0.8%)']),
        ([196, 2, 2], []),
    ],
)
def test_classes_with_few_labels_are_noted(counts, expected):
    codes = np.repeat([0, 1, 2], counts)
    notes = notes_on_fit(resolve_estimator("gaussian_nb", {}), np.ones((len(codes), 1)), codes, ["a", "b", "c"])
    assert list(notes) == expected


def test_many_classes_are_cut_short_and_the_cure_is_named():
    codes = np.concatenate([np.zeros(1500, int), np.repeat([1, 2, 3, 4, 5, 6, 7], 2)])
    X = np.ones((len(codes), 1))
    [note] = notes_on_fit(resolve_estimator("auto", {}), X, codes, list(range(8)))
    assert ", 5 (0.1%) and 2 more" in note
    assert note.endswith('; "class_weight": "balanced" gives all classes the same weight')
    assert (
        "balanced" not in notes_on_fit(resolve_estimator("auto", {"class_weight": "balanced"}), X, codes, range(8))[0]
    )


def test_they_are_notes_of_the_fit(client):
    X = [[1000.0 * n, n % 3] for n in range(8)]
    made = post(client, "/fit", 201, project_id="p", X=X, y=["a", "a", "b", *[None] * 5], estimator=LINEAR[0])
    assert [note.split(":")[0] for note in made["notes"]] == [
        "features",
        "classes with fewer than two labels, which the model can hardly learn",
    ]
    post(client, "/label", project_id="p", labels=[{"index": 5, "label": "b"}])
    assert post(client, "/fit", project_id="p", estimator="gaussian_nb")["notes"] == []
    assert post(client, "/fit", 201, project_id="q", X=X, y=["a", *[None] * 7])["notes"] == []
