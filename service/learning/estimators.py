"""The registry of estimators: names, parameters and training.

An estimator is one factory, registered by `@estimator`. `fit` returns a scikit-learn estimator, or a `Pipeline` of one
step that prepares the features and the estimator.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from scipy import sparse as scipy_sparse
from scipy.special import expit, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import ExtraTreesClassifier, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.svm import SVC

from service.compute.threads import threads_for_fit, use_one_thread
from service.domain.parameters import Parameter, Parameters, check_parameters, not_listed
from service.domain.project import EstimatorSpec, TargetName
from service.errors import FieldError, FitFailed, InvalidRequest
from service.learning.blend import Blend, BlendCommittee, fast_blend_predictor
from service.learning.calibration import TemperedModel, temper
from service.learning.committees import ForestCommittee
from service.learning.linear_scorer import Predict, fast_linear_predictor
from service.learning.missing_values import Medians, fill_missing
from service.learning.models import Classifier, Committee, NumberCommittee, Regressor
from service.learning.multilabel import one_vs_rest
from service.learning.pool import Features, Matrix
from service.learning.preprocessing import Standardizer, as_float32, squarable
from service.learning.stacked_linear import is_constant

MLP_WEIGHTS = 10_000_000
"""Largest number of weights of a network: 320 MB on disk with the state of its optimiser."""

LINEAR_WEIGHTS = 2**24
"""Largest number of weights of a linear model: its optimiser holds twenty times as many numbers, 2.7 GB."""

CHECKED_ROWS = 256
"""Approximate number of training rows, evenly spread, whose probabilities are checked after a fit."""


@dataclass(frozen=True, slots=True)
class TrainingShape:
    """The number of labelled rows, features and classes, and of labelled rows of the rarest class.

    `sparse` says whether the features are, and `pool_rows` is the number of rows that the model will score.
    """

    rows: int
    features: int
    classes: int
    rarest_class: int
    sparse: bool = False
    pool_rows: int = 0

    @classmethod
    def of(cls, X: Features, y: Labels, pool_rows: int = 0, target: TargetName = "class") -> TrainingShape:
        """Return the shape of labelled rows `X` (l, d) and their labels `y` (l,), l >= 1, of a pool.

        Numbers count as one class.
        """
        if target == "number":
            return cls(len(y), X.shape[1], 1, len(y), scipy_sparse.issparse(X), pool_rows)
        if y.ndim == 2:
            return cls(len(y), X.shape[1], y.shape[1], 1, scipy_sparse.issparse(X), pool_rows)
        _, counts = np.unique(y, return_counts=True)
        return cls(len(y), X.shape[1], len(counts), int(counts.min()), scipy_sparse.issparse(X), pool_rows)


Factory = Callable[[Parameters, int, TrainingShape], Any]
WhyReduced = Callable[[Parameters, TrainingShape], str | None]
Labels = npt.NDArray[Any]
"""What a model learns: class codes (l,), numbers (l,), or which classes each row has (l, c)."""


@dataclass(frozen=True, slots=True)
class Variant:
    """How an estimator learns one target; `factory` builds it, unfitted, from all parameters, a seed and the shape.

    `model_type` is the class of its fitted models, or of their last step. Two optional functions take such a model:
    `fast_predictor` returns a function from dense rows to probabilities that is faster than `predict_proba`, and
    `members` the committee of the model's own members, or None. `why_reduced` says why the factory leaves a part of the
    model out for a training shape, or returns None. `ignored` are the parameters without a meaning for this target.
    """

    factory: Factory
    model_type: type | None = None
    fast_predictor: Callable[[Any], Predict] | None = None
    members: Callable[[Any], Committee | NumberCommittee | None] | None = None
    why_reduced: WhyReduced | None = None
    ignored: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class EstimatorKind:
    """A registered estimator, with a variant for each target that it can learn.

    `sparse`: it accepts sparse features. `takes_missing`: it accepts NaN in dense ones.
    """

    name: str
    summary: str
    source: str
    parameters: tuple[Parameter, ...]
    sparse: bool
    takes_missing: bool = False
    variants: dict[TargetName, Variant] = field(default_factory=dict)
    prepare: Callable[[Features], Features] | None = None

    @property
    def targets(self) -> list[TargetName]:
        """The targets that it can learn."""
        return list(self.variants)


ESTIMATORS: dict[str, EstimatorKind] = {}


def resolve_estimator(name: str, params: Mapping[str, object]) -> EstimatorSpec:
    """Return the estimator of this name with all its parameters, with defaults filled in.

    Raises InvalidRequest with the pointer `/name`, or `/params/<parameter>` for each wrong parameter.
    """
    if name not in ESTIMATORS:
        raise InvalidRequest.at("/name", not_listed("an estimator", name, ESTIMATORS, "GET /estimators"))
    try:
        return EstimatorSpec(name, check_parameters(name, ESTIMATORS[name].parameters, params))
    except InvalidRequest as error:
        raise error.with_prefix("/params") from None


THREADED_ROWS = 1000
"""Labelled rows from which a forest is fitted faster in several threads than in one."""


def fit(
    spec: EstimatorSpec,
    X: Features,
    y: Labels,
    random_state: int,
    pool_rows: int = 0,
    medians: Medians | None = None,
    target: TargetName = "class",
) -> Any:
    """Return an estimator trained on rows `X` (l, d), dense or CSR, and labels `y` (l,), which it does not change.

    The labels are class codes, and the model is a `Classifier`; or they are numbers, and it is a `Regressor`; or `y` is
    an indicator matrix (l, c), and the model is a `Classifier` whose probabilities are marginals.
    `pool_rows` is the number of rows that the model will score. With `medians` (d,) features may be NaN: an estimator
    that does not accept that gets the medians instead. The same arguments give the same model, bit for bit, in any
    thread. Raises FitFailed for fewer than two classes or numbers, if scikit-learn raises an error, or if the model's
    predictions are not finite on the training rows.
    """
    shape = TrainingShape.of(X, y, pool_rows, target)
    if target == "number" and shape.rows < 2:
        raise FitFailed(f"{spec.name} needs at least two labels")
    if target == "class" and shape.classes < 2:
        raise FitFailed(f"{spec.name} needs labels of at least two classes")
    if target == "labels" and is_constant(y).all():
        raise FitFailed(f"{spec.name} needs a class that one labelled sample has, and another has not")
    kind = ESTIMATORS[spec.name]
    build = partial(kind.variants[target].factory, spec.params, random_state)
    model = build(shape) if target != "labels" else one_vs_rest(lambda y: build(TrainingShape.of(X, y, pool_rows)), y)
    if medians is not None and (scipy_sparse.issparse(X) or not kind.takes_missing):
        model = with_imputation(model, medians)
    elif medians is not None:
        # hist_gradient_boosting fails on a column without values; no tree ever splits one that is constant.
        X = fill_missing(X, np.where(np.isnan(X).all(axis=0), 0.0, np.nan))
    try:
        use_one_thread()
        with np.errstate(all="ignore"):
            with threads_for_fit() if shape.rows >= THREADED_ROWS else nullcontext():
                model.fit(X, y)
            some = X[:: max(1, len(y) // CHECKED_ROWS)]
            outputs = model.predict(some) if target == "number" else model.predict_proba(some)
    except (ValueError, ArithmeticError) as error:
        raise FitFailed(f"{spec.name} cannot learn from these numbers: {first_sentence(error)}") from error
    if not np.isfinite(outputs).all():
        what = "predictions" if target == "number" else "probabilities"
        raise FitFailed(
            f"{spec.name} cannot learn from these numbers: its {what} are not finite even on the labelled rows, "
            "whose features are too large, too small or all the same"
        )
    return model


def why_reduced(
    spec: EstimatorSpec, X: Features, y: Labels, pool_rows: int, target: TargetName = "class"
) -> str | None:
    """Return why `fit` leaves a part of the model out with these arguments, None if it does not."""
    reduced = ESTIMATORS[spec.name].variants[target].why_reduced
    why = None if reduced is None else reduced(spec.params, TrainingShape.of(X, y, pool_rows, target))
    return why and f"{spec.name} is {why}"


def with_imputation(model: Any, medians: Medians) -> Pipeline:
    """Return a pipeline that replaces missing values by medians (d,) before an estimator or a pipeline."""
    steps = [step for _, step in model.steps] if isinstance(model, Pipeline) else [model]
    return make_pipeline(FunctionTransformer(fill_missing, kw_args={"medians": medians}), *steps)


def is_unscaled_linear(spec: EstimatorSpec) -> bool:
    """Whether an estimator is linear in the features, or partly, and does not scale them."""
    is_linear = spec.name in ("auto", "logistic_regression", "ridge") or spec.params.get("kernel") == "linear"
    return is_linear and not spec.params["scale"]


def variant_of(model: object) -> Variant | None:
    """Return the variant whose `model_type` a fitted model has, or None."""
    last = model[-1] if isinstance(model, Pipeline) else model
    variants = (each for kind in ESTIMATORS.values() for each in kind.variants.values() if each.model_type is not None)
    return next((variant for variant in variants if isinstance(last, cast(type, variant.model_type))), None)


def fast_predictor(model: Classifier | Regressor) -> Predict | None:
    """Return the fast function from dense rows (n, d) to a model's probabilities (n, c) or numbers (n, 1), or None."""
    if isinstance(model, TemperedModel):
        fast, temperature = fast_predictor(model.model), model.temperature
        return None if fast is None else (lambda X: temper(fast(X), temperature))
    variant = variant_of(model)
    return None if variant is None or variant.fast_predictor is None else variant.fast_predictor(model)


