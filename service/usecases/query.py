"""POST /query: which samples should be labelled next?"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache, partial

from service.domain.labels import Label
from service.domain.leases import Holdings, holdings_of, live_leases
from service.domain.project import MICROSECONDS, Project, now
from service.errors import FieldError, InvalidRequest
from service.learning.estimators import fit
from service.learning.external_predictions import ExternalPredictions
from service.learning.models import Committee
from service.learning.pool import Pool
from service.learning.scoring import THREADS, Backend
from service.store import Part, Snapshot, Store
from service.store.layout import model_file
from service.store.score_cache import ProjectScoreCache
from service.strategies import Need, Question
from service.telemetry.metrics import time_selection
from service.usecases.candidates import OpenRows, open_rows, opinions_of, with_rows
from service.usecases.explain import Names, explain, refuse_long
from service.usecases.query_common import (
    Batch,
    QueryRequest,
    choose,
    enter_if_heavy,
    needs_met_by,
    query_id,
    refuse_missing,
)
from service.usecases.query_result import QueryResult, scores_to_json
from service.usecases.training import read_with_model, train_committee


def query_project(
    store: Store,
    request: QueryRequest,
    backend_of: Callable[[Project], Backend] = lambda project: THREADS,
    enter: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> QueryResult:
    """Choose the next samples. A pure read: the same state and the same request give the same answer.

    What may take long is done in a place that `enter` gives. Raises InvalidRequest for an index that there is
    not or probabilities that do not fit, OutOfTime, ProjectNotFound and the store's errors.
    """
    if request.project_id is None:
        raise ValueError("a question without a project is one for query_arrays")
    read = store.read if request.given else partial(read_with_model, store)
    leases = store.leases(request.project_id)  # before the state: see store/leases.py
    snapshot = read(request.project_id, Part.POOL, Part.IDS)
    project, moment = snapshot.project, now()
    held = holdings_of(live_leases(leases, project, moment), request.annotator)
    classes = classes_of(project, request)
    if request.explain:
        refuse_long(request, len(classes))
    name = query_id(request, (project.pool_id, project.version, *holdings_digest(held)))

    @cache
    def question() -> Question:
        return build_question(store, snapshot, request, held, backend_of(project))

    def answer() -> tuple[Batch, int]:
        with enter_if_heavy(request, project.n_samples, enter):
            began = time.perf_counter()
            batch = choose(question(), request, seed_of(project, request), project.random_state)
            time_selection(batch.selection.strategy, began)
        return batch, 16 * len(batch.selection.indices)

    batch: Batch = store.cache.get_or_make((project.pool_id, "answer", name), answer, "answer")
    selection = batch.selection
    indices = selection.indices.tolist()
    explanations = None
    if request.explain:
        names = Names(classes, project.classes, None if snapshot.ids is None else snapshot.ids.names_at)
        with enter_if_heavy(request, project.n_samples, enter):
            explanations = explain(question(), batch, request, seed_of(project, request), names)
    notes, retry_after = [selection.fallback_reason], None
    if held and len(indices) < request.batch_size:
        missed = held.free_at[open_rows(project, request, held).missed]
        if len(missed) and indices:
            notes.append(f"{len(missed)} more are held by others")
        elif len(missed):
            retry_after = max(1, math.ceil((int(missed.min()) - moment) / MICROSECONDS))
            why = f"all that could be asked about, {len(missed)} samples, are held by others"
            notes = [f"{why}; the first is free again in {retry_after} s at the latest"]
    return QueryResult(
        project_id=project.project_id,
        query_id=name,
        indices=indices,
        ids=None if snapshot.ids is None else snapshot.ids.names_at(indices),
        scores=scores_to_json(selection),
        strategy=selection.strategy,
        fallback_reason="; ".join(filter(None, notes)) or None,
        model_version=None if request.given or project.model is None else project.model.version,
        n_labeled=project.n_labeled,
        n_unlabeled=project.n_unlabeled,
        n_labels_since_fit=project.n_labels_since_fit,
        classes=list(classes) if request.explain else None,
        explanations=explanations,
        project=project,
        retry_after=retry_after,
    )


def holdings_digest(held: Holdings) -> tuple[str, ...]:
    """Name what is held, so that a question is another when something else is; nothing has no name."""
    if not held:
        return ()
    name = hashlib.blake2b(held.own.data, digest_size=16)
    name.update(b" ")
    name.update(held.others.data)
    return (name.hexdigest(),)


def classes_of(project: Project, request: QueryRequest) -> Sequence[Label]:
    """Return what the columns of the probabilities are: the project's labels, or the columns that a caller sent."""
    return project.classes if request.given is None else range(request.given.n_classes)


