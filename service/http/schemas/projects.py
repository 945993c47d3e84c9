"""The schemas of lists of projects, samples and events, and of an import."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from marshmallow import ValidationError, validates_schema

from service.domain.labels import INT64_MAX
from service.domain.project import PROJECT_ID
from service.http.schemas import fields, label_fields
from service.http.schemas.base import BaseSchema, RuleField
from service.usecases.removal import SampleChoice

MAX_PAGE = 1_000
MAX_WAIT_SECONDS = 60


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


class SampleChoiceSchema(BaseSchema):
    """Name samples of a project, by index or by id."""

    indices = RuleField(fields.indices(), "The indices of samples.", load_default=())
    ids = RuleField(fields.id_list(), "The ids of samples, beside `indices`.", load_default=())

    @validates_schema
    def check_size(self, data: Mapping[str, Any], **_: Any) -> None:
        """Raise ValidationError for no samples, or for too many."""
        n, most = len(data["indices"]) + len(data["ids"]), label_fields.MAX_RECORDS
        if n == 0:
            raise ValidationError({"indices": [f"or ids is required: 1 to {most} samples"]})
        if n > most:
            raise ValidationError({"indices": [f"and ids name {n} samples; at most {most} are allowed"]})


def sample_choice(project_id: str, data: Mapping[str, Any]) -> SampleChoice:
    """Return the samples of a loaded SampleChoiceSchema."""
    return SampleChoice(project_id, list(map(int, data["indices"])), list(data["ids"]))


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
