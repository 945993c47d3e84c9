"""Trained models and committees as the service sees them, and their probabilities."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Any, Protocol, TypeGuard

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import issparse

from service.compute.threads import use_one_thread
from service.learning.pool import CHUNK_CELLS, Features

NO_CLASS = -1
"""The code predicted for a row whose probabilities are not finite."""


class Classifier(Protocol):
    """A trained model."""

    @property
    def classes_(self) -> NDArray[Any]:
        """The codes of the classes seen in training (c,), ascending."""

    def predict_proba(self, X: Any, /) -> NDArray[Any]:
        """Return the probabilities (n, c) of rows (n, d), columns in the order of `classes_`.

        Rows far outside the training range may overflow to NaN, except in a model that scales its features.
        """


class Regressor(Protocol):
    """A trained model of numbers."""

    def predict(self, X: Any, /) -> NDArray[Any]:
        """Return the numbers (n,) predicted for rows (n, d)."""


class Committee(Protocol):
    """Several models of the same classes."""

    @property
    def classes_(self) -> NDArray[Any]:
        """The codes of the classes that any member knows (c,), ascending."""

    @property
    def n_members(self) -> int:
        """The number of models."""

    @property
    def identity(self) -> Hashable:
        """A key that distinguishes the committees of one model."""

    def member_probabilities(self, X: Features) -> NDArray[np.floating[Any]]:
        """Return the probabilities (m, n, c) of rows (n, d)."""


class NumberCommittee(Protocol):
    """Several models of the same numbers."""

    @property
    def n_members(self) -> int:
        """The number of models."""

    @property
    def identity(self) -> Hashable:
        """A key that distinguishes the committees of one model."""

    def member_predictions(self, X: Features) -> NDArray[np.float64]:
        """Return the predictions (m, n) of rows (n, d)."""


def is_committee(model: Any) -> TypeGuard[Committee | NumberCommittee]:
    """Return whether a model is a committee. To ask a protocol for its attributes would take 50 times as long."""
    return hasattr(model, "n_members")


def is_of_numbers(committee: Committee | NumberCommittee) -> TypeGuard[NumberCommittee]:
    """Return whether a committee predicts numbers."""
    return hasattr(committee, "member_predictions")


def is_regressor(model: Any) -> bool:
    """Return whether a model predicts numbers."""
    return not hasattr(model, "predict_proba") and hasattr(model, "predict")


def reduce_to(kind: type, model: Any) -> tuple[Any, ...]:
    """Return what `__reduce__` of a model must, so that it is copied and stored as its base class of scikit-learn."""
    plain: Any = kind()
    vars(plain).update(vars(model))
    return kind, (), plain.__getstate__()


def predict_numbers(model: Regressor, X: Features) -> NDArray[np.float64]:
    """Return the numbers (n,) predicted for rows (n, d); not finite, and without a warning, where features overflow."""
    use_one_thread()
    with np.errstate(all="ignore"):
        return np.asarray(model.predict(X), dtype=np.float64)


def predict_outputs(model: Any, X: Features) -> NDArray[np.float64]:
    """Return the probabilities (n, c) of a classifier, or the predictions (n, 1) of a regressor."""
    if is_regressor(model):
        return predict_numbers(model, X)[:, np.newaxis]
    return predict_probabilities(model, X)


def predict_probabilities(model: Classifier, X: Features) -> NDArray[np.float64]:
    """Return the probabilities (n, c) of rows (n, d), columns in the order of `model.classes_`.

    Where features overflow inside a model, the probabilities are not finite and no warning is issued.
    """
    use_one_thread()
    with np.errstate(all="ignore"):
        return np.asarray(model.predict_proba(X), dtype=np.float64)


def predict_codes(model: Classifier, X: Features) -> NDArray[np.int64]:
    """Return the class code (n,) that a model predicts for each row (n, d), NO_CLASS without finite probabilities."""
    codes = np.full(X.shape[0], NO_CLASS, np.int64)
    for rows in row_blocks(np.arange(len(codes)), 1 if issparse(X) else X.shape[1], len(model.classes_)):
        P = predict_probabilities(model, X[rows])
        is_finite = np.isfinite(P).all(axis=1)
        codes[rows[is_finite]] = np.asarray(model.classes_)[P[is_finite].argmax(axis=1)]
    return codes


def row_blocks(rows: NDArray[np.int64], *widths: int) -> Iterator[NDArray[np.int64]]:
    """Yield rows in blocks that have few cells in matrices of these widths."""
    step = max(1, CHUNK_CELLS // max(widths))
    return (rows[start : start + step] for start in range(0, len(rows), step))
