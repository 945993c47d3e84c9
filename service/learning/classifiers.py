"""The estimators of classes. `random_state` is passed to each that draws random numbers; `n_jobs` is 1 everywhere."""

from __future__ import annotations

import math
from collections.abc import Collection
from itertools import pairwise
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from scipy.special import expit, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import ExtraTreesClassifier, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.svm import SVC

from service.domain.parameters import Parameter, Parameters
from service.errors import FitFailed
from service.learning.blend import Blend, BlendCommittee, fast_blend_predictor
from service.learning.committees import ForestCommittee
from service.learning.estimators import TrainingShape, choice, estimator, integer, positive
from service.learning.fast_forest import FastExtraTreesClassifier
from service.learning.fast_logistic import MANY_ROWS, FastLogisticRegression
from service.learning.fit_time import about
from service.learning.linear_scorer import LinearPredictor
from service.learning.pool import Features, Matrix
from service.learning.preprocessing import as_float32, squarable
from service.learning.trees import fast_forest_predictor

MLP_WEIGHTS = 10_000_000
"""Largest number of weights of a network: 320 MB on disk with the state of its optimiser."""

LINEAR_WEIGHTS = 2**24
"""Largest number of weights of a linear model: its optimiser holds twenty times as many numbers, 2.7 GB."""

CLASS_WEIGHT = choice(
    "class_weight",
    None,
    ("balanced",),
    "'balanced' gives every class the same total weight, however rare; null: every row.",
)


TREE_STEP_SECONDS = 1.7e-9
"""Time of one row's step from a node to the next in compiled code, measured on one core of 2024."""

TREE_CLASS_SECONDS = 0.1e-9
"""Time to add one row's probability of one class in one tree; most are 0, which are not added."""

LEAVES = 2000
"""Largest number of leaves of a tree of `auto`, up to a factor of two. With fewer labels each may have its own leaf."""

TREE_NUMBERS = 2**25
"""Largest number of probabilities in the leaves of the trees of `auto`."""


