"""The schemas of responses: each dumps the result of a use case and documents it."""

from __future__ import annotations

from typing import Any

from marshmallow import fields

from service.domain.events import KINDS
from service.domain.project import format_time
from service.http.schemas.base import BaseSchema, JsonSchema, RawField, named
from service.http.schemas.fields import SAMPLE_ID, SAMPLE_ID_OR_NULL, SAMPLE_STATUS
from service.http.schemas.label_fields import LABEL, LABEL_OR_NULL
from service.usecases.explain import MAX_CANDIDATES


class Timestamp(fields.Field[Any]):
    """Microseconds since 1970 UTC, written as RFC 3339."""

    def __init__(self, description: str, **options: Any) -> None:
        shape = {"type": "string", "format": "date-time"}
        super().__init__(required=True, metadata={"description": description, **shape}, **options)

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> str | None:
        return None if value is None else format_time(value)


def count(description: str, **options: Any) -> RawField:
    """Return a field for a count."""
    return RawField({"type": "integer", "minimum": 0}, description, **options)


def string(description: str, **options: Any) -> RawField:
    """Return a field for a string."""
    return RawField({"type": "string"}, description, **options)


def or_null(kind: str) -> JsonSchema:
    """Return the schema of a type that may be null."""
    return {"type": [kind, "null"]}


def described(schema: type[BaseSchema], description: str, **options: Any) -> fields.Nested:
    """Return a field for an object of another schema."""
    return fields.Nested(schema, required=True, metadata={"description": description}, **options)


def listed(schema: type[BaseSchema], description: str, **options: Any) -> fields.List[Any]:
    """Return a field for a list of objects of another schema."""
    return fields.List(fields.Nested(schema), required=True, metadata={"description": description}, **options)


SHARE_OR_NULL: JsonSchema = {**or_null("number"), "minimum": 0, "maximum": 1}


def optional(field: fields.Field[Any]) -> fields.Field[Any]:
    """Return a field that is not in every reply."""
    field.required = False
    return field


def many(items: JsonSchema) -> JsonSchema:
    """Return the schema of a list."""
    return {"type": "array", "items": items}


def score(description: str) -> fields.Field[Any]:
    """Return a field for a score that projects of some targets have."""
    return optional(RawField({"type": "number"}, description))


class TestScoreSchema(BaseSchema):
    """Scores of the current model on the held-out set.

    Of classes the first four, of numbers `rmse`, `mae` and `r2`, of lists of classes `f1_micro`, `f1_macro`, `lrap` and
    `hamming_loss`.
    """

    __test__ = False  # pytest collects classes called Test*

    accuracy = score("Share of rows predicted correctly.")
    balanced_accuracy = score("Mean recall over the classes.")
    f1_macro = score("Mean F1 score over the classes.")
    log_loss = score("Mean negative log-likelihood, in nats.")
    rmse = score("Root of the mean squared error, in the unit of the labels.")
    mae = score("Mean absolute error, in the unit of the labels.")
    f1_micro = score("F1 score over all decisions whether a sample has a class.")
    lrap = score("Label ranking average precision: 1 if all true classes are more probable than all others.")
    hamming_loss = score("Share of wrong decisions whether a sample has a class.")
    r2 = score("Share of the variance that is predicted: 1 for a perfect model, 0 for the mean.")


class EstimatorSpecSchema(BaseSchema):
    """An estimator and all its parameters."""

    name = string("The name of the estimator.")
    params = RawField({"type": "object", "additionalProperties": True}, "Its parameters, defaults included.")


def model_version_field(**options: Any) -> RawField:
    """Return the field for the version of the current model."""
    description = "Version of the current model, from 1; null without a model."
    return RawField({**or_null("integer"), "minimum": 1}, description, **options)


def labels_since_fit(**options: Any) -> RawField:
    """Return the field for the number of samples the model is behind."""
    return count(
        "Samples whose label was given, changed or retracted since the current model was fitted, each counted once; "
        "without a model, all labelled samples.",
        **options,
    )


def test_score_field(**options: Any) -> fields.Nested:
    """Return the field for the score on the held-out set."""
    return described(
        TestScoreSchema,
        "Scores of the model on the held-out set; null without a model or without a held-out set.",
        allow_none=True,
        **options,
    )


