"""Selections with a model that a background fit is about to commit, so that no query waits for them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import replace

from service.domain.leases import Reserve, live_leases
from service.domain.project import Project, now
from service.errors import StoreBusy, StoreUnwritable
from service.learning.scoring import THREADS
from service.store import Part, Store, Transaction
from service.store.cache import Cache
from service.usecases.query import REMEMBERED, ProjectQuery
from service.usecases.query_request import QueryRequest
from service.usecases.reserves import LeaseSelection, keep_reserves, model_version
from service.usecases.training import TrainedModel

log = logging.getLogger(__name__)

ROUNDS_AHEAD = 2
"""Number of batches for each of the people who share a selection: nobody waits for it."""

MOST_SCORED_AHEAD = 100_000
"""Largest pool whose scores are computed before a model is committed, which delays the model."""

TURN_SECONDS = 5.0
"""How long a fit waits for a selection with the model before."""


@contextmanager
def select_ahead(store: Store, before: Project, trained: TrainedModel) -> Iterator[Callable[[Transaction], None]]:
    """Select, with a model that is about to be committed, what people asked for with the model before.

    Yield the function that keeps the selections after the commit; until then others wait to select, if that is
    possible. A failure of a selection is logged, and does not keep the model from its project.
    """
    work = WorkAhead(Cache(store.cache.capacity))
    try:
        work.select(store, before, trained)
    except Exception:
        log.exception("project %s: nothing is selected before the model is committed", before.project_id)

    def keep(transaction: Transaction) -> None:
        if model_version(transaction.read().project) == work.model_version:
            keep_reserves(work.reserves, transaction)
            work.cache.drop(lambda key: key[1] == REMEMBERED)  # nobody has asked with this model yet
            work.cache.move_to(store.cache)

    with ExitStack() as turn:
        if work.reserves:
            with suppress(StoreBusy, StoreUnwritable):
                turn.enter_context(store.lease_turn(before.project_id, TURN_SECONDS))
        yield keep


class WorkAhead:
    """The reserves of a model that is not committed yet, and the scores by which queries rank.

    Nothing of it is known to others before the commit: another model may be committed with this `model_version`.
    """

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self.reserves: list[Reserve] = []
        self.model_version = 0

    def select(self, store: Store, before: Project, trained: TrainedModel) -> None:
        """Select for each request that was sent to this process under the model before."""
        leases, moment = store.leases(before.project_id), now()
        snapshot = store.read(before.project_id, Part.POOL)
        current = snapshot.project
        project = current.with_model(trained.ref, before, trained.measures)
        # Texts are weighted by the model's own weights, which no file has yet.
        if current.pool_id != before.pool_id or project is current or project.n_texts is not None:
            return
        self.model_version = model_version(project)
        leases = live_leases(leases, project, moment)
        is_shared = leases.n_at_work(None, moment) > 1
        with_model = replace(snapshot, project=project, model=trained.classifier)
        for request in remembered_requests(store.cache, current):
            if not (project.n_samples <= MOST_SCORED_AHEAD if request.strategy.ranks else is_shared):
                continue
            query = ProjectQuery(self.cache, request, with_model, leases, moment, lambda project: THREADS)
            selection = LeaseSelection(may_select=True, n_rounds=ROUNDS_AHEAD)
            selection.choose(query, nullcontext)
            if selection.new_reserve is not None:
                self.reserves.append(selection.new_reserve)


def remembered_requests(cache: Cache, project: Project) -> list[QueryRequest]:
    """Return the requests about a project that were sent under its current model, and may be sent again."""
    keys = cache.keys()
    kept = [cache.get(key) for key in keys if key[:2] == (project.pool_id, REMEMBERED)]
    return [each.request for each in kept if each is not None and each.model_version == model_version(project)]
