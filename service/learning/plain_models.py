"""Fitted models as plain scikit-learn, which predict labels and need no code of this service."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any, cast

import numpy as np
from sklearn.ensemble import VotingClassifier, VotingRegressor
from sklearn.impute import SimpleImputer
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, LabelEncoder, MinMaxScaler, StandardScaler

from service.domain.labels import Label
from service.learning.blend import FOREST_WEIGHT, Blend
from service.learning.calibration import TemperedModel
from service.learning.classifiers import DecisionSVC
from service.learning.missing_values import fill_missing
from service.learning.models import Classifier, Regressor, is_regressor
from service.learning.number_models import FOREST_SHARE, NumberBlend
from service.learning.preprocessing import OUTLIER, Standardizer


class NotExportable(Exception):
    """The model has no equivalent in scikit-learn; the message says what has."""


def plain_model(model: Classifier | Regressor, labels: Sequence[Label], n_features: int) -> Any:
    """Return a copy of a model as plain scikit-learn, whose classes are the labels of its class codes.

    It predicts the same for features in float64. The limits that keep features of extreme size from overflowing are
    left out, and so is the calibration. Raises NotExportable.
    """
    model = model.model if isinstance(model, TemperedModel) else model
    steps = [step for _, step in model.steps] if isinstance(model, Pipeline) else [model]
    prepared = [plain for step in steps[:-1] if (plain := plain_step(step)) is not None]
    if is_regressor(model):
        last = plain_number_blend(steps[-1], n_features) if isinstance(steps[-1], NumberBlend) else deepcopy(steps[-1])
        return make_pipeline(*prepared, last) if prepared else last
    names = np.array([labels[code] for code in np.asarray(cast(Classifier, model).classes_).tolist()])
    last = plain_blend(steps[-1], names, n_features) if isinstance(steps[-1], Blend) else relabeled(steps[-1], names)
    return make_pipeline(*prepared, last) if prepared else last


def plain_step(step: Any) -> Any:
    """Return a step that prepares features as scikit-learn's own, None if it only bounds them."""
    if isinstance(step, Standardizer):
        return plain_scaler(step)
    if isinstance(step, FunctionTransformer) and step.func is fill_missing:
        # Fitted to one row, it has that row's values as its medians.
        medians = np.asarray(step.kw_args["medians"])[np.newaxis]
        return SimpleImputer(strategy="median", keep_empty_features=True).fit(medians)
    return None


def plain_scaler(step: Standardizer) -> StandardScaler:
    """Return the scaler with the powers of two of a Standardizer folded in."""
    scaler = StandardScaler(with_mean=step.with_mean)
    scaler.mean_ = None if step.mean_ is None else step.mean_ / step.unit_
    scaler.scale_ = step.scale_ / step.unit_
    scaler.var_ = scaler.scale_**2
    scaler.n_features_in_, scaler.n_samples_seen_ = step.n_features_in_, step.n_samples_seen_
    return scaler


def relabeled(model: Any, names: Any) -> Any:
    """Return a copy of a classifier with names for its classes. Raises NotExportable."""
    if isinstance(model, DecisionSVC):
        raise NotExportable(
            "svc can be exported once every class has five labelled samples; until then its probabilities have no "
            "equivalent in scikit-learn"
        )
    copy = deepcopy(model)
    copy.classes_ = names
    if isinstance(copy, MLPClassifier):
        copy._label_binarizer.classes_ = names
        copy._optimizer = None
    return copy


def plain_blend(blend: Blend, names: Any, n_features: int) -> Any:
    """Return the linear model and the forest of a blend as a soft vote, or the linear model alone."""
    steps = [] if not blend.clip else [clipper(n_features)]
    linear = relabeled(blend.linear, names if blend.forest is None else blend.linear.classes_)
    linear = make_pipeline(*steps, linear) if steps else linear
    if blend.forest is None:
        return linear
    parts = [("linear", linear), ("forest", deepcopy(blend.forest))]
    weights = np.array([1 - FOREST_WEIGHT, FOREST_WEIGHT])
    # Not flattened, which matters only for `transform`, as the conversion to ONNX demands.
    vote = VotingClassifier(parts, voting="soft", weights=weights, flatten_transform=False)
    vote.estimators_, vote.named_estimators_ = [part for _, part in parts], dict(parts)
    vote.le_ = LabelEncoder().fit(names)
    vote.le_.classes_ = vote.classes_ = names
    return vote


def plain_number_blend(blend: NumberBlend, n_features: int) -> Any:
    """Return the linear model and the forest of a blend of numbers as a weighted mean, or the linear model alone."""
    linear = deepcopy(blend.linear)
    linear = make_pipeline(clipper(n_features), linear) if blend.clip else linear
    if blend.forest is None:
        return linear
    parts = [("linear", linear), ("forest", deepcopy(blend.forest))]
    vote = VotingRegressor(parts, weights=np.array([1 - FOREST_SHARE, FOREST_SHARE]))
    vote.estimators_, vote.named_estimators_ = [part for _, part in parts], dict(parts)
    return vote


def clipper(n_features: int) -> MinMaxScaler:
    """Return a step that clips features to ±OUTLIER, and does nothing else."""
    step = MinMaxScaler((-OUTLIER, OUTLIER), clip=True)
    return step.fit(np.repeat([[-OUTLIER], [OUTLIER]], n_features, axis=1))
