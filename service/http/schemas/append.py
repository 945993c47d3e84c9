"""The schema of samples that are appended, and the request made from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from service.domain.label_sets import IndicatorLabels
from service.domain.labels import EncodedLabels
from service.errors import InvalidRequest
from service.http.body.limits import Limits
from service.http.schemas import fields, label_fields
from service.http.schemas.base import BaseSchema, RuleField
from service.http.schemas.samples import columns_field, labels_of, missing_is_class, missing_label_field, samples
from service.store.staging import Staging
from service.usecases.append import AppendRequest
from service.usecases.known_samples import IfKnown


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
    if_known = RuleField(
        fields.one_of(*get_args(IfKnown)).named("IfKnown", "What happens to samples whose id the pool has."),
        "What happens to samples whose id the pool has. `refuse`, the default: none is appended. `ignore`: they are "
        "left out. `replace`: their features, text and address are replaced; index and label stay, and a model fitted "
        "to them is fitted again. `y` is of new samples only. If it is sent, the reply has `indices`.",
    )


def labels_to_append(data: Mapping[str, Any]) -> EncodedLabels | IndicatorLabels | None:
    """Return the labels of a request, None without any; the project knows the columns of an indicator matrix."""
    y = data.get("y")
    return y if y is None or isinstance(y, IndicatorLabels) else labels_of("y", data)


def append_request(project_id: str, data: Mapping[str, Any], staging: Staging, limits: Limits) -> AppendRequest:
    """Return the request of a loaded AppendSchema, with its matrix staged. Raises InvalidRequest."""
    given = samples(data, staging, limits)
    if given is None:
        raise InvalidRequest.at("/X", "is required, or texts for a pool of texts")
    return AppendRequest(
        project_id,
        given,
        labels_to_append(data),
        data.get("ids"),
        data.get("urls"),
        data.get("if_known"),
        missing_is_class=missing_is_class(data),
    )
