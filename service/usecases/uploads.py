"""Checks and file names that the use cases with uploaded samples share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from service.domain.label_sets import IndicatorLabels
from service.domain.labels import EncodedLabels, Label, is_blank, missing_spellings
from service.domain.new_labels import wrong_text
from service.domain.project import MissingValues, Project, quote_label
from service.domain.sample_ids import SampleId
from service.domain.targets import first_with_each_class, refuse_fractions, target_of
from service.errors import MAX_ERRORS, FieldError, InvalidRequest
from service.store.files import StagedFile
from service.store.staging import StagedRows
from service.usecases.texts import Samples, TextUpload


def check_lengths(
    samples: Samples, given: Mapping[str, EncodedLabels | IndicatorLabels | Sequence[SampleId] | None]
) -> None:
    """Raise InvalidRequest unless each column given, such as labels or ids, has one entry for each sample."""
    lengths = {
        name: len(column.codes if isinstance(column, EncodedLabels | IndicatorLabels) else column)
        for name, column in given.items()
        if column is not None
    }
    what = f"texts has {samples.n_rows} entries" if isinstance(samples, TextUpload) else f"X has {samples.n_rows} rows"
    errors = [
        FieldError(f"/{name}", f"has {length} entries, but {what}")
        for name, length in lengths.items()
        if length != samples.n_rows
    ]
    if errors:
        raise InvalidRequest(errors)


def first_entry(field: str, labels: EncodedLabels) -> Callable[[int], str]:
    """Return a function from a label's code to a pointer to its first entry."""

    @cache
    def positions() -> NDArray[np.int64]:
        first = np.empty(len(labels.values) + 1, np.int64)  # the last one is for -1, unlabelled
        # In reverse order, the first position is assigned last.
        first[labels.codes[::-1]] = np.arange(len(labels.codes))[::-1]
        return first

    return lambda code: f"/{field}/{positions()[code]}"


def name_columns(field: str, labels: IndicatorLabels, classes: Sequence[Label]) -> EncodedLabels:
    """Return the labels of an indicator matrix, whose columns are these classes. Raises InvalidRequest."""
    if len(classes) != labels.n_columns:
        problem = f"is an indicator matrix of {labels.n_columns} columns, but there are {len(classes)} classes"
        raise InvalidRequest.at(f"/{field}", problem)
    return labels.named(classes)


def admit_labels(project: Project, field: str, labels: EncodedLabels, *, missing_is_class: bool) -> Project:
    """Return the project with codes for the labels of a request. Raises InvalidRequest."""
    target = target_of(project)
    if target.name != "number":
        if target.name == "class":
            refuse_fractions(f"/{field}/{row}" for row in labels.float_rows)
        refuse_missing_spellings(field, labels, project.classes, missing_is_class=missing_is_class)
    return target.admit(project, labels.values, first_entry(field, labels))


def refuse_missing_spellings(
    field: str, labels: EncodedLabels, classes: Sequence[Label], *, missing_is_class: bool
) -> None:
    """Raise InvalidRequest at the first row of each value that probably means a missing label and is no class yet.

    With `missing_is_class` only blank text is refused, which cannot be a class.
    """
    if isinstance(labels.values, np.ndarray):
        return  # any number may be a label
    pointer_of = first_entry(field, labels)
    firsts = first_with_each_class(labels.values)
    errors = []
    if firsts and not missing_is_class:
        names, codes = list(firsts), list(firsts.values())
        for at in missing_spellings(names, classes):
            problem = f"{quote_label(names[at])} looks like a missing label; leave it out of the list"
            if not is_blank(names[at]):  # refused in any case, with `wrong_text`
                errors.append(
                    FieldError(pointer_of(codes[at]), f'{problem}, or "missing_label": null makes it a class')
                )
    for code in missing_spellings(labels.values, classes):
        quoted, blank = quote_label(labels.values[code]), is_blank(labels.values[code])
        if missing_is_class and not blank:
            continue
        as_unlabeled = f'"missing_label": {quoted} reads it as unlabelled'
        if field == "y_test":
            as_unlabeled = "leave out rows without a label"
        as_class = "a blank text cannot be a class" if blank else '"missing_label": null makes it a class'
        errors.append(FieldError(pointer_of(code), f"{quoted} looks like a missing label; {as_unlabeled}, {as_class}"))
    if errors:
        raise InvalidRequest(errors)


def refuse_wrong_text(field: str, labels: EncodedLabels) -> None:
    """Raise InvalidRequest at the first row of each label that is blank or has control characters."""
    if isinstance(labels.values, np.ndarray):
        return
    pointer_of = first_entry(field, labels)
    firsts = first_with_each_class(labels.values) or {label: code for code, label in enumerate(labels.values)}
    wrong = ((code, problem) for label, code in firsts.items() if (problem := wrong_text(label)))
    errors = [FieldError(pointer_of(code), problem) for code, problem in islice(wrong, MAX_ERRORS + 1)]
    if errors:
        raise InvalidRequest(errors)


def refuse_missing_values(X: StagedRows, missing_values: MissingValues) -> None:
    """Raise InvalidRequest at the first missing value of rows, unless they are allowed."""
    if X.missing is not None and missing_values == "refuse":
        problem = 'must be a finite number; with "missing_values": "allow" in POST /fit features may be NaN or null'
        raise InvalidRequest.at(X.missing, problem)


def refuse_other_kind(pointer: str, X: StagedRows, project: Project) -> None:
    """Raise InvalidRequest for rows with another width than the pool's, or sparse rows for a dense pool."""
    if X.n_columns != project.n_features:
        raise InvalidRequest.at(pointer, f"has {X.n_columns} columns, but the pool has {project.n_features}")
    if X.is_sparse != project.is_sparse:
        kinds = ("dense", "sparse (CSR)")
        raise InvalidRequest.at(pointer, f"is {kinds[X.is_sparse]}, but the pool is {kinds[project.is_sparse]}")


def target_files(targets: Mapping[str, str], rows: StagedRows) -> dict[str, StagedFile]:
    """Return the staged files of rows by their names in the project."""
    return {target: rows.files[name] for name, target in targets.items()}