class FitStatusSchema(BaseSchema):
    """The state of a project's fit."""

    due = RawField(
        {"type": "boolean"},
        "Whether a fit would give a new model, because labels changed since the last one, for example.",
    )
    running_since = Timestamp("Start of the current background fit; null if none is running.", allow_none=True)
    last_error = RawField(or_null("string"), "Why the last fit failed; null once one has succeeded.")


class ColumnsSchema(BaseSchema):
    """What the columns of a project's tables are."""

    features = RawField(
        {**or_null("array"), "items": {"type": "string"}}, "The features; null = all columns that have no other role."
    )
    id = RawField(or_null("string"), "The column of ids; null if none was named.")
    label = RawField(or_null("string"), "The column of labels; null if none was named.")
    text = RawField(or_null("string"), "The column of texts; null if none was named.")
    url = RawField(or_null("string"), "The column of addresses; null if none was named.")


class ProjectSchema(BaseSchema):
    """A project."""

    project_id = string("The project's name.")
    version = count("Grows by one with every commit.")
    n_samples = count("Rows of the pool.")
    n_features = count("Columns of the pool.")
    feature_names = RawField(
        {**or_null("array"), "items": {"type": "string"}}, "Names of the columns; null if they have none."
    )
    columns = described(
        ColumnsSchema, "What the columns of its tables are; null if no request named them.", allow_none=True
    )
    text = RawField(
        {**or_null("object"), "additionalProperties": True},
        "The parameters that turn texts into features; null for a pool of numbers.",
    )
    keep_texts = RawField(
        {"type": "boolean"},
        "Whether the texts are stored, so that POST /query can return them.",
        attribute="has_texts",
    )
    n_labeled = count("Samples with a label.")
    n_unlabeled = count("Samples with neither a label nor a skip.")
    n_skipped = count("Samples that annotators skipped.")
    n_removed = count("Samples that were removed.")
    classes = RawField(many(LABEL), "All labels, declared or discovered; empty if they are numbers.")
    class_counts = RawField(many({"type": "integer"}), "Number of samples of each of `classes`, in the same order.")
    estimator = described(EstimatorSpecSchema, "The estimator that the project trains.")
    consensus = string(
        "How the labels of several annotators become one: `crowdlab` or `majority`; `median` of numbers.",
        attribute="consensus_method",
    )
    skips_to_drop = count("How many annotators must skip a sample before the others are not asked about it.")
    similar_labels = string("Whether a new label may look like another class: `refuse` or `allow`.")
    missing_values = string("Whether features may be missing: `refuse` or `allow`.")
    target = string("What the labels are: `class`, `number` or `labels`.")
    calibration = string(
        "How the model's probabilities are calibrated: `none` or `temperature`.", attribute="calibration_method"
    )
    random_state = count("The project's seed.")
    model_version = model_version_field(attribute="model.version", dump_default=None)
    model_reason = RawField(
        or_null("string"),
        "Why the model lacks a part of its estimator, such as the trees of `auto`; null if it is whole.",
        attribute="model.reason",
        dump_default=None,
    )
    n_labels_since_fit = labels_since_fit()
    test_score = test_score_field()
    fit = described(FitStatusSchema, "The state of its fit.")
    created_at = Timestamp("Time of creation.")
    updated_at = Timestamp("Time of the last commit.")

    BESIDE_PROJECT = ("fit", "notes", "n_added", "n_ignored", "n_replaced", "indices")

    def on_bind_field(self, field_name: str, field_obj: fields.Field[Any]) -> None:
        """Take every field from the project of a ProjectStatus, except those that are not of the project."""
        if field_name not in self.BESIDE_PROJECT:
            field_obj.attribute = f"project.{field_obj.attribute or field_name}"


class NotedProjectSchema(ProjectSchema):
    """A project, and notes on the request."""

    notes = RawField(
        many({"type": "string"}),
        "What the request may not have meant, such as a feature that is named like a label; empty without notes.",
    )


