"""The schemas of simulations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast, get_args

import numpy as np
from marshmallow import ValidationError, validates_schema

from service import strategies
from service.domain.labels import INT64_MAX, LARGEST_NUMBER, EncodedLabels
from service.domain.parameters import unknown_name
from service.domain.project import TargetName
from service.errors import MAX_ERRORS, FieldError, InvalidRequest
from service.http.body.limits import Limits
from service.http.schemas import fields, label_fields, responses
from service.http.schemas.base import BaseSchema, RawField, Rule, RuleField, list_of, named
from service.http.schemas.common import (
    ESTIMATOR_NAME,
    ESTIMATOR_REQUEST,
    STRATEGY_NAME,
    estimator_spec,
    project_id_field,
    seed_field,
    theme_field,
)
from service.http.schemas.fields import (
    estimator,
    first_few,
    indices,
    integer,
    json_object,
    number,
    one_of,
)
from service.http.schemas.fit import REFUSE_OR_ALLOW, fit_request
from service.http.schemas.responses import count, described, listed, or_null, string
from service.http.schemas.samples import (
    TEXT_SCHEMA,
    TEXTS,
    columns_field,
    labels_of,
    missing_is_class,
    missing_label_field,
)
from service.learning.estimators import resolve_estimator
from service.store.staging import Staging
from service.strategies import Need
from service.usecases.fit import DEFAULT_ESTIMATOR
from service.usecases.simulation_run import PROJECT, SimulatedStrategy, SimulationPlan
from service.usecases.simulations import DEFAULT_BUDGET, SimulationRequest, Status
from service.usecases.uploads import refuse_missing_spellings, refuse_wrong_text

MAX_STRATEGIES = 20
MAX_REPEATS = 100
MAX_INDICES = 100_000

STRATEGY_REQUEST = named(
    "StrategyRequest",
    "A strategy, with parameters that differ from the defaults.",
    {
        "type": "object",
        "required": ["name"],
        "additionalProperties": False,
        "properties": {
            "name": {**STRATEGY_NAME.schema, "description": "Which strategy."},
            "params": {"type": "object", "additionalProperties": True, "description": "Its parameters."},
        },
    },
)

PARTS = ("X", "X_test", "y", "ids", "texts", "urls", "y_test")
"""The fields that may be parts of a form."""

OF_SAMPLES = ("X", "texts", "y", "ids", "urls", "text", "feature_names", "missing_values", "target_type")
"""The fields about samples that are sent, and not those of a project."""

HELD_OUT = ("X_test", "y_test", "missing_label")
OF_NEW_PROJECT = {"project_id": PROJECT, "keep_texts": False, "replace": False}
"""The other fields of the request for the project that is simulated."""


def strategy_entry() -> Rule:
    """A strategy's name, or an object with name and parameters; whether it exists is checked later."""
    parameters = json_object()

    def read(value: Any) -> tuple[str, dict[str, Any]]:
        if isinstance(value, str):
            return value, {}
        if not isinstance(value, dict) or not isinstance(value.get("name"), str):
            raise ValidationError("must be the name of a strategy, or an object with 'name' and 'params'")
        known = "name", "params"
        unknown = [key for key in value if key not in known][: MAX_ERRORS + 1]
        if unknown:
            raise ValidationError({key: [unknown_name("field here", key, known)] for key in unknown})
        try:
            return value["name"], parameters.read(value.get("params", {}))
        except ValidationError as error:
            raise ValidationError({"params": error.messages}) from None

    return Rule(read, {"oneOf": [STRATEGY_NAME.schema, STRATEGY_REQUEST]})


def distinct_indices() -> Rule:
    """A list of one or more indices without repetition -> tuple."""
    rule = indices()

    def read(value: Any) -> tuple[int, ...]:
        found: tuple[int, ...] = tuple(rule.read(value).tolist())
        if not 1 <= len(found) <= MAX_INDICES:
            raise ValidationError(f"must be a list of 1 to {MAX_INDICES} indices")
        first: dict[int, int] = {}
        repeated = [position for position, index in enumerate(found) if first.setdefault(index, position) != position]
        if repeated:
            raise ValidationError(first_few((position, "is listed twice") for position in repeated))
        return found

    return Rule(read, {**rule.schema, "minItems": 1, "maxItems": MAX_INDICES, "uniqueItems": True})


