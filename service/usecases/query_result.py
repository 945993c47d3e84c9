"""What POST /query answers, from a project or without one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from service.domain.labels import Label
from service.domain.project import Project
from service.strategies import Selection
from service.usecases.explain import Explanation


@dataclass(frozen=True, slots=True, eq=False)
class QueryResult:
    """The samples to ask about, ask-first first, and what was known when they were chosen.

    Those that were drawn come last, and their scores are None. What only a project has is None without one, and
    `model_version` also where a caller's model took the place of the project's. Unless it was asked to explain, there
    are no `classes`, the labels of the explanations' probabilities, and no `explanations`. `project` is as it was read.
    `lease_expires_at` is as RFC 3339 tells, None without a lease; `retry_after` tells in how many seconds there may be
    something, None where there is, or never will be.
    """

    project_id: str | None
    query_id: str
    indices: list[int]
    ids: list[str] | None
    scores: list[float | None] | None
    strategy: str
    fallback_reason: str | None
    model_version: int | None
    n_labeled: int
    n_unlabeled: int
    n_labels_since_fit: int
    classes: Sequence[Label] | None
    explanations: Sequence[Explanation] | None
    project: Project | None
    lease_expires_at: str | None = None
    retry_after: int | None = None


def scores_to_json(selection: Selection) -> list[float | None] | None:
    """Return the scores as JSON has them."""
    if selection.scores is None:
        return None
    return [None if math.isnan(score) else score for score in selection.scores.tolist()]
