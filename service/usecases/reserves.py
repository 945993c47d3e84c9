"""Selections for several annotators: one makes it, and those who ask next are given the samples that follow.

Those who lease nothing share the selections as well, as long as others lease samples of the project.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from service.domain.leases import Reserve, live_leases
from service.domain.project import Project, now
from service.errors import ProjectNotFound, StoreBusy, StoreUnwritable
from service.learning.scoring import THREADS, Backend
from service.store import Store, Transaction
from service.strategies import Question, Selection, select
from service.telemetry.metrics import time_selection
from service.usecases.query import (
    Enter,
    ProjectQuery,
    admitted,
    cached_batch,
    query_project,
    remember,
)
from service.usecases.query_batch import Batch, choose_batch
from service.usecases.query_id import query_id
from service.usecases.query_request import QueryRequest
from service.usecases.query_result import QueryResult

log = logging.getLogger(__name__)

MOST_SHARING = 8
"""Largest number of people that a selection is made for."""


class SelectionIsDue(Exception):
    """No reserve has the samples of a request that must not select others yet."""


class LeaseSelection:
    """Chooses the batch of a request for a lease: the next free samples of a reserve, or new ones.

    A reserve is good if it is of the newest model, or at least of the one that there was when the request came,
    `asked_at_model`, by default when it first chooses; labels since do not matter. A new selection is for all people at
    work; it is made only if `may_select`: the request holds the project's lease lock, or it ranks by scores that others
    share. It has `n_rounds` batches for each. `new_reserve` are its samples, None if they are for this request alone,
    and `used` is the reserve that the samples are of if there was one.
    """

    def __init__(self, asked_at_model: int | None = None, *, may_select: bool = False, n_rounds: int = 1) -> None:
        self.asked_at_model = asked_at_model
        self.n_rounds = n_rounds
        self.may_select = may_select
        self.new_reserve: Reserve | None = None
        self.used: Reserve | None = None

    def choose(self, query: ProjectQuery, enter: Enter) -> Batch:
        """Return the batch; heavy work waits for `enter`. Raises SelectionIsDue unless this may select."""
        key, reserve = reserve_key(query), self.find_reserve(query)
        self.used = None

        def choose(question: Question, n_wanted: int) -> Selection:
            if key is not None and not query.request.strategy.ranks:
                remember(query, key)
            if reserve is not None and len(rows := first_open(reserve, question, n_wanted)) == n_wanted:
                self.used = reserve
                return selection_of(reserve, rows)
            if n_wanted and not self.may_select:
                raise SelectionIsDue
            self.new_reserve = None
            n_batches = 1 if key is None else self.n_rounds * n_sharing(query)
            selection = self._select(query, question, n_wanted, n_batches, enter)
            if key is None or len(selection.indices) <= n_wanted:
                return selection
            self.new_reserve = reserve_of(key, model_version(query.project), selection)
            return selection_of(self.new_reserve, np.arange(n_wanted))

        return choose_batch(query.question, query.request, query.seed, query.project.random_state, choose)

    def choose_without_lease(self, query: ProjectQuery, enter: Enter) -> Batch:
        """Return the batch of a request that leases nothing: as `choose` does if others lease samples meanwhile."""
        is_shared = query.leases.at_work and n_sharing(query) > 1 and reserve_key(query) is not None
        return self.choose(query, enter) if is_shared else cached_batch(query, enter)

    def with_model(self, answered: QueryResult) -> QueryResult:
        """Return a result with the version of the model that selected its samples."""
        return answered if self.used is None else replace(answered, model_version=self.used.model_version or None)

    def find_reserve(self, query: ProjectQuery) -> Reserve | None:
        """Return the reserve for a request, None if there is none.

        One that this made stays good if others labelled or leased a sample of it before it was stored.
        """
        newest, key = model_version(query.project), reserve_key(query)
        if self.asked_at_model is None:
            self.asked_at_model = newest
        oldest = newest if query.request.explain else self.asked_at_model
        leases = query.leases if self.new_reserve is None else query.leases.with_reserve(self.new_reserve)
        return None if key is None else leases.find_reserve(key, oldest, newest)

    def _select(
        self,
        query: ProjectQuery,
        question: Question,
        n_wanted: int,
        n_batches: int,
        enter: Enter,
    ) -> Selection:
        request, rng = query.request, np.random.default_rng(query.seed)
        with admitted(query, enter):
            began = time.perf_counter()
            selection = select(request.strategy, request.params, question, n_wanted, rng, n_batches=n_batches)
            time_selection(selection.strategy, began)
        return selection


def query_and_share(
    store: Store,
    request: QueryRequest,
    backend_of: Callable[[Project], Backend] = lambda project: THREADS,
    enter: Enter = nullcontext,
) -> QueryResult:
    """Do the same as `query_project`, and while people lease samples of the project, share selections with them."""
    if request.project_id is None or not (request.strategy.spreads or request.strategy.kind == "policy"):
        return query_project(store, request, backend_of, enter)
    selection = LeaseSelection()
    with ExitStack() as turn:
        while True:
            try:
                answered = query_project(store, request, backend_of, enter, selection.choose_without_lease)
            except SelectionIsDue:
                try:
                    turn.enter_context(store.lease_turn(request.project_id))
                except (StoreBusy, StoreUnwritable) as error:
                    log.warning("project %s: a selection is not shared: %s", request.project_id, error)
                    return query_project(store, request, backend_of, enter)
                selection.may_select = True
            else:
                if selection.new_reserve is not None:
                    keep_reserve(store, request.project_id, answered, selection.new_reserve)
                return selection.with_model(answered)


def keep_reserve(store: Store, project_id: str, answered: QueryResult, reserve: Reserve) -> None:
    """Write a reserve, unless the pool was replaced meanwhile. A failure is logged: the result does not need it."""
    try:
        with store.transaction(project_id) as transaction:
            if answered.project is not None and transaction.read().project.pool_id == answered.project.pool_id:
                keep_reserves([reserve], transaction)
    except (ProjectNotFound, StoreBusy, StoreUnwritable) as error:
        log.warning("project %s: a selection is not shared: %s", project_id, error)


def keep_reserves(reserves: Sequence[Reserve], transaction: Transaction) -> None:
    """Write reserves of the newest model. A failure is logged: no result depends on it."""
    if not reserves:
        return
    project = transaction.read().project
    leases = live_leases(transaction.leases(), project, now())
    for reserve in reserves:
        leases = leases.with_reserve(reserve)
    try:
        transaction.keep_leases(leases.with_leases(leases.all))
    except StoreUnwritable as error:
        log.warning("project %s: a selection is not shared: %s", project.project_id, error)


def model_version(project: Project) -> int:
    """Return the version of a project's model, 0 without one."""
    return 0 if project.model is None else project.model.version