def build_question(
    store: Store, snapshot: Snapshot, request: QueryRequest, held: Holdings, backend: Backend
) -> Question:
    """Put the question to the project's own model, or to what a caller's own model said of its samples.

    Raises InvalidRequest for an index that there is not, and for probabilities that are not those of the samples.
    """
    project, pool = snapshot.project, snapshot.pool
    if pool is None:
        raise ValueError("a query needs a snapshot with its pool")
    rows = open_rows(project, request, held)
    if request.given is not None:
        return build_external_question(project, pool, request, request.given, rows)
    opinions = opinions_of(store, snapshot, request, rows)
    return Question(
        pool=pool,
        is_open=rows.is_open if opinions is None else with_rows(rows.is_open, opinions.rows),
        labeled=project.labels.labeled,
        model=snapshot.model,
        n_classes_labeled=project.n_classes_labeled,
        score_cache=ProjectScoreCache(store.cache, project),
        backend=backend,
        committee=lambda n_members: committee_of(store, snapshot, n_members),
        codes=project.labels.codes,
        fit_model=lambda X, codes: fit(project.estimator, X, codes, project.random_state),
        relabel_candidates=opinions,
        partly_labeled=rows.begun,
        leased=rows.held,
        pending=rows.pending,
    )


def build_external_question(
    project: Project, pool: Pool, request: QueryRequest, given: ExternalPredictions, rows: OpenRows
) -> Question:
    """Put the question to what a caller's own model said of a project's samples."""
    wrong = [
        FieldError(f"/{field}", f"has {n_rows} rows, but the project has {project.n_samples} samples")
        for field, n_rows in given.n_rows.items()
        if n_rows != project.n_samples
    ]
    if wrong:
        raise InvalidRequest(wrong)
    given.check()
    refuse_missing(request, needs_met_by(given) | {Need.FEATURES, Need.LABELED, Need.LABELS})
    return Question(
        pool=pool,
        is_open=rows.is_open,
        labeled=project.labels.labeled,
        model=given.model,
        n_classes_labeled=project.n_classes_labeled,
        committee=given.committee,
        codes=project.labels.codes,
        model_pool=given.model_pool,
        committee_pool=given.committee_pool,
        partly_labeled=rows.begun,
        leased=rows.held,
        pending=rows.pending,
    )


def committee_of(store: Store, snapshot: Snapshot, n_members: int) -> Committee:
    """Return a committee beside the project's model: the one at hand, or one fitted to the labels there are."""
    project = snapshot.project
    if project.model is None:
        raise ValueError("a committee stands beside a model")
    file = model_file(project.model.version)
    # A member is about as large as the model.
    size = n_members * store.cache.size_of((project.pool_id, file))
    key = (project.pool_id, file, "committee", n_members, project.labels_revision)
    committee: Committee = store.cache.get_or_make(
        key, lambda: (train_committee(snapshot, n_members), size), "committee"
    )
    return committee


def seed_of(project: Project, request: QueryRequest) -> Sequence[int]:
    """Return the request's own seed, or else one that the project's seed and state give."""
    if request.random_state is not None:
        return [request.random_state]
    return [project.random_state, project.version]