def committee_in(model: Classifier | Regressor) -> Committee | NumberCommittee | None:
    """Return the committee of a fitted model's own members, such as a forest's trees, or None.

    Members are not calibrated.
    """
    model = model.model if isinstance(model, TemperedModel) else model
    variant = variant_of(model)
    return None if variant is None or variant.members is None else variant.members(model)


def check_estimator(spec: EstimatorSpec, target: TargetName) -> None:
    """Raise InvalidRequest for an estimator that cannot learn a target, or a parameter without a meaning for it."""
    kind = ESTIMATORS[spec.name]
    if target not in kind.variants:
        able = ", ".join(repr(name) for name, other in ESTIMATORS.items() if target in other.variants)
        raise InvalidRequest.at("/estimator", f"{spec.name!r} is not for target {target!r}; use one of {able}")
    ignored = kind.variants[target].ignored
    wrong = [
        FieldError(f"/estimator/params/{each.name}", f"has no meaning for target {target!r}; leave it out")
        for each in kind.parameters
        if each.name in ignored and spec.params[each.name] != each.default
    ]
    if wrong:
        raise InvalidRequest(wrong)


def check_accepts_sparse(spec: EstimatorSpec) -> None:
    """Raise InvalidRequest for an estimator that cannot learn from sparse features."""
    if not ESTIMATORS[spec.name].sparse:
        able = ", ".join(repr(name) for name, kind in ESTIMATORS.items() if kind.sparse)
        problem = f"{spec.name!r} needs a dense pool, and this one is sparse; use one of {able}"
        raise InvalidRequest.at("/estimator", problem)


