"""What replies look like: each schema dumps what a use case returned, and documents it."""

from __future__ import annotations

from typing import Any

from marshmallow import fields

from service.domain.events import KINDS
from service.domain.project import format_time
from service.http.schemas.base import BaseSchema, JsonSchema, RawField
from service.http.schemas.label_fields import LABEL, LABEL_OR_NULL
from service.usecases.explain import MAX_CANDIDATES


class Timestamp(fields.Field[Any]):
    """Microseconds since 1970 UTC, shown as RFC 3339 tells."""

    def __init__(self, description: str, **options: Any) -> None:
        shape = {"type": "string", "format": "date-time"}
        super().__init__(required=True, metadata={"description": description, **shape}, **options)

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> str | None:
        return None if value is None else format_time(value)


def count(description: str, **options: Any) -> RawField:
    """Return a field for a number of things."""
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


class TestScoreSchema(BaseSchema):
    """How well the current model does on the held-out set."""

    __test__ = False  # pytest collects classes called Test*

    accuracy = RawField({"type": "number"}, "Share of rows predicted right.")
    balanced_accuracy = RawField({"type": "number"}, "Mean over the classes of the share predicted right.")
    f1_macro = RawField({"type": "number"}, "Mean over the classes of the harmonic mean of precision and recall.")
    log_loss = RawField({"type": "number"}, "Mean negative log probability of the right class, in nats.")


class EstimatorSpecSchema(BaseSchema):
    """An estimator and all its parameters."""

    name = string("Which estimator.")
    params = RawField({"type": "object", "additionalProperties": True}, "Its parameters, defaults included.")


def model_version_field(**options: Any) -> RawField:
    """Return the field that names the current model."""
    description = "Which model this is, counted from 1; null while there is none."
    return RawField({**or_null("integer"), "minimum": 1}, description, **options)


def labels_since_fit(**options: Any) -> RawField:
    """Return the field that says how stale the model is."""
    return count(
        "Samples whose label was given, changed or retracted since the current model was fitted, each counted once; "
        "without a model, all labelled samples.",
        **options,
    )


def test_score_field(**options: Any) -> fields.Nested:
    """Return the field for the score on the held-out set."""
    return described(
        TestScoreSchema, "How well the model does on the held-out set; null without either.", allow_none=True, **options
    )


class FitStatusSchema(BaseSchema):
    """How things stand with a project's fit."""

    due = RawField({"type": "boolean"}, "Whether a fit would give another model: labels came since, say.")
    running_since = Timestamp("Since when one is at work for whoever labels; null while none is.", allow_none=True)
    last_error = RawField(or_null("string"), "Why the last one failed; null once one has succeeded.")


class ProjectSchema(BaseSchema):
    """A project as it is."""

    project_id = string("The project's name.")
    version = count("Grows by one with every commit.")
    n_samples = count("Rows of the pool.")
    n_features = count("Columns of the pool.")
    n_labeled = count("Samples with a label.")
    n_unlabeled = count("Samples that can still be asked about.")
    n_skipped = count("Samples that cannot be labelled.")
    classes = RawField(many(LABEL), "The labels there are, declared or discovered.")
    class_counts = RawField(many({"type": "integer"}), "How many samples have each of `classes`, in the same order.")
    estimator = described(EstimatorSpecSchema, "What the project trains.")
    consensus = string(
        "How several people's labels of one sample become one: crowdlab or majority.", attribute="consensus_method"
    )
    skips_to_drop = count("How many annotators must skip a sample before the others are not asked about it.")
    random_state = count("The project's seed.")
    model_version = model_version_field(attribute="model.version", dump_default=None)
    n_labels_since_fit = labels_since_fit()
    test_score = test_score_field()
    fit = described(FitStatusSchema, "How things stand with its fit.")
    created_at = Timestamp("When the project was made.")
    updated_at = Timestamp("When its last commit was.")

    def on_bind_field(self, field_name: str, field_obj: fields.Field[Any]) -> None:
        """Take every field but `fit` from the project of a ProjectStatus."""
        if field_name != "fit":
            field_obj.attribute = f"project.{field_obj.attribute or field_name}"


