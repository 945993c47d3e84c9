"""The schemas of requests, and the use cases' requests made from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, get_args

import numpy as np
from marshmallow import ValidationError, validates_schema
from numpy.typing import NDArray

from service import strategies
from service.domain.calibration import CalibrationMethod
from service.domain.labels import INT64_MAX, EncodedLabels
from service.domain.leases import MAX_LEASE_SECONDS
from service.domain.parameters import Parameters
from service.domain.project import PROJECT_ID, ConsensusMethod, EstimatorSpec, type_name
from service.errors import MAX_ERRORS, FieldError, InvalidRequest
from service.http.body.formats.spool import NOT_FINITE, first_missing_in_rows
from service.http.body.limits import PREDICTIONS, Limits, check_cells
from service.http.plots import THEMES
from service.http.schemas import fields, label_fields
from service.http.schemas.base import BaseSchema, Rule, RuleField, named
from service.learning import estimators
from service.learning.external_predictions import SUM_TOLERANCE, ExternalPredictions
from service.learning.texts import TEXT_PARAMETERS, resolve_text
from service.store.staging import StagedArray, StagedRows, Staging
from service.usecases.append import AppendRequest
from service.usecases.fit import FitRequest, HeldOutUpload
from service.usecases.label import LabelRequest, Refit
from service.usecases.query_request import Included, QueryRequest
from service.usecases.texts import Samples, TextUpload
from service.usecases.uploads import refuse_missing_spellings, refuse_wrong_text

MAX_SEED = 2**32 - 1
MAX_PAGE = 1_000
MAX_WAIT_SECONDS = 60
MAX_SKIPS_TO_DROP = 1_000

ESTIMATOR_NAME = named(
    "EstimatorName", "The name of an estimator.", {"type": "string", "enum": sorted(estimators.ESTIMATORS)}
)
ESTIMATOR_REQUEST = named(
    "EstimatorRequest",
    "An estimator, with parameters that differ from the defaults.",
    {
        "type": "object",
        "required": ["name"],
        "additionalProperties": False,
        "properties": {
            "name": {**ESTIMATOR_NAME, "description": "Which estimator."},
            "params": {"type": "object", "additionalProperties": True, "description": "Its parameters."},
        },
    },
)


TEXTS = "The samples as texts, instead of X: words and runs of characters become sparse features, as `text` says."
URLS = "n addresses of the samples, of http, https or relative; they are returned on request and never fetched."
INCLUDED = named(
    "Included", "What a query can return of each sample.", {"type": "string", "enum": list(get_args(Included))}
)
TEXT_SCHEMA = named(
    "TextParameters",
    "How texts become features.",
    {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            **{parameter.name: fields.parameter_schema(parameter) for parameter in TEXT_PARAMETERS},
            "embeddings": {"type": "string", "description": "Instead of all others: a model in AQ_EMBEDDINGS_DIR."},
        },
    },
)
REFUSE_OR_ALLOW = fields.one_of("refuse", "allow").named("RefuseOrAllow", "Whether something may be sent.")
STRATEGY_NAME = (
    fields.text(1, 64)
    .documented(enum=sorted(strategies.STRATEGIES))
    .named("StrategyName", "The name of a query strategy.")
)


def project_id_field(description: str = "The project's name.", *, required: bool = True) -> RuleField:
    """Return the field for the name of a project."""
    return RuleField(fields.pattern(PROJECT_ID), description, required=required)


def missing_label_field() -> RuleField:
    """Return the field for the label that means unlabelled."""
    return RuleField(
        label_fields.missing_label(),
        "A label of `y` that means unlabelled, such as `nan` or -1. Without it, a label that looks like a missing one "
        "and is not a class yet is refused: blank text, `nan`, `NaN`, `None`, `null`, `<NA>`, `N/A`, and -1 if no "
        "other class is negative. null = these are classes, except blank text.",
        allow_none=True,
    )


def columns_field(more: str) -> RuleField:
    """Return the field for the columns of a table."""
    return RuleField(fields.columns(), "What the columns of a table in X or X_test are." + more)


def refit_field(when: str = "") -> RuleField:
    """Return the field for whether the reply waits for a fit."""
    return RuleField(
        fields.one_of(*get_args(Refit)).named("Refit", "When the model is fitted again."),
        f"{when}`wait`: the reply waits for the fit and carries the new model. `background`: the fit follows the "
        "reply. `never`: no fit until a later request asks for one.",
        load_default="wait",
    )


def seed_field(description: str) -> RuleField:
    """Return a field for a seed."""
    return RuleField(fields.integer(0, MAX_SEED), description)


class FitSchema(BaseSchema):
    """Create a project, or train it again."""

    project_id = project_id_field()
    X = RuleField(fields.samples(), "The pool, n rows of d numbers. Required for a new project.")
    y = RuleField(label_fields.label_list(unlabeled=True), "n labels, null = unlabelled.")
    missing_label = missing_label_field()
    texts = RuleField(fields.texts(), TEXTS + " X_test is then a list of texts, too.")
    text = RuleField(Rule(fields.json_object().read, TEXT_SCHEMA), "How texts become features.")
    keep_texts = RuleField(
        fields.boolean(), "Whether to store the texts, so that POST /query can return them.", load_default=True
    )
    urls = RuleField(fields.urls(), URLS)
    ids = RuleField(fields.sample_ids(), "n unique strings, or n unique integers: the caller's own ids of the samples.")
    feature_names = RuleField(
        fields.feature_names(),
        "d unique names of the columns of X; a table of Arrow or Parquet brings its own. Columns of later tables are "
        "put in this order by name.",
    )
    columns = columns_field(" The project keeps them, for X_test and for tables that are appended.")
    X_test = RuleField(
        fields.features_or_texts(),
        "The held-out set, scored after every fit and never trained on: numbers, or texts for a pool of texts.",
    )
    y_test = RuleField(label_fields.label_list(unlabeled=False), "A label for every row of X_test.")
    classes = RuleField(
        label_fields.class_list(), "All labels that may occur. Without it, classes are discovered as labels come in."
    )
    estimator = RuleField(
        fields.estimator().documented(oneOf=[ESTIMATOR_NAME, ESTIMATOR_REQUEST]),
        "An estimator's name, or its name and parameters; see GET /estimators. Without it, a new project has `auto`.",
    )
    consensus = RuleField(
        fields.one_of(*get_args(ConsensusMethod)).named(
            "ConsensusMethod", "How labels of several annotators become one."
        ),
        "How the labels of several annotators become the one that is trained on: weighted by CROWDLAB, the default "
        "for a new project, or by majority.",
    )
    skips_to_drop = RuleField(
        fields.integer(1, MAX_SKIPS_TO_DROP),
        "How many annotators must skip a sample before no others are asked about it; 1 for a new project.",
    )
    similar_labels = RuleField(
        REFUSE_OR_ALLOW,
        "Whether a new label may look like another class: be equal after NFKC, case folding and stripping, without "
        "format characters. `refuse` for a new project.",
    )
    missing_values = RuleField(
        REFUSE_OR_ALLOW,
        "Whether features of the pool and the held-out set may be missing: NaN, or null in JSON, Arrow and Parquet. "
        "`allow`: random_forest, extra_trees and hist_gradient_boosting learn from them as they are; other estimators, "
        "and strategies that compare features, use the median of the column. `refuse` for a new project.",
    )
    calibration = RuleField(
        fields.one_of(*get_args(CalibrationMethod)).named("CalibrationMethod", "How probabilities are calibrated."),
        "Whether the model's probabilities are calibrated in queries and predictions. `temperature`: by one number, "
        "fitted out of fold to the labels once there are 20, which takes five more fits. `none` for a new project.",
    )
    random_state = seed_field("The project's seed; default 0.")
    replace = RuleField(
        fields.boolean(),
        "Replace the project: its pool, labels and models are deleted, and fields that are not sent are reset.",
        load_default=False,
    )

    @validates_schema
    def check_together(self, data: Mapping[str, Any], **_: Any) -> None:
        """Raise ValidationError for fields that are missing their counterpart."""
        wrong: dict[str, list[str]] = {}
        for name in ("y", "ids", "urls"):
            if name in data and "X" not in data and "texts" not in data:
                wrong[name] = ["is allowed only together with X or texts"]
        if "X" not in data and "feature_names" in data:
            wrong["feature_names"] = ["is allowed only together with X"]
        if "texts" not in data:
            given = [
                name
                for name, was_given in (("text", "text" in data), ("keep_texts", not data["keep_texts"]))
                if was_given
            ]
            wrong |= {name: ["is allowed only together with texts"] for name in given}
        if data.get("replace") and "X" not in data and "texts" not in data:
            wrong["X"] = ["or texts is required with 'replace': true"]
        for name, other in (("X_test", "y_test"), ("y_test", "X_test")):
            if name in data and other not in data:
                wrong[other] = [f"is required together with {name}"]
        if wrong:
            raise ValidationError(wrong)


class AppendSchema(BaseSchema):
    """Append samples to a pool."""

    X = RuleField(
        fields.samples(), "The new samples, with as many columns as the pool. Required unless the pool is of texts."
    )
    texts = RuleField(fields.texts(), "The new samples of a pool of texts, instead of X.")
    urls = RuleField(fields.urls(), "An address for each of them; required if the pool has addresses.")
    y = RuleField(label_fields.label_list(unlabeled=True), "A label for each of them; null = unlabelled.")
    missing_label = missing_label_field()
    ids = RuleField(
        fields.sample_ids(), "The caller's own ids of the samples; required if the pool has ids, and of their type."
    )
    columns = columns_field(" By default those of the project, as far as the table has them.")


class QuerySchema(BaseSchema):
    """Ask which samples to label next, of a project or of the samples sent."""

    project_id = project_id_field(
        "The project's name. Without it, the samples are those of `probabilities`, `member_probabilities` or `X`, one "
        "of which is then required.",
        required=False,
    )
    probabilities = RuleField(
        fields.matrix(),
        "Predictions of your own model, used instead of the project's model: a row of c probabilities for each sample. "
        f"Each row sums to 1, within {SUM_TOLERANCE:g}.",
    )
    member_probabilities = RuleField(
        fields.members(),
        "The same for each member of a committee: m matrices. Without `probabilities`, their mean is used.",
    )
    X = RuleField(fields.features(), "Features of the samples, such as embeddings; only without a project.")
    texts = RuleField(fields.texts(), TEXTS + " Only without a project.")
    text = RuleField(Rule(fields.json_object().read, TEXT_SCHEMA), "How texts become features.")
    include = RuleField(
        fields.names_of(INCLUDED, *get_args(Included)),
        "What else to return of each sample of a project: its `text` or its `url`.",
        load_default=(),
    )
    y = RuleField(
        label_fields.label_list(unlabeled=True),
        "A label for each sample, null = unlabelled. Labelled samples are not returned. Only without a project.",
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


class RenewSchema(BaseSchema):
    """Renew a lease."""

    lease_seconds = RuleField(
        fields.integer(1, MAX_LEASE_SECONDS),
        "Seconds from now; by default as many as the lease was made for.",
    )


def label_query_id_field() -> RuleField:
    """Return the field for the query of all records."""
    return RuleField(label_fields.QUERY_ID, "The query that returned the samples, for records without their own.")


def unknown_samples_field() -> RuleField:
    """Return the field for what happens to records of unknown samples."""
    return RuleField(
        fields.one_of("refuse", "ignore").named("UnknownSamples", "What happens to records of unknown samples."),
        "`refuse`: an id or index that the pool does not have is an error. `ignore`: its record is left out, and "
        "`n_accepted` does not count it.",
        load_default="refuse",
        data_key="unknown",
    )


class LabelSchema(BaseSchema):
    """Send labels and skips."""

    project_id = project_id_field()
    labels = RuleField(label_fields.answers(), "The labels and skips. All are stored, or none.", required=True)
    query_id = label_query_id_field()
    refit = refit_field()
    unknown_samples = unknown_samples_field()


class ReplaceLabelsSchema(BaseSchema):
    """Send the labels and skips as they should be."""

    labels = RuleField(
        label_fields.answers(minimum=0), "All labels and skips of the project; others are retracted.", required=True
    )
    query_id = label_query_id_field()
    refit = refit_field()
    unknown_samples = unknown_samples_field()


class RenameSchema(BaseSchema):
    """Rename or merge classes."""

    rename = RuleField(
        label_fields.new_class_names(),
        "The new name of each class to rename, by its present name: the label, or the text of a number or boolean in "
        "JSON.",
        required=True,
    )
    refit = refit_field("After a merge, ")


def safe_field() -> RuleField:
    """Return the parameter for how CSV cells are written."""
    return RuleField(
        fields.one_of("spreadsheet", "none").named("CsvSafety", "How the cells of CSV are written."),
        "How CSV is written: with `spreadsheet` an apostrophe precedes cells that begin with `=`, `+`, `-`, `@`, a tab "
        "or a carriage return and are not numbers; with `none` cells are the raw values.",
        load_default="spreadsheet",
    )


def theme_field() -> RuleField:
    """Return the parameter for the colours of a picture."""
    return RuleField(
        fields.one_of(*THEMES).named("Theme", "The colours of a picture."),
        "The colours of a picture.",
        load_default="light",
    )


class LabelListQuerySchema(BaseSchema):
    """How labels are listed."""

    limit = RuleField(
        fields.integer_text(1, label_fields.MAX_RECORDS),
        "Largest number of records in the reply; default: all.",
    )
    after = RuleField(label_fields.vote_position(), "Start after this sample, or at `next` of the previous page.")
    safe = safe_field()


class ConfigQuerySchema(BaseSchema):
    """The fields beside a body that is a table."""

    config = RuleField(
        fields.json_text(),
        "A JSON object with the other fields of the request, the same as the part `config` of a form; only with a body "
        "of CSV or JSON lines.",
    )


class PageSchema(BaseSchema):
    """A page of a list."""

    limit = RuleField(fields.integer_text(1, MAX_PAGE), "Largest number of entries on the page.", load_default=100)
    after = RuleField(fields.pattern(PROJECT_ID), "The last name of the previous page.")


class SamplePageSchema(BaseSchema):
    """A page of a project's samples."""

    limit = RuleField(
        fields.integer_text(1, label_fields.MAX_RECORDS), "Largest number of samples on the page.", load_default=1_000
    )
    after = RuleField(fields.integer_text(0, INT64_MAX), "The last index of the previous page.")
    status = RuleField(
        fields.SAMPLE_STATUS,
        "Only samples of this status; default: all.",
    )