class RemovalReplySchema(BaseSchema):
    """The project after samples were removed or put back."""

    project_id = string("The project's name.", attribute="project.project_id")
    n_changed = count("Samples removed or put back by this request.")
    n_removed = count("Samples that are removed.", attribute="project.n_removed")
    n_labeled = count("Samples with a label.", attribute="project.n_labeled")
    n_unlabeled = count("Samples with neither a label nor a skip.", attribute="project.n_unlabeled")
    n_skipped = count("Samples that annotators skipped.", attribute="project.n_skipped")
    model_version = model_version_field(attribute="project.model.version", dump_default=None)
    n_labels_since_fit = labels_since_fit(attribute="project.n_labels_since_fit")


class AppendedProjectSchema(NotedProjectSchema):
    """A project after an append, and what happened to the samples sent."""

    n_added = count("Samples that are new in the pool.", attribute="appended.n_added")
    n_ignored = count("Samples left out, since the pool has their ids.", attribute="appended.n_ignored")
    n_replaced = count("Samples of the pool that were replaced.", attribute="appended.n_replaced")
    indices = RawField(
        {**or_null("array"), "items": {"type": "integer"}},
        "The index of each sample sent; null if the request has no `if_known`.",
        attribute="appended.indices",
    )


class ProjectPageSchema(BaseSchema):
    """A page of projects."""

    projects = listed(ProjectSchema, "In order of their names.")
    next = RawField(or_null("string"), "Send it as `after` for the next page; null on the last.")


class NeighborSchema(BaseSchema):
    """The labelled sample nearest to another."""

    index = count("Its position in the pool.")
    id = RawField(SAMPLE_ID_OR_NULL, "Its id; null without ids.")
    label = RawField(LABEL, "Its label.")
    distance = RawField(or_null("number"), "Euclidean, in the units of the features; null beyond the range of numbers.")


class ClusterSchema(BaseSchema):
    """The candidates that a sample represents."""

    n_candidates = count("Candidates nearer to it than to any other sample of the batch.")
    n_looked_at = count(f"Candidates compared: all, or {MAX_CANDIDATES} drawn with the seed.")
    share = RawField({"type": "number", "minimum": 0, "maximum": 1}, "`n_candidates` / `n_looked_at`.")


class ExplanationSchema(BaseSchema):
    """Why a sample was chosen."""

    chosen_by = RawField(
        named(
            "ChosenBy",
            "Why a sample is in the batch.",
            {"type": "string", "enum": ["strategy", "exploration", "overlap", "lease"]},
        ),
        "Why the sample is in the batch.",
    )
    predicted_label = RawField(LABEL_OR_NULL, "The most probable of `classes`; null without a model.")
    probabilities = RawField(
        {**or_null("array"), "items": or_null("number")},
        "The probability of each of `classes`; 0 for those the model has not seen, null without a model.",
    )
    scores = RawField(
        {**or_null("object"), "additionalProperties": or_null("number")},
        "Scores by strategy, for all that score by the model's probabilities, and after a committee strategy "
        "also for those that score by the members' probabilities; null without a model.",
    )
    nearest_labeled = described(
        NeighborSchema,
        "The nearest labelled sample; with very many, the nearest of those drawn with the seed. Null without labels or "
        "features.",
        allow_none=True,
    )
    cluster = described(
        ClusterSchema,
        "The candidates it represents, if the strategy chose the batch as a whole; null otherwise or without features.",
        allow_none=True,
    )


class Explanations(fields.List[Any]):
    """A list whose thousands of records are JSON already."""

    def _serialize(self, value: Any, *_: Any, **__: Any) -> Any:
        return value


