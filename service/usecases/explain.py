"""Explanations of a batch: predictions, nearest labelled samples and clusters."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.domain.labels import Label
from service.domain.sample_ids import SampleId
from service.errors import InvalidRequest
from service.learning.models import predict_numbers
from service.strategies import STRATEGIES, Need, Question, Strategy, resolve_strategy
from service.strategies.engine.explain import (
    disagreement_scores,
    find_nearest,
    predict_rows,
    row_distances,
    uncertainty_scores,
)
from service.strategies.engine.selection import Plan, committee_for
from service.usecases.query_batch import Batch
from service.usecases.query_request import QueryRequest

MAX_PROBABILITIES = 2**20
"""Maximum number of probabilities in a reply: about 20 MB of JSON."""

MAX_CANDIDATES = 10_000
"""Clusters are counted over at most this many candidates, drawn at random."""

WORK = 2 * 10**10
"""Maximum number of multiplications of a nearest-neighbour search: a second or two."""


@dataclass(frozen=True, slots=True)
class Neighbor:
    """The labelled sample nearest to another, by Euclidean distance in the units of the features."""

    index: int
    id: SampleId | None
    label: Label
    distance: float


@dataclass(frozen=True, slots=True)
class Cluster:
    """The number of candidates nearest to a sample of the batch, of how many, and their share."""

    n_candidates: int
    n_looked_at: int
    share: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a sample was chosen. Undefined numbers are NaN, which become null in JSON."""

    chosen_by: str
    predicted_label: Label | None
    probabilities: list[float] | None
    scores: dict[str, float] | None
    nearest_labeled: Neighbor | None
    cluster: Cluster | None


@dataclass(frozen=True, slots=True, eq=False)
class Names:
    """The labels of the probabilities' columns, and functions from samples to their labels and ids.

    `labels_at` takes positions among the labelled samples, `ids` indices; None without labels, or ids. With
    `thresholds` (c,) a sample may have several labels.
    """

    classes: Sequence[Label] | None
    labels_at: Callable[[NDArray[np.int64]], list[Any]] | None
    ids: Callable[[Sequence[int]], list[SampleId]] | None
    thresholds: NDArray[np.float64] | None = None

    def predicted(self, p: NDArray[np.float64]) -> Any:
        """Return the most likely class, or the list of likely ones, None if the probabilities are not finite."""
        if self.classes is None or not np.isfinite(p).all():
            return None
        if self.thresholds is None:
            return self.classes[int(p.argmax())]
        return [self.classes[column] for column in np.flatnonzero(self.thresholds <= p).tolist()]


@dataclass(frozen=True, slots=True, eq=False)
class ModelView:
    """The labels predicted for a batch (b,), None where there is none, and the scores (b,) of the samples.

    `probabilities` (b, c) are 0 for classes that the model does not know; None without a model of classes.
    """

    labels: list[Any]
    probabilities: NDArray[np.float64] | None
    scores: dict[str, NDArray[np.float64]]


def explain(
    question: Question, batch: Batch, request: QueryRequest, seed: Sequence[int], names: Names
) -> list[Explanation]:
    """Explain each sample of a batch; the same state and the same request give the same result.

    Raises InvalidRequest for a batch with too many probabilities.
    """
    rows = batch.selection.indices
    view = model_view(question, batch, request, names)
    P, scores = view.probabilities, view.scores
    neighbors = nearest_labeled(question, rows, np.random.default_rng([*seed, 1]), names)
    clusters = clusters_of(question, batch, np.random.default_rng([*seed, 2]))
    columns, has_scores = list(scores.values()), P is not None or bool(scores)
    chosen_by = ["lease"] * batch.n_leased + ["overlap"] * batch.n_partly_labeled
    chosen_by += ["strategy"] * (len(rows) - len(chosen_by))
    for position in batch.drawn_at.tolist():
        chosen_by[position] = "exploration"
    return [
        Explanation(
            chosen_by=chosen_by[number],
            predicted_label=view.labels[number],
            probabilities=None if P is None else P[number].tolist(),
            scores=dict(zip(scores, (float(c[number]) for c in columns), strict=True)) if has_scores else None,
            nearest_labeled=neighbors[number],
            cluster=clusters[number],
        )
        for number in range(len(rows))
    ]


