"""Committees: several models of the same task, whose disagreement measures what they have not learnt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import issparse
from sklearn.linear_model import LogisticRegression

from service.learning.linear_scorer import LinearMembers
from service.learning.models import Classifier, predict_probabilities
from service.learning.pool import Features
from service.learning.preprocessing import as_float32
from service.learning.trees import Trees


@dataclass(frozen=True, eq=False)
class BaggedCommittee:
    """Models fitted to different labels; `classes_` (c,) are the classes that any of them knows."""

    members: tuple[Classifier, ...]
    classes_: NDArray[np.int64]
    revision: int = 0

    @classmethod
    def of(cls, members: Sequence[Classifier], revision: int = 0) -> BaggedCommittee:
        """Combine models fitted to the labels of one revision; a member may lack some of the classes."""
        return cls(tuple(members), np.unique(np.concatenate([member.classes_ for member in members])), revision)

    @property
    def n_members(self) -> int:
        """The number of models."""
        return len(self.members)

    @property
    def identity(self) -> tuple[str, int, int]:
        """A key that distinguishes the committees of one model."""
        return "bag", self.n_members, self.revision

    @cached_property
    def linear(self) -> LinearMembers | None:
        """The function for dense rows, if all members are logistic regressions of the features as they are."""
        members = [member for member in self.members if isinstance(member, LogisticRegression)]
        return LinearMembers(members, self.classes_) if len(members) == self.n_members else None

    def member_probabilities(self, X: Features) -> NDArray[np.floating[Any]]:
        """Return the probabilities (m, n, c) of rows (n, d); 0 for a class that a member does not know."""
        if self.linear is not None and not issparse(X):
            return self.linear(X)
        found = np.zeros((len(self.members), X.shape[0], len(self.classes_)))
        for of_member, member in zip(found, self.members, strict=True):
            of_member[:, np.searchsorted(self.classes_, member.classes_)] = predict_probabilities(member, X)
        return found


@dataclass(frozen=True, slots=True, eq=False)
class ForestCommittee:
    """A forest as the committee of its own trees."""

    forest: Any
    prepare: Any
    trees: Trees

    @classmethod
    def of(cls, model: Any) -> ForestCommittee:
        """Return the committee of a fitted pipeline, whose last step is a forest."""
        return cls(model[-1], model[:-1], Trees.of(model[-1]))

    @property
    def classes_(self) -> NDArray[np.int64]:
        """The codes of the classes (c,)."""
        classes: NDArray[np.int64] = self.forest.classes_
        return classes

    @property
    def n_members(self) -> int:
        """The number of trees."""
        return len(self.trees)

    @property
    def identity(self) -> tuple[str, int, int]:
        """A key that distinguishes the committees of one model."""
        return "trees", self.n_members, 0

    def member_probabilities(self, X: Features) -> NDArray[np.float64]:
        """Return the probabilities (m, n, c) of rows (n, d)."""
        return self.trees.of_each_tree(as_float32(self.prepare.transform(X)))


def bootstrap(codes: NDArray[np.integer[Any]], rng: np.random.Generator) -> NDArray[np.int64]:
    """Return a bootstrap sample of the labelled rows (l,), plus one row of each class that it left out."""
    drawn = rng.integers(len(codes), size=len(codes))
    left_out = np.setdiff1d(codes, codes[drawn])
    return np.concatenate([drawn, *([rng.choice(np.flatnonzero(codes == code))] for code in left_out)])