def first_sentence(error: Exception) -> str:
    """Return the first line of scikit-learn's message up to its first full stop."""
    line = (str(error).splitlines() or [type(error).__name__])[0]
    return line.split(". ")[0].rstrip(".")


# Declaring an estimator.


def estimator(
    name: str,
    *,
    summary: str,
    source: str,
    parameters: tuple[Parameter, ...],
    scale: bool = False,
    prepare: Callable[[Features], Features] | None = None,
    sparse: bool = True,
    takes_missing: bool = False,
    target: TargetName = "class",
    **of_variant: Any,
) -> Callable[[Factory], Factory]:
    """Register a factory under `name`, and add the parameter `scale` with this default.

    `prepare` converts unscaled features to numbers that the estimator can handle; `of_variant` are fields of `Variant`.
    """
    scale_parameter = Parameter(
        "scale",
        "boolean",
        scale,
        "Standardise every feature inside the model, by mean and standard deviation of the labelled rows.",
    )

    kind = EstimatorKind(name, summary, source, (*parameters, scale_parameter), sparse, takes_missing, prepare=prepare)
    ESTIMATORS[name] = kind
    return variant(name, target, **of_variant)


def variant(name: str, target: TargetName, **of_variant: Any) -> Callable[[Factory], Factory]:
    """Register a factory with which the estimator `name` learns a target; `of_variant` are fields of `Variant`."""
    prepare = ESTIMATORS[name].prepare

    def register(factory: Factory) -> Factory:
        def build(params: Parameters, random_state: int, shape: TrainingShape) -> Any:
            model = factory(params, random_state, shape)
            if params["scale"]:
                return make_pipeline(Standardizer(), model)
            return make_pipeline(FunctionTransformer(prepare), model) if prepare else model

        ESTIMATORS[name].variants[target] = Variant(build, **of_variant)
        return factory

    return register


