"""POST /query about a project: which of its samples should be labelled next?"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

from service.compute.deadline import DEADLINE
from service.compute.waiting import slot_yielded
from service.domain.labels import Label
from service.domain.leases import NO_HOLDINGS, Holdings, Leases, holdings_of, live_leases
from service.domain.project import MICROSECONDS, Project, now
from service.domain.targets import decode_labels
from service.errors import FieldError, InvalidRequest
from service.learning.estimators import fit
from service.learning.external_predictions import ExternalNumbers, ExternalPredictions
from service.learning.models import Committee
from service.learning.multilabel_scores import thresholds_of_classes
from service.learning.pool import Pool
from service.learning.scoring import THREADS, Backend
from service.learning.tasks import task_of
from service.store import Part, Snapshot, Store
from service.store.cache import Cache, Key
from service.store.gates import Gates
from service.store.layout import model_file
from service.store.score_cache import ProjectScoreCache
from service.strategies import STRATEGIES, Need, Question, check_target
from service.telemetry.metrics import time_selection
from service.usecases.candidates import (
    OpenRows,
    few_left,
    open_rows,
    relabel_candidates,
    skipped_by_annotator,
    why_exhausted,
    with_rows,
)
from service.usecases.explain import Explanation, Names, check_explainable, explain
from service.usecases.foreseen import row_seconds_of
from service.usecases.query_batch import Batch, choose_batch, join_notes
from service.usecases.query_id import QueryIds, holdings_digest, query_ids, skips_digest, with_strategy
from service.usecases.query_request import (
    MAX_INCLUDED_CELLS,
    QueryRequest,
    check_needs,
    enter_if_heavy,
    is_heavy,
    needs_met_by,
    with_indices,
)
from service.usecases.query_result import QueryResult, scores_to_json
from service.usecases.training import read_with_model, train_committee

INCLUDED_PARTS = {"text": Part.TEXTS, "url": Part.URLS, "features": Part.POOL}

Enter = Callable[[], AbstractContextManager[None]]

ANSWERS: Gates[Key] = Gates()
"""The answers that requests are choosing, by their keys in the cache."""

REMEMBERED = "remembered"
"""Marks the keys of `Remembered` requests in the cache."""

LONGEST_WAIT_SECONDS = 30.0
"""How long a request waits for the same answer to another one."""


@dataclass(frozen=True, eq=False)
class ProjectQuery:
    """A request, the state of the project that it is about, and what is leased at `moment`."""

    cache: Cache
    request: QueryRequest
    snapshot: Snapshot
    leases: Leases
    moment: int
    backend_of: Callable[[Project], Backend]

    @property
    def project(self) -> Project:
        """The project as it was read."""
        return self.snapshot.project

    @cached_property
    def holdings(self) -> Holdings:
        """The leases from the view of the annotator of the request."""
        return holdings_of(self.leases, self.request.annotator)

    @property
    def classes(self) -> Sequence[Label]:
        """The columns of the probabilities: the project's classes, or the columns that the caller sent."""
        given = self.request.given
        return self.project.classes if given is None else range(given.n_classes)

    @property
    def seed(self) -> Sequence[int]:
        """The seed of the strategy."""
        return seed_of(self.request, self.project, self.holdings)

    @cached_property
    def ids(self) -> QueryIds:
        """The same for the same request about the same state."""
        project = self.project
        skips = skips_digest(skipped_by_annotator(project, self.request))
        return query_ids(self.request, (project.pool_id, project.version, *skips, *holdings_digest(self.holdings)))

    @cached_property
    def question(self) -> Question:
        """The question for the strategy, built when it is first needed. Raises InvalidRequest."""
        return build_question(self.cache, self.snapshot, self.request, self.holdings, self.backend_of(self.project))


def seed_of(request: QueryRequest, project: Project, holdings: Holdings = NO_HOLDINGS) -> Sequence[int]:
    """Return the request's seed, or else one derived from the project's seed and version, and from what is leased.

    Leases do not change the version: without them, two annotators would get draws of the same random numbers.
    """
    if request.random_state is not None:
        return [request.random_state]
    return [project.random_state, project.version, *(int(digest, 16) for digest in holdings_digest(holdings))]


