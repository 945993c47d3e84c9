"""The schemas of GET /projects/{project_id}/learning-curve."""

from __future__ import annotations

from service.http.schemas.base import BaseSchema, RawField
from service.http.schemas.common import safe_field, theme_field
from service.http.schemas.evaluation import estimate
from service.http.schemas.responses import count, listed, or_null, string, test_score_field


class CurveQuerySchema(BaseSchema):
    """How the learning curve is shown."""

    theme = theme_field()
    safe = safe_field()


class CurvePointSchema(BaseSchema):
    """One model of a project, as measured when it was fitted."""

    model_version = count("The model.")
    fitted_at = RawField({"type": "string", "format": "date-time"}, "When it was fitted.")
    n_labeled = count("Samples that it was fitted to.")
    test_score = test_score_field()
    estimate = estimate(
        "The accuracy, of numbers the RMSE, of `GET /projects/{project_id}/evaluation` at that time. Null with fewer "
        "than 20 uniform samples, with less than 30 % more labels than at the last estimate, or where five more fits "
        "would delay the reply."
    )
    batch_accuracy = RawField(
        or_null("number"),
        "How often the model before was right about the samples labelled since (progressive validation); null without "
        "any.",
    )
    questions = RawField(
        {"type": "object", "additionalProperties": {"type": "integer"}},
        "Answers since the model before, skips included, by the strategy that asked; those without a `query_id` are "
        "left out.",
    )


class LearningCurveSchema(BaseSchema):
    """The learning curve of a project."""

    bias = string("How far each measure may be off on average.")
    points = listed(
        CurvePointSchema,
        "The models, oldest first. Beyond 1,000 points, two neighbours of the older half become one.",
    )
