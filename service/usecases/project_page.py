"""GET /projects/{id}/page: everything that the page of a project shows."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from service.compute.deadline import DEADLINE, time_limit
from service.domain.project import Project
from service.errors import OutOfTime, TooBusy
from service.learning.scoring import Backend
from service.store import Part, Store
from service.strategies import resolve_strategy
from service.usecases.pool_map import PoolMap, map_pool
from service.usecases.query import query_project
from service.usecases.query_request import Included, QueryRequest
from service.usecases.query_result import QueryResult
from service.usecases.report import Report, report_snapshot
from service.usecases.training import read_with_model

BATCH_SIZE = 10
REPORT_SECONDS = 20
"""How long a page may take for the report, which needs up to 45 fits."""

TOO_SLOW = (
    "There is no advice here, because it takes too long. GET /projects/{project_id}/report has more time; once it has "
    "succeeded, this page shows it, too."
)


@dataclass(frozen=True, slots=True, eq=False)
class PageContents:
    """A project with its report, its next batch and its map; without these, `busy` says why."""

    project: Project
    report: Report | None = None
    batch: QueryResult | None = None
    map: PoolMap | None = None
    busy: str = ""


def look_at_project(
    store: Store,
    project_id: str,
    backend_of: Callable[[Project], Backend],
    enter: Callable[[], AbstractContextManager[None]],
) -> PageContents:
    """Return what the page of a project shows. A pure read: the next batch is neither recorded nor leased.

    Heavy work waits for `enter`; a service that is too busy leaves it out. Raises ProjectNotFound and the store's
    errors.
    """
    snapshot = read_with_model(store, project_id, Part.POOL, Part.IDS)
    report = batch = pool_map = None
    busy = ""
    try:
        with enter():
            batch = query_project(store, next_batch_request(snapshot.project), backend_of)
            key = (*snapshot.project.commit, "map", *batch.indices)
            pool_map = store.cache.get_or_make(key, lambda: (map_pool(snapshot, batch.indices), 100_000), "map")
            with time_limit(min(REPORT_SECONDS, DEADLINE.get().seconds)):
                report = report_snapshot(store, snapshot)
    except TooBusy as error:
        busy = f"There is no advice at the moment: {error}."
    except OutOfTime:
        busy = TOO_SLOW
    return PageContents(snapshot.project, report, batch, pool_map, busy)


def next_batch_request(project: Project) -> QueryRequest:
    """Return the request for a project's next batch, with all that is stored beside its samples."""
    stored: dict[Included, bool] = {"text": project.has_texts, "url": project.has_urls}
    strategy, params = resolve_strategy("auto", {})
    include = [what for what, is_stored in stored.items() if is_stored]
    return QueryRequest(project.project_id, strategy, params, BATCH_SIZE, include=include)