class ProjectPageSchema(BaseSchema):
    """Some projects."""

    projects = listed(ProjectSchema, "In order of their names.")
    next = RawField(or_null("string"), "Give it as `after` for the next page; null on the last.")


class NeighborSchema(BaseSchema):
    """The labelled sample nearest to another."""

    index = count("Its position in the pool.")
    id = RawField(or_null("string"), "Its name; null without ids.")
    label = RawField(LABEL, "Its label.")
    distance = RawField(or_null("number"), "Euclidean, in the units of the features; null beyond the range of numbers.")


class ClusterSchema(BaseSchema):
    """What a sample stands for."""

    n_candidates = count("Candidates that are nearer to it than to any other sample of the batch.")
    n_looked_at = count(f"Among so many, up to {MAX_CANDIDATES} that the seed draws.")
    share = RawField({"type": "number", "minimum": 0, "maximum": 1}, "The one divided by the other.")


class ExplanationSchema(BaseSchema):
    """Why a sample."""

    chosen_by = RawField(
        {"type": "string", "enum": ["strategy", "exploration", "overlap", "lease"]}, "What put it into the batch."
    )
    predicted_label = RawField(LABEL_OR_NULL, "The likeliest of `classes`; null without a model.")
    probabilities = RawField(
        {**or_null("array"), "items": or_null("number")},
        "How likely each of `classes` is; 0 for those that the model has not seen, null without a model.",
    )
    scores = RawField(
        {**or_null("object"), "additionalProperties": or_null("number")},
        "By name, what each strategy that scores by the model's probabilities makes of it, and where one asked a "
        "committee, also each that scores by the members'; null without a model.",
    )
    nearest_labeled = described(
        NeighborSchema,
        "The labelled sample nearest to it, of very many among those that the seed draws; null without one, or without "
        "features.",
        allow_none=True,
    )
    cluster = described(
        ClusterSchema,
        "What it stands for, where the strategy chose the batch as a whole; null otherwise, and without features.",
        allow_none=True,
    )


class Explanations(fields.List[Any]):
    """Records that are JSON already: there may be thousands."""

    def _serialize(self, value: Any, *_: Any, **__: Any) -> Any:
        return value


class QueryReplySchema(BaseSchema):
    """The samples to label next."""

    project_id = RawField(or_null("string"), "The project's name; null without one.")
    query_id = string("Names this question; hand it back with the labels.")
    indices = RawField(many({"type": "integer", "minimum": 0}), "Positions in the pool, ask-first first.")
    ids = RawField({**or_null("array"), "items": {"type": "string"}}, "The same samples by name; null without ids.")
    scores = RawField(
        {**or_null("array"), "items": or_null("number")},
        "Higher = asked first; null where the strategy has none, and for each sample that was drawn for exploration.",
    )
    strategy = string("The strategy that ran.")
    fallback_reason = RawField(or_null("string"), "Why it was another than asked for, or saw less; null otherwise.")
    model_version = RawField(
        {**or_null("integer"), "minimum": 1},
        "Which model was asked, counted from 1; null while there is none, and with probabilities in its place.",
    )
    n_labeled = count("Samples with a label.")
    n_unlabeled = count("Samples that can still be asked about.")
    n_labels_since_fit = labels_since_fit()
    classes = RawField(
        {**or_null("array"), "items": LABEL},
        "The labels that the explanations' probabilities are of; the numbers of the columns from 0 up where a caller "
        "sent them. Null unless it was asked to explain, and without either.",
    )
    explanations = Explanations(
        fields.Nested(ExplanationSchema),
        required=True,
        allow_none=True,
        metadata={"description": "One for each of `indices`, in their order; null unless it was asked to explain."},
    )
    lease_expires_at = RawField(
        {**or_null("string"), "format": "date-time"}, "When the lease ends, which `query_id` names; null without one."
    )


