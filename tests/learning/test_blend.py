"""The estimator `auto`: a linear model and extra trees, and when the trees are left out."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from scipy import sparse
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from service.learning.classifiers import why_linear_alone
from service.learning.estimators import TrainingShape, committee_in, fit, resolve_estimator
from service.learning.models import predict_probabilities
from service.learning.pool import Pool
from service.learning.scoring import predictor_for
from tests.support.calls import end_labels, get, line_pool, post

RNG = np.random.default_rng(0)
Y = np.arange(90) % 3 * 2
X = RNG.normal(size=(90, 4)) * [1, 1e-3, 50, 1] + np.outer(Y, [1, 1e-3, 0, 0])
AUTO = resolve_estimator("auto", {"n_estimators": 10})


def test_it_is_the_weighted_mean_of_its_two_models():
    clipped = np.clip(StandardScaler().fit_transform(X), -3, 3)
    linear = LogisticRegression(max_iter=1000, random_state=5).fit(clipped, Y).predict_proba(clipped)
    Z = StandardScaler().fit_transform(X).astype(np.float32)
    forest = ExtraTreesClassifier(10, random_state=5).fit(Z, Y).predict_proba(Z)
    assert predict_probabilities(fit(AUTO, X, Y, 5), X) == pytest.approx(linear / 3 + 2 * forest / 3, abs=1e-6)


@pytest.mark.parametrize("params", [{}, {"scale": False}, {"pass_seconds": 1e-9}], ids=["whole", "unscaled", "linear"])
@pytest.mark.parametrize("offset", [0, 1e6])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64])
def test_the_fast_probabilities_equal_the_others(params, dtype, offset):
    pool = (10 * X + (offset if dtype != np.float16 else 0)).astype(dtype)
    model = fit(resolve_estimator("auto", {"n_estimators": 10, **params}), pool, Y, 0, len(X))
    fast = predictor_for(model, Pool.of(pool))(pool)
    assert fast == pytest.approx(predict_probabilities(model, pool), abs=1e-5)


@pytest.mark.parametrize("scale", [False, True])
def test_its_members_are_the_linear_model_with_one_tree_each(scale):
    model = fit(resolve_estimator("auto", {"n_estimators": 10, "scale": scale}), X, Y, 0)
    committee = committee_in(model)
    members = committee.member_probabilities(X)
    assert members.shape == (committee.n_members, 90, len(committee.classes_)) == (10, 90, 3)
    assert members.mean(axis=0) == pytest.approx(predict_probabilities(model, X), abs=1e-6)


SHAPE = {"rows": 1000, "features": 64, "classes": 10, "rarest_class": 5, "pool_rows": 100_000}


@pytest.mark.parametrize(
    ("change", "params", "expected"),
    [
        ({}, {}, None),
        ({"sparse": True}, {}, "the pool is sparse"),
        ({"pool_rows": 1_000_000}, {}, None),
        ({"pool_rows": 5_000_000}, {}, "100 trees would take about 9.8 s of one core to score 5,000,000 samples"),
        ({"pool_rows": 5_000_000}, {"pass_seconds": 10}, None),
        ({"pool_rows": 5_000_000}, {"n_estimators": 20}, None),
        ({"classes": 290}, {}, "290 classes are too many for trees"),
        ({"classes": 280}, {"pass_seconds": 10}, None),
    ],
)
def test_trees_are_left_out_where_they_cost_too_much(change, params, expected):
    spec = resolve_estimator("auto", params)
    why = why_linear_alone(spec.params, TrainingShape(**SHAPE | change))
    assert why is None if expected is None else why.startswith(f"scaled logistic_regression alone: {expected}")


def test_many_labels_do_not_make_the_trees_grow_without_bound():
    many = RNG.normal(size=(9000, 2))
    forest = fit(AUTO, many, RNG.integers(2, size=9000), 0)[-1].forest
    assert max(tree.get_n_leaves() for tree in forest.estimators_) <= 4000


def test_it_is_the_estimator_of_a_project_that_names_none(client):
    pool = {"X": line_pool(), "y": end_labels()}
    made = client.post("/fit", json={"project_id": "p", **pool}).json
    assert made["estimator"] == {"name": "auto", "params": dict(resolve_estimator("auto", {}).params)}
    post(client, "/fit", project_id="p", estimator="gaussian_nb")
    assert post(client, "/fit", project_id="p")["estimator"]["name"] == "gaussian_nb"
    replaced = client.post("/fit", json={"project_id": "p", "replace": True, **pool}).json
    assert replaced["estimator"]["name"] == "auto"


def test_a_model_without_trees_says_so_wherever_it_is_used(client):
    why = (
        "auto is scaled logistic_regression alone: 10 trees would take about 4.1e-07 s of one core to score 20 samples"
    )
    spec = {"name": "auto", "params": {"n_estimators": 10, "pass_seconds": 1e-7}}
    made = post(client, "/fit", 201, project_id="p", X=line_pool(), y=end_labels(), estimator=spec)
    assert made["notes"][0] == made["model_reason"]
    assert made["model_reason"] == f"{why}, more than pass_seconds = 1e-07"
    assert get(client, "/projects/p")["model_reason"] == made["model_reason"]
    assert get(client, "/projects")["projects"][0]["model_reason"] == made["model_reason"]
    assert post(client, "/query", project_id="p", strategy="margin")["reason"] == made["model_reason"]
    assert post(client, "/query", project_id="p", strategy="auto")["reason"].endswith(f"; {made['model_reason']}")
    assert post(client, "/query", project_id="p", strategy="k_center")["reason"] is None
    whole = post(client, "/fit", project_id="p", estimator={"name": "auto", "params": {"n_estimators": 10}})
    assert (len(whole["notes"]), whole["model_reason"]) == (1, None)
    assert post(client, "/query", project_id="p", strategy="margin")["reason"] is None
    assert post(client, "/query", project_id="p", strategy="bald")["fallback_reason"] is None


def test_a_sparse_pool_gets_the_linear_model(client):
    file = BytesIO()
    sparse.save_npz(file, sparse.csr_array(np.eye(6)))
    config = b'{"project_id": "s", "estimator": "auto", "y": [0, 1, 0, null, null, null]}'
    form = {"config": (BytesIO(config), "c", "application/json"), "X": (BytesIO(file.getvalue()), "X.npz")}
    reply = client.post("/fit", data=form)
    assert reply.json["model_reason"] == "auto is scaled logistic_regression alone: the pool is sparse"
    assert post(client, "/query", project_id="s", strategy="bald", batch_size=3)["fallback_reason"] is None
