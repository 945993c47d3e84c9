"""POST /query: which samples should be labelled next?"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from service.errors import FieldError, InvalidRequest
from service.estimators import fit
from service.parameters import Parameters
from service.project import MAX_ERRORS, Project
from service.scoring import THREADS, Backend, Committee, Scores
from service.store import Part, Snapshot, Store
from service.store.layout import model_file
from service.store.memory import ScoreMemory
from service.strategies import AUTO_FROM, AUTO_SHARE, Question, Selection, Strategy, next_in_random_order, select
from service.strategies.view import Positions
from service.usecases.training import train_committee


@dataclass(frozen=True, slots=True)
class QueryRequest:
    """What POST /query was asked. `exclude` and `candidates` hold indices into the pool, None where not sent."""

    project_id: str
    strategy: Strategy
    params: Parameters
    batch_size: int = 1
    exclude: NDArray[np.int64] | None = None
    candidates: NDArray[np.int64] | None = None
    random_state: int | None = None
    explore: float | None = None

    @property
    def share_explored(self) -> float:
        """Which share of the batch is to be drawn and not chosen: what was asked, or the default of the strategy."""
        if self.explore is not None:
            return self.explore
        return AUTO_SHARE if self.strategy.name == "auto" and self.batch_size >= AUTO_FROM else 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Answered:
    """The samples to ask about, ask-first first, and the project as it was when they were chosen.

    Those that were drawn come last, and their scores are None.
    """

    project: Project
    query_id: str
    indices: list[int]
    ids: list[str] | None
    scores: list[float | None] | None
    strategy: str
    fallback_reason: str | None


def query_project(
    store: Store, request: QueryRequest, backend_of: Callable[[Project], Backend] = lambda project: THREADS
) -> Answered:
    """Choose the next samples. A pure read: the same state and the same request give the same answer.

    Raises InvalidRequest for an index that there is not, ProjectNotFound and the store's errors.
    """
    snapshot = store.read(request.project_id, Part.POOL, Part.MODEL, Part.IDS)
    project, name = snapshot.project, query_id(snapshot.project, request)

    def choose() -> tuple[Selection, int]:
        selection = select_samples(store, snapshot, request, backend_of(project))
        return selection, 16 * len(selection.indices)

    selection: Selection = store.cache.get_or_make((project.incarnation, "answer", name), choose)
    indices = selection.indices.tolist()
    return Answered(
        project=project,
        query_id=name,
        indices=indices,
        ids=None if snapshot.ids is None else snapshot.ids.names_at(indices),
        scores=None if selection.scores is None else shown(selection.scores),
        strategy=selection.strategy,
        fallback_reason=selection.fallback_reason,
    )


def select_samples(store: Store, snapshot: Snapshot, request: QueryRequest, backend: Backend) -> Selection:
    """Ask the strategy. Raises InvalidRequest for an index that there is not."""
    project = snapshot.project
    if snapshot.pool is None:
        raise ValueError("a query needs a snapshot with its pool")
    question = Question(
        pool=snapshot.pool,
        is_open=open_samples(project, request),
        labeled=project.resolved.labeled,
        model=snapshot.model,
        n_classes_labeled=project.n_classes_labeled,
        memory=ScoreMemory(store.cache, project),
        backend=backend,
        committee=lambda n_members: committee_of(store, snapshot, n_members),
        codes=project.resolved.codes,
        learn=lambda X, codes: fit(project.estimator, X, codes, project.random_state),
    )
    n_wanted = min(request.batch_size, question.n_open)
    n_drawn = int(request.share_explored * n_wanted + 0.5)
    drawn = next_in_random_order(question.is_open, n_drawn, project.random_state)
    rng = np.random.default_rng(seed_of(project, request))
    is_left = question.is_open.copy()
    is_left[drawn] = False
    chosen = select(request.strategy, request.params, replace(question, is_open=is_left), n_wanted - n_drawn, rng)
    return with_drawn(chosen, drawn) if n_drawn else chosen


def with_drawn(chosen: Selection, drawn: Positions) -> Selection:
    """Put samples that were drawn behind those that were chosen; they have no scores."""
    scores = None if chosen.scores is None else np.concatenate([chosen.scores, np.full(len(drawn), np.nan)])
    note = f"{len(drawn)} of the batch, its last, were drawn for exploration"
    reason = f"{chosen.fallback_reason}; {note}" if chosen.fallback_reason else note
    return replace(chosen, indices=np.concatenate([chosen.indices, drawn]), scores=scores, fallback_reason=reason)


def shown(scores: Scores) -> list[float | None]:
    """Return scores as JSON has them."""
    return [None if math.isnan(score) else score for score in scores.tolist()]


def committee_of(store: Store, snapshot: Snapshot, n_members: int) -> Committee:
    """Return a committee beside the project's model: the one at hand, or one fitted to the labels there are."""
    project = snapshot.project
    if project.model is None:
        raise ValueError("a committee stands beside a model")
    file = model_file(project.model.version)
    # A member is about as large as the model.
    size = n_members * store.cache.size_of((project.incarnation, file))
    key = (project.incarnation, file, "committee", n_members, project.labels_revision)
    committee: Committee = store.cache.get_or_make(key, lambda: (train_committee(snapshot, n_members), size))
    return committee


def open_samples(project: Project, request: QueryRequest) -> NDArray[np.bool_]:
    """Tell which samples (n,) may be asked about: without label or skip, and as the request narrows them."""
    check_indices(project, request)
    asked = np.ones(project.n_samples, bool)
    if request.candidates is not None:
        asked[:] = False
        asked[request.candidates] = True
    if request.exclude is not None:
        asked[request.exclude] = False
    asked[project.votes.index] = False
    return asked


def check_indices(project: Project, request: QueryRequest) -> None:
    """Raise InvalidRequest for each index that the pool does not have; of millions, the first few will do."""
    errors = [
        FieldError(f"/{field}/{position}", f"must be from 0 to {project.n_samples - 1}")
        for field, indices in (("exclude", request.exclude), ("candidates", request.candidates))
        if indices is not None
        for position in np.flatnonzero(indices >= project.n_samples)[: MAX_ERRORS + 1].tolist()
    ]
    if errors:
        raise InvalidRequest(errors)


def seed_of(project: Project, request: QueryRequest) -> Sequence[int]:
    """Return the request's own seed, or else one that the project's seed and state give."""
    if request.random_state is not None:
        return [request.random_state]
    return [project.random_state, project.version]


def query_id(project: Project, request: QueryRequest) -> str:
    """Name a question by what it asked of which state, so that asking it again gives the same name."""
    lists = request.exclude, request.candidates
    asked = (
        project.incarnation,
        project.version,
        request.strategy.name,
        sorted(request.params.items()),
        request.batch_size,
        request.random_state,
        request.share_explored,
        [None if indices is None else len(indices) for indices in lists],
    )
    name = hashlib.blake2b(repr(asked).encode(), digest_size=16)
    for indices in lists:
        name.update(b"" if indices is None else indices.data)
    return name.hexdigest()
