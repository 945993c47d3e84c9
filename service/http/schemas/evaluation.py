"""The schema of GET /projects/{project_id}/evaluation."""

from __future__ import annotations

from marshmallow import fields

from service.http.schemas.base import BaseSchema, RawField
from service.http.schemas.responses import count, described, model_version_field, or_null, string
from service.usecases.uniform_sample import MIN_ROWS


class EstimateSchema(BaseSchema):
    """An estimate with its 95 % confidence interval."""

    value = RawField({"type": "number"}, "The estimate.")
    low = RawField({"type": "number"}, "The lower end of the interval.")
    high = RawField({"type": "number"}, "The upper end of the interval.")


def estimate(description: str) -> fields.Nested:
    """Declare an estimate, null without one."""
    return described(EstimateSchema, description, allow_none=True)


class LureSchema(BaseSchema):
    """The accuracy from the samples that `power` drew, weighted by their probabilities."""

    n = count("Drawn samples that the estimate is made from.")
    n_pool = count("Samples of the pool.")
    measured_on = string("Which samples it is made from, and which models predict these.")
    bias = string("How far the estimate may be off on average.")
    reason = RawField(
        or_null("string"), f"Why the estimate is null: no model, or fewer than {MIN_ROWS} draws that count."
    )
    accuracy = estimate("The share of right predictions on the pool, with an approximate interval.")


class EvaluationSchema(BaseSchema):
    """How good the model is, estimated from a uniform sample of the pool."""

    n = count("Samples that the estimates are made from.")
    method = string("How the estimates are made.")
    measured_on = string("Which samples they are made from, and which models predict these.")
    bias = string("How far the estimates may be off on average.")
    reason = RawField(or_null("string"), f"Why the estimates are null: no model, or fewer than {MIN_ROWS} samples.")
    model_version = model_version_field()
    accuracy = estimate(
        "The share of right predictions, with Wilson's interval for three quarters of `n`: out of fold it varies more "
        "than on a held-out set. Of lists of classes, the share of lists that are right. Null for numbers, as the next "
        "four."
    )
    accuracy_prediction_powered = estimate(
        "The same by prediction-powered inference: the model's own confidence over the whole pool makes the interval "
        "narrower. Of a list, the product over the classes."
    )
    balanced_accuracy = estimate("The mean recall over the classes, with a bootstrap interval.")
    f1_macro = estimate("The mean F1 over the classes, with a bootstrap interval.")
    log_loss = estimate("The mean negative log-likelihood, in nats, with a bootstrap interval.")
    f1_micro = estimate("F1 over all decisions about lists of classes, with a bootstrap interval. Else null.")
    lrap = estimate("The label ranking average precision of lists of classes, with a bootstrap interval. Else null.")
    hamming_loss = estimate("The share of wrong decisions about them, with a bootstrap interval. Else null.")
    rmse = estimate("The root of the mean squared error of numbers, with a bootstrap interval. Null for classes.")
    mae = estimate("The mean absolute error of numbers, with a bootstrap interval. Null for classes.")
    r2 = estimate("The share of their variance that is predicted, with a bootstrap interval. Null for classes.")
    lure = described(
        LureSchema,
        "The accuracy by LURE (Farquhar et al. 2021, arXiv:2101.11665), from the samples that the strategy `power` "
        "drew with known probabilities.",
    )