class LeaseSchema(BaseSchema):
    """Samples that are held for somebody."""

    query_id = string("The question that they were given for; it names the lease.")
    annotator = string("For whom they are held.")
    indices = RawField(many({"type": "integer", "minimum": 0}), "Those not answered yet, ask-first first.")
    ids = RawField({**or_null("array"), "items": {"type": "string"}}, "The same samples by name; null without ids.")
    leased_at = RawField({"type": "string", "format": "date-time"}, "When the question was asked.")
    expires_at = RawField(
        {"type": "string", "format": "date-time"}, "When the others may have them, unless it is renewed."
    )


class LeaseListSchema(BaseSchema):
    """What is held of a project."""

    leases = listed(LeaseSchema, "The first to expire first.")


class LabelReplySchema(BaseSchema):
    """The project after the answers."""

    project_id = string("The project's name.", attribute="project.project_id")
    n_accepted = count("Records in the request, all of them kept.")
    n_changed = count("Records that changed anything; the same label again does not.")
    n_labeled = count("Samples with a label.", attribute="project.n_labeled")
    n_unlabeled = count("Samples that can still be asked about.", attribute="project.n_unlabeled")
    n_skipped = count("Samples that cannot be labelled.", attribute="project.n_skipped")
    model_version = model_version_field(attribute="project.model.version", dump_default=None)
    n_labels_since_fit = labels_since_fit(attribute="project.n_labels_since_fit")
    test_score = test_score_field(attribute="project.test_score")


class LabelRecordSchema(BaseSchema):
    """One answer as it is kept."""

    index = count("The sample's position in the pool.")
    id = RawField(or_null("string"), "Its name; null without ids.")
    label = RawField(LABEL_OR_NULL, "The label; null for a skip.")
    skip = RawField({"type": "boolean"}, "Whether the sample cannot be labelled.")
    annotator = RawField(or_null("string"), "Who answered; null for nobody in particular.")
    query_id = RawField(or_null("string"), "Which query asked; null where that was not told.")
    labeled_at = RawField({"type": "string", "format": "date-time"}, "When the answer was kept.")
    consensus = RawField(LABEL_OR_NULL, "What all answers to the sample come to, which is trained on; null for a skip.")
    quality = RawField(
        SHARE_OR_NULL,
        "How likely the consensus is right, as of the last fit; null where that was not worked out for these answers.",
    )


class LabelListSchema(BaseSchema):
    """All answers of a project."""

    labels = listed(LabelRecordSchema, "In order of their samples.")


class GivenLabelsSchema(BaseSchema):
    """Labels and skips that were given or changed: columns, one entry for each."""

    index = RawField(many({"type": "integer", "minimum": 0}), "The samples' positions in the pool.")
    label = RawField(many(LABEL_OR_NULL), "The labels; null for a skip.")
    annotator = RawField(many(or_null("string")), "Who answered; null for nobody in particular.")
    query_id = RawField(many(or_null("string")), "Which query asked; null where that was not told.")
    labeled_at = RawField(many({"type": "string", "format": "date-time"}), "When each answer was kept.")


class RetractedLabelsSchema(BaseSchema):
    """Labels and skips that are no more: columns, one entry for each."""

    index = RawField(many({"type": "integer", "minimum": 0}), "The samples' positions in the pool.")
    annotator = RawField(many(or_null("string")), "Whose answer it was; null for nobody in particular.")


class EventDetailsSchema(BaseSchema):
    """What is other than before; what stayed the same is not there."""

    n_samples = optional(RawField({"type": "integer", "minimum": 1}, "Rows of the pool."))
    classes = optional(RawField(many(LABEL), "The labels there are, declared or discovered."))
    estimator = optional(described(EstimatorSpecSchema, "What the project trains."))
    consensus = optional(string("How several people's labels of one sample become one."))
    random_state = optional(count("The project's seed."))
    held_out = optional(
        RawField(or_null("object"), "The held-out set: its number, and how many samples it has; null without.")
    )
    model_version = optional(
        RawField({**or_null("integer"), "minimum": 1}, "The current model; null where there is none now.")
    )
    test_score = optional(
        described(TestScoreSchema, "How well the model does on the held-out set; null without either.", allow_none=True)
    )
    request = optional(
        string("What was asked, where it came with an Idempotency-Key: digests of that key and of all that it says.")
    )
    labels = optional(described(GivenLabelsSchema, "Labels and skips that were given or changed."))
    retracted = optional(described(RetractedLabelsSchema, "Labels and skips that are no more."))


