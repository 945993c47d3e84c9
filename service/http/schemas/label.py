"""The schemas of labels that are sent and listed, and the request made from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from service.http.schemas import fields, label_fields
from service.http.schemas.base import BaseSchema, RuleField
from service.http.schemas.common import project_id_field, refit_field, safe_field
from service.usecases.label import LabelRequest


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


class LabelListQuerySchema(BaseSchema):
    """How labels are listed."""

    limit = RuleField(
        fields.integer_text(1, label_fields.MAX_RECORDS),
        "Largest number of records in the reply; default: all.",
    )
    after = RuleField(label_fields.vote_position(), "Start after this sample, or at `next` of the previous page.")
    safe = safe_field()


def label_request(project_id: str, data: Mapping[str, Any], *, replaces_all: bool = False) -> LabelRequest:
    """Return the request of loaded labels; records without a `query_id` get that of the request."""
    labels, query_id = data["labels"], data.get("query_id")
    if query_id is not None:
        labels = [
            record if record.query_id or record.retracts else replace(record, query_id=query_id) for record in labels
        ]
    ignores_unknown = data["unknown_samples"] == "ignore"
    return LabelRequest(project_id, labels, data["refit"], ignores_unknown, replaces_all)