class EventPageSchema(BaseSchema):
    """A page of a project's events."""

    limit = RuleField(fields.integer_text(1, MAX_PAGE), "Largest number of entries on the page.", load_default=100)
    after = RuleField(fields.integer_text(0, INT64_MAX), "The last version of the previous page.", load_default=0)
    wait = RuleField(
        fields.integer_text(0, MAX_WAIT_SECONDS),
        "How many seconds to wait for an event if there is none yet; default 0.",
        load_default=0,
    )


class ImportSchema(BaseSchema):
    """The name of an imported project."""

    project_id = RuleField(fields.pattern(PROJECT_ID), "The project's new name; default: the name in the archive.")


def fit_request(data: Mapping[str, Any], staging: Staging, limits: Limits) -> FitRequest:
    """Return the request of a loaded FitSchema, with its matrices staged. Raises InvalidRequest."""
    held_out = None
    if "X_test" in data:
        y_test = labels_of("y_test", data)
        unlabeled = np.flatnonzero(y_test.codes < 0)[: MAX_ERRORS + 1].tolist()
        if unlabeled:
            raise InvalidRequest(FieldError(f"/y_test/{row}", label_fields.LABEL_MISSING) for row in unlabeled)
        X_test = data["X_test"]
        is_text = isinstance(X_test, list)
        X_test = (
            TextUpload(X_test, limits.cells, limits.embeddings)
            if is_text
            else staged("X_test", X_test, staging, limits)
        )
        held_out = HeldOutUpload(X_test, y_test)
    return FitRequest(
        project_id=data["project_id"],
        X=samples(data, staging, limits),
        y=labels_of("y", data) if "y" in data else None,
        ids=data.get("ids"),
        urls=data.get("urls"),
        text=text_parameters(data, limits),
        keep_texts=data["keep_texts"],
        feature_names=data.get("feature_names"),
        columns=data.get("columns"),
        held_out=held_out,
        classes=data.get("classes"),
        estimator=estimator_spec(data["estimator"]) if "estimator" in data else None,
        consensus_method=data.get("consensus"),
        skips_to_drop=data.get("skips_to_drop"),
        similar_labels=data.get("similar_labels"),
        missing_values=data.get("missing_values"),
        calibration_method=data.get("calibration"),
        random_state=data.get("random_state"),
        replace=data["replace"],
        missing_is_class=missing_is_class(data),
    )


