"""What a caller's own model says of the samples: arrays of probabilities in the place of a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from service.domain.project import MAX_CLASSES
from service.errors import MAX_ERRORS, FieldError, InvalidRequest
from service.learning.models import Classifier, Committee
from service.learning.pool import CHUNK_CELLS, Features, Matrix, Pool

SUM_TOLERANCE = 0.01
"""A row may sum to so much more or less than 1: a softmax in float16 does, and so do numbers rounded to two digits."""

MAX_PREDICTIONS = 2**16
"""So many probabilities there may be of a sample, by all members together: hundreds of samples are read at a time."""

ROUNDING = 1e-6
"""Of the sums themselves: 0.33 + 0.33 + 0.33 is a little less than 0.99."""


class PassthroughClassifier:
    """The model whose input are its own answers (n, c). What is above 1 by rounding counts as 1."""

    def __init__(self, n_classes: int) -> None:
        self.classes_ = np.arange(n_classes)

    def predict_proba(self, X: Features, /) -> Matrix:
        """Return the rows as they are."""
        rows: Matrix = np.minimum(X, 1)
        return rows


@dataclass(frozen=True, slots=True, eq=False)
class MeanOfMembers:
    """The mean (n, c) of members' answers (m, n, c), worked out for the rows that are read: a matrix to a pool."""

    members: Matrix

    @property
    def shape(self) -> tuple[int, int]:
        """How many rows and columns there are."""
        return self.members.shape[1], self.members.shape[2]

    @property
    def dtype(self) -> np.dtype[np.float64]:
        """The type of the mean."""
        return np.dtype(np.float64)

    def __len__(self) -> int:
        return int(self.members.shape[1])

    def __getitem__(self, rows: slice | NDArray[np.integer[Any]]) -> NDArray[np.float64]:
        total: NDArray[np.float64] = self.members[0][rows].astype(np.float64)
        for of_member in self.members[1:]:
            total += of_member[rows]
        total /= len(self.members)
        return total


@dataclass(frozen=True, slots=True, eq=False)
class PassthroughCommittee:
    """The committee whose input are its members' answers (n, m, c)."""

    n_members: int
    classes_: NDArray[np.int64]

    @property
    def identity(self) -> tuple[str, int]:
        """What tells this committee from others of the same model: nothing that could be remembered."""
        return "given", self.n_members

    def member_probabilities(self, X: Features) -> NDArray[np.float64]:
        """Return the probabilities (m, n, c)."""
        members: NDArray[np.float64] = np.minimum(np.moveaxis(X, 1, 0), 1, dtype=np.float64)
        return members


@dataclass(frozen=True, slots=True, eq=False)
class ExternalPredictions:
    """The probabilities (n, c) of n samples, or those (m, n, c) of m members, or both; maybe mapped from disk.

    Without the former, the mean member is the model.
    """

    probabilities: Matrix | None
    members: Matrix | None

    @property
    def arrays(self) -> dict[str, Matrix]:
        """What was sent, by the names of the fields."""
        sent = {"probabilities": self.probabilities, "member_probabilities": self.members}
        return {name: array for name, array in sent.items() if array is not None}

    @property
    def n_rows(self) -> dict[str, int]:
        """How many samples each of them is about."""
        return {name: array.shape[-2] for name, array in self.arrays.items()}

    @property
    def n_classes(self) -> int:
        """How many classes there are: columns."""
        return int(next(iter(self.arrays.values())).shape[-1])

    @property
    def model(self) -> Classifier:
        """What answers in the place of a model."""
        return PassthroughClassifier(self.n_classes)

    @property
    def model_pool(self) -> Pool | None:
        """What that model reads of each sample."""
        if self.probabilities is not None:
            return Pool.of(self.probabilities)
        return None if self.members is None else Pool.of(cast(Matrix, MeanOfMembers(self.members)))

    @property
    def committee(self) -> Callable[[int], Committee] | None:
        """What answers in the place of a committee, of however many members one is asked for."""
        if self.members is None:
            return None
        committee = PassthroughCommittee(len(self.members), np.arange(self.n_classes))
        return lambda n_members: committee

    @property
    def committee_pool(self) -> Pool | None:
        """What that committee reads of each sample: (m, c) numbers."""
        return None if self.members is None else Pool.of(np.moveaxis(self.members, 1, 0))

    def check(self) -> None:
        """Raise InvalidRequest for the first rows that are no probabilities, for fields that disagree, or too much."""
        if self.n_classes > MAX_CLASSES:
            field = next(iter(self.arrays))
            raise InvalidRequest.at(f"/{field}", f"has {self.n_classes} columns; {MAX_CLASSES} classes are allowed")
        if self.members is not None and self.members.shape[-1] != self.n_classes:
            problem = f"has {self.members.shape[-1]} columns, but probabilities has {self.n_classes}"
            raise InvalidRequest.at("/member_probabilities", problem)
        if self.members is not None and len(self.members) * self.n_classes > MAX_PREDICTIONS:
            most = f"of {self.n_classes} classes, {MAX_PREDICTIONS // self.n_classes} members are allowed"
            raise InvalidRequest.at("/member_probabilities", f"has {len(self.members)} members; {most}")
        if self.probabilities is not None:
            refuse_wrong(wrong_rows("/probabilities", self.probabilities))
        if self.members is not None:
            refuse_wrong(
                error
                for number, of_member in enumerate(self.members)
                for error in wrong_rows(f"/member_probabilities/{number}", of_member)
            )


def refuse_wrong(errors: Iterator[FieldError]) -> None:
    """Raise InvalidRequest with the first of some errors, where there are any."""
    if wrong := list(islice(errors, MAX_ERRORS + 1)):
        raise InvalidRequest(wrong)


def wrong_rows(pointer: str, P: Matrix) -> Iterator[FieldError]:
    """Find the cells and rows (n, c) that are no probabilities, looking at some rows at a time."""
    step = max(1, CHUNK_CELLS // P.shape[1])
    for start in range(0, len(P), step):
        block = np.asarray(P[start : start + step], np.float64)
        sums = block.sum(axis=1)
        is_outside = ~((block >= 0) & (block <= 1 + SUM_TOLERANCE))
        is_wrong = is_outside.any(axis=1) | ~(np.abs(sums - 1) <= SUM_TOLERANCE + ROUNDING)
        for row in np.flatnonzero(is_wrong).tolist():
            at = f"{pointer}/{start + row}"
            if is_outside[row].any():
                column = int(is_outside[row].argmax())
                yield FieldError(f"{at}/{column}", f"must be a probability, from 0 to 1, not {block[row, column]:g}")
            else:
                yield FieldError(at, f"must sum to 1, within {SUM_TOLERANCE:g}, and sums to {sums[row]:.6g}")
