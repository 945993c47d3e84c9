"""The schema of classes that are renamed."""

from __future__ import annotations

from service.http.schemas import label_fields
from service.http.schemas.base import BaseSchema, RuleField
from service.http.schemas.common import refit_field


class RenameSchema(BaseSchema):
    """Rename or merge classes."""

    rename = RuleField(
        label_fields.new_class_names(),
        "The new name of each class to rename, by its present name: the label, or the text of a number or boolean in "
        "JSON.",
        required=True,
    )
    refit = refit_field("After a merge, ")
