"""The formats of exported models. Each function needs the extra of its name."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.pipeline import Pipeline

from service.learning.models import is_regressor
from service.learning.plain_models import NotExportable

ONNX_MODELS = (
    "ONNX takes auto, logistic_regression, ridge, random_forest, extra_trees, gaussian_nb, k_neighbors, svc and mlp, "
    "and of forests only those of a project without missing values; skops takes all"
)


def to_skops(model: Any) -> bytes:
    """Return a plain model in the format of skops."""
    import skops.io  # noqa: PLC0415 - an extra

    data: bytes = skops.io.dumps(model)
    return data


def to_onnx(model: Any, n_features: int, *, allows_missing: bool) -> bytes:
    """Return a plain model in ONNX: float32 `X` (n, d) to `label` (n,) and `probabilities` (n, c).

    Boolean labels become 0 and 1. Of a model of numbers the output is `variable` (n, 1). Raises NotExportable.
    """
    import skl2onnx  # noqa: PLC0415 - an extra
    from skl2onnx.common.data_types import FloatTensorType  # noqa: PLC0415

    last = model[-1] if isinstance(model, Pipeline) else model
    refuse_inexact(last, allows_missing=allows_missing)
    if not is_regressor(model) and last.classes_.dtype == np.bool_:
        last.classes_ = last.classes_.astype(np.int64)
    types = [("X", FloatTensorType([None, n_features]))]
    options = None if is_regressor(model) else {id(last): {"zipmap": False}}
    try:
        converted = skl2onnx.to_onnx(model, initial_types=types, options=options)
    except (RuntimeError, ValueError, TypeError, AttributeError, NotImplementedError) as error:
        raise NotExportable(f"this model cannot be converted to ONNX; {ONNX_MODELS}") from error
    data: bytes = converted.SerializeToString()
    return data


def refuse_inexact(last: Any, *, allows_missing: bool) -> None:
    """Raise NotExportable for a model whose conversion would predict otherwise."""
    inexact = HistGradientBoostingClassifier, HistGradientBoostingRegressor, GaussianProcessRegressor
    forests = RandomForestClassifier, ExtraTreesClassifier, RandomForestRegressor, ExtraTreesRegressor
    if isinstance(last, inexact) or (allows_missing and isinstance(last, forests)):
        raise NotExportable(f"this model cannot be converted to ONNX; {ONNX_MODELS}")
