"""Recording of the samples that a query about a project drew with known probabilities."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from service.domain.project import Project
from service.errors import ProjectNotFound, StoreBusy, StoreUnwritable
from service.learning.scoring import THREADS, Backend
from service.store import Store, Transaction
from service.usecases.query_request import QueryRequest
from service.usecases.query_result import QueryResult
from service.usecases.reserves import query_and_share

MAX_LEFT_OUT = 1_000
"""Largest number of samples without a label that a recorded draw may have left out."""

log = logging.getLogger(__name__)


def query_and_record(
    store: Store,
    request: QueryRequest,
    backend_of: Callable[[Project], Backend] = lambda project: THREADS,
    enter: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> QueryResult:
    """Choose the next samples as `query_and_share` does, and record their draw, once for each query id.

    A draw that cannot be written is logged: the result does not depend on it.
    """
    answered = query_and_share(store, request, backend_of, enter)
    project = answered.project
    if project is None or answered.draw is None or answered.query_id in store.draws(project.project_id).query_ids:
        return answered
    try:
        with store.transaction(project.project_id) as transaction:
            keep_draw(transaction, answered, answered.query_id)
    except (ProjectNotFound, StoreBusy, StoreUnwritable) as error:
        log.warning("the draw of query %s is not recorded: %s", answered.query_id, error)
    return answered


def keep_draw(transaction: Transaction, answered: QueryResult, query_id: str) -> None:
    """Write the draw of a query, unless it is there, or too many samples were left out for it to be of use."""
    project, draw, draws = answered.project, answered.draw, transaction.draws()
    if project is None or draw is None or draws.pool_id != project.pool_id or query_id in draws.query_ids:
        return
    if len(draw.others) - (project.n_samples - project.n_unlabeled) <= MAX_LEFT_OUT:
        transaction.keep_draws(draws.with_draw(query_id, answered.seed, draw))