def append_request(project_id: str, data: Mapping[str, Any], staging: Staging, limits: Limits) -> AppendRequest:
    """Return the request of a loaded AppendSchema, with its matrix staged. Raises InvalidRequest."""
    given = samples(data, staging, limits)
    if given is None:
        raise InvalidRequest.at("/X", "is required, or texts for a pool of texts")
    return AppendRequest(
        project_id,
        given,
        labels_of("y", data) if "y" in data else None,
        data.get("ids"),
        data.get("urls"),
        missing_is_class=missing_is_class(data),
    )


def samples(data: Mapping[str, Any], staging: Staging, limits: Limits) -> Samples | None:
    """Return the samples of a request, None without any. Raises InvalidRequest."""
    if {"X", "texts"} <= data.keys():
        raise InvalidRequest.at("/texts", "must be omitted with X: the features are made of one or the other")
    if "texts" in data:
        return TextUpload(data["texts"], limits.cells, limits.embeddings)
    return staged("X", data["X"], staging, limits) if "X" in data else None


def held_out_samples(X_test: Any, staging: Staging, limits: Limits) -> Samples:
    """Return the samples of a held-out set. Raises InvalidRequest."""
    if isinstance(X_test, list):
        return TextUpload(X_test, limits.cells, limits.embeddings)
    return staged("X_test", X_test, staging, limits)


