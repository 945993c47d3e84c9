"""Fitted models of samples that may have several classes as plain scikit-learn."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit
from sklearn.ensemble import StackingRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import LabelBinarizer

from service.domain.labels import Label
from service.learning.blend import FOREST_WEIGHT, Blend
from service.learning.models import Classifier
from service.learning.multilabel import IndicatorRegressor, OneVsRest
from service.learning.plain_models import NotExportable, clipper, names_of, plain_last_step, plain_pipeline
from service.learning.stacked_linear import StackedLinear

CODES = np.array([0, 1])
"""The classes of each class's own classifier."""

MAX_TREES = 2_000
"""Largest number of trees of all classes, which are 300 MB in the format of skops."""


def plain_label_model(
    model: Classifier, labels: Sequence[Label], thresholds: NDArray[np.float64], n_features: int
) -> Any:
    """Return a copy of a model of marginals as plain scikit-learn. Raises NotExportable.

    It is a `OneVsRestClassifier`, with the marginals (n, c) as its probabilities; or a regressor that predicts them,
    where all classes share a forest or neighbours. Its `classes_` (c,) are the labels of its class codes, and
    `thresholds_` (c,) the marginals from which a sample has each.
    """
    names = names_of(model, labels)

    def with_names(last: Any) -> Any:
        plain = plain_marginals(last, n_features)
        plain.classes_, plain.thresholds_ = names, thresholds
        return plain

    return plain_pipeline(model, with_names)


def plain_marginals(model: Any, n_features: int) -> Any:
    """Return a model of marginals as a classifier or regressor of scikit-learn. Raises NotExportable."""
    if isinstance(model, IndicatorRegressor):
        return deepcopy(model.regressor)
    if isinstance(model, Blend) and model.forest is not None:
        return stacked(model, model.forest.regressor, n_features)
    if isinstance(model, Blend):
        linear = [make_pipeline(clipper(n_features), each) if model.clip else each for each in linear_of(model.linear)]
        return one_vs_rest_of(linear)
    return one_vs_rest_of(linear_of(model) if isinstance(model, StackedLinear) else each_of(model, n_features))


def one_vs_rest_of(models: Sequence[Any]) -> OneVsRestClassifier:
    """Return fitted classifiers, one for each class, as a one-vs-rest of lists of classes."""
    plain = OneVsRestClassifier(LogisticRegression())
    plain.estimators_ = list(models)
    plain.n_features_in_ = models[0].n_features_in_
    plain.label_binarizer_ = LabelBinarizer(sparse_output=True).fit(np.eye(2, dtype=np.int64))
    plain.label_binarizer_.classes_ = np.arange(len(models))
    return plain


def linear_of(model: StackedLinear) -> Sequence[LogisticRegression]:
    """Return the logistic regression of each class."""
    return [
        linear_model(deepcopy(model.linear), coef, intercept)
        for coef, intercept in zip(model.coef_, model.intercept_, strict=True)
    ]


def linear_model(model: LogisticRegression, coef: NDArray[np.float64], intercept: float) -> LogisticRegression:
    """Return a logistic regression after giving it weights (d,)."""
    model.classes_, model.coef_, model.intercept_ = CODES, coef[np.newaxis], np.array([intercept])
    model.n_features_in_, model.n_iter_ = len(coef), np.array([1], np.int32)
    return model


def stacked(blend: Blend, forest: Any, n_features: int) -> StackingRegressor:
    """Return the linear model of a blend and its forest as the weighted mean of two regressors of marginals."""
    linear: Any = sigmoids(blend.linear)
    linear = make_pipeline(clipper(n_features), linear) if blend.clip else linear
    parts = [("linear", linear), ("forest", deepcopy(forest))]
    weights = np.eye(len(blend.classes_))
    mean = LinearRegression()
    mean.coef_ = np.hstack([(1 - FOREST_WEIGHT) * weights, FOREST_WEIGHT * weights])
    mean.intercept_, mean.n_features_in_ = np.zeros(len(weights)), 2 * len(weights)
    plain = StackingRegressor(parts, final_estimator=LinearRegression())
    plain.estimators_, plain.named_estimators_ = [part for _, part in parts], dict(parts)
    plain.final_estimator_, plain.stack_method_ = mean, ["predict", "predict"]
    return plain


def sigmoids(model: StackedLinear) -> MLPRegressor:
    """Return logistic regressions as a network: a hidden unit for each class, and nothing after."""
    n_classes, n_features = model.coef_.shape
    network = MLPRegressor((n_classes,), activation="logistic")
    network.coefs_, network.intercepts_ = [model.coef_.T, np.eye(n_classes)], [model.intercept_, np.zeros(n_classes)]
    network.n_layers_, network.n_outputs_, network.out_activation_ = 3, n_classes, "identity"
    network.n_features_in_ = n_features
    return network


def each_of(model: OneVsRest, n_features: int) -> Sequence[Any]:
    """Return the classifiers of a `OneVsRest`, with one for each constant class. Raises NotExportable."""
    n_trees = sum(getattr(getattr(each, "forest", each), "n_estimators", 0) for each in model.models)
    if n_trees > MAX_TREES:
        raise NotExportable(
            f"{n_trees:,} trees are too many to export, and {MAX_TREES:,} are allowed; without class_weight, all "
            "classes share one forest"
        )
    plain = [None if each is None else plain_last_step(each, CODES, n_features) for each in model.models]
    # The decision function of the first class, or its lack, says whether 0 or 1/2 is the limit of all.
    has_decision = any(hasattr(each, "decision_function") for each in plain)
    constant = constant_linear if has_decision else constant_bayes
    pairs = zip(plain, model.shares_, strict=True)
    return [constant(share, n_features) if each is None else each for each, share in pairs]


def constant_linear(share: float, n_features: int) -> LogisticRegression:
    """Return a logistic regression of the same probability for each row."""
    return linear_model(LogisticRegression(), np.zeros(n_features), float(logit(share)))


def constant_bayes(share: float, n_features: int) -> GaussianNB:
    """Return a naive Bayes, which has no decision function, of the same probability for each row."""
    model = GaussianNB()
    model.classes_, model.class_prior_, model.class_count_ = CODES, np.array([1.0 - share, share]), np.ones(2)
    model.theta_, model.var_, model.epsilon_ = np.zeros((2, n_features)), np.ones((2, n_features)), 0.0
    model.n_features_in_ = n_features
    return model
