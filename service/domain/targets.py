"""What the labels of a project are: the rules that differ by target, one object for each.

The votes, and all that counts or orders them, are the same for all targets. A target says which values are labels,
which codes they have, and how a code is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from service.domain.calibration import CalibrationMethod
from service.domain.label_sets import ClassSet, LabelSetTable
from service.domain.labels import EncodedLabels, Label, Values, wrong_number
from service.domain.number_table import NumberTable
from service.domain.project import (
    ConsensusMethod,
    LabelsScore,
    NumberScore,
    Project,
    Score,
    TargetName,
    TestScore,
    encode_labels,
    extend_classes,
    quote_label,
    type_name,
)
from service.domain.votes import SKIP, ValueTable
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
    def score_type(self) -> type[Score]:
        """The scores of its models."""

    @property
    def headline(self) -> str:
        """The score that stands for all where there is room for one."""

    @property
    def headline_words(self) -> str:
        """The same in words, with its article."""

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
    headline_words = "an accuracy"

    def new_table(self) -> None:
        """Return None: codes stand for classes."""

    def read_table(self, plain: None) -> None:
        """Return None: codes stand for classes."""

    def admit(
        self, project: Project, values: Values, pointer: Callable[[int], str], confirmed: Collection[Label] = ()
    ) -> Project:
        """Return the project with new classes, as `extend_classes` does."""
        refuse_fractions(pointer(at) for at, value in enumerate(values) if isinstance(value, float))
        refuse_wrong(values, pointer, lambda value: NO_LIST if isinstance(value, tuple) else None)
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
    headline_words = "an RMSE"

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
            refuse_wrong(values, pointer, lambda value: quote_with(value, wrong_number(value)))
        return with_table(project, table_of(project).with_numbers(as_numbers(values)))

    def encode(self, project: Project, labels: EncodedLabels) -> Codes:
        """Return the codes (n,) of numbers in the project's table, -1 if unlabelled."""
        return np.append(table_of(project).codes_of(as_numbers(labels.values)), np.int32(-1))[labels.codes]

    def decode(self, project: Project, codes: NDArray[np.integer[Any]]) -> list[Any]:
        """Return the numbers of codes, None for a skip."""
        values = np.append(table_of(project).values, np.nan)[codes]  # SKIP is the last
        return [None if code == SKIP else value for code, value in zip(codes.tolist(), values.tolist(), strict=True)]


class LabelsTarget:
    """A label is a list of classes of the project, possibly empty, and `Votes.table` a `LabelSetTable`."""

    name: TargetName = "labels"
    what = "several labels a sample"
    consensus_methods: Sequence[ConsensusMethod] = ("majority",)
    calibration_methods: Sequence[CalibrationMethod] = ("none",)
    score_type = LabelsScore
    headline = "f1_micro"
    headline_words = "an F1 (micro)"

    def new_table(self) -> LabelSetTable:
        """Return a table without sets."""
        return LabelSetTable()

    def read_table(self, plain: tuple[NDArray[np.int64], NDArray[np.int64]]) -> LabelSetTable:
        """Return the table of sets, given their sizes and members."""
        return LabelSetTable.of_plain(*plain)

    def admit(
        self, project: Project, values: Values, pointer: Callable[[int], str], confirmed: Collection[Label] = ()
    ) -> Project:
        """Return the project with the classes of lists, and with the lists in its table."""
        labels = values.tolist() if isinstance(values, np.ndarray) else values
        refuse_wrong(labels, pointer, lambda value: None if isinstance(value, tuple) else quote_with(value, CLASS_LIST))
        firsts = first_with_each_class(values)
        at_first = list(firsts.values())
        project = extend_classes(
            project, list(firsts), lambda nth: pointer(at_first[nth]), set(first_with_each_class([*confirmed]))
        )
        table = set_table_of(project)
        return with_table(project, table.with_sets(sets_of(project, values)))

    def encode(self, project: Project, labels: EncodedLabels) -> Codes:
        """Return the codes (n,) of lists in the project's table, -1 if unlabelled."""
        table = set_table_of(project)
        return np.append(table.codes_of(list(sets_of(project, labels.values))), np.int32(-1))[labels.codes]

    def decode(self, project: Project, codes: NDArray[np.integer[Any]]) -> list[Any]:
        """Return the lists of classes of codes, None for a skip."""
        classes, sets = project.classes, set_table_of(project).sets
        return [None if code == SKIP else [classes[each] for each in sets[code]] for code in codes.tolist()]


