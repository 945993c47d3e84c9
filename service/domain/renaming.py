"""Rename the classes of a project: classes that get one name become one class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from service.domain.label_sets import LabelSetTable
from service.domain.labels import Label, missing_spellings
from service.domain.new_labels import wrong_new_labels
from service.domain.parameters import not_listed, pointer_token
from service.domain.project import Project, quote_label, type_name
from service.domain.votes import Votes
from service.errors import FieldError, InvalidRequest

Codes = NDArray[np.int32]


def label_text(label: Label) -> str:
    """Return a label as the name of a JSON member: text as it is, and other labels as JSON shows them."""
    return label if isinstance(label, str) else quote_label(label)


def new_names(project: Project, rename: Mapping[str, Label]) -> list[Label]:
    """Return the new name of each class (c,); all are renamed at once, so two classes can swap names.

    Raises InvalidRequest, at `/rename/<class>`, for an unknown class, a name of another type than the project's labels,
    and a new name that looks like another class or like a missing label.
    """
    named = {label_text(label): label for label in project.classes}
    errors = []
    for old, new in rename.items():
        if old not in named:
            all_at = f"GET /projects/{project.project_id}"
            problem = not_listed("a class of this project", old, named, all_at)
        elif type(new) is not type(named[old]):
            problem = f"{quote_label(new)} is {type_name(new)}; each label of this project is {type_name(named[old])}"
        else:
            continue
        errors.append(FieldError(f"/rename/{pointer_token(old)}", problem))
    if errors:
        raise InvalidRequest(errors)
    names = [rename.get(label_text(label), label) for label in project.classes]
    refuse_wrong_names(project, names, rename)
    return names


def refuse_wrong_names(project: Project, names: Sequence[Label], rename: Mapping[str, Label]) -> None:
    """Raise InvalidRequest for new names, not those of classes, that look like another class or a missing label."""
    known = set(project.classes)
    kept = [name for name in dict.fromkeys(names) if name in known]
    new = [name for name in dict.fromkeys(names) if name not in known]
    wrong = dict(wrong_new_labels(kept, new, allow_similar=project.similar_labels == "allow"))
    for position in missing_spellings(new, project.classes):
        wrong.setdefault(new[position], f"{quote_label(new[position])} looks like a missing label; choose another name")
    errors = [FieldError(f"/rename/{pointer_token(old)}", wrong[name]) for old, name in rename.items() if name in wrong]
    if errors:
        raise InvalidRequest(errors)


def with_class_names(project: Project, names: Sequence[Label]) -> tuple[Project, Codes]:
    """Return the project with its classes renamed, and the new code of each old code of a label (k,).

    If every class has a name of its own, all codes stay and so does the model. Otherwise classes are merged into the
    first of them, and the project loses its model, which was fitted to the old codes. A list with several classes that
    are merged has the new one once.
    """
    code_of: dict[Label, int] = {}
    codes = np.array([code_of.setdefault(name, len(code_of)) for name in names], np.int32)
    renamed = replace(project, classes=tuple(code_of))
    if len(code_of) == len(names):
        return renamed, codes
    is_renamed = np.array([new != old for new, old in zip(names, project.classes, strict=True)])
    table = project.votes.table
    if isinstance(table, LabelSetTable):
        is_renamed = np.array([is_renamed[list(one)].any() for one in table.sets], np.bool_)
        table, codes = table.merged(codes)
    votes, aside = (
        Votes(*votes.columns._replace(code=recode(codes, votes.code)), table=table)
        for votes in (project.votes, project.removed_votes)
    )
    votes, renamed = votes.completed(), replace(renamed, removed_votes=aside)
    is_renamed = np.append(is_renamed, False)
    # At least one, so that a fit that is running now is seen to be older.
    n_changed = max(1, int(np.count_nonzero(is_renamed[project.votes.code])))
    revision = project.labels_revision + n_changed
    return replace(renamed, votes=votes, labels_revision=revision, model=None, fit_asked=None, fit_error=None), codes


def recode(codes: Codes, old: Codes) -> Codes:
    """Return new codes for old ones; -1, which stands for no class, stays."""
    new: Codes = np.append(codes, np.int32(-1))[old]
    return new