class QueryReplySchema(BaseSchema):
    """The samples to label next."""

    project_id = RawField(or_null("string"), "The project's name; null without a project.")
    query_id = string("Id of this query; send it back with the labels.")
    indices = RawField(many({"type": "integer", "minimum": 0}), "Positions in the pool, in the order in which to ask.")
    ids = RawField({**or_null("array"), "items": SAMPLE_ID}, "The ids of these samples; null without ids.")
    texts = RawField(
        {**or_null("array"), "items": {"type": "string"}},
        "The texts of these samples; null unless `include` has `text`.",
    )
    urls = RawField(
        {**or_null("array"), "items": {"type": "string"}},
        "The addresses of these samples; null unless `include` has `url`.",
    )
    features = RawField(
        {**or_null("array"), "items": many(or_null("number"))},
        "The features of these samples, null for a missing value; null unless `include` has `features`.",
    )
    scores = RawField(
        {**or_null("array"), "items": or_null("number")},
        "Higher = ask first. Null if the strategy has no scores, and for samples drawn at random.",
    )
    strategy = string("The strategy that ran.")
    fallback_reason = RawField(
        or_null("string"),
        "What the query fell short of: why another strategy ran, why it saw only part of the pool, or why fewer "
        "samples are free; null otherwise. If no sample is left, it begins with `nothing is left to ask` and says why.",
    )
    reason = RawField(
        or_null("string"),
        "What `auto` chose and why; which samples the strategy did not choose: those already leased, those that have a "
        "label, those drawn for exploration; and `model_reason` of the project. Null for a named strategy that chose "
        "the whole batch with a whole model.",
    )
    model_version = RawField(
        {**or_null("integer"), "minimum": 1},
        "Version of the model used, from 1; null without a model, or with probabilities in the request.",
    )
    n_labeled = count("Samples with a label.")
    n_unlabeled = count("Samples with neither a label nor a skip.")
    n_labels_since_fit = labels_since_fit()
    classes = RawField(
        {**or_null("array"), "items": LABEL},
        "The labels of the columns of the explanations' probabilities, or column numbers if the request brought the "
        "probabilities. Null without `explain`, a model or probabilities.",
    )
    explanations = Explanations(
        fields.Nested(ExplanationSchema),
        required=True,
        allow_none=True,
        metadata={"description": "One for each of `indices`, in the same order; null without `explain`."},
    )
    lease_expires_at = RawField(
        {**or_null("string"), "format": "date-time"}, "End of the lease named by `query_id`; null without a lease."
    )


class LeaseSchema(BaseSchema):
    """Samples leased to an annotator."""

    query_id = string("The query that made the lease; its id is the id of the lease.")
    annotator = string("The annotator who holds the samples.")
    indices = RawField(
        many({"type": "integer", "minimum": 0}), "The samples not labelled yet, in the order in which to ask."
    )
    ids = RawField({**or_null("array"), "items": SAMPLE_ID}, "The ids of these samples; null without ids.")
    leased_at = RawField({"type": "string", "format": "date-time"}, "Start of the lease.")
    expires_at = RawField({"type": "string", "format": "date-time"}, "End of the lease, unless it is renewed.")


class LeaseListSchema(BaseSchema):
    """The leases of a project."""

    leases = listed(LeaseSchema, "In the order in which they expire.")


class LabelReplySchema(BaseSchema):
    """The project after POST /label."""

    project_id = string("The project's name.", attribute="project.project_id")
    n_accepted = count("Records in the request, without those of unknown samples that it ignores; all are stored.")
    n_changed = count("Records that changed something; the same label again does not.")
    n_labeled = count("Samples with a label.", attribute="project.n_labeled")
    n_unlabeled = count("Samples with neither a label nor a skip.", attribute="project.n_unlabeled")
    n_skipped = count("Samples that annotators skipped.", attribute="project.n_skipped")
    model_version = model_version_field(attribute="project.model.version", dump_default=None)
    n_labels_since_fit = labels_since_fit(attribute="project.n_labels_since_fit")
    test_score = test_score_field(attribute="project.test_score")


class LabelRecordSchema(BaseSchema):
    """A stored label or skip."""

    index = count("The sample's position in the pool.")
    id = RawField(SAMPLE_ID_OR_NULL, "Its id; null without ids.")
    label = RawField(LABEL_OR_NULL, "The label; null for a skip.")
    skip = RawField({"type": "boolean"}, "Whether the sample cannot be labelled.")
    annotator = RawField(or_null("string"), "The annotator; null if none was named.")
    query_id = RawField(or_null("string"), "The query that asked; null if none was named.")
    labeled_at = RawField({"type": "string", "format": "date-time"}, "Time at which it was stored.")
    consensus = RawField(LABEL_OR_NULL, "The label of the sample that is trained on; null for a skip.")
    quality = RawField(
        SHARE_OR_NULL,
        "Probability that the consensus is right, as of the last fit; null if not estimated for these labels.",
    )
    spread = optional(
        RawField(
            or_null("number"),
            "Of numbers: the standard deviation of the labels of the sample, whose median is `consensus`; null for a "
            "single one.",
        )
    )


