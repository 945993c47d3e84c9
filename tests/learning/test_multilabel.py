"""Models of several classes a sample, their scores and thresholds."""

from __future__ import annotations

from io import BytesIO

import joblib
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, hamming_loss, label_ranking_average_precision_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import StandardScaler

from service.errors import FitFailed
from service.learning.estimators import fit, resolve_estimator
from service.learning.models import predict_probabilities
from service.learning.multilabel_scores import best_threshold, choose_thresholds, evaluate_labels
from service.learning.pool import Pool
from service.learning.scoring import predictor_for

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 4))
Y = X @ RNG.normal(size=(4, 3)) + RNG.normal(size=(60, 3)) > 0.5
ALL_AND_NONE = np.column_stack([Y, np.ones(60, bool), np.zeros(60, bool)])


def fitted(name, Y, **params):
    return fit(resolve_estimator(name, params), X, Y, 0, len(X), target="labels")


@pytest.mark.parametrize("class_weight", [None, "balanced"])
def test_a_linear_model_equals_one_for_each_class(class_weight):
    model = fitted("logistic_regression", Y, scale=True, class_weight=class_weight)
    Z = StandardScaler().fit_transform(X)
    each = OneVsRestClassifier(LogisticRegression(max_iter=1000, random_state=0, class_weight=class_weight)).fit(Z, Y)
    assert predict_probabilities(model, X) == pytest.approx(each.predict_proba(Z), abs=1e-9)
    fast = predictor_for(model, Pool.of(X))
    assert fast(X) == pytest.approx(predict_probabilities(model, X), abs=1e-9)


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("auto", {"n_estimators": 10}),
        ("auto", {"n_estimators": 10, "class_weight": "balanced"}),
        ("random_forest", {"n_estimators": 10}),
        ("extra_trees", {"n_estimators": 10, "class_weight": "balanced"}),
        ("k_neighbors", {"weights": "distance"}),
        ("gaussian_nb", {}),
        ("svc", {}),
    ],
)
def test_each_estimator_gives_marginals_and_the_smoothed_share_of_a_constant_class(name, params):
    model = fitted(name, ALL_AND_NONE, **params)
    P = predict_probabilities(model, X)
    assert P.shape == (60, 5) and P.min() >= 0 and P.max() <= 1
    assert ((P[:, :3] > 0.5) == Y).mean() > 0.8
    assert P[:, 3] == pytest.approx(60.5 / 61) and P[:, 4] == pytest.approx(0.5 / 61)
    assert predictor_for(model, Pool.of(X))(X) == pytest.approx(P, abs=1e-5)
    file = BytesIO()
    joblib.dump(model, file)
    file.seek(0)
    assert (predict_probabilities(joblib.load(file), X) == P).all()


def test_a_forest_equals_a_classifier_of_each_class_with_a_single_class():
    params = {"n_estimators": 20, "min_samples_leaf": 3}
    alone = fit(resolve_estimator("extra_trees", params), X, Y[:, 0], 0).predict_proba(X)[:, 1]
    assert predict_probabilities(fitted("extra_trees", Y[:, :1], **params), X)[:, 0] == pytest.approx(alone, abs=1e-9)


def test_a_fit_needs_a_class_that_some_rows_have_and_others_not():
    with pytest.raises(FitFailed, match="another has not"):
        fitted("auto", np.ones((60, 2), bool))


@pytest.mark.parametrize("name", ["auto", "extra_trees", "hist_gradient_boosting"])
def test_features_may_be_missing(name):
    rows = X.copy()
    rows[::7, 1] = np.nan
    rounds = {"max_iter": 5} if name == "hist_gradient_boosting" else {"n_estimators": 10}
    spec = resolve_estimator(name, rounds)
    model = fit(spec, rows, Y, 0, medians=np.nanmedian(rows, axis=0), target="labels")
    assert np.isfinite(predict_probabilities(model, rows)).all()


class Given:
    """A model that returns its rows."""

    classes_ = np.arange(4)

    def predict_proba(self, rows):
        return rows


@pytest.mark.parametrize("digits", [1, 8], ids=["with ties", "without"])
def test_scores_equal_those_of_scikit_learn(digits):
    P = RNG.random((300, 4)).round(digits)
    truth = RNG.random((300, 4)) < 0.4
    score = evaluate_labels(Given(), np.full(4, 0.5), Pool.of(P), truth)
    assert score.f1_micro == pytest.approx(f1_score(truth, P >= 0.5, average="micro"))
    assert score.f1_macro == pytest.approx(f1_score(truth, P >= 0.5, average="macro"))
    assert score.lrap == pytest.approx(label_ranking_average_precision_score(truth, P))
    assert score.hamming_loss == pytest.approx(hamming_loss(truth, P >= 0.5))


def test_a_class_that_the_model_has_not_seen_is_never_predicted():
    truth = np.zeros((3, 5), bool)
    truth[0, 4] = True
    score = evaluate_labels(Given(), np.full(4, 0.5), Pool.of(np.zeros((3, 4))), truth)
    assert (score.f1_micro, score.f1_macro, score.hamming_loss) == (0, 0, pytest.approx(1 / 15))
    assert score.lrap == pytest.approx((1 / 5 + 2) / 3)


def test_a_threshold_maximises_f1():
    p = np.array([0.9, 0.4, 0.3, 0.2, 0.1])
    assert best_threshold(p, np.array([1, 1, 0, 0, 0], bool)) == pytest.approx(0.35)
    assert best_threshold(np.full(5, 0.2), np.array([1, 1, 0, 0, 0], bool)) == pytest.approx(0.1)
    assert best_threshold(p, np.ones(5, bool)) == pytest.approx(0.05)


def test_a_class_with_few_rows_keeps_the_default_threshold():
    truth = np.zeros((40, 3), bool)
    truth[:9, 0] = truth[:10, 1] = truth[:31, 2] = True
    assert choose_thresholds(truth * 0.2, truth).tolist() == [0.5, 0.1, 0.5]