def score_to_reach() -> Rule:
    """A score; the name of a target is refused with the field that takes it."""
    score = number(0, LARGEST_NUMBER)

    def read(value: Any) -> float:
        if value in get_args(TargetName):
            raise ValidationError(f"is the score to reach, a number; send 'target_type': {value!r} for what labels are")
        return cast(float, score.read(value))

    return Rule(read, score.schema)


class SimulateSchema(BaseSchema):
    """Simulate strategies on samples whose labels are known."""

    project_id = project_id_field("A project, whose labelled samples are used.", required=False)
    X = RuleField(fields.samples(), "The samples, n rows of d numbers; only without a project.")
    y = RuleField(label_fields.label_list(unlabeled=False), "A label for every sample.")
    missing_label = missing_label_field()
    texts = RuleField(fields.texts(), TEXTS + " X_test is then a list of texts, too.")
    text = RuleField(Rule(json_object().read, TEXT_SCHEMA), "How texts become features.")
    ids = RuleField(fields.sample_ids(), "Accepted as in POST /fit, and not used.")
    urls = RuleField(fields.urls(), "Accepted as in POST /fit, and not used.")
    feature_names = RuleField(fields.feature_names(), "d unique names of the columns of X, as in POST /fit.")
    columns = columns_field("")
    missing_values = RuleField(REFUSE_OR_ALLOW, "Whether features may be missing, as in POST /fit; default `refuse`.")
    X_test = RuleField(
        fields.features_or_texts(), "The held-out set on which the accuracy is measured: numbers, or texts for texts."
    )
    y_test = RuleField(label_fields.label_list(unlabeled=False), "A label for every row of X_test.")
    test_size = RuleField(
        number(0.01, 0.99),
        "Without X_test: the share of the samples that each repeat draws as its held-out set; default 0.25.",
    )
    strategies = RuleField(
        list_of(strategy_entry(), 1, MAX_STRATEGIES),
        "The strategies to compare: names, or names with parameters; see GET /strategies. `random` is added if it is "
        "missing.",
        required=True,
    )
    estimator = RuleField(
        estimator().documented(oneOf=[ESTIMATOR_NAME, ESTIMATOR_REQUEST]),
        f"An estimator's name, or its name and parameters; see GET /estimators. Default: {DEFAULT_ESTIMATOR}.",
    )
    batch_size = RuleField(
        integer(1, INT64_MAX), "Number of samples of each query, up to AQ_MAX_BATCH.", load_default=10
    )
    budget = RuleField(
        integer(1, INT64_MAX),
        f"Number of samples that are asked about in a run, at most the size of the pool; default {DEFAULT_BUDGET}, or "
        "all if there are fewer.",
    )
    n_initial = RuleField(
        integer(0, INT64_MAX),
        "Without `initial`: how many samples each repeat draws to be labelled at the start, of as many classes as "
        "possible; default 10.",
    )
    initial = RuleField(distinct_indices(), "Indices of the samples that are labelled at the start.")
    repeats = RuleField(
        integer(1, MAX_REPEATS), "How often each strategy is run, each time with another seed.", load_default=5
    )
    random_state = seed_field("The seed of the first repeat; each further one has the next. Default 0.")
    target_type = RuleField(
        one_of(*get_args(TargetName)).named("Target", "What the labels of a project are."),
        "What the labels are, as `target` in POST /fit. Without it, labels are numbers if one of `y` is not a whole "
        "number, lists of classes if one is a list, else classes. That of a project is known.",
    )
    target = RuleField(
        score_to_reach(),
        "The score to reach: an accuracy, at most 1; the RMSE of numbers; F1 (micro) of lists of classes. Default: "
        "what `random` reaches on average with the whole budget.",
    )

    @validates_schema
    def check_together(self, data: Mapping[str, Any], **_: Any) -> None:
        """Raise ValidationError for fields that exclude one another, or are missing their counterpart."""
        wrong: dict[str, list[str]] = {}
        if "project_id" in data:
            wrong |= {
                name: ["must be left out: the samples are those of the project"] for name in OF_SAMPLES if name in data
            }
        else:
            wrong |= {} if "X" in data or "texts" in data else {"X": ["or texts is required, or project_id"]}
            wrong |= {} if "y" in data else {"y": ["is required, or project_id"]}
            wrong |= {} if "texts" in data or "text" not in data else {"text": ["is allowed only together with texts"]}
        for name, other in (("X_test", "y_test"), ("y_test", "X_test")):
            if name in data and other not in data:
                wrong[other] = [f"is required together with {name}"]
        for name, other in (("test_size", "X_test"), ("n_initial", "initial")):
            if name in data and other in data:
                wrong[name] = [f"must be left out: {other} was sent"]
        if wrong:
            raise ValidationError(wrong)


