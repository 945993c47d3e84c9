"""What requests and replies look like: the contract, from which openapi.yaml is made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

import numpy as np
from marshmallow import ValidationError, validates_schema
from numpy.typing import NDArray

from service import strategies
from service.domain.labels import INT64_MAX
from service.domain.leases import MAX_LEASE_SECONDS
from service.domain.project import PROJECT_ID, ConsensusMethod, EstimatorSpec
from service.errors import FieldError, InvalidRequest
from service.http.body.limits import PREDICTIONS, Limits, check_cells
from service.http.schemas import fields, label_fields
from service.http.schemas.base import BaseSchema, RuleField
from service.learning import estimators
from service.learning.external_predictions import SUM_TOLERANCE, ExternalPredictions
from service.store.staging import StagedArray, StagedRows, Staging
from service.usecases.append import AppendRequest
from service.usecases.fit import FitRequest, HeldOutUpload
from service.usecases.label import LabelRequest
from service.usecases.query_request import QueryRequest

MAX_SEED = 2**32 - 1
MAX_PAGE = 1_000
MAX_SKIPS_TO_DROP = 1_000

ESTIMATOR_NAME = {"type": "string", "enum": sorted(estimators.ESTIMATORS)}
ESTIMATOR_SCHEMA = {
    "oneOf": [
        ESTIMATOR_NAME,
        {
            "type": "object",
            "required": ["name"],
            "additionalProperties": False,
            "properties": {
                "name": {**ESTIMATOR_NAME, "description": "Which estimator."},
                "params": {"type": "object", "additionalProperties": True, "description": "Its parameters."},
            },
        },
    ]
}


def project_id_field(description: str = "The project's name.", *, required: bool = True) -> RuleField:
    """Return the field by which a request names its project."""
    return RuleField(fields.pattern(PROJECT_ID), description, required=required)


def seed_field(description: str) -> RuleField:
    """Return a field for a seed."""
    return RuleField(fields.integer(0, MAX_SEED), description)


class FitSchema(BaseSchema):
    """Create a project, or train it again."""

    project_id = project_id_field()
    X = RuleField(fields.matrix(), "The pool: n rows of d numbers. Required for a new project.")
    y = RuleField(label_fields.label_list(unlabeled=True), "n labels, null = unlabelled.")
    ids = RuleField(fields.sample_ids(), "n unique strings: the caller's own names of the samples.")
    X_test = RuleField(fields.matrix(), "The held-out set: scored after every fit, never trained on.")
    y_test = RuleField(label_fields.label_list(unlabeled=False), "A label for every row of X_test.")
    classes = RuleField(
        label_fields.class_list(), "All labels that may occur; without it they are discovered as they come."
    )
    estimator = RuleField(
        fields.estimator().documented(**ESTIMATOR_SCHEMA),
        "An estimator's name, or its name and parameters; see GET /estimators.",
    )
    consensus = RuleField(
        fields.one_of(*get_args(ConsensusMethod)),
        "How several people's labels of one sample become the one that is trained on: weighed by CROWDLAB, the default "
        "of a new project, or by their majority.",
    )
    skips_to_drop = RuleField(
        fields.integer(1, MAX_SKIPS_TO_DROP),
        "How many annotators must skip a sample before the others are not asked about it; 1 for a new project.",
    )
    random_state = seed_field("The project's seed; 0 without.")
    replace = RuleField(
        fields.boolean(),
        "Make the project anew: its pool, labels and models, and what else is not sent again, are thrown away.",
        load_default=False,
    )

    @validates_schema
    def check_together(self, data: Mapping[str, Any], **_: Any) -> None:
        """Refuse fields that need each other."""
        wrong: dict[str, list[str]] = {}
        if "X" not in data:
            wrong |= {name: ["comes only together with X"] for name in ("y", "ids") if name in data}
            if data.get("replace"):
                wrong["X"] = ["is required with 'replace': true"]
        for name, other in (("X_test", "y_test"), ("y_test", "X_test")):
            if name in data and other not in data:
                wrong[other] = [f"is required together with {name}"]
        if wrong:
            raise ValidationError(wrong)


class AppendSchema(BaseSchema):
    """Put more samples behind those of a pool."""

    X = RuleField(fields.matrix(), "The new samples: rows as wide as the pool's.", required=True)
    y = RuleField(label_fields.label_list(unlabeled=True), "A label for each of them, null = unlabelled.")
    ids = RuleField(fields.sample_ids(), "The caller's own names of them; required where the pool has names.")


class QuerySchema(BaseSchema):
    """Ask which samples to label next: those of a project, or of what is sent in its place."""

    project_id = project_id_field(
        "The project's name. Without it the samples are those of `probabilities`, `member_probabilities` or `X`, at "
        "least one of which is then required.",
        required=False,
    )
    probabilities = RuleField(
        fields.matrix(),
        "What a model of yours says: a row of c probabilities for each sample, in the place of the project's model. "
        f"Each row sums to 1, within {SUM_TOLERANCE:g}.",
    )
    member_probabilities = RuleField(
        fields.members(),
        "The same of each member of a committee: m matrices. Without `probabilities`, their mean is the model.",
    )
    X = RuleField(fields.matrix(), "Features of the samples, such as embeddings; without a project only.")
    y = RuleField(
        label_fields.label_list(unlabeled=True),
        "A label for each sample, null = unlabelled: the others are never asked about. Without a project only.",
    )
    batch_size = RuleField(
        fields.integer(1, INT64_MAX),
        "How many samples, up to AQ_MAX_BATCH; more than are left returns what is left.",
        load_default=1,
    )
    strategy = RuleField(
        fields.text(1, 64).documented(enum=sorted(strategies.STRATEGIES)), "See GET /strategies.", load_default="auto"
    )
    params = RuleField(fields.json_object(), "The strategy's parameters; see GET /strategies.", load_default=dict)
    excluded = RuleField(fields.indices(), "Indices never to return.", data_key="exclude")
    candidates = RuleField(fields.indices(), "The only indices to consider.")
    random_state = seed_field("A seed for this question; without it the project's seed and state give one.")
    explore = RuleField(
        fields.number(0, 1),
        "The share of the batch that is drawn, in the random order of the project; 0 without, and 0.1 for `auto` in "
        "batches of 10 and more.",
    )
    purpose = RuleField(
        fields.one_of("training", "evaluation"),
        "With evaluation the whole batch is the next unlabelled samples in the random order of the project, which "
        "GET /projects/{project_id}/evaluation measures the model on.",
        load_default="training",
    )
    explain = RuleField(
        fields.boolean(),
        "Say of each sample why: what the model makes of it, what lies around it, and what it stands for. It chooses "
        "no other samples, and `query_id` stays.",
        load_default=False,
    )
    overlap = RuleField(
        fields.integer(1, INT64_MAX),
        "How many people must label each sample of the project. Those that have a label and need more come first.",
        load_default=1,
    )
    annotator = RuleField(
        label_fields.ANNOTATOR, "Who will answer: never given a sample of the project that they have answered already."
    )
    lease_seconds = RuleField(
        fields.integer(0, MAX_LEASE_SECONDS),
        "For so long the samples are held for `annotator` and given to nobody else; what this annotator holds already "
        "comes first, and from now on counts anew. 0: a pure read.",
        load_default=0,
    )


class RenewSchema(BaseSchema):
    """Let a lease count anew from now."""

    lease_seconds = RuleField(
        fields.integer(1, MAX_LEASE_SECONDS),
        "For how many seconds from now; without it for as many as it was given for.",
    )


class LabelSchema(BaseSchema):
    """Hand back what people answered."""

    project_id = project_id_field()
    labels = RuleField(label_fields.answers(), "The answers; all are kept, or none.", required=True)
    refit = RuleField(
        fields.one_of("wait", "background", "never"),
        '"wait": the reply carries the new model; "background": it comes at once, and the fit follows; "never": it '
        "waits until somebody asks for one.",
        load_default="wait",
    )


def safe_field() -> RuleField:
    """Return the parameter that says how the cells of CSV are written."""
    return RuleField(
        fields.one_of("spreadsheet", "none"),
        "How CSV is written: with `spreadsheet` an apostrophe precedes cells that begin with `=`, `+`, `-`, `@`, a tab "
        "or a carriage return and are not numbers; with `none` cells are the raw values.",
        load_default="spreadsheet",
    )


class LabelListQuerySchema(BaseSchema):
    """How labels are listed."""

    safe = safe_field()


class PageSchema(BaseSchema):
    """Which page of a list."""

    limit = RuleField(fields.integer_text(1, MAX_PAGE), "How many at most.", load_default=100)
    after = RuleField(fields.pattern(PROJECT_ID), "The last name of the page before.")


class EventPageSchema(BaseSchema):
    """Which page of a project's events."""

    limit = RuleField(fields.integer_text(1, MAX_PAGE), "How many at most.", load_default=100)
    after = RuleField(fields.integer_text(0, INT64_MAX), "The last version of the page before.", load_default=0)


