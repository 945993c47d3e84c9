"""Fitted models as plain scikit-learn, which predict labels and need no code of this service."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
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
    if is_regressor(model):
        return plain_pipeline(model, lambda last: plain_regressor(last, n_features))
    names = names_of(cast(Classifier, model), labels)
    return plain_pipeline(model, lambda last: plain_last_step(last, names, n_features))


def plain_pipeline(model: Any, plain_last: Callable[[Any], Any]) -> Any:
    """Return a model or a pipeline, its steps as scikit-learn's own; `plain_last` converts the last one."""
    steps = [step for _, step in model.steps] if isinstance(model, Pipeline) else [model]
    prepared = [plain for step in steps[:-1] if (plain := plain_step(step)) is not None]
    last = plain_last(steps[-1])
    return make_pipeline(*prepared, last) if prepared else last


def names_of(model: Classifier, labels: Sequence[Label]) -> NDArray[Any]:
    """Return the labels (c,) of the class codes of a classifier."""
    return np.array([labels[code] for code in np.asarray(model.classes_).tolist()])


def plain_last_step(model: Any, names: NDArray[Any], n_features: int) -> Any:
    """Return a classifier as scikit-learn's own, with names for its classes. Raises NotExportable."""
    if isinstance(model, Blend):
        return blend_of(model.linear, model.forest, names, n_features, clip=model.clip)
    return relabeled(model, names)


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


def blend_of(linear: Any, forest: Any, names: Any, n_features: int, *, clip: bool) -> Any:
    """Return a linear model and a forest as a soft vote, or the linear model alone."""
    linear = relabeled(linear, names if forest is None else linear.classes_)
    linear = make_pipeline(clipper(n_features), linear) if clip else linear
    if forest is None:
        return linear
    parts = [("linear", linear), ("forest", deepcopy(forest))]
    weights = np.array([1 - FOREST_WEIGHT, FOREST_WEIGHT])
    # Not flattened, which matters only for `transform`, as the conversion to ONNX demands.
    vote = VotingClassifier(parts, voting="soft", weights=weights, flatten_transform=False)
    vote.estimators_, vote.named_estimators_ = [part for _, part in parts], dict(parts)
    vote.le_ = LabelEncoder().fit(names)
    vote.le_.classes_ = vote.classes_ = names
    return vote


def plain_regressor(model: Any, n_features: int) -> Any:
    """Return a copy of a model of numbers: of a blend the weighted mean of both models, or the linear one alone."""
    if not isinstance(model, NumberBlend):
        return deepcopy(model)
    linear = deepcopy(model.linear)
    linear = make_pipeline(clipper(n_features), linear) if model.clip else linear
    if model.forest is None:
        return linear
    parts = [("linear", linear), ("forest", deepcopy(model.forest))]
    vote = VotingRegressor(parts, weights=np.array([1 - FOREST_SHARE, FOREST_SHARE]))
    vote.estimators_, vote.named_estimators_ = [part for _, part in parts], dict(parts)
    return vote


def clipper(n_features: int) -> MinMaxScaler:
    """Return a step that clips features to ±OUTLIER, and does nothing else."""
    step = MinMaxScaler((-OUTLIER, OUTLIER), clip=True)
    return step.fit(np.repeat([[-OUTLIER], [OUTLIER]], n_features, axis=1))
