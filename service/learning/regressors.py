"""The estimators of numbers: those of classes that also learn numbers, and some of their own."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from sklearn.ensemble import ExtraTreesRegressor, HistGradientBoostingRegressor, RandomForestRegressor
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.neighbors import KNeighborsRegressor

from service.domain.parameters import Parameters
from service.errors import FitFailed
from service.learning.classifiers import (
    boosting_arguments,
    forest_arguments,
    neighbour_arguments,
    tree_leaves,
    why_trees_missing,
)
from service.learning.estimators import TrainingShape, estimator, integer, positive, variant
from service.learning.fast_forest import FastExtraTreesRegressor
from service.learning.number_models import (
    NumberBlend,
    NumberForestCommittee,
    fast_number_blend_predictor,
)
from service.learning.preprocessing import squarable
from service.learning.trees import fast_forest_predictor

ALPHAS = np.logspace(-3, 4, 15)
"""Strengths of the penalty that `ridge` chooses from."""

DECOMPOSED = 4_000
"""Largest smaller side of the labelled rows (l, d) of which a decomposition takes seconds."""

GAUSSIAN_ROWS = 2_000
"""Largest number of labelled rows of a Gaussian process, whose time grows by their cube."""


def why_not_cross_validated(params: Parameters, shape: TrainingShape) -> str | None:
    """Return why `ridge` has a fixed penalty, None if it chooses one."""
    if params.get("alpha") is None and min(shape.rows, shape.features) > DECOMPOSED:
        return (
            f"fitted with alpha = 1: to choose it for {shape.rows:,} x {shape.features:,} numbers would take too long"
        )
    return None


@estimator(
    "ridge",
    summary="A linear model with an L2 penalty, which leave-one-out cross-validation chooses: fast, and good with few "
    "labels.",
    source="sklearn.linear_model.RidgeCV; Hoerl & Kennard 1970, doi:10.1080/00401706.1970.10488634",
    parameters=(positive("alpha", None, 1e12, "Strength of the L2 penalty; null: chosen by cross-validation."),),
    scale=True,
    prepare=squarable,
    target="number",
    why_reduced=why_not_cross_validated,
)
def ridge(params: Parameters, random_state: int, shape: TrainingShape) -> Any:
    """Return a RidgeCV, or a Ridge with the `alpha` of the parameters or of large data; both are deterministic."""
    alpha = params.get("alpha")
    if alpha is None and why_not_cross_validated(params, shape) is None:
        return RidgeCV(ALPHAS)
    return Ridge(alpha=1.0 if alpha is None else alpha, solver="auto" if alpha is not None else "lsqr")


def why_ridge_alone(params: Parameters, shape: TrainingShape) -> str | None:
    """Return why `auto` has no trees, None if it has."""
    why = why_trees_missing(params, shape)
    return why and f"ridge alone: {why}"


@variant(
    "auto",
    "number",
    model_type=NumberBlend,
    fast_predictor=fast_number_blend_predictor,
    members=NumberForestCommittee.of,
    why_reduced=why_ridge_alone,
    ignored=frozenset({"C", "max_iter", "class_weight"}),
)
def auto(params: Parameters, random_state: int, shape: TrainingShape) -> Any:
    """Return a `NumberBlend`, without trees where `why_ridge_alone` has a reason."""
    forest = None
    if why_ridge_alone(params, shape) is None:
        forest = FastExtraTreesRegressor(
            n_estimators=params["n_estimators"],
            min_samples_leaf=max(1, shape.rows // tree_leaves(params, shape)),
            random_state=random_state,
        )
    return NumberBlend(ridge({}, random_state, shape), forest, clip=cast(bool, params["scale"]))


FOREST: dict[str, Any] = {
    "fast_predictor": fast_forest_predictor,
    "members": NumberForestCommittee.of,
    "ignored": frozenset({"class_weight"}),
}


@variant("random_forest", "number", model_type=RandomForestRegressor, **FOREST)
def random_forest(params: Parameters, random_state: int, shape: TrainingShape) -> Any:
    """Return a random forest of numbers."""
    return RandomForestRegressor(**forest_arguments(params, without=("class_weight",)), random_state=random_state)


@variant("extra_trees", "number", model_type=ExtraTreesRegressor, **FOREST)
def extra_trees(params: Parameters, random_state: int, shape: TrainingShape) -> Any:
    """Return a forest of extremely randomised trees of numbers."""
    return FastExtraTreesRegressor(**forest_arguments(params, without=("class_weight",)), random_state=random_state)


@variant("hist_gradient_boosting", "number", ignored=frozenset({"class_weight"}))
def hist_gradient_boosting(params: Parameters, random_state: int, shape: TrainingShape) -> Any:
    """Return histogram-based gradient boosting of numbers, without early stopping."""
    return HistGradientBoostingRegressor(**boosting_arguments(params, shape), random_state=random_state)


@variant("k_neighbors", "number")
def k_neighbors(params: Parameters, random_state: int, shape: TrainingShape) -> Any:
    """Return the mean of the nearest labelled rows, which is deterministic."""
    return KNeighborsRegressor(**neighbour_arguments(params, shape))


def gaussian_seconds(params: Parameters, n_labels: int, n_features: int) -> float:
    """Estimate the time to compute the covariance of a row with all labelled ones."""
    return n_labels * (12e-9 + 0.3e-9 * n_features)


@estimator(
    "gaussian_process",
    summary="Gaussian process regression with an RBF kernel and noise: for smooth functions of few features, and up "
    f"to {GAUSSIAN_ROWS:,} labels.",
    source="sklearn.gaussian_process.GaussianProcessRegressor; Rasmussen & Williams 2006, "
    "doi:10.7551/mitpress/3206.001.0001",
    parameters=(integer("restarts", 0, 0, 20, "Number of further random starts of the search for the kernel."),),
    scale=True,
    prepare=squarable,
    sparse=False,
    target="number",
    row_seconds=gaussian_seconds,
)
def gaussian_process(params: Parameters, random_state: int, shape: TrainingShape) -> Any:
    """Return a Gaussian process, whose kernel is found by maximum likelihood from a length scale of sqrt(d)."""
    if shape.rows > GAUSSIAN_ROWS:
        raise FitFailed(f"gaussian_process takes up to {GAUSSIAN_ROWS} labels, and there are {shape.rows}")
    length = float(np.sqrt(shape.features))
    kernel = ConstantKernel(1.0) * RBF(length, (1e-3 * length, 1e3 * length)) + WhiteKernel(0.1, (1e-6, 1e2))
    return GaussianProcessRegressor(
        kernel, normalize_y=True, n_restarts_optimizer=params["restarts"], random_state=random_state
    )
