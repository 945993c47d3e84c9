"""What use cases that take samples have in common: checks of what came, and where it goes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from service.domain.labels import EncodedLabels
from service.domain.project import Project
from service.errors import FieldError, InvalidRequest
from service.store.files import StagedFile
from service.store.staging import StagedRows


def check_lengths(n_samples: int, y: EncodedLabels | None, ids: Sequence[str] | None) -> None:
    """Raise InvalidRequest when labels or names are not one for each row of X."""
    given = {"/y": None if y is None else len(y.codes), "/ids": None if ids is None else len(ids)}
    errors = [
        FieldError(pointer, f"has {length} entries, but X has {n_samples} rows")
        for pointer, length in given.items()
        if length is not None and length != n_samples
    ]
    if errors:
        raise InvalidRequest(errors)


def first_entry(field: str, labels: EncodedLabels) -> Callable[[int], str]:
    """Return a function from a label's code to a pointer to where it first stands."""

    @cache
    def positions() -> NDArray[np.int64]:
        first = np.empty(len(labels.values) + 1, np.int64)  # one more, for the -1 of unlabelled
        # Going backwards, the assignment that stays is the first.
        first[labels.codes[::-1]] = np.arange(len(labels.codes))[::-1]
        return first

    return lambda code: f"/{field}/{positions()[code]}"


def refuse_other_kind(pointer: str, X: StagedRows, project: Project) -> None:
    """Raise InvalidRequest for rows that are not as wide as the pool's, or sparse where those are dense."""
    if X.n_columns != project.n_features:
        raise InvalidRequest.at(pointer, f"has {X.n_columns} columns, but the pool has {project.n_features}")
    if X.is_sparse != project.is_sparse:
        kinds = ("dense", "sparse (CSR)")
        raise InvalidRequest.at(pointer, f"is {kinds[X.is_sparse]}, but the pool is {kinds[project.is_sparse]}")


def target_files(targets: Mapping[str, str], rows: StagedRows) -> dict[str, StagedFile]:
    """Tell where in a project each staged file of rows belongs."""
    return {target: rows.files[name] for name, target in targets.items()}