def text_parameters(data: Mapping[str, Any], limits: Limits) -> Parameters | None:
    """Return the parameters of the texts of a request, None without texts. Raises InvalidRequest."""
    try:
        return resolve_text(data.get("text", {}), limits.embeddings) if "texts" in data else None
    except InvalidRequest as error:
        raise error.with_prefix("/text") from None


def labels_of(name: str, data: Mapping[str, Any]) -> EncodedLabels:
    """Return the labels of a request, those that are its missing label as unlabelled. Raises InvalidRequest."""
    labels: EncodedLabels = data[name]
    missing = data.get("missing_label")
    if missing is None or not labels.values:
        return labels
    if type(missing) is not type(labels.values[0]):
        raise InvalidRequest.at(
            "/missing_label", f"is {type_name(missing)}, but each label of {name} is {type_name(labels.values[0])}"
        )
    return labels.without(missing)


def missing_is_class(data: Mapping[str, Any]) -> bool:
    """Return whether a request takes the spellings of a missing label as classes."""
    return "missing_label" in data and data["missing_label"] is None


def staged(name: str, matrix: StagedRows | NDArray[np.float64], staging: Staging, limits: Limits) -> StagedRows:
    """Return a matrix as staged rows; one that came as JSON is written now. Raises InvalidRequest."""
    if isinstance(matrix, StagedRows):
        return matrix
    check_cells(f"/{name}", matrix.shape, limits.cells)
    return replace(staging.rows(matrix), missing=first_missing_in_rows(matrix, f"/{name}", 0))