class ImportSchema(BaseSchema):
    """Under which name a project is imported."""

    project_id = RuleField(fields.pattern(PROJECT_ID), "The project's name here; the one that it had without.")


def fit_request(data: Mapping[str, Any], staging: Staging, limits: Limits) -> FitRequest:
    """Turn what FitSchema loaded into a request, its matrices staged. Raises InvalidRequest."""
    held_out = None
    if "X_test" in data:
        held_out = HeldOutUpload(staged("X_test", data["X_test"], staging, limits), data["y_test"])
    return FitRequest(
        project_id=data["project_id"],
        X=staged("X", data["X"], staging, limits) if "X" in data else None,
        y=data.get("y"),
        ids=data.get("ids"),
        held_out=held_out,
        classes=data.get("classes"),
        estimator=estimator_spec(data["estimator"]) if "estimator" in data else None,
        consensus_method=data.get("consensus"),
        skips_to_drop=data.get("skips_to_drop"),
        random_state=data.get("random_state"),
        replace=data["replace"],
    )


def append_request(project_id: str, data: Mapping[str, Any], staging: Staging, limits: Limits) -> AppendRequest:
    """Turn what AppendSchema loaded into a request, its matrix staged. Raises InvalidRequest."""
    return AppendRequest(project_id, staged("X", data["X"], staging, limits), data.get("y"), data.get("ids"))


