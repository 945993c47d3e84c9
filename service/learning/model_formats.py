"""The formats of exported models. Each function needs the extra of its name."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingRegressor,
)
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import Pipeline

from service.learning.models import is_regressor
from service.learning.plain_models import NotExportable

ONNX_MODELS = (
    "ONNX takes auto, logistic_regression, ridge, random_forest, extra_trees, gaussian_nb, k_neighbors, svc and mlp, "
    "and of forests only those of a project without missing values; of lists of classes all of these but auto; skops "
    "takes all"
)


OF_MARGINALS = ("classes_", "thresholds_")


def to_skops(model: Any) -> bytes:
    """Return a plain model in the format of skops."""
    import skops.io  # noqa: PLC0415 - an extra

    data: bytes = skops.io.dumps(model)
    return data


def to_onnx(model: Any, n_features: int, *, allows_missing: bool) -> bytes:
    """Return a plain model in ONNX: float32 `X` (n, d) to `label` (n,) and `probabilities` (n, c).

    Boolean labels become 0 and 1. Of a model of numbers the output is `variable` (n, 1), and of marginals (n, c) where
    all classes share a model. Of other models of marginals `label` is a mask (n, c). The metadata has `classes` and
    `thresholds` of marginals as JSON. Raises NotExportable.
    """
    import skl2onnx  # noqa: PLC0415 - an extra
    from skl2onnx.common.data_types import FloatTensorType  # noqa: PLC0415

    last = model[-1] if isinstance(model, Pipeline) else model
    refuse_inexact(last, allows_missing=allows_missing)
    marginals = {name: getattr(last, name).tolist() for name in OF_MARGINALS} if hasattr(last, "thresholds_") else {}
    if marginals:
        last.classes_ = np.arange(len(last.classes_))
    elif not is_regressor(model) and last.classes_.dtype == np.bool_:
        last.classes_ = last.classes_.astype(np.int64)
    types = [("X", FloatTensorType([None, n_features]))]
    options = None if is_regressor(model) else {id(last): {"zipmap": False}}
    try:
        converted = skl2onnx.to_onnx(model, initial_types=types, options=options)
    except (RuntimeError, ValueError, TypeError, AttributeError, NotImplementedError) as error:
        raise NotExportable(f"this model cannot be converted to ONNX; {ONNX_MODELS}") from error
    for name, values in marginals.items():
        converted.metadata_props.add(key=name.rstrip("_"), value=json.dumps(values))
    data: bytes = converted.SerializeToString()
    return data


def refuse_inexact(last: Any, *, allows_missing: bool) -> None:
    """Raise NotExportable for a model whose conversion would predict otherwise."""
    # skl2onnx converts a mean of several outputs wrongly.
    inexact = HistGradientBoostingClassifier, HistGradientBoostingRegressor, GaussianProcessRegressor, StackingRegressor
    forests = RandomForestClassifier, ExtraTreesClassifier, RandomForestRegressor, ExtraTreesRegressor
    inexact += forests if allows_missing else ()
    parts = last.estimators_ if isinstance(last, OneVsRestClassifier) else [last]
    if any(isinstance(part, inexact) for part in parts):
        raise NotExportable(f"this model cannot be converted to ONNX; {ONNX_MODELS}")
