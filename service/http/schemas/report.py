"""The schema of GET /projects/{project_id}/report."""

from __future__ import annotations

from typing import get_args

from service.http.schemas.base import BaseSchema, RawField, named
from service.http.schemas.evaluation import EvaluationSchema
from service.http.schemas.fields import SAMPLE_ID_OR_NULL
from service.http.schemas.label_fields import LABEL
from service.http.schemas.responses import AnnotatorRecordSchema, count, described, listed, many, or_null, string
from service.usecases.expected_gain import RESAMPLES
from service.usecases.stop_advice import Verdict

SHARE = {"type": "number", "minimum": 0, "maximum": 1}


class StabilizingPredictionsSchema(BaseSchema):
    """Whether predictions still change: the agreement of successive models on up to 2,000 samples of the pool."""

    kappa = RawField(
        or_null("number"),
        "The mean Cohen's kappa of the last models with the one before each. Of numbers: 1 less the relative change, "
        "the root mean square of the change of predictions as a share of their standard deviation.",
    )
    threshold = RawField({"type": "number"}, "The agreement from which predictions count as stable.")
    n_models = count("Models in the mean, at most 3. A model of the same labels as the one before is left out.")


class ExpectedGainSchema(BaseSchema):
    """How much better the next batch is expected to make the model; null where that is unknown."""

    next_batch = RawField(
        or_null("number"),
        f"The expected gain of accuracy, of lists of classes that of F1 (micro), the mean of {RESAMPLES} resamples of "
        "the curve; 0.01 is one percentage point. Of numbers, by how much the RMSE is expected to fall.",
    )
    low = RawField(or_null("number"), "The 10 % quantile of the resamples.")
    high = RawField(or_null("number"), "The 90 % quantile.")
    n_labels = RawField(or_null("integer"), "The size of the batch, the median of the last ones; null without a model.")
    measured_on = string("What the curve is measured on, or what is missing.")


class ClassCountSchema(BaseSchema):
    """The labels of a class."""

    label = RawField(LABEL, "The class.")
    n_labeled = count("Samples labelled with it.")
    share = RawField(SHARE, "The same as a share of all labels.")


class AnnotatorDaySchema(BaseSchema):
    """The labels of an annotator on a day."""

    annotator = RawField(or_null("string"), "The annotator; null for labels without one.")
    n_labels = count("Samples labelled.")


class LabelDaySchema(BaseSchema):
    """The labels of a day that still stand."""

    date = RawField({"type": "string", "format": "date"}, "The day, in UTC.")
    n_labels = count("Labels of all annotators.")
    annotators = listed(AnnotatorDaySchema, "The same by annotator.")


class SuspectLabelSchema(BaseSchema):
    """A label that is probably wrong."""

    index = count("The sample's position in the pool.")
    id = RawField(SAMPLE_ID_OR_NULL, "Its id; null without ids.")
    given = RawField(LABEL, "Its label.")
    suggested = RawField(LABEL, "The class, or the list of classes, that fits better.")
    quality = RawField(
        SHARE,
        "The probability of its label, by models that were fitted without it. Of a list, that of the least probable of "
        "the classes that it wrongly has or lacks.",
    )


class CalibrationSchema(BaseSchema):
    """The temperature that calibrates the model."""

    temperature = RawField({"type": "number"}, "Above 1 the model was too confident, below 1 too cautious.")
    n = count("The labelled samples it was fitted to, each predicted by a model fitted without it.")
    error_before = RawField(SHARE, "Their expected calibration error without the temperature, in 15 bins.")
    error_after = RawField(SHARE, "The same with it.")


class ReportSchema(BaseSchema):
    """Whether to go on labelling, and the evidence."""

    verdict = RawField(
        named("Verdict", "Go on, or stop.", {"type": "string", "enum": list(get_args(Verdict))}),
        "`stop` if predictions are stable and more labels add little, or no sample is left; `nearly` if only one of "
        "the two holds; else `continue`. It is advice: a query never refuses.",
    )
    reasons = RawField(many({"type": "string"}), "Why, in sentences.")
    stabilizing_predictions = described(StabilizingPredictionsSchema, "Whether predictions still change.")
    expected_gain = described(ExpectedGainSchema, "What the next batch is expected to add.")
    classes = listed(ClassCountSchema, "The balance of the classes.")
    annotators = listed(AnnotatorRecordSchema, "The annotators, as in `GET /projects/{project_id}/annotators`.")
    evaluation = described(EvaluationSchema, "The same as `GET /projects/{project_id}/evaluation`.")
    labels_per_day = listed(LabelDaySchema, "The last 100 days with labels, oldest first.")
    calibration = described(CalibrationSchema, "How the model is calibrated; null if it is not.", allow_none=True)
    suspect_labels = listed(
        SuspectLabelSchema, "Up to 1,000 labels that are probably wrong, by confident learning; the most suspect first."
    )