def check_explainable(request: QueryRequest, n_classes: int) -> None:
    """Raise InvalidRequest for a batch with too many probabilities."""
    if request.batch_size * n_classes > MAX_PROBABILITIES:
        most = f"at most {MAX_PROBABILITIES // n_classes} samples of {n_classes} classes are explained"
        raise InvalidRequest.at("/batch_size", f"is too large with 'explain': {most}")


def model_view(question: Question, batch: Batch, request: QueryRequest, names: Names) -> ModelView:
    """Return what the model says about a batch, with scores of a committee if the strategy uses one."""
    rows, strategy = batch.selection.indices, STRATEGIES[batch.selection.strategy]
    is_of_numbers = question.target == "number"
    if question.model is None or (names.classes is None and not is_of_numbers):
        return ModelView([None] * len(rows), None, {})
    of_members = scores_of_members(question, request, strategy, rows) if Need.MEMBERS in strategy.needs else {}
    if is_of_numbers or names.classes is None:
        numbers = predict_numbers(question.model, question.read_by_model.take(rows)).tolist()
        return ModelView([number if math.isfinite(number) else None for number in numbers], None, of_members)
    of_model = predict_rows(question, rows)
    P = np.zeros((len(rows), len(names.classes)))
    P[:, question.model.classes_] = of_model
    return ModelView([names.predicted(p) for p in P], P, uncertainty_scores(of_model, question.target) | of_members)


def scores_of_members(
    question: Question, request: QueryRequest, strategy: Strategy, rows: NDArray[np.int64]
) -> dict[str, NDArray[np.float64]]:
    """Return the scores of rows by the committee of a strategy."""
    params = request.params if strategy is request.strategy else resolve_strategy(strategy.name, {})[1]
    committee, pool = committee_for(Plan(strategy, params, question.model, None), question)
    return disagreement_scores(committee, pool, rows, question.target)


def nearest_labeled(
    question: Question, rows: NDArray[np.int64], rng: np.random.Generator, names: Names
) -> list[Neighbor | None]:
    """Return the nearest labelled sample of each row, among randomly drawn ones if there are very many."""
    n_labeled = len(question.labeled)
    if n_labeled == 0 or len(rows) == 0 or names.labels_at is None or not question.has_features:
        return [None] * len(rows)
    held = np.arange(n_labeled)
    if n_labeled > (most := affordable(question, rows)):
        held = np.sort(rng.choice(n_labeled, most, replace=False, shuffle=False))
    labeled = question.labeled[held]
    nearest = find_nearest(question.pool, rows, labeled, apart=True)
    away = row_distances(question.pool, rows, labeled[nearest]).tolist()
    indices = labeled[nearest].tolist()
    ids = [None] * len(rows) if names.ids is None else names.ids(indices)
    found = map(Neighbor, indices, ids, names.labels_at(held[nearest]), away)
    return [neighbor if place >= 0 else None for place, neighbor in zip(nearest.tolist(), found, strict=True)]


def clusters_of(question: Question, batch: Batch, rng: np.random.Generator) -> list[Cluster | None]:
    """Return the cluster of each sample of a set strategy's batch; a tie goes to the earlier sample."""
    rows, candidates = batch.selection.indices, question.candidates
    is_set = STRATEGIES[batch.selection.strategy].kind == "set"
    if not is_set or len(rows) == 0 or len(candidates) == 0 or not question.has_features:
        return [None] * len(rows)
    n_drawn = min(len(candidates), MAX_CANDIDATES, affordable(question, rows))
    if n_drawn < len(candidates):
        candidates = np.sort(rng.choice(candidates, n_drawn, replace=False, shuffle=False))
    sizes = np.bincount(find_nearest(question.pool, candidates, rows), minlength=len(rows)).tolist()
    return [Cluster(size, n_drawn, size / n_drawn) for size in sizes]


def affordable(question: Question, rows: NDArray[np.int64]) -> int:
    """Return the number of other rows that those of a batch can be compared with in reasonable time."""
    return max(WORK // (len(rows) * question.pool.cells_per_row), 100)
