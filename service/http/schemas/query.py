"""The schema of POST /query, and the request made from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from service import strategies
from service.domain.labels import INT64_MAX
from service.domain.leases import MAX_LEASE_SECONDS
from service.domain.project import TargetName
from service.errors import FieldError, InvalidRequest
from service.http.body.formats.spool import NOT_FINITE
from service.http.body.limits import PREDICTIONS, Limits, check_cells
from service.http.schemas import fields, label_fields
from service.http.schemas.base import BaseSchema, Rule, RuleField, named
from service.http.schemas.common import STRATEGY_NAME, project_id_field, seed_field
from service.http.schemas.samples import (
    TEXT_SCHEMA,
    TEXTS,
    labels_of,
    missing_is_class,
    missing_label_field,
    text_parameters,
)
from service.learning.external_predictions import SUM_TOLERANCE, ExternalNumbers, ExternalPredictions
from service.store.staging import StagedArray, StagedRows
from service.usecases.query_request import MAX_INCLUDED_CELLS, Included, QueryRequest
from service.usecases.texts import TextUpload
from service.usecases.uploads import refuse_missing_spellings, refuse_wrong_text

INCLUDED = named(
    "Included", "What a query can return of each sample.", {"type": "string", "enum": list(get_args(Included))}
)


class QuerySchema(BaseSchema):
    """Ask which samples to label next, of a project or of the samples sent."""

    project_id = project_id_field(
        "The project's name. Without it, the samples are those of `probabilities`, `member_probabilities`, "
        "`member_predictions` or `X`, one of which is then required.",
        required=False,
    )
    probabilities = RuleField(
        fields.matrix(),
        "Predictions of your own model, used instead of the project's model: a row of c probabilities for each sample. "
        f"Each row sums to 1, within {SUM_TOLERANCE:g}, unless a sample may have several labels.",
    )
    member_probabilities = RuleField(
        fields.members(),
        "The same for each member of a committee: m matrices. Without `probabilities`, their mean is used.",
    )
    member_predictions = RuleField(
        fields.matrix(),
        "Predictions of numbers by your own models: m rows, one for each member of a committee, of a number for each "
        "sample. Their mean is the prediction. One row is enough for strategies that need no members.",
    )
    X = RuleField(fields.features(), "Features of the samples, such as embeddings; only without a project.")
    texts = RuleField(fields.texts(), TEXTS + " Only without a project.")
    text = RuleField(Rule(fields.json_object().read, TEXT_SCHEMA), "How texts become features.")
    include = RuleField(
        fields.names_of(INCLUDED, *get_args(Included)),
        "What else to return of each sample of a project: its `text`, its `url` or its `features`, of which a "
        f"reply has up to {MAX_INCLUDED_CELLS:,}.",
        load_default=(),
    )
    y = RuleField(
        label_fields.label_list(unlabeled=True),
        "A label for each sample, null = unlabelled. Labelled samples are not returned. Only without a project.",
    )
    target = RuleField(
        fields.one_of(*get_args(TargetName)).named("Target", "What the labels of a project are."),
        "What the labels are, if neither `y` nor the strategy says it: with `labels`, `probabilities` are marginals of "
        "classes that a sample may have together, and need not sum to 1. Only without a project.",
    )
    missing_label = missing_label_field()
    batch_size = RuleField(
        fields.integer(1, INT64_MAX),
        "Number of samples, up to AQ_MAX_BATCH. If fewer are left, all of these are returned.",
        load_default=1,
    )
    strategy = RuleField(
        STRATEGY_NAME,
        "See GET /strategies.",
        load_default="auto",
    )
    params = RuleField(fields.json_object(), "The strategy's parameters; see GET /strategies.", load_default=dict)
    excluded = RuleField(fields.indices(), "Indices to leave out.", data_key="exclude")
    candidates = RuleField(fields.indices(), "The only indices to consider.")
    exclude_ids = RuleField(fields.id_list(), "The ids of more samples to leave out.")
    candidate_ids = RuleField(fields.id_list(), "The ids of the only samples to consider, beside `candidates`.")
    random_state = seed_field("A seed for this query; by default it is derived from the project's seed and state.")
    explore = RuleField(
        fields.number(0, 1),
        "Share of the batch that is drawn at random instead, in an order fixed for the project. Default: 0.1 for "
        "`auto` in batches of 10 or more, else 0.",
    )
    purpose = RuleField(
        fields.one_of("training", "evaluation").named("QueryPurpose", "What the samples are for."),
        "With evaluation the whole batch is the next unlabelled samples in the random order of the project, which "
        "GET /projects/{project_id}/evaluation measures the model on.",
        load_default="training",
    )
    explain = RuleField(
        fields.boolean(),
        "Explain each sample: what the model predicts, which labelled sample is nearest, and which samples it "
        "represents. The samples and `query_id` stay the same.",
        load_default=False,
    )
    overlap = RuleField(
        fields.integer(1, INT64_MAX),
        "How many annotators must label each sample of the project. Samples that lack some labels come first.",
        load_default=1,
    )
    annotator = RuleField(
        label_fields.ANNOTATOR,
        "Who will label the samples. Samples that this annotator has answered already are left out.",
    )
    lease_seconds = RuleField(
        fields.integer(0, MAX_LEASE_SECONDS),
        "Lease the samples to `annotator` for this long; no other annotator gets them. Samples that they "
        "hold already come first, in a new lease. 0: no lease, and the query changes nothing.",
        load_default=0,
    )


def query_request(data: Mapping[str, Any], max_batch: int, limits: Limits) -> QueryRequest:
    """Return the request of a loaded QuerySchema. Raises InvalidRequest."""
    if data["batch_size"] > max_batch:
        raise InvalidRequest.at("/batch_size", f"must be an integer from 1 to {max_batch} (AQ_MAX_BATCH)")
    if "project_id" in data:
        refuse_own_samples(data)
    else:
        refuse_without_project(data)
    if data["purpose"] == "evaluation" and "explore" in data:
        raise InvalidRequest.at("/explore", "must be left out with purpose 'evaluation', which draws the whole batch")
    if data["lease_seconds"] and "annotator" not in data:
        raise InvalidRequest.at("/annotator", "is required with 'lease_seconds': it says who gets the lease")
    y = labels_of("y", data) if "y" in data else None
    if y is not None:
        refuse_missing_spellings("y", y, (), missing_is_class=missing_is_class(data))
        refuse_wrong_text("y", y)
    strategy, params = strategies.resolve_strategy(data["strategy"], data["params"])
    return QueryRequest(
        project_id=data.get("project_id"),
        strategy=strategy,
        params=params,
        batch_size=data["batch_size"],
        exclude=data.get("excluded"),
        candidates=data.get("candidates"),
        exclude_ids=data.get("exclude_ids"),
        candidate_ids=data.get("candidate_ids"),
        random_state=data.get("random_state"),
        explore=data.get("explore"),
        purpose=data["purpose"],
        given=given(data, limits),
        X=opened("X", data, limits),
        texts=TextUpload(data["texts"], limits.cells, limits.embeddings) if "texts" in data else None,
        text=text_parameters(data, limits),
        include=data["include"],
        y=y,
        target=data.get("target"),
        explain=data["explain"],
        annotator=data.get("annotator"),
        overlap=data["overlap"],
        lease_seconds=data["lease_seconds"],
    )


def refuse_without_project(data: Mapping[str, Any]) -> None:
    """Raise InvalidRequest for fields about annotators, whose labels and leases need a project."""
    wrong = [
        FieldError(f"/{name}", f"must be {nothing} or left out: without project_id no labels and leases are stored")
        for name, nothing in (("overlap", 1), ("lease_seconds", 0))
        if data[name] != nothing
    ]
    for name in ("exclude_ids", "candidate_ids"):
        if name in data:
            wrong.append(FieldError(f"/{name}", "must be left out: without project_id samples have no ids"))
    if {"X", "texts"} <= data.keys():
        wrong.append(FieldError("/texts", "must be omitted with X: the features are made of one or the other"))
    if data["include"]:
        wrong.append(FieldError("/include", "must be left out: without project_id no texts and addresses are stored"))
    if "text" in data and "texts" not in data:
        wrong.append(FieldError("/text", "is allowed only together with texts"))
    if wrong:
        raise InvalidRequest(wrong)


def refuse_own_samples(data: Mapping[str, Any]) -> None:
    """Raise InvalidRequest for samples sent with a project, which has its own."""
    wrong = [
        FieldError(
            f"/{name}",
            f"must be left out: the project has its own {what}. Leave out project_id to query the samples sent",
        )
        for name, what in (("X", "pool"), ("texts", "pool"), ("text", "pool"), ("y", "labels"), ("target", "target"))
        if name in data
    ]
    if wrong:
        raise InvalidRequest(wrong)


def given(data: Mapping[str, Any], limits: Limits) -> ExternalPredictions | ExternalNumbers | None:
    """Return the predictions of a caller's own model, None if none were sent. Raises InvalidRequest."""
    probabilities, members, numbers = (opened(name, data, limits) for name in PREDICTIONS)
    if numbers is not None and not (probabilities is None and members is None):
        raise InvalidRequest.at("/member_predictions", "must be left out with probabilities, which are for classes")
    if numbers is not None:
        return ExternalNumbers(numbers)
    return None if probabilities is None and members is None else ExternalPredictions(probabilities, members)


def opened(name: str, data: Mapping[str, Any], limits: Limits) -> Any:
    """Return an array of the request, mapped if it is staged, None if it was not sent. Raises InvalidRequest."""
    array: StagedRows | StagedArray | NDArray[np.float64] | None = data.get(name)
    if isinstance(array, StagedRows | StagedArray):
        if array.missing is not None:
            raise InvalidRequest.at(array.missing, NOT_FINITE)
        return array.open()
    if array is not None:
        check_cells(f"/{name}", array.shape, limits.cells)
    return array