def query_project(
    store: Store,
    request: QueryRequest,
    backend_of: Callable[[Project], Backend] = lambda project: THREADS,
    enter: Enter = nullcontext,
    choose: Callable[[ProjectQuery, Enter], Batch] | None = None,
) -> QueryResult:
    """Choose the next samples. A pure read: the same state and the same request give the same result.

    Heavy work waits for `enter`; another function may `choose` the batch. Raises InvalidRequest for an index beyond the
    pool or probabilities that do not fit, OutOfTime, ProjectNotFound and the store's errors.
    """
    query = read_query(store, request, backend_of)
    if request.explain:
        check_explainable(request, len(query.classes))
    batch = (choose or cached_batch)(query, enter)
    explanations = explain_batch(query, batch, enter) if request.explain else None
    return result_of(query, batch, explanations)


def read_query(store: Store, request: QueryRequest, backend_of: Callable[[Project], Backend]) -> ProjectQuery:
    """Read the project of a request, and its leases."""
    if request.project_id is None:
        raise ValueError("query_arrays answers a request without a project")
    read = store.read if request.given else partial(read_with_model, store)
    leases = store.leases(request.project_id)  # before the state: see store/leases.py
    included = [INCLUDED_PARTS[name] for name in request.include]
    snapshot, moment = read(request.project_id, Part.POOL, Part.IDS, *included), now()
    refuse_not_stored(snapshot, request)
    request = with_indices(request, snapshot.ids)
    return ProjectQuery(
        store.cache, request, snapshot, live_leases(leases, snapshot.project, moment), moment, backend_of
    )


def refuse_not_stored(snapshot: Snapshot, request: QueryRequest) -> None:
    """Raise InvalidRequest for parts of samples that the project does not store."""
    if not request.include:
        return
    project = snapshot.project
    why = {
        "text": None
        if project.has_texts
        else "this project was made with 'keep_texts': false"
        if project.text is not None
        else "this project was made of numbers, not of texts",
        "url": None if project.has_urls else "this project was made without urls",
        "features": None if project.text is None else "this project was made of texts",
    }
    wrong = [
        FieldError(f"/include/{at}", f"{name!r} is not stored: {why[name]}")
        for at, name in enumerate(request.include)
        if why[name]
    ]
    n_rows = min(request.batch_size, project.n_samples)
    if "features" in request.include and not wrong and n_rows * project.n_features > MAX_INCLUDED_CELLS:
        limit = MAX_INCLUDED_CELLS // project.n_features
        problem = f"{n_rows} x {project.n_features} features are too many for a reply: batch_size may be {limit}"
        wrong.append(FieldError(f"/include/{request.include.index('features')}", problem))
    if wrong:
        raise InvalidRequest(wrong)


def features_of(query: ProjectQuery, indices: NDArray[np.int64]) -> list[list[float | None]] | None:
    """Return the features of some samples, None for a missing value; None unless the request includes them."""
    if "features" not in query.request.include:
        return None
    rows = query.snapshot.mapped_pool.take(indices)
    dense = rows.toarray() if query.snapshot.mapped_pool.is_sparse else np.asarray(rows)
    if dense.dtype.kind != "f" or not np.isnan(dense).any():
        found: list[list[float | None]] = dense.tolist()
        return found
    return [[None if math.isnan(value) else value for value in row] for row in dense.tolist()]


def cached_batch(query: ProjectQuery, enter: Enter) -> Batch:
    """Return the batch of a query, from the cache where the same was asked before.

    A batch that does not depend on the seed is cached for all seeds.
    """
    cache, pool_id = query.cache, query.project.pool_id
    for_all_seeds = pool_id, "answer", query.ids.without_seed
    known: Batch | None = cache.get(for_all_seeds)
    is_for_all = known is not None and not known.selection.depends_on_seed
    key = for_all_seeds if is_for_all else (pool_id, "answer", query.ids.own)

    def choose() -> tuple[Batch, int]:
        with admitted(query, enter):
            began = time.perf_counter()
            batch = choose_batch(query.question, query.request, query.seed, query.project.random_state)
            time_selection(batch.selection.strategy, began)
        draw = batch.selection.draw
        n_bytes = 16 * len(batch.selection.indices) + (0 if draw is None else draw.n_bytes)
        if not batch.selection.depends_on_seed:
            cache.put(for_all_seeds, batch, n_bytes)
        return batch, n_bytes

    with one_at_a_time(key) if is_heavy(query.request, query.project.n_samples) else nullcontext():
        batch: Batch = cache.get_or_make(key, choose, "answer")
    return batch


