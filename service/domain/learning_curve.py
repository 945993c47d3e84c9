"""The learning curve of a project: a point for each model that was fitted, in columns."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

POINT = np.dtype(
    [
        ("model_version", "i8"),
        ("fitted_at", "i8"),
        ("seen_until", "i8"),
        ("n_labeled", "i8"),
        ("test_score", "f8", 4),
        ("estimate", "f8", 3),
        ("n_new", "i8"),
        ("n_right", "i8"),
        ("kappa", "f8"),
    ]
)
"""A point. Times are in microseconds since 1970 UTC; unknown floats are NaN.

`seen_until` is the time of the state that was fitted, `test_score` the scores of the target, then NaN, and `estimate`
the accuracy with its interval. The model before was right about `n_right` of the `n_new` samples labelled since.
`kappa` is its agreement with this model on the stop set.
"""

FLOATS = ("test_score", "estimate", "kappa")
"""The fields of a point that may be unknown."""

MAX_POINTS = 1_000
"""Maximum number of points. Beyond, each two neighbours of the older half become one."""


@dataclass(frozen=True, slots=True)
class FitMeasures:
    """What is measured when a model is fitted; `questions` counts the answers since the last fit by strategy."""

    seen_until: int
    n_labeled: int
    estimate: tuple[float, float, float] | None = None
    n_new: int = 0
    n_right: int = 0
    kappa: float | None = None
    questions: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class LearningCurve:
    """Points (p,) of dtype POINT in the order of their models, and the questions (p, s) of each of `strategies`."""

    points: NDArray[Any] = field(default_factory=lambda: np.empty(0, POINT))
    strategies: tuple[str, ...] = ()
    questions: NDArray[np.int64] = field(default_factory=lambda: np.empty((0, 0), np.int64))

    def __len__(self) -> int:
        return len(self.points)

    @property
    def n_bytes(self) -> int:
        """Memory used, in bytes."""
        return self.points.nbytes + self.questions.nbytes

    @property
    def seen_until(self) -> int:
        """The time until which questions are counted, 0 without a point."""
        return int(self.points["seen_until"].max(initial=0))

    def with_point(
        self, measures: FitMeasures, model_version: int, fitted_at: int, test_score: tuple[float, ...] | None
    ) -> LearningCurve:
        """Return the curve with one more point."""
        nan = np.nan
        row = (
            model_version,
            fitted_at,
            measures.seen_until,
            measures.n_labeled,
            (*(test_score or ()), nan, nan, nan, nan)[:4],
            measures.estimate or (nan,) * 3,
            measures.n_new,
            measures.n_right,
            nan if measures.kappa is None else measures.kappa,
        )
        names = tuple(sorted({*self.strategies, *measures.questions}))
        questions = np.zeros((len(self) + 1, len(names)), np.int64)
        questions[:-1, [names.index(name) for name in self.strategies]] = self.questions
        questions[-1] = [measures.questions.get(name, 0) for name in names]
        points = np.append(self.points, np.array([row], POINT))
        return LearningCurve(points, names, questions).thinned()

    def to_plain(self) -> list[dict[str, Any]]:
        """Return the points as plain values by the names of POINT, None where unknown, with their `questions`."""
        columns = {name: self.points[name].tolist() for name in POINT.names or ()}
        plain = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        for point, counts in zip(plain, self.questions.tolist(), strict=True):
            for name in FLOATS:
                values = point[name] if isinstance(point[name], list) else [point[name]]
                known = [value for value in values if not math.isnan(value)]
                # Some targets have fewer scores than others.
                point[name] = (known if isinstance(point[name], list) else known[0]) if known else None
            point["questions"] = {name: n for name, n in zip(self.strategies, counts, strict=True) if n}
        return plain

    @classmethod
    def from_plain(cls, plain: Sequence[Mapping[str, Any]]) -> LearningCurve:
        """Return the curve of `to_plain`."""
        strategies = tuple(sorted({name for point in plain for name in point["questions"]}))
        questions = [[point["questions"].get(name, 0) for name in strategies] for point in plain]
        points = np.zeros(len(plain), POINT)
        for name in POINT.names or ():
            for row, point in enumerate(plain):
                value = np.nan if point[name] is None else point[name]
                if isinstance(value, list):
                    points[name][row] = np.nan
                    points[name][row, : len(value)] = value
                else:
                    points[name][row] = value
        return cls(points, strategies, np.array(questions, np.int64).reshape(len(plain), len(strategies)))

    def thinned(self) -> LearningCurve:
        """Return the curve with at most MAX_POINTS points: the second of two neighbours also stands for the first."""
        if len(self) <= MAX_POINTS:
            return self
        n_merged = MAX_POINTS // 4 * 2
        first, second = self.points[:n_merged:2], self.points[1:n_merged:2].copy()
        for name in ("n_new", "n_right"):
            second[name] += first[name]
        for name in ("test_score", "estimate"):
            second[name] = np.where(np.isnan(second[name]), first[name], second[name])
        merged = self.questions[:n_merged:2] + self.questions[1:n_merged:2]
        return LearningCurve(
            np.concatenate([second, self.points[n_merged:]]),
            self.strategies,
            np.concatenate([merged, self.questions[n_merged:]]),
        )