def integer(name: str, default: int | None, low: int, high: int, summary: str) -> Parameter:
    """Return the parameter for an integer from `low` to `high`; null is allowed if it is the default."""
    return Parameter(name, "integer", default, summary, minimum=low, maximum=high, nullable=default is None)


def positive(name: str, default: float | None, high: float, summary: str) -> Parameter:
    """Return the parameter for a number above 0, up to `high`; null is allowed if it is the default."""
    return Parameter(
        name, "number", default, summary, minimum=0, maximum=high, above_minimum=True, nullable=default is None
    )


def choice(name: str, default: str | None, choices: tuple[str, ...], summary: str) -> Parameter:
    """Return the parameter for one of `choices`; null is allowed if it is the default."""
    return Parameter(name, "choice", default, summary, choices=choices, nullable=default is None)


CLASS_WEIGHT = choice(
    "class_weight",
    None,
    ("balanced",),
    "'balanced' gives every class the same total weight, however rare; null: every row.",
)


# The estimators. `random_state` is passed to each that draws random numbers; `n_jobs` is 1 everywhere.


TREE_STEP_SECONDS = 8e-9
"""Time of one row's step from a node to the next, measured on one core of 2024."""

TREE_CLASS_SECONDS = 0.8e-9
"""Time to add one row's probability of one class in one tree."""

LEAVES = 2000
"""Largest number of leaves of a tree of `auto`, up to a factor of two. With fewer labels each may have its own leaf."""

TREE_NUMBERS = 2**25
"""Largest number of probabilities in the leaves of the trees of `auto`."""


def tree_leaves(params: Parameters, shape: TrainingShape) -> int:
    """Return the number of leaves that a tree of `auto` may have."""
    return min(LEAVES, TREE_NUMBERS // (4 * cast(int, params["n_estimators"]) * shape.classes))


def tree_seconds(params: Parameters, shape: TrainingShape) -> float:
    """Estimate the time of a pass of the trees of `auto` over the pool on one core.

    It is no measurement, so that every worker comes to the same result. A row takes 1.1 times as many steps in a tree
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
            f"{params['n_estimators']} trees would take about {seconds:.2g} s of one core to score "
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
        forest = ExtraTreesClassifier(
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
    fast_predictor=fast_linear_predictor,
)
def logistic_regression(params: Parameters, random_state: int, shape: TrainingShape) -> Any:
    """Return a LogisticRegression: unscaled, it equals one trained in the caller's process."""
    if shape.classes * shape.features > LINEAR_WEIGHTS:
        problem = f"{shape.classes} classes times {shape.features} features are more than {LINEAR_WEIGHTS} weights"
        raise FitFailed(f"logistic_regression would be too large: {problem}")
    return LogisticRegression(
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
    members=ForestCommittee.of,
)
def extra_trees(params: Parameters, random_state: int, shape: TrainingShape) -> Any:
    """Return a forest of extremely randomised trees."""
    return ExtraTreesClassifier(**forest_arguments(params), random_state=random_state)


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