@contextmanager
def admitted(query: ProjectQuery, enter: Enter) -> Iterator[None]:
    """Wait for `enter` before a selection that may take long: not before one that ranks by cached scores."""
    key = scores_key(query) if is_heavy(query.request, query.project.n_samples) else None
    is_quick = key is not None and query.cache.get(key) is not None
    with nullcontext() if is_quick else enter_if_heavy(query.request, query.project.n_samples, enter):
        yield
    if key is not None:
        query.cache.put(key, True, 0)
        remember(query, (query.request.strategy.name, query.request.batch_size))


@dataclass(frozen=True, slots=True)
class Remembered:
    """A request, and the newest model when it was sent last."""

    request: QueryRequest
    model_version: int


def remember(query: ProjectQuery, key: Hashable) -> None:
    """Keep a request in the cache, so that a background fit selects for it; not one about a part of the pool."""
    request, model = query.request, query.project.model
    if request.candidates is None and request.exclude is None:
        whole = replace(request, annotator=None, lease_seconds=0, explain=False, include=(), random_state=None)
        remembered = Remembered(whole, 0 if model is None else model.version)
        query.cache.put((query.project.pool_id, REMEMBERED, key), remembered, 0)


def scores_key(query: ProjectQuery) -> Key | None:
    """Return the key that is in the cache if the scores of a query are; None if they are never cached.

    That is so for a part of the pool, for strategies that do not rank, in the largest pools, and for slow models.
    """
    project, request = query.project, query.request
    is_of_pool = request.purpose == "training" and request.candidates is None and request.exclude is None
    if project.model is None or request.given is not None or not (request.strategy.ranks and is_of_pool):
        return None
    if not ProjectScoreCache(query.cache, project).keeps or row_seconds_of(project, query.snapshot.mapped_pool):
        return None
    # With a small batch, not all rows may have been scored: see learning/leaders.py.
    what = request.strategy.name, request.batch_size, project.n_samples
    return project.pool_id, model_file(project.model.version), "scored", *what


@contextmanager
def one_at_a_time(key: Key) -> Iterator[None]:
    """Wait while another request of this process has the same key: it leaves its answer in the cache."""
    seconds = DEADLINE.get().left(LONGEST_WAIT_SECONDS)
    is_in = ANSWERS.enter(key, 0)
    if not is_in:
        with slot_yielded(seconds):
            is_in = ANSWERS.enter(key, seconds)
    try:
        yield
    finally:
        if is_in:
            ANSWERS.open(key)


def explain_batch(query: ProjectQuery, batch: Batch, enter: Enter) -> list[Explanation]:
    """Explain each sample of a batch."""
    project, ids = query.project, query.snapshot.ids
    names = Names(
        query.classes,
        lambda rows: decode_labels(project, project.labels.codes[rows]),
        None if ids is None else ids.names_at,
        thresholds_of_classes(project) if project.target == "labels" else None,
    )
    with enter_if_heavy(query.request, project.n_samples, enter):
        return explain(query.question, batch, query.request, query.seed, names)


def result_of(query: ProjectQuery, batch: Batch, explanations: Sequence[Explanation] | None) -> QueryResult:
    """Return the result of a query."""
    project, request, ids, selection = query.project, query.request, query.snapshot.ids, batch.selection
    indices = selection.indices.tolist()
    reason, retry_after = fallback_reason(query, batch)
    return QueryResult(
        project_id=project.project_id,
        query_id=with_strategy(query.ids.own, "random" if request.purpose == "evaluation" else selection.strategy),
        indices=indices,
        ids=None if ids is None else ids.names_at(indices),
        texts=None if query.snapshot.texts is None else query.snapshot.texts.at(indices),
        urls=None if query.snapshot.urls is None else query.snapshot.urls.at(indices),
        features=features_of(query, selection.indices),
        scores=scores_to_json(selection),
        strategy=selection.strategy,
        fallback_reason=reason,
        reason=join_notes(selection.reason, reason_of_model(query, selection.strategy)),
        model_version=None if request.given or project.model is None else project.model.version,
        n_labeled=project.n_labeled,
        n_unlabeled=project.n_unlabeled,
        n_labels_since_fit=project.n_labels_since_fit,
        classes=list(query.classes) if request.explain else None,
        explanations=explanations,
        project=project,
        retry_after=retry_after,
        draw=selection.draw,
        seed=query.seed,
    )


def reason_of_model(query: ProjectQuery, strategy: str) -> str | None:
    """Return why the project's model lacks a part of its estimator, None if it is whole or was not asked."""
    model = query.project.model
    if model is None or query.request.given is not None:
        return None
    return model.reason if STRATEGIES[strategy].needs & {Need.PROBABILITIES, Need.MEMBERS} else None


