"""Probabilities from the caller's own model, used in place of a fitted one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from service.domain.labels import LARGEST_NUMBER
from service.domain.project import MAX_CLASSES, TargetName
from service.errors import MAX_ERRORS, FieldError, InvalidRequest
from service.learning.models import Classifier, Committee
from service.learning.pool import CHUNK_CELLS, Features, Matrix, Pool

SUM_TOLERANCE = 0.01
"""Largest deviation of a row's sum from 1: float16 and two-digit rounding cause such deviations."""

MAX_PREDICTIONS = 2**16
"""Largest allowed members x classes."""

ROUNDING = 1e-6
"""Rounding error of the sums: 0.33 + 0.33 + 0.33 is slightly below 0.99."""


class PassthroughClassifier:
    """Classifier whose `predict_proba` returns the probabilities (n, c) it is given, clipped to 1."""

    def __init__(self, n_classes: int) -> None:
        self.classes_ = np.arange(n_classes)

    def predict_proba(self, X: Features, /) -> Matrix:
        """Return the rows, clipped to 1."""
        rows: Matrix = np.minimum(X, 1)
        return rows


@dataclass(frozen=True, slots=True, eq=False)
class MeanOfMembers:
    """Mean (n, c) of the members' probabilities (m, n, c), computed for the rows that a pool reads."""

    members: Matrix

    @property
    def shape(self) -> tuple[int, int]:
        """The number of rows and columns."""
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
    """Committee that returns the members' probabilities (n, m, c) it is given."""

    n_members: int
    classes_: NDArray[np.int64]

    @property
    def identity(self) -> tuple[str, int]:
        """A key that all such committees share: their scores are not cached."""
        return "given", self.n_members

    def member_probabilities(self, X: Features) -> NDArray[np.float64]:
        """Return the probabilities (m, n, c)."""
        members: NDArray[np.float64] = np.minimum(np.moveaxis(X, 1, 0), 1, dtype=np.float64)
        return members


@dataclass(frozen=True, slots=True, eq=False)
class ExternalPredictions:
    """Probabilities (n, c) of n samples, or (m, n, c) of m members, or both; possibly mapped from disk.

    Without `probabilities`, the members' mean is the model.
    """

    probabilities: Matrix | None
    members: Matrix | None
    target: TargetName = "class"

    @property
    def arrays(self) -> dict[str, Matrix]:
        """The arrays by the names of their request fields."""
        sent = {"probabilities": self.probabilities, "member_probabilities": self.members}
        return {name: array for name, array in sent.items() if array is not None}

    @property
    def n_rows(self) -> dict[str, int]:
        """The number of samples in each array."""
        return {name: array.shape[-2] for name, array in self.arrays.items()}

    @property
    def n_classes(self) -> int:
        """The number of classes."""
        return int(next(iter(self.arrays.values())).shape[-1])

    @property
    def model(self) -> Classifier:
        """The model that returns these probabilities."""
        return PassthroughClassifier(self.n_classes)

    @property
    def model_pool(self) -> Pool | None:
        """The rows that `model` reads."""
        if self.probabilities is not None:
            return Pool.of(self.probabilities)
        return None if self.members is None else Pool.of(cast(Matrix, MeanOfMembers(self.members)))

    @property
    def committee(self) -> Callable[[int], Committee] | None:
        """The committee of these members, whatever number is requested."""
        if self.members is None:
            return None
        committee = PassthroughCommittee(len(self.members), np.arange(self.n_classes))
        return lambda n_members: committee

    @property
    def committee_pool(self) -> Pool | None:
        """The rows that the committee reads, each (m, c)."""
        return None if self.members is None else Pool.of(np.moveaxis(self.members, 1, 0))

    def check(self, *, sum_to_one: bool = True) -> None:
        """Raise InvalidRequest for rows that are no probabilities, arrays that disagree, or too many of them.

        Marginals, of classes that a sample may have together, need not sum to 1.
        """
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
            raise_errors(find_invalid_rows("/probabilities", self.probabilities, sum_to_one=sum_to_one))
        if self.members is not None:
            raise_errors(
                error
                for number, of_member in enumerate(self.members)
                for error in find_invalid_rows(f"/member_probabilities/{number}", of_member, sum_to_one=sum_to_one)
            )