def reserve_key(query: ProjectQuery) -> str | None:
    """Return the key of the reserve for a request, None for requests that share no selection.

    These are requests with a seed or predictions of their own, and those that ask for second labels, which depend on
    the annotator.
    """
    request, project = query.request, query.project
    if request.random_state is not None or request.given is not None or request.asks_again:
        return None
    # The reason why there is no model yet depends on the labels.
    labels = (project.n_classes_labeled, min(project.n_labeled, 2)) if project.model is None else ()
    return query_id(request, (project.pool_id, project.n_samples, *labels))


def n_sharing(query: ProjectQuery) -> int:
    """Return the number of people to select for: those at work on the project, and who asks."""
    return min(query.leases.n_at_work(query.request.annotator, query.moment), MOST_SHARING)


def first_open(reserve: Reserve, question: Question, n_wanted: int) -> NDArray[np.intp]:
    """Return the positions of the first samples of a reserve that are open, at most `n_wanted`."""
    return np.flatnonzero(question.is_open[reserve.index])[:n_wanted]


def reserve_of(key: str, version: int, selection: Selection) -> Reserve:
    """Return a selection as a reserve."""
    return Reserve(
        key=key,
        model_version=version,
        index=selection.indices,
        scores=selection.scores,
        strategy=selection.strategy,
        fallback_reason=selection.fallback_reason,
        reason=selection.reason,
    )


def selection_of(reserve: Reserve, rows: NDArray[np.intp]) -> Selection:
    """Return some samples of a reserve as a selection."""
    return Selection(
        reserve.index[rows],
        None if reserve.scores is None else reserve.scores[rows],
        reserve.strategy,
        reserve.fallback_reason,
        reserve.reason,
    )