class SimulationPageSchema(BaseSchema):
    """How a page shows a simulation."""

    reload = RuleField(
        one_of("yes", "no").named("Reload", "Whether a page loads itself again."),
        "Whether the page of a simulation that has not ended loads itself again every few seconds.",
        load_default="yes",
    )


class SimulationQuerySchema(BaseSchema):
    """How a simulation is shown."""

    theme = theme_field()


def simulation_request(
    data: Mapping[str, Any], owner: str | None, max_batch: int, staging: Staging, limits: Limits
) -> SimulationRequest:
    """Return the request of a loaded SimulateSchema, with its matrices staged. Raises InvalidRequest."""
    if data["batch_size"] > max_batch:
        raise InvalidRequest.at("/batch_size", f"must be an integer from 1 to {max_batch} (AQ_MAX_BATCH)")
    plan = SimulationPlan(
        strategies=tuple(simulated_strategies(data["strategies"])),
        estimator=estimator_spec(data["estimator"])
        if "estimator" in data
        else resolve_estimator(DEFAULT_ESTIMATOR, {}),
        batch_size=data["batch_size"],
        budget=data.get("budget", DEFAULT_BUDGET),
        n_initial=data.get("n_initial", 10),
        initial=data.get("initial"),
        test_size=data.get("test_size", 0.25),
        repeats=data["repeats"],
        random_state=data.get("random_state", 0),
        target=data.get("target"),
    )
    of_samples = {name: value for name, value in data.items() if name in (*OF_SAMPLES, *HELD_OUT)}
    if "target_type" in of_samples:
        of_samples["target"] = of_samples.pop("target_type")
    return SimulationRequest(
        plan=plan,
        owner=owner,
        project_id=data.get("project_id"),
        samples=fit_request({**OF_NEW_PROJECT, **of_samples}, staging, limits),
        y=true_labels("y", data) if "y" in data else None,
        y_test=true_labels("y_test", data) if "y_test" in data else None,
        has_budget="budget" in data,
    )


def true_labels(name: str, data: Mapping[str, Any]) -> EncodedLabels:
    """Return labels of which none may be missing. Raises InvalidRequest."""
    labels = labels_of(name, data)
    unlabeled = np.flatnonzero(labels.codes < 0)[: MAX_ERRORS + 1].tolist()
    if unlabeled:
        raise InvalidRequest(
            FieldError(f"/{name}/{row}", "must be a label: every sample needs one") for row in unlabeled
        )
    refuse_missing_spellings(name, labels, (), missing_is_class=missing_is_class(data))
    refuse_wrong_text(name, labels)
    return labels


def simulated_strategies(entries: list[tuple[str, dict[str, Any]]]) -> list[SimulatedStrategy]:
    """Return the strategies with all their parameters. Raises InvalidRequest."""
    found: list[SimulatedStrategy] = []
    errors: list[FieldError] = []
    for position, (name, params) in enumerate(entries):
        pointer = f"/strategies/{position}"
        try:
            strategy, values = strategies.resolve_strategy(name, params)
        except InvalidRequest as error:
            errors += [
                FieldError(pointer + each.pointer.removeprefix("/strategy"), each.detail) for each in error.errors
            ]
            continue
        entry = SimulatedStrategy(name, values)
        if Need.VOTES in strategy.needs:
            errors.append(
                FieldError(pointer, f"{name!r} asks about labels again, and a simulation has one for each sample")
            )
        elif entry in found:
            errors.append(FieldError(pointer, "is listed twice"))
        found.append(entry)
    if errors:
        raise InvalidRequest(errors)
    return found