def fallback_reason(query: ProjectQuery, batch: Batch) -> tuple[str | None, int | None]:
    """Return what the query fell short of, and after how many seconds to retry.

    A retry makes sense only if nothing was returned, and leases of others are the reason.
    """
    project, request, holdings = query.project, query.request, query.holdings
    reason, n_selected = batch.selection.fallback_reason, len(batch.selection.indices)
    if n_selected == request.batch_size:
        return reason, None
    is_candidate = open_rows(project, request, holdings).is_candidate
    others, free_at = holdings.others[is_candidate], holdings.free_at[is_candidate]
    if n_selected:
        more = f"{len(others)} more are leased to others" if len(others) else None
        return join_notes(reason, few_left(n_selected), more), None
    reason = why_exhausted(
        request, project.n_samples, labeled=project.labels.labeled, leased_to_others=others, removed=project.removed
    )
    if len(others) == 0:
        return reason, None
    retry_after = max(1, math.ceil((int(free_at.min()) - query.moment) / MICROSECONDS))
    return f"{reason}; the first lease ends in {retry_after} s at the latest", retry_after


def build_question(
    cache: Cache, snapshot: Snapshot, request: QueryRequest, holdings: Holdings, backend: Backend
) -> Question:
    """Return the question for the project's own model, or for the predictions that the caller sent.

    Raises InvalidRequest for an index beyond the pool, or predictions that do not fit it.
    """
    project, pool = snapshot.project, snapshot.mapped_pool
    check_target(request.strategy, request.params, project.target)
    rows = open_rows(project, request, holdings)
    if request.given is not None:
        return build_external_question(project, pool, request, request.given, rows)
    candidates = relabel_candidates(cache, snapshot, request, rows)
    return Question(
        pool=pool.imputed,
        is_open=rows.is_open if candidates is None else with_rows(rows.is_open, candidates.rows),
        labeled=project.labels.labeled,
        model=snapshot.model,
        n_classes_labeled=project.n_classes_labeled,
        score_cache=ProjectScoreCache(cache, project),
        backend=backend,
        committee=lambda n_members: committee_of(cache, snapshot, n_members),
        **task_of(project).labels_of_question(project),
        target=project.target,
        fit_model=lambda X, y: fit(
            project.estimator, X, y, project.random_state, project.n_samples, pool.medians, project.target
        ),
        model_pool=pool,
        relabel_candidates=candidates,
        partly_labeled=rows.partly_labeled,
        leased=rows.leased,
        pending=rows.pending,
        row_seconds=row_seconds_of(project, pool),
    )


def build_external_question(
    project: Project, pool: Pool, request: QueryRequest, given: ExternalPredictions | ExternalNumbers, rows: OpenRows
) -> Question:
    """Return the question for the predictions that a caller's own model made of a project's samples."""
    wrong = [
        FieldError(f"/{field}", f"has {n_rows} rows, but the project has {project.n_samples} samples")
        for field, n_rows in given.n_rows.items()
        if n_rows != project.n_samples
    ]
    if wrong:
        raise InvalidRequest(wrong)
    if given.target != ("number" if project.target == "number" else "class"):
        field = next(iter(given.arrays))
        problem = f"is for target {given.target!r}, and that of this project is {project.target!r}"
        raise InvalidRequest.at(f"/{field}", problem)
    given.check(sum_to_one=project.target == "class")
    check_needs(request, needs_met_by(given) | {Need.FEATURES, Need.LABELED, Need.LABELS}, project.target)
    return Question(
        pool=pool.imputed,
        is_open=rows.is_open,
        labeled=project.labels.labeled,
        model=given.model,
        n_classes_labeled=project.n_classes_labeled,
        committee=given.committee,
        **task_of(project).labels_of_question(project),
        target=project.target,
        members_sent=project.target == "number",
        model_pool=given.model_pool,
        committee_pool=given.committee_pool,
        partly_labeled=rows.partly_labeled,
        leased=rows.leased,
        pending=rows.pending,
    )


def committee_of(cache: Cache, snapshot: Snapshot, n_members: int) -> Committee:
    """Return a committee of the project's estimator, cached until the labels change."""
    project = snapshot.project
    if project.model is None:
        raise ValueError("a committee needs a fitted project")
    file = model_file(project.model.version)
    # A member is about as large as the model.
    size = n_members * cache.size_of((project.pool_id, file))
    key = (project.pool_id, file, "committee", n_members, project.labels_revision)
    committee: Committee = cache.get_or_make(key, lambda: (train_committee(snapshot, n_members), size), "committee")
    return committee