def tree_leaves(params: Parameters, shape: TrainingShape) -> int:
    """Return the number of leaves that a tree of `auto` may have."""
    return min(LEAVES, TREE_NUMBERS // (4 * cast(int, params["n_estimators"]) * shape.classes))


def tree_seconds(params: Parameters, shape: TrainingShape) -> float:
    """Estimate the time of a pass of the trees of `auto` over the pool on one core.

    It is no measurement, and that of compiled code even where scikit-learn does the pass and takes five times as long,
    so that every worker comes to the same result. A row takes 1.1 times as many steps in a tree
    of random splits as in a balanced one.
    """
    steps = 1.1 * math.log2(max(2, min(shape.rows, 2 * tree_leaves(params, shape))))
    per_tree = TREE_STEP_SECONDS * steps + TREE_CLASS_SECONDS * shape.classes
    return shape.pool_rows * cast(int, params["n_estimators"]) * per_tree


def why_linear_alone(params: Parameters, shape: TrainingShape) -> str | None:
    """Return why `auto` has no trees, None if it has."""
    alone = "scaled logistic_regression alone" if params["scale"] else "logistic_regression alone"
    why = why_trees_missing(params, shape)
    return why and f"{alone}: {why}"


def why_trees_missing(params: Parameters, shape: TrainingShape) -> str | None:
    """Return why trees would be too many or too slow, None if they are not."""
    if shape.sparse:
        return "the pool is sparse"
    if tree_leaves(params, shape) < shape.classes:
        return f"{shape.classes:,} classes are too many for trees"
    seconds = tree_seconds(params, shape)
    limit = cast(float, params["pass_seconds"])
    if seconds > limit:
        return (
            f"{params['n_estimators']} trees would take about {about(seconds)} s of one core to score "
            f"{shape.pool_rows:,} samples, more than pass_seconds = {limit:g}"
        )
    return None


@estimator(
    "auto",
    summary="The mean of scaled logistic regression and extra trees, which count twice; without the trees on a sparse "
    "pool, or where they would take too long: good on most data from the first labels on.",
    source="sklearn.linear_model.LogisticRegression, sklearn.ensemble.ExtraTreesClassifier; this project's own blend",
    parameters=(
        positive("C", 1.0, 1e6, "Inverse strength of the L2 penalty: smaller values give a simpler linear model."),
        integer("max_iter", 1000, 1, 100_000, "Largest number of optimiser steps of the linear model."),
        integer("n_estimators", 100, 10, 1000, "Number of trees."),
        positive(
            "pass_seconds",
            2.0,
            1e6,
            "Largest time of a pass of the trees over the pool on one core, in seconds as estimated from the number of "
            "samples, trees, labels and classes; the linear model alone where it would take longer.",
        ),
        CLASS_WEIGHT,
    ),
    scale=True,
    model_type=Blend,
    fast_predictor=fast_blend_predictor,
    members=BlendCommittee.of,
    why_reduced=why_linear_alone,
)
def auto(params: Parameters, random_state: int, shape: TrainingShape) -> Any:
    """Return a `Blend`, without trees where `why_linear_alone` has a reason."""
    forest = None
    if why_linear_alone(params, shape) is None:
        forest = FastExtraTreesClassifier(
            n_estimators=params["n_estimators"],
            min_samples_leaf=max(1, shape.rows // tree_leaves(params, shape)),
            class_weight=params["class_weight"],
            random_state=random_state,
        )
    return Blend(logistic_regression(params, random_state, shape), forest, clip=cast(bool, params["scale"]))


@estimator(
    "logistic_regression",
    summary="A linear model of the classes' log-odds: fast, and hard to beat on good embeddings.",
    source="sklearn.linear_model.LogisticRegression; Cox 1958, doi:10.1111/j.2517-6161.1958.tb00292.x",
    parameters=(
        positive("C", 1.0, 1e6, "Inverse strength of the L2 penalty: smaller values give a simpler model."),
        integer("max_iter", 1000, 1, 100_000, "Largest number of optimiser steps."),
        CLASS_WEIGHT,
    ),
    model_type=LogisticRegression,
    fast_predictor=LinearPredictor,
)
def logistic_regression(params: Parameters, random_state: int, shape: TrainingShape) -> Any:
    """Return a LogisticRegression: unscaled, it equals one of the caller's process; nearly, from MANY_ROWS on."""
    if shape.classes * shape.features > LINEAR_WEIGHTS:
        problem = f"{shape.classes} classes times {shape.features} features are more than {LINEAR_WEIGHTS} weights"
        raise FitFailed(f"logistic_regression would be too large: {problem}")
    is_large = shape.rows >= MANY_ROWS and not shape.sparse
    kind = FastLogisticRegression if is_large else LogisticRegression
    return kind(
        C=params["C"], max_iter=params["max_iter"], class_weight=params["class_weight"], random_state=random_state
    )


FOREST = (
    integer("n_estimators", 200, 10, 1000, "Number of trees."),
    integer("max_depth", None, 1, 1000, "Largest depth of a tree; null: no limit."),
    integer("min_samples_leaf", 1, 1, 1000, "Smallest number of labelled rows in a leaf."),
    choice("max_features", "sqrt", ("sqrt", "log2", "all"), "Number of features that each split chooses from."),
    choice(
        "class_weight",
        None,
        ("balanced", "balanced_subsample"),
        "'balanced' gives every class the same total weight, 'balanced_subsample' counts them in each tree's bootstrap "
        "sample where there is one; null: every row the same.",
    ),
)


def forest_arguments(params: Parameters, without: Collection[str] = ()) -> dict[str, Any]:
    """Return the declared parameters of a forest under scikit-learn's names and values."""
    arguments: dict[str, Any] = {each.name: params[each.name] for each in FOREST if each.name not in without}
    if arguments["max_features"] == "all":
        arguments["max_features"] = None
    return arguments


@estimator(
    "random_forest",
    summary="Trees on bootstrap samples of the labelled rows, averaged.",
    source="sklearn.ensemble.RandomForestClassifier; Breiman 2001, doi:10.1023/A:1010933404324",
    parameters=FOREST,
    prepare=as_float32,
    takes_missing=True,
    model_type=RandomForestClassifier,
    fast_predictor=fast_forest_predictor,
    members=ForestCommittee.of,
)
def random_forest(params: Parameters, random_state: int, shape: TrainingShape) -> Any:
    """Return a random forest."""
    return RandomForestClassifier(**forest_arguments(params), random_state=random_state)


@estimator(
    "extra_trees",
    summary="Trees on all labelled rows that split at random thresholds, averaged.",
    source="sklearn.ensemble.ExtraTreesClassifier; Geurts, Ernst & Wehenkel 2006, doi:10.1007/s10994-006-6226-1",
    parameters=FOREST,
    prepare=as_float32,
    takes_missing=True,
    model_type=ExtraTreesClassifier,
    fast_predictor=fast_forest_predictor,
    members=ForestCommittee.of,
)
def extra_trees(params: Parameters, random_state: int, shape: TrainingShape) -> Any:
    """Return a forest of extremely randomised trees."""
    return FastExtraTreesClassifier(**forest_arguments(params), random_state=random_state)


@estimator(
    "hist_gradient_boosting",
    summary="Small trees on binned features, each correcting those before: strong on tables with many labels.",
    source="sklearn.ensemble.HistGradientBoostingClassifier; Friedman 2001, doi:10.1214/aos/1013203451",
    parameters=(
        integer(
            "max_iter",
            100,
            1,
            1000,
            "Number of rounds; each adds one tree, or one per class above two.",
        ),
        Parameter(
            "learning_rate",
            "number",
            0.1,
            "Share of each tree's correction that is applied.",
            minimum=0.001,
            maximum=1,
        ),
        integer("max_leaf_nodes", 31, 2, 1000, "Largest number of leaves of a tree."),
        integer(
            "min_samples_leaf",
            5,
            1,
            1000,
            "Smallest number of labelled rows in a leaf, at most half of all rows.",
        ),
        Parameter("l2_regularization", "number", 0.0, "L2 penalty on the leaf values.", minimum=0, maximum=1e6),
        CLASS_WEIGHT,
    ),
    sparse=False,
    takes_missing=True,
)
def hist_gradient_boosting(params: Parameters, random_state: int, shape: TrainingShape) -> Any:
    """Return histogram-based gradient boosting, without early stopping, which would cost labels for validation."""
    return HistGradientBoostingClassifier(
        **boosting_arguments(params, shape), class_weight=params["class_weight"], random_state=random_state
    )


def boosting_arguments(params: Parameters, shape: TrainingShape) -> dict[str, Any]:
    """Return the arguments of histogram-based gradient boosting, without early stopping."""
    return {
        "max_iter": params["max_iter"],
        "learning_rate": params["learning_rate"],
        "max_leaf_nodes": params["max_leaf_nodes"],
        "min_samples_leaf": leaf_rows(params, shape),
        "l2_regularization": params["l2_regularization"],
        "early_stopping": False,
    }


def leaf_rows(params: Parameters, shape: TrainingShape) -> int:
    """Return the smallest number of rows in a leaf of hist_gradient_boosting, at most half of all rows.

    A model that cannot split predicts the same for every row, and ranks nothing: 33 % instead of 65 % accuracy with six
    labelled rows of the iris data.
    """
    return min(cast(int, params["min_samples_leaf"]), shape.rows // 2)


@estimator(
    "gaussian_nb",
    summary="One normal distribution per class and feature: works with few rows, but is overconfident.",
    source="sklearn.naive_bayes.GaussianNB; John & Langley 1995, arXiv:1302.4964",
    parameters=(
        Parameter(
            "var_smoothing",
            "number",
            1e-9,
            "Share of the largest feature variance that is added to all variances.",
            minimum=1e-12,
            maximum=1,
        ),
    ),
    prepare=squarable,
    sparse=False,
)
def gaussian_nb(params: Parameters, random_state: int, shape: TrainingShape) -> Any:
    """Return Gaussian naive Bayes, which is deterministic."""
    return GaussianNB(var_smoothing=params["var_smoothing"])


def neighbour_seconds(params: Parameters, n_labels: int, n_features: int) -> float:
    """Estimate the time to compare a row with all labelled ones; only a product of matrices is quick."""
    return n_labels * (10e-9 + n_features * (0.7e-9 if params["metric"] == "manhattan" else 0.1e-9))


@estimator(
    "k_neighbors",
    summary="Class shares among the nearest labelled rows.",
    source="sklearn.neighbors.KNeighborsClassifier; Cover & Hart 1967, doi:10.1109/TIT.1967.1053964",
    parameters=(
        integer("n_neighbors", 5, 1, 1000, "Number of neighbours, at most the number of labelled rows."),
        choice("weights", "uniform", ("uniform", "distance"), "'distance' weighs a neighbour by 1 / its distance."),
        choice("metric", "euclidean", ("euclidean", "manhattan", "cosine"), "Distance between two rows."),
    ),
    scale=True,
    prepare=squarable,
    row_seconds=neighbour_seconds,
)
def k_neighbors(params: Parameters, random_state: int, shape: TrainingShape) -> Any:
    """Return a nearest-neighbours classifier, which is deterministic."""
    return KNeighborsClassifier(**neighbour_arguments(params, shape))


def neighbour_arguments(params: Parameters, shape: TrainingShape) -> dict[str, Any]:
    """Return the declared parameters of nearest neighbours under scikit-learn's names and values."""
    n_neighbors = min(cast(int, params["n_neighbors"]), shape.rows)
    return {"n_neighbors": n_neighbors, "weights": params["weights"], "metric": params["metric"]}


SVC_STEPS = 100_000
"""Largest number of libsvm's steps for two classes. 3,000 noisy rows with C = 1e6 need over a million (16 s)."""

CALIBRATION_FOLDS = 5


class DecisionSVC(ClassifierMixin, BaseEstimator):
    """Probabilities from a support vector machine's decision values: their sigmoid, or softmax above two classes.

    They are not calibrated, but keep the machine's order of the rows and its predicted classes.
    """

    def __init__(self, machine: SVC) -> None:
        self.machine = machine

    def fit(self, X: Features, y: npt.NDArray[np.integer]) -> DecisionSVC:
        """Train the machine on `X` (l, d) and class codes `y`."""
        self.machine.fit(X, y)
        self.classes_ = self.machine.classes_
        return self

    def predict_proba(self, X: Features) -> Matrix:
        """Return probabilities (n, c)."""
        decision = self.machine.decision_function(X)
        if decision.ndim == 1:
            return np.column_stack([expit(-decision), expit(decision)])
        return cast(Matrix, softmax(decision, axis=1))


def svc_seconds(params: Parameters, n_labels: int, n_features: int) -> float:
    """Estimate the time to compare a row with the support vectors, which are most of the labelled rows at worst."""
    return n_labels * (45e-9 + 0.5e-9 * n_features)


@estimator(
    "svc",
    summary="A support vector machine; probabilities are calibrated once every class has five labelled rows.",
    source="sklearn.svm.SVC; Cortes & Vapnik 1995, doi:10.1007/BF00994018; calibration: Platt 1999",
    parameters=(
        positive("C", 1.0, 1e6, "Inverse strength of the L2 penalty: smaller values give a simpler model."),
        choice("kernel", "rbf", ("rbf", "linear", "poly", "sigmoid"), "Kernel function."),
        positive("gamma", None, 1e6, "The kernel's width; null: 1 / (number of features x their variance)."),
        CLASS_WEIGHT,
    ),
    scale=True,
    row_seconds=svc_seconds,
)
def svc(params: Parameters, random_state: int, shape: TrainingShape) -> Any:
    """Return a support vector machine with sigmoid-calibrated probabilities, or with those of `DecisionSVC`.

    Calibration needs unseen rows of every class. With fewer than five per class it does harm: on iris, wine, breast
    cancer and digits with two rows per class it costs 3 to 15 points of accuracy, and raises the log loss.
    """
    machine = SVC(
        C=params["C"],
        kernel=params["kernel"],
        gamma="scale" if params["gamma"] is None else params["gamma"],
        class_weight=params["class_weight"],
        max_iter=SVC_STEPS,
    )
    if shape.rarest_class < CALIBRATION_FOLDS:
        return DecisionSVC(machine)
    folds = StratifiedKFold(CALIBRATION_FOLDS, shuffle=True, random_state=random_state)
    return CalibratedClassifierCV(machine, method="sigmoid", cv=folds, ensemble=False)


@estimator(
    "mlp",
    summary="A small neural network trained with Adam.",
    source="sklearn.neural_network.MLPClassifier; Rumelhart, Hinton & Williams 1986, doi:10.1038/323533a0; "
    "Kingma & Ba 2014, arXiv:1412.6980",
    parameters=(
        Parameter(
            "hidden_layer_sizes",
            "integers",
            (100,),
            "Number of units in each hidden layer.",
            minimum=1,
            maximum=1000,
        ),
        Parameter("alpha", "number", 1e-4, "Strength of the L2 penalty.", minimum=0, maximum=1000),
        Parameter("learning_rate_init", "number", 1e-3, "Learning rate of the optimiser.", minimum=1e-6, maximum=1),
        integer("max_iter", 300, 1, 10_000, "Largest number of passes over the labelled rows."),
        choice("activation", "relu", ("relu", "tanh", "logistic", "identity"), "Activation of the hidden units."),
    ),
    scale=True,
)
def mlp(params: Parameters, random_state: int, shape: TrainingShape) -> Any:
    """Return a multi-layer perceptron, without early stopping, which would cost labels for validation."""
    layers = (shape.features, *cast("tuple[int, ...]", params["hidden_layer_sizes"]))
    weights = sum(above * below for above, below in pairwise(layers))
    if weights > MLP_WEIGHTS:
        raise FitFailed(f"mlp would have {weights} weights on {shape.features} features; {MLP_WEIGHTS} are allowed")
    return MLPClassifier(
        hidden_layer_sizes=params["hidden_layer_sizes"],
        alpha=params["alpha"],
        learning_rate_init=params["learning_rate_init"],
        max_iter=params["max_iter"],
        activation=params["activation"],
        random_state=random_state,
    )