class MeanOfRow:
    """Regressor that returns the mean (n,) of the members' predictions (n, m) it is given."""

    def predict(self, X: Features, /) -> Matrix:
        """Return the mean of each row."""
        mean: Matrix = np.asarray(X, np.float64).mean(axis=1)
        return mean


@dataclass(frozen=True, slots=True)
class PassthroughNumbers:
    """Committee that returns the members' predictions (n, m) it is given."""

    n_members: int

    @property
    def identity(self) -> tuple[str, int]:
        """A key that all such committees share: their scores are not cached."""
        return "given numbers", self.n_members

    def member_predictions(self, X: Features) -> NDArray[np.float64]:
        """Return the predictions (m, n)."""
        members: NDArray[np.float64] = np.asarray(X, np.float64).T
        return members


@dataclass(frozen=True, slots=True, eq=False)
class ExternalNumbers:
    """Predictions (m, n) of numbers by m members for n samples, possibly mapped from disk; their mean is the model."""

    members: Matrix
    n_classes = 0
    target: TargetName = "number"

    @property
    def arrays(self) -> dict[str, Matrix]:
        """The array by the name of its request field."""
        return {"member_predictions": self.members}

    @property
    def n_rows(self) -> dict[str, int]:
        """The number of samples."""
        return {"member_predictions": self.members.shape[1]}

    @property
    def model(self) -> MeanOfRow:
        """The model that returns the mean."""
        return MeanOfRow()

    @property
    def model_pool(self) -> Pool:
        """The rows that model and committee read, each (m,)."""
        return Pool.of(self.members.T)

    @property
    def committee(self) -> Callable[[int], PassthroughNumbers]:
        """The committee of these members, whatever number is requested."""
        return lambda n_members: PassthroughNumbers(len(self.members))

    @property
    def committee_pool(self) -> Pool:
        """The rows that the committee reads."""
        return self.model_pool

    def check(self, *, sum_to_one: bool = True) -> None:
        """Raise InvalidRequest for too many members, or numbers that are too large."""
        if len(self.members) > MAX_PREDICTIONS:
            problem = f"has {len(self.members)} members; {MAX_PREDICTIONS} are allowed"
            raise InvalidRequest.at("/member_predictions", problem)
        for number, of_member in enumerate(self.members):
            if not (np.abs(of_member) <= LARGEST_NUMBER).all():
                problem = f"must be numbers from {-LARGEST_NUMBER:g} to {LARGEST_NUMBER:g}"
                raise InvalidRequest.at(f"/member_predictions/{number}", problem)


def raise_errors(errors: Iterator[FieldError]) -> None:
    """Raise InvalidRequest with the first errors, if any."""
    if wrong := list(islice(errors, MAX_ERRORS + 1)):
        raise InvalidRequest(wrong)


def find_invalid_rows(pointer: str, P: Matrix, *, sum_to_one: bool = True) -> Iterator[FieldError]:
    """Yield an error for each cell or row of (n, c) that is not a probability, reading the rows in blocks."""
    step = max(1, CHUNK_CELLS // P.shape[1])
    for start in range(0, len(P), step):
        block = np.asarray(P[start : start + step], np.float64)
        sums = block.sum(axis=1)
        is_outside = ~((block >= 0) & (block <= 1 + SUM_TOLERANCE))
        is_wrong = is_outside.any(axis=1)
        if sum_to_one:
            is_wrong |= ~(np.abs(sums - 1) <= SUM_TOLERANCE + ROUNDING)
        for row in np.flatnonzero(is_wrong).tolist():
            at = f"{pointer}/{start + row}"
            if is_outside[row].any():
                column = int(is_outside[row].argmax())
                yield FieldError(f"{at}/{column}", f"must be a probability, from 0 to 1, not {block[row, column]:g}")
            else:
                yield FieldError(at, f"must sum to 1, within {SUM_TOLERANCE:g}, and sums to {sums[row]:.6g}")