def or_missing(description: str) -> RawField:
    """Return a field for a number that may be null."""
    return RawField(or_null("number"), description)


class SimulatedPointSchema(BaseSchema):
    """A point of a simulated learning curve."""

    n_labeled = count("Number of labels.")
    mean = or_missing(
        "The mean accuracy over the repeats, of numbers the RMSE, of lists of classes F1 (micro); null if one of them "
        "had no model yet."
    )
    low = or_missing("The lower end of its 95 % interval; null with one repeat.")
    high = or_missing("The upper end of the interval.")


class LabelsToTargetSchema(BaseSchema):
    """The labels with which a strategy reached the target."""

    mean = or_missing("Their mean number over the repeats, those of the start included; null unless all reached it.")
    low = or_missing("The lower end of its 95 % interval; null with one repeat.")
    high = or_missing("The upper end of the interval.")
    n_reached = count("Number of repeats that reached the target.")


class LabelsSavedSchema(BaseSchema):
    """How many labels fewer than `random` a strategy needed for the target."""

    mean = or_missing(
        "The mean of the differences within each repeat. A run that did not reach the target counts as if it had with "
        "its last label."
    )
    low = or_missing("The lower end of its paired 95 % interval; null with one repeat.")
    high = or_missing("The upper end of the interval.")


class SimulatedStrategySchema(BaseSchema):
    """What a strategy achieved."""

    strategy = string("Its name.")
    params = RawField({"type": "object", "additionalProperties": True}, "All its parameters.")
    curve = listed(SimulatedPointSchema, "The learning curve, from the labels at the start.")
    labels_to_target = described(LabelsToTargetSchema, "Null without a target.", allow_none=True)
    labels_saved = described(LabelsSavedSchema, "Null for `random`, or without a target.", allow_none=True)


class SimulationResultSchema(BaseSchema):
    """The result of a simulation."""

    target = or_missing("The score to reach: the one requested, or the mean that `random` reached at last.")
    strategies = listed(SimulatedStrategySchema, "The strategies, in the order of the request.")
    recommendation = string("One sentence on which strategy to use.")


class SimulationProgressSchema(BaseSchema):
    """How far a simulation is. Each repeat of each strategy is a run."""

    done = count("Number of runs that are done.")
    total = count("Number of all runs.")


class SimulatedNameSchema(BaseSchema):
    """A strategy and all its parameters."""

    name = string("The name of the strategy.")
    params = RawField({"type": "object", "additionalProperties": True}, "Its parameters, defaults included.")


class SimulationSummarySchema(BaseSchema):
    """A simulation without its result."""

    simulation_id = string("Its id.")
    status = RawField(
        named("SimulationStatus", "The state of a simulation.", {"type": "string", "enum": [*get_args(Status)]}),
        "Its state.",
    )
    progress = described(SimulationProgressSchema, "How many runs are done.")
    error = RawField(or_null("string"), "Why it failed; null unless it did.")
    project_id = RawField(or_null("string"), "The project whose labelled samples it uses; null for samples sent.")
    strategies = listed(SimulatedNameSchema, "The strategies, with `random`.", attribute="plan.strategies")
    estimator = described(responses.EstimatorSpecSchema, "The estimator.", attribute="plan.estimator")
    batch_size = count("Number of samples of each query.", attribute="plan.batch_size")
    budget = count("Number of samples that are asked about in a run.", attribute="plan.budget")
    repeats = count("How often each strategy is run.", attribute="plan.repeats")
    target_type = string("What the labels are: `class`, `number` or `labels`.", attribute="plan.label_target")
    random_state = count("The seed of the first repeat.", attribute="plan.random_state")
    created_at = responses.Timestamp("Time of the request.")
    ended_at = responses.Timestamp("Time at which it ended; null before.", allow_none=True)


class SimulationSchema(SimulationSummarySchema):
    """A simulation."""

    result = described(SimulationResultSchema, "The result; null unless `status` is `done`.", allow_none=True)


class SimulationListSchema(BaseSchema):
    """All simulations that the caller may see."""

    simulations = listed(SimulationSummarySchema, "The oldest first.")