class EventSchema(BaseSchema):
    """What one commit changed."""

    version = count("The version of the project that it led to.")
    at = RawField({"type": "string", "format": "date-time"}, "When that was.")
    kind = RawField(
        {
            "type": "string",
            "enum": list(KINDS),
        },
        "What it was mainly about. `create`, `replace`, `import` and `baseline` hold all labels there are then; the "
        "last stands for events that are not kept.",
    )
    incarnation = string("Names the pool: `replace` brings another, whose labels are others.")
    details = described(EventDetailsSchema, "What is other than before.")


class EventPageReplySchema(BaseSchema):
    """Some events of a project."""

    events = listed(EventSchema, "In order of their versions.")
    next = RawField(or_null("integer"), "Give it as `after` for the next page; null on the last.")


class AnnotatorSchema(BaseSchema):
    """What somebody did."""

    annotator = RawField(or_null("string"), "Who; null for nobody in particular.")
    n_labels = count("Samples labelled.")
    n_skips = count("Samples skipped.")
    n_shared = count("Samples labelled that others labelled, too.")
    agreement = RawField(SHARE_OR_NULL, "Share of `n_shared` on which the consensus is the same; null without any.")
    accuracy = RawField(
        SHARE_OR_NULL, "Share of labels that are right, as estimated at the last fit; null where it was not."
    )
    first_at = RawField(
        {"type": "string", "format": "date-time"}, "When the earliest answer that still stands was kept."
    )
    last_at = RawField({"type": "string", "format": "date-time"}, "When the latest was.")


class AnnotatorListSchema(BaseSchema):
    """Who answered."""

    annotators = listed(AnnotatorSchema, "In the order of their first answer, nobody in particular first.")


class ParameterSchema(BaseSchema):
    """A declared parameter."""

    name = string("What it is called.")
    type = RawField(
        {"type": "string", "enum": ["boolean", "integer", "number", "choice", "integers"]},
        "What kind of value.",
        attribute="kind",
    )
    default = RawField({}, "The value without it.")
    description = string("What it does.", attribute="summary")
    minimum = RawField(or_null("number"), "The smallest value; null without.")
    exclusive_minimum = RawField(
        {"type": "boolean"}, "Whether the value must be above `minimum`.", attribute="above_minimum"
    )
    maximum = RawField(or_null("number"), "The largest value; null without.")
    choices = RawField(many({"type": "string"}), "The values there are, for a choice; empty otherwise.")
    nullable = RawField({"type": "boolean"}, "Whether null is a value too.")


class StrategySchema(BaseSchema):
    """A query strategy."""

    name = string("What it is called.")
    description = string("What it does.", attribute="summary")
    source = string("Where it was published.")
    needs = RawField(
        many({"type": "string"}),
        "What it looks at: the model's probabilities, those of the members of a committee, or the model itself; the "
        "features; which samples are labelled, and their labels.",
        attribute="needed",
    )
    params = listed(ParameterSchema, "What it can be told.", attribute="parameters")


class StrategyListSchema(BaseSchema):
    """The query strategies on offer."""

    strategies = listed(StrategySchema, "All of them.")


class EstimatorSchema(BaseSchema):
    """An estimator."""

    name = string("What it is called.")
    description = string("What it does.", attribute="summary")
    source = string("Where it was published.")
    sparse = RawField({"type": "boolean"}, "Whether it learns from sparse pools too.")
    params = listed(ParameterSchema, "What it can be told.", attribute="parameters")


class EstimatorListSchema(BaseSchema):
    """The estimators on offer."""

    estimators = listed(EstimatorSchema, "All of them.")


class StatusSchema(BaseSchema):
    """The status of the service."""

    status = RawField({"type": "string", "const": "ok"}, "ok")


class HealthSchema(StatusSchema):
    """The status and version of the service."""

    version = string("The version of the service.")
