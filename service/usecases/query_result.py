"""The result of POST /query, with or without a project."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from service.domain.draws import Draw
from service.domain.labels import Label
from service.domain.project import Project
from service.domain.sample_ids import SampleId
from service.strategies import Selection
from service.usecases.explain import Explanation


@dataclass(frozen=True, slots=True, eq=False)
class QueryResult:
    """The samples to ask about, most useful first, and the state of the project when they were chosen.

    Samples drawn for exploration have no score. Fields of a project are None without one, and `model_version` also if
    the caller sent predictions. `texts`, `urls` and `features` are None unless the request includes them. `classes` are
    the columns of the explanations' probabilities; both are None unless an explanation was requested. `project` is the
    state that was read. `lease_expires_at` is in RFC 3339 format, None without a lease. `retry_after` is set if all
    candidates are leased: the seconds until one is free. `draw` is that of the samples if their probabilities are
    known, by random numbers of `seed`.
    """

    project_id: str | None
    query_id: str
    indices: list[int]
    ids: list[SampleId] | None
    texts: list[str] | None
    urls: list[str] | None
    features: list[list[float | None]] | None
    scores: list[float | None] | None
    strategy: str
    fallback_reason: str | None
    reason: str | None
    model_version: int | None
    n_labeled: int
    n_unlabeled: int
    n_labels_since_fit: int
    classes: Sequence[Label] | None
    explanations: Sequence[Explanation] | None
    project: Project | None
    lease_expires_at: str | None = None
    retry_after: int | None = None
    draw: Draw | None = None
    seed: Sequence[int] = ()


def scores_to_json(selection: Selection) -> list[float | None] | None:
    """Return the scores for JSON: a list with None for NaN, or None without scores."""
    if selection.scores is None:
        return None
    return [None if math.isnan(score) else score for score in selection.scores.tolist()]