class LabelListSchema(BaseSchema):
    """Labels and skips of a project."""

    labels = listed(LabelRecordSchema, "In order of their samples.")
    next = RawField(or_null("string"), "Send it as `after` for the next page; null on the last.")


class SampleSchema(BaseSchema):
    """A sample of the pool."""

    index = count("Its position in the pool.")
    id = RawField(SAMPLE_ID_OR_NULL, "Its id; null without ids.")
    status = RawField(SAMPLE_STATUS.schema, "Whether it has a label or was skipped.")
    label = RawField(LABEL_OR_NULL, "The label that is trained on; null without one.")


class SamplePageReplySchema(BaseSchema):
    """A page of a project's samples."""

    samples = listed(SampleSchema, "In the order of the pool.")
    next = RawField(or_null("integer"), "Send it as `after` for the next page; null on the last.")


class GivenLabelsSchema(BaseSchema):
    """Labels and skips that were added or changed, as columns."""

    index = RawField(many({"type": "integer", "minimum": 0}), "The samples' positions in the pool.")
    label = RawField(many(LABEL_OR_NULL), "The labels; null for a skip.")
    annotator = RawField(many(or_null("string")), "The annotator; null if none was named.")
    query_id = RawField(many(or_null("string")), "The query that asked; null if none was named.")
    labeled_at = RawField(many({"type": "string", "format": "date-time"}), "The times at which they were stored.")


class RetractedLabelsSchema(BaseSchema):
    """Labels and skips that were removed, as columns."""

    index = RawField(many({"type": "integer", "minimum": 0}), "The samples' positions in the pool.")
    annotator = RawField(many(or_null("string")), "The annotators; null if none was named.")


class HeldOutSchema(BaseSchema):
    """A held-out set."""

    number = count("Grows with each held-out set that replaces another.")
    n_samples = count("Its number of samples.")


class RenamedClassesSchema(BaseSchema):
    """Classes that were renamed, as columns."""

    old = RawField(many(LABEL), "The former names.", data_key="from")
    new = RawField(many(LABEL), "The new names, in the same order.", data_key="to")


class SampleListSchema(BaseSchema):
    """Some samples."""

    index = RawField(many({"type": "integer"}), "Their indices.")


class EventDetailsSchema(BaseSchema):
    """The values that a commit changed."""

    n_samples = optional(RawField({"type": "integer", "minimum": 1}, "Rows of the pool."))
    target = optional(
        string("What the labels are: `class`, `number` or `labels`; in the first event of a pool and with each model.")
    )
    classes = optional(RawField(many(LABEL), "All labels, declared or discovered."))
    estimator = optional(described(EstimatorSpecSchema, "The estimator that the project trains."))
    consensus = optional(string("How the labels of several annotators become one."))
    random_state = optional(count("The project's seed."))
    held_out = optional(described(HeldOutSchema, "The held-out set; null without one.", allow_none=True))
    model_version = optional(
        RawField({**or_null("integer"), "minimum": 1}, "Version of the current model; null without a model.")
    )
    test_score = optional(
        described(
            TestScoreSchema,
            "Scores of the model on the held-out set; null without a model or without a held-out set.",
            allow_none=True,
        )
    )
    request = optional(
        string("Fingerprint of a request with an Idempotency-Key: digests of the key and of the request.")
    )
    labels = optional(described(GivenLabelsSchema, "Labels and skips that were added or changed."))
    renamed = optional(described(RenamedClassesSchema, "Classes that were renamed, all at once."))
    retracted = optional(described(RetractedLabelsSchema, "Labels and skips that were removed."))
    removed = optional(described(SampleListSchema, "Samples that were removed; their labels are in `retracted`."))
    restored = optional(described(SampleListSchema, "Samples that were put back; their labels are in `labels`."))
    replaced = optional(described(SampleListSchema, "Samples whose features, text or address were replaced."))
    n_ignored = optional(count("Samples of an append that were left out, since the pool has their ids."))


