"""What the labels of a project are: the rules that differ by target, one object for each.

The votes, and all that counts or orders them, are the same for all targets. A target says which values are labels,
which codes they have, and how a code is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from service.domain.calibration import CalibrationMethod
from service.domain.labels import SKIP, EncodedLabels, Label, Values, ValueTable, wrong_number
from service.domain.number_table import NumberTable
from service.domain.project import (
    ConsensusMethod,
    NumberScore,
    Project,
    TargetName,
    TestScore,
    encode_labels,
    extend_classes,
    quote_label,
    type_name,
)
from service.errors import MAX_ERRORS, FieldError, InvalidRequest

Codes = NDArray[np.int32]


class Target(Protocol):
    """The rules of one target."""

    @property
    def name(self) -> TargetName:
        """Its name in requests and in the state."""

    @property
    def what(self) -> str:
        """What a project of this target learns, for error messages."""

    @property
    def consensus_methods(self) -> Sequence[ConsensusMethod]:
        """How labels of several annotators can become one, the default first."""

    @property
    def calibration_methods(self) -> Sequence[CalibrationMethod]:
        """How its models can be calibrated, the default first."""

    @property
    def score_type(self) -> type[TestScore] | type[NumberScore]:
        """The scores of its models."""

    @property
    def headline(self) -> str:
        """The score that stands for all where there is room for one."""

    def new_table(self) -> ValueTable | None:
        """Return the table of a project without labels, None if its codes stand for classes."""

    def read_table(self, plain: Any) -> ValueTable | None:
        """Return the table of `ValueTable.to_plain`."""

    def admit(
        self, project: Project, values: Values, pointer: Callable[[int], str], confirmed: Collection[Label] = ()
    ) -> Project:
        """Return the project with codes for distinct labels.

        Raises InvalidRequest, at `pointer(position)`, for each value that cannot be a label of the project.
        """

    def encode(self, project: Project, labels: EncodedLabels) -> Codes:
        """Return the codes (n,) of labels that the project has, -1 if unlabelled."""

    def decode(self, project: Project, codes: NDArray[np.integer[Any]]) -> list[Any]:
        """Return the labels of codes as JSON shows them, None for a skip."""


class ClassTarget:
    """A label is one of the classes of the project."""

    name: TargetName = "class"
    what = "classes"
    consensus_methods: Sequence[ConsensusMethod] = ("crowdlab", "majority")
    calibration_methods: Sequence[CalibrationMethod] = ("none", "temperature")
    score_type = TestScore
    headline = "accuracy"

    def new_table(self) -> None:
        """Return None: codes stand for classes."""

    def read_table(self, plain: None) -> None:
        """Return None: codes stand for classes."""

    def admit(
        self, project: Project, values: Values, pointer: Callable[[int], str], confirmed: Collection[Label] = ()
    ) -> Project:
        """Return the project with new classes, as `extend_classes` does."""
        fractions = (at for at, value in enumerate(values) if isinstance(value, float))
        way_out = 'a number is a label where POST /fit made the project with "target": "number"'
        problem = f"must be a label: a string, an integer or a boolean; {way_out}"
        errors = [FieldError(pointer(at), problem) for at in islice(fractions, MAX_ERRORS + 1)]
        if errors:
            raise InvalidRequest(errors)
        return extend_classes(project, list(values), pointer, confirmed)

    def encode(self, project: Project, labels: EncodedLabels) -> Codes:
        """Return the class codes (n,) of labels, -1 if unlabelled."""
        return encode_labels(project, labels)

    def decode(self, project: Project, codes: NDArray[np.integer[Any]]) -> list[Any]:
        """Return the classes of codes, None for a skip."""
        classes = project.classes
        return [None if code == SKIP else classes[code] for code in codes.tolist()]


class NumberTarget:
    """A label is a number, and `Votes.table` a `NumberTable`."""

    name: TargetName = "number"
    what = "numbers"
    consensus_methods: Sequence[ConsensusMethod] = ("median",)
    calibration_methods: Sequence[CalibrationMethod] = ("none",)
    score_type = NumberScore
    headline = "rmse"

    def new_table(self) -> NumberTable:
        """Return a table without numbers."""
        return NumberTable.empty()

    def read_table(self, plain: NDArray[np.float64]) -> NumberTable:
        """Return the table of numbers (k,)."""
        return NumberTable(plain)

    def admit(
        self, project: Project, values: Values, pointer: Callable[[int], str], confirmed: Collection[Label] = ()
    ) -> Project:
        """Return the project with numbers in its table."""
        if not isinstance(values, np.ndarray):
            wrong = ((at, problem) for at, value in enumerate(values) if (problem := wrong_number(value)))
            errors = [
                FieldError(pointer(at), f"{quote_label(values[at])} is {type_name(values[at])}; {problem}")
                for at, problem in islice(wrong, MAX_ERRORS + 1)
            ]
            if errors:
                raise InvalidRequest(errors)
        votes = project.votes
        table = table_of(project).with_numbers(as_numbers(values))
        return project if table is votes.table else replace(project, votes=replace(votes, table=table))

    def encode(self, project: Project, labels: EncodedLabels) -> Codes:
        """Return the codes (n,) of numbers in the project's table, -1 if unlabelled."""
        return np.append(table_of(project).codes_of(as_numbers(labels.values)), np.int32(-1))[labels.codes]

    def decode(self, project: Project, codes: NDArray[np.integer[Any]]) -> list[Any]:
        """Return the numbers of codes, None for a skip."""
        values = np.append(table_of(project).values, np.nan)[codes]  # SKIP is the last
        return [None if code == SKIP else value for code, value in zip(codes.tolist(), values.tolist(), strict=True)]


def as_numbers(values: Values) -> NDArray[np.float64]:
    """Return labels as an array of numbers (n,)."""
    return np.asarray(values, np.float64) + 0.0  # -0.0 becomes 0.0


def table_of(project: Project) -> NumberTable:
    """Return the table of a project whose target is a number."""
    table = project.votes.table
    if not isinstance(table, NumberTable):
        raise TypeError("the project has no table of numbers")
    return table


TARGETS: dict[TargetName, Target] = {"class": ClassTarget(), "number": NumberTarget()}


def target_of(project: Project) -> Target:
    """Return the rules of a project's target."""
    return TARGETS[project.target]


def decode_labels(project: Project, codes: NDArray[np.integer[Any]]) -> list[Any]:
    """Return the labels of codes (n,) as JSON shows them, None for a skip."""
    return target_of(project).decode(project, codes)
