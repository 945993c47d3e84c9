"""The registry of estimators: names, parameters and training.

An estimator is one factory, registered by `@estimator`. `fit` returns a scikit-learn estimator, or a `Pipeline` of one
step that prepares the features and the estimator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from scipy import sparse as scipy_sparse
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer

from service.compute.threads import threads_for_fit, use_one_thread
from service.domain.parameters import Parameter, Parameters, check_parameters, not_listed
from service.domain.project import EstimatorSpec, TargetName
from service.errors import FieldError, FitFailed, InvalidRequest
from service.learning.calibration import TemperedModel, temper
from service.learning.linear_scorer import Predict
from service.learning.missing_values import Medians, fill_missing
from service.learning.models import Classifier, Committee, NumberCommittee, Regressor
from service.learning.multilabel import one_vs_rest
from service.learning.pool import Features
from service.learning.preprocessing import Standardizer
from service.learning.stacked_linear import is_constant

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

    `sparse`: it accepts sparse features. `takes_missing`: it accepts NaN in dense ones. `row_seconds` estimates the
    time of one core to score a row, if that is long, from the parameters and the numbers of labels and features.
    """

    name: str
    summary: str
    source: str
    parameters: tuple[Parameter, ...]
    sparse: bool
    takes_missing: bool = False
    variants: dict[TargetName, Variant] = field(default_factory=dict)
    prepare: Callable[[Features], Features] | None = None
    row_seconds: Callable[[Parameters, int, int], float] | None = None

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


def seconds_per_row(spec: EstimatorSpec, n_labels: int, n_features: int) -> float:
    """Estimate the time of one core for a model to score a row, 0 if it is short.

    It is no measurement, so that every worker comes to the same result.
    """
    row_seconds = ESTIMATORS[spec.name].row_seconds
    return 0.0 if row_seconds is None else row_seconds(spec.params, n_labels, n_features)


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
    row_seconds: Callable[[Parameters, int, int], float] | None = None,
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

    all_parameters = (*parameters, scale_parameter)
    ESTIMATORS[name] = EstimatorKind(
        name, summary, source, all_parameters, sparse, takes_missing, prepare=prepare, row_seconds=row_seconds
    )
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