class EventSchema(BaseSchema):
    """The changes of one commit."""

    version = count("The version that the commit made.")
    at = RawField({"type": "string", "format": "date-time"}, "Time of the commit.")
    kind = RawField(
        named("EventKind", "The kind of a change.", {"type": "string", "enum": list(KINDS)}),
        "The main change. `create`, `replace`, `import` and `baseline` hold all labels of that version; `baseline` "
        "stands for earlier events that are not kept.",
    )
    incarnation = string("Id of the pool; `replace` brings a new pool with its own labels.")
    details = described(EventDetailsSchema, "The values that changed.")


class EventPageReplySchema(BaseSchema):
    """A page of a project's events."""

    events = listed(EventSchema, "In order of their versions.")
    next = RawField(or_null("integer"), "Send it as `after` for the next page; null on the last.")


class AnnotatorRecordSchema(BaseSchema):
    """An annotator and their labels."""

    annotator = RawField(or_null("string"), "The annotator; null for labels without one.")
    n_labels = count("Samples labelled.")
    n_skips = count("Samples skipped.")
    n_shared = count("Samples labelled that others labelled too.")
    agreement = RawField(SHARE_OR_NULL, "Share of `n_shared` on which the consensus agrees; null if `n_shared` is 0.")
    accuracy = RawField(SHARE_OR_NULL, "Share of correct labels, estimated at the last fit; null if not estimated.")
    first_at = RawField({"type": "string", "format": "date-time"}, "Time of the earliest current label or skip.")
    last_at = RawField({"type": "string", "format": "date-time"}, "Time of the latest.")


class AnnotatorListSchema(BaseSchema):
    """The annotators of a project."""

    annotators = listed(
        AnnotatorRecordSchema, "In the order of their first label; labels without an annotator come first."
    )


class ParameterSchema(BaseSchema):
    """A declared parameter."""

    name = string("Its name.")
    type = RawField(
        named(
            "ParameterType",
            "The type of a parameter.",
            {"type": "string", "enum": ["boolean", "integer", "number", "choice", "integers"]},
        ),
        "The type of its value.",
        attribute="kind",
    )
    default = RawField({}, "The default value.")
    description = string("What it does.", attribute="summary")
    minimum = RawField(or_null("number"), "The smallest value; null if unlimited.")
    exclusive_minimum = RawField(
        {"type": "boolean"}, "Whether the value must be above `minimum`.", attribute="above_minimum"
    )
    maximum = RawField(or_null("number"), "The largest value; null if unlimited.")
    choices = RawField(many({"type": "string"}), "The values of a choice; empty for other types.")
    nullable = RawField({"type": "boolean"}, "Whether null is allowed.")


def targets_field() -> RawField:
    """Return the field for the targets that a strategy or an estimator is for."""
    return RawField(many({"type": "string"}), "The targets it is for: `class`, `number`, `labels`.")


class StrategySchema(BaseSchema):
    """A query strategy."""

    name = string("Its name.")
    description = string("What it does.", attribute="summary")
    source = string("Where it was published.")
    needs = RawField(
        many({"type": "string"}),
        "What it uses: the model's probabilities, those of a committee's members, or the model itself; the features; "
        "the indices of labelled samples, or their labels.",
        attribute="needed",
    )
    targets = targets_field()
    params = listed(ParameterSchema, "Its parameters.", attribute="parameters")


class StrategyListSchema(BaseSchema):
    """All query strategies."""

    strategies = listed(StrategySchema, "All of them.")


class EstimatorSchema(BaseSchema):
    """An estimator."""

    name = string("Its name.")
    description = string("What it does.", attribute="summary")
    source = string("Where it was published.")
    sparse = RawField({"type": "boolean"}, "Whether it can train on sparse pools.")
    targets = targets_field()
    params = listed(ParameterSchema, "Its parameters.", attribute="parameters")


class EstimatorListSchema(BaseSchema):
    """All estimators."""

    estimators = listed(EstimatorSchema, "All of them.")


class ReadinessSchema(BaseSchema):
    """The status of the service."""

    status = RawField({"type": "string", "const": "ok"}, "Always `ok`.")


class HealthSchema(ReadinessSchema):
    """The status and version of the service."""

    version = string("The version of the service.")