def estimator_spec(spec: str | Mapping[str, Any]) -> EstimatorSpec:
    """Return the estimator with this name, or this name and parameters. Raises InvalidRequest."""
    try:
        if isinstance(spec, str):
            return estimators.resolve_estimator(spec, {})
        return estimators.resolve_estimator(spec["name"], spec.get("params", {}))
    except InvalidRequest as error:
        if isinstance(spec, str):
            raise InvalidRequest.at("/estimator", error.errors[0].detail) from None
        raise error.with_prefix("/estimator") from None


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
        for name, what in (("X", "pool"), ("texts", "pool"), ("text", "pool"), ("y", "labels"))
        if name in data
    ]
    if wrong:
        raise InvalidRequest(wrong)


def given(data: Mapping[str, Any], limits: Limits) -> ExternalPredictions | None:
    """Return the predictions of a caller's own model, None if none were sent. Raises InvalidRequest."""
    probabilities, members = (opened(name, data, limits) for name in PREDICTIONS)
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


def label_request(project_id: str, data: Mapping[str, Any], *, replaces_all: bool = False) -> LabelRequest:
    """Return the request of loaded labels; records without a `query_id` get that of the request."""
    labels, query_id = data["labels"], data.get("query_id")
    if query_id is not None:
        labels = [
            record if record.query_id or record.retracts else replace(record, query_id=query_id) for record in labels
        ]
    ignores_unknown = data["unknown_samples"] == "ignore"
    return LabelRequest(project_id, labels, data["refit"], ignores_unknown, replaces_all)