CLASS_LIST = "each label of this project is a list of classes, [] for a sample with none of them"
NO_LIST = 'is a list of classes, which is a label where POST /fit made the project with "target": "labels"'


def refuse_wrong(
    values: Iterable[Any], pointer: Callable[[int], str], problem_with: Callable[[Any], str | None]
) -> None:
    """Raise InvalidRequest, at `pointer(position)`, for the first values that have a problem."""
    problems = ((at, problem) for at, value in enumerate(values) if (problem := problem_with(value)))
    errors = [FieldError(pointer(at), problem) for at, problem in islice(problems, MAX_ERRORS + 1)]
    if errors:
        raise InvalidRequest(errors)


def quote_with(value: Any, problem: str | None) -> str | None:
    """Return a value and the problem with it in words, None without a problem."""
    return problem and f"{quote_label(value)} is {type_name(value)}; {problem}"


def first_with_each_class(values: Values) -> dict[Label, int]:
    """Return the classes in lists of them, each with the position of the first list that has it."""
    firsts: dict[Label, int] = {}
    for at, value in enumerate(values):
        for each in value if isinstance(value, tuple) else ():
            firsts.setdefault(each, at)
    return firsts


def sets_of(project: Project, values: Values) -> Iterator[ClassSet]:
    """Yield lists of classes as sets of the codes of the project's classes."""
    code_of = {label: code for code, label in enumerate(project.classes)}
    for value in values:
        yield tuple(sorted(code_of[each] for each in value)) if isinstance(value, tuple) else ()


def set_table_of(project: Project) -> LabelSetTable:
    """Return the table of a project whose samples may have several labels."""
    table = project.votes.table
    if not isinstance(table, LabelSetTable):
        raise TypeError("the project has no table of lists of classes")
    return table


def with_table(project: Project, table: ValueTable) -> Project:
    """Return the project with another table of labels."""
    votes = project.votes
    return project if table is votes.table else replace(project, votes=votes.with_table(table))


def as_numbers(values: Values) -> NDArray[np.float64]:
    """Return labels as an array of numbers (n,)."""
    return np.asarray(values, np.float64) + 0.0  # -0.0 becomes 0.0


def table_of(project: Project) -> NumberTable:
    """Return the table of a project whose target is a number."""
    table = project.votes.table
    if not isinstance(table, NumberTable):
        raise TypeError("the project has no table of numbers")
    return table


TARGETS: dict[TargetName, Target] = {"class": ClassTarget(), "number": NumberTarget(), "labels": LabelsTarget()}


def refuse_fractions(pointers: Iterable[str]) -> None:
    """Raise InvalidRequest at each pointer to a number that is no integer, and so no class."""
    way_out = 'a number is a label where POST /fit made the project with "target": "number"'
    problem = f"must be a label: a string, an integer or a boolean; {way_out}"
    errors = [FieldError(pointer, problem) for pointer in islice(pointers, MAX_ERRORS + 1)]
    if errors:
        raise InvalidRequest(errors)


def target_of(project: Project) -> Target:
    """Return the rules of a project's target."""
    return TARGETS[project.target]


def target_of_values(values: Values) -> TargetName:
    """Return the target of labels: numbers that are not whole cannot be classes, nor can lists of classes."""
    if isinstance(values, np.ndarray):
        return "number" if (values != np.floor(values)).any() else "class"
    return "labels" if any(isinstance(value, tuple) for value in values) else "class"


def values_of_codes(project: Project) -> Values:
    """Return the value of each code of a project's labels."""
    if isinstance(project.votes.table, NumberTable):
        return project.votes.table.values
    if isinstance(project.votes.table, LabelSetTable):
        return tuple(tuple(sorted(project.classes[each] for each in one)) for one in project.votes.table.sets)
    return project.classes


def decode_labels(project: Project, codes: NDArray[np.integer[Any]]) -> list[Any]:
    """Return the labels of codes (n,) as JSON shows them, None for a skip."""
    return target_of(project).decode(project, codes)
