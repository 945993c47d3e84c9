"""The schema of POST /fit, and the request made from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

import numpy as np
from marshmallow import ValidationError, validates_schema

from service.domain.calibration import CalibrationMethod
from service.domain.project import ConsensusMethod, TargetName
from service.errors import MAX_ERRORS, FieldError, InvalidRequest
from service.http.body.limits import Limits
from service.http.schemas import fields, label_fields
from service.http.schemas.base import BaseSchema, Rule, RuleField
from service.http.schemas.common import ESTIMATOR_NAME, ESTIMATOR_REQUEST, estimator_spec, project_id_field, seed_field
from service.http.schemas.samples import (
    TEXT_SCHEMA,
    TEXTS,
    columns_field,
    labels_of,
    missing_is_class,
    missing_label_field,
    samples,
    staged,
    text_parameters,
)
from service.store.staging import Staging
from service.usecases.fit import FitRequest, HeldOutUpload
from service.usecases.texts import TextUpload

MAX_SKIPS_TO_DROP = 1_000
URLS = "n addresses of the samples, of http, https or relative; they are returned on request and never fetched."
REFUSE_OR_ALLOW = fields.one_of("refuse", "allow").named("RefuseOrAllow", "Whether something may be sent.")


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
    target = RuleField(
        fields.one_of(*get_args(TargetName)).named("Target", "What the labels of a project are."),
        "What the labels are: classes, numbers to be predicted, or lists of classes (`labels`). Only with a new pool. "
        "Without it, labels are numbers if one of `y` or `y_test` is not a whole number, else classes.",
    )
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
        "for a new project, or by majority. Of numbers it is the `median`, which is the only method for them.",
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
        target=data.get("target"),
    )
