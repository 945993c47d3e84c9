"""The projects: list, look at, append to, and delete them; their events and annotators."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

from flask import Response, request

from service.auth.keys import Role
from service.compute.waiting import WAIT_KEY, Wait, wait_in_thread
from service.domain.columns import NO_COLUMNS
from service.domain.project import Project
from service.errors import ServiceError
from service.http.body.reader import read_samples
from service.http.contract.operations import SAMPLE_LINES, Operations, Reply
from service.http.media_types import JSON
from service.http.middleware import auth
from service.http.middleware.etags import CONDITIONS, with_etag
from service.http.middleware.idempotency import read_preconditions
from service.http.responses import empty_response, json_list, json_page, json_response
from service.http.routes.context import current_context
from service.http.routes.query_string import read_config, read_query
from service.http.schemas import responses
from service.http.schemas.append import AppendSchema, append_request
from service.http.schemas.projects import EventPageSchema, PageSchema
from service.http.schemas.samples import ConfigQuerySchema
from service.http.tables import read_tables
from service.usecases import annotators, append, projects
from service.usecases.columns import table_context
from service.usecases.simulations import remove_simulations_of
from service.usecases.texts import is_heavy

PAGE, PAGE_REPLY = PageSchema(), responses.ProjectPageSchema()
APPEND, EVENT_PAGE = AppendSchema(), EventPageSchema()
PROJECT_REPLY, NOTED_PROJECT = responses.ProjectSchema(), responses.NotedProjectSchema()
APPENDED_PROJECT = responses.AppendedProjectSchema()

operations = Operations("Projects", "List, read, extend and delete projects.")


def project_response(
    project: Project, status: int = 200, notes: Sequence[str] | None = None, appended: append.AppendResult | None = None
) -> Response:
    """Return a response with a project and its ETag, and start the fit that the project waits for.

    With notes, and the result of an append, if they are given.
    """
    context = current_context()
    reply = projects.with_fit_status(context.store, project)
    schema = PROJECT_REPLY if notes is None else NOTED_PROJECT if appended is None else APPENDED_PROJECT
    body = schema.dump(replace(reply, notes=notes or (), appended=appended))
    response = json_response(body, status)
    context.fits.start_if_wanted(project)
    # The start of a running fit is not part of the state, so the ETag does not cover it.
    return with_etag(request, response, project, cached=not project.fit_is_due)


@operations.add(
    "GET",
    "/projects",
    role=Role.READER,
    query=PageSchema,
    replies={200: Reply("A page of projects.", responses.ProjectPageSchema)},
    problems=(422,),
)
def list_projects() -> Response:
    """List the projects that the caller may access, in order of their names.

    In pages: send `next` of a page as `after` for the page that follows.
    """
    data = read_query(PAGE)
    page = projects.list_all(current_context().store, data["limit"], data.get("after"), auth.caller().may_access)
    return json_response(PAGE_REPLY.dump(page))


@operations.add(
    "GET",
    "/projects/<project_id>",
    role=Role.READER,
    replies={200: Reply("The project.", responses.ProjectSchema, etag=True)},
    problems=(404,),
)
def get_project(project_id: str) -> Response:
    """Get a project.

    Its sizes, classes and settings, its model and the state of its fit. The `ETag` changes with each commit.
    """
    return project_response(projects.get(current_context().store, project_id))


@operations.add(
    "POST",
    "/projects/<project_id>/pool",
    role=Role.ADMIN,
    body=AppendSchema,
    parts=("X", "texts", "y", "ids", "urls"),
    lines=SAMPLE_LINES,
    query=ConfigQuerySchema,
    replies={200: Reply("The project with its larger pool.", responses.AppendedProjectSchema, etag=True)},
    headers=CONDITIONS,
    problems=(404, 411, 412, 413, 415, 422, 503, 507),
)
def append_samples(project_id: str) -> Response:
    """Append samples to the pool.

    Indices of existing samples do not change, and the project can be queried between appends, so a pool that is too
    large for one request can be sent in several. The next fit trains on labels sent with the samples. `if_known` says
    what happens to samples that the pool has already.
    """
    context = current_context()
    with context.store.stage() as staging:
        known = partial(table_context, context.store, project_id)
        document = read_samples(
            request, context.limits, staging, read_config(), has_columns=lambda: known().columns != NO_COLUMNS
        )
        data = APPEND.load(read_tables(document, known, context.limits, staging))
        order = append_request(project_id, data, staging, context.limits)
        with context.admission.enter() if is_heavy(order.X) else nullcontext():
            appended = append.append_samples(
                context.store, staging, order, context.settings.max_pool_cells, read_preconditions(request)
            )
        return project_response(appended.project, notes=append.notes_on(order), appended=appended)


@operations.add(
    "DELETE",
    "/projects/<project_id>",
    role=Role.ADMIN,
    replies={204: Reply("The project and its files are deleted.")},
    headers=CONDITIONS,
    problems=(404, 412, 422, 503, 507),
)
def delete_project(project_id: str) -> Response:
    """Delete a project.

    Its pool, labels, models, leases and events are deleted and cannot be restored, and so are its simulations.
    """
    store = current_context().store
    projects.delete(store, project_id, read_preconditions(request))
    remove_simulations_of(store.simulations, project_id)
    return empty_response()


@operations.add(
    "GET",
    "/projects/<project_id>/events",
    role=Role.READER,
    query=EventPageSchema,
    replies={200: Reply("A page of events.", responses.EventPageReplySchema, etag=True)},
    problems=(404, 422),
)
def list_project_events(project_id: str) -> Response:
    """List the events of a project.

    Every commit is an event, in order of versions. Events are kept until the project is deleted, even across `replace`.
    The labels can be rebuilt from them: replace the labels that `renamed` lists; then, by sample and annotator, remove
    what `retracted` lists and set what `labels` lists. A commit of more than 100,000 labels is several events of one
    version, which share a page. With `wait` the reply comes as soon as there is an event after `after`, or without one
    when the time is up; waiting requests take no thread from others.
    """
    data = read_query(EVENT_PAGE)
    if data["wait"]:
        wait_for_event(project_id, data["after"], data["wait"])
    project, page = projects.list_events(current_context().store, project_id, data["limit"], data["after"])
    return with_etag(request, Response(json_page("events", page, page.next), mimetype=JSON), project)


def wait_for_event(project_id: str, after: int, seconds: int) -> None:
    """Return once a project has an event after a version, or is gone, or after some seconds."""
    store = current_context().store

    def is_over() -> bool:
        try:
            return projects.get(store, project_id).version > after
        except ServiceError:
            return True  # the reply says what is wrong

    wait: Wait = request.environ.get(WAIT_KEY, wait_in_thread)
    wait(is_over, seconds)


@operations.add(
    "GET",
    "/projects/<project_id>/annotators",
    role=Role.READER,
    replies={200: Reply("The annotators.", responses.AnnotatorListSchema, etag=True)},
    problems=(404,),
)
def list_project_annotators(project_id: str) -> Response:
    """List the annotators and the estimated quality of their labels.

    The estimates are CROWDLAB's, as of the last fit; they need samples that several annotators labelled.
    """
    project, records = annotators.list_annotators(current_context().store, project_id)
    return with_etag(request, Response(json_list("annotators", records), mimetype=JSON), project)
