"""Selections for several annotators: one makes it, and those who ask next are given the samples that follow.

A request without a lease reads them, too, but makes none: it writes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress

import numpy as np
from numpy.typing import NDArray

from service.domain.leases import Reserve
from service.domain.project import Project
from service.strategies import Question, Selection, select
from service.telemetry.metrics import time_selection
from service.usecases.query import ProjectQuery, cached_batch
from service.usecases.query_batch import Batch, choose_batch
from service.usecases.query_id import query_id
from service.usecases.query_request import enter_if_heavy

MOST_SHARING = 8
"""Largest number of annotators that a selection is made for."""


class SelectionIsDue(Exception):
    """No reserve has the samples of a request that must not select others yet."""


class LeaseSelection:
    """Chooses the batch of a request for a lease: the next free samples of a reserve, or new ones.

    A reserve is good if it is of the newest model, or at least of the one that there was when the request came,
    `asked_at_model`; labels since do not matter. A new selection is for all annotators at work; it is made only if
    `may_select`, and the request holds the project's lease lock. `new_reserve` are its samples, None if they are for
    this request alone, and `used` is the reserve that the samples are of if there was one.
    """

    def __init__(self, asked_at_model: int) -> None:
        self.asked_at_model = asked_at_model
        self.may_select = False
        self.new_reserve: Reserve | None = None
        self.used: Reserve | None = None

    def choose(self, query: ProjectQuery, enter: Callable[[], AbstractContextManager[None]]) -> Batch:
        """Return the batch; heavy work waits for `enter`. Raises SelectionIsDue unless this may select."""
        key, reserve = reserve_key(query), self.find_reserve(query)
        self.used = None

        def choose(question: Question, n_wanted: int) -> Selection:
            if reserve is not None and len(rows := first_open(reserve, question, n_wanted)) == n_wanted:
                self.used = reserve
                return selection_of(reserve, rows)
            if not self.may_select:
                raise SelectionIsDue
            self.new_reserve = None
            selection = self._select(query, question, n_wanted, 1 if key is None else n_sharing(query), enter)
            if key is None or len(selection.indices) <= n_wanted:
                return selection
            self.new_reserve = reserve_of(key, model_version(query.project), selection)
            return selection_of(self.new_reserve, np.arange(n_wanted))

        return choose_batch(query.question, query.request, query.seed, query.project.random_state, choose)

    def find_reserve(self, query: ProjectQuery) -> Reserve | None:
        """Return the reserve for a request, None if there is none.

        One that this made stays good if others labelled or leased a sample of it before it was stored.
        """
        newest, key = model_version(query.project), reserve_key(query)
        oldest = newest if query.request.explain else self.asked_at_model
        leases = query.leases if self.new_reserve is None else query.leases.with_reserve(self.new_reserve)
        return None if key is None else leases.find_reserve(key, oldest, newest)

    def _select(
        self,
        query: ProjectQuery,
        question: Question,
        n_wanted: int,
        n_batches: int,
        enter: Callable[[], AbstractContextManager[None]],
    ) -> Selection:
        request, rng = query.request, np.random.default_rng(query.seed)
        with enter_if_heavy(request, query.project.n_samples, enter):
            began = time.perf_counter()
            selection = select(request.strategy, request.params, question, n_wanted, rng, n_batches=n_batches)
            time_selection(selection.strategy, began)
        return selection


def batch_without_lease(query: ProjectQuery, enter: Callable[[], AbstractContextManager[None]]) -> Batch:
    """Return the batch of a request that leases nothing: of a reserve of the newest model, or else selected for it."""
    if not query.leases.reserves:
        return cached_batch(query, enter)
    selection = LeaseSelection(model_version(query.project))
    if selection.find_reserve(query) is not None:
        with suppress(SelectionIsDue):
            return selection.choose(query, enter)
    return cached_batch(query, enter)


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
    """Return the number of annotators to select for: those at work on the project."""
    annotator = query.request.annotator
    return 1 if annotator is None else min(query.leases.n_at_work(annotator, query.moment), MOST_SHARING)


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