def staged(name: str, matrix: StagedRows | NDArray[np.float64], staging: Staging, limits: Limits) -> StagedRows:
    """Return the staged rows of a matrix, which are written now if it came as JSON. Raises InvalidRequest."""
    if isinstance(matrix, StagedRows):
        return matrix
    check_cells(f"/{name}", matrix.shape, limits.cells)
    return staging.rows(matrix)


def estimator_spec(spec: str | Mapping[str, Any]) -> EstimatorSpec:
    """Return the estimator of a name, or of a name and parameters. Raises InvalidRequest."""
    try:
        if isinstance(spec, str):
            return estimators.resolve_estimator(spec, {})
        return estimators.resolve_estimator(spec["name"], spec.get("params", {}))
    except InvalidRequest as error:
        if isinstance(spec, str):
            raise InvalidRequest.at("/estimator", error.errors[0].detail) from None
        raise error.with_prefix("/estimator") from None


def query_request(data: Mapping[str, Any], max_batch: int, limits: Limits) -> QueryRequest:
    """Turn what QuerySchema loaded into a request. Raises InvalidRequest."""
    if data["batch_size"] > max_batch:
        raise InvalidRequest.at("/batch_size", f"must be an integer from 1 to {max_batch} (AQ_MAX_BATCH)")
    if "project_id" in data:
        refuse_own_samples(data)
    else:
        refuse_without_project(data)
    if data["purpose"] == "evaluation" and "explore" in data:
        raise InvalidRequest.at("/explore", "must be left out with purpose 'evaluation', which draws the whole batch")
    if data["lease_seconds"] and "annotator" not in data:
        raise InvalidRequest.at("/annotator", "is required with 'lease_seconds': for whom are the samples held?")
    strategy, params = strategies.resolve_strategy(data["strategy"], data["params"])
    return QueryRequest(
        project_id=data.get("project_id"),
        strategy=strategy,
        params=params,
        batch_size=data["batch_size"],
        exclude=data.get("excluded"),
        candidates=data.get("candidates"),
        random_state=data.get("random_state"),
        explore=data.get("explore"),
        purpose=data["purpose"],
        given=given(data, limits),
        X=opened("X", data, limits),
        y=data.get("y"),
        explain=data["explain"],
        annotator=data.get("annotator"),
        overlap=data["overlap"],
        lease_seconds=data["lease_seconds"],
    )


def refuse_without_project(data: Mapping[str, Any]) -> None:
    """Raise InvalidRequest for what says who has labelled what, or holds it: that is kept nowhere without a project."""
    wrong = [
        FieldError(f"/{name}", f"must be {nothing} or left out: without project_id nobody keeps who labels what")
        for name, nothing in (("overlap", 1), ("lease_seconds", 0))
        if data[name] != nothing
    ]
    if wrong:
        raise InvalidRequest(wrong)


def refuse_own_samples(data: Mapping[str, Any]) -> None:
    """Raise InvalidRequest for samples that come with a project, which has samples of its own."""
    wrong = [
        FieldError(
            f"/{name}", f"must be left out: the project has its own {what}; without project_id it is asked about"
        )
        for name, what in (("X", "pool"), ("y", "labels"))
        if name in data
    ]
    if wrong:
        raise InvalidRequest(wrong)


def given(data: Mapping[str, Any], limits: Limits) -> ExternalPredictions | None:
    """Return what a caller's own model says, None where nothing was sent of it. Raises InvalidRequest."""
    probabilities, members = (opened(name, data, limits) for name in PREDICTIONS)
    return None if probabilities is None and members is None else ExternalPredictions(probabilities, members)


def opened(name: str, data: Mapping[str, Any], limits: Limits) -> Any:
    """Return an array that was sent, mapped where it lies in staged files. Raises InvalidRequest."""
    array: StagedRows | StagedArray | NDArray[np.float64] | None = data.get(name)
    if isinstance(array, StagedRows | StagedArray):
        return array.open()
    if array is not None:
        check_cells(f"/{name}", array.shape, limits.cells)
    return array


def label_request(data: Mapping[str, Any]) -> LabelRequest:
    """Turn what LabelSchema loaded into a request."""
    return LabelRequest(data["project_id"], data["labels"], data["refit"])
