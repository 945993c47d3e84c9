"""The endpoints. Each reads its request, makes one call, and dumps what came back."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, fields, replace
from functools import cache, partial
from typing import Any

from flask import Blueprint, Flask, Response, current_app, request
from flask.globals import request_ctx
from marshmallow import Schema, ValidationError
from werkzeug.exceptions import ServiceUnavailable
from werkzeug.http import parse_list_header

from service import strategies
from service.auth.keys import Role
from service.backends import BackendOf
from service.compute.admission import Places
from service.compute.deadline import time_limit
from service.domain.parameters import pointer_token
from service.domain.project import Project
from service.errors import FieldError, InvalidRequest, LabelNotFound, StoreUnwritable
from service.http import docs
from service.http.body.formats.archive import write_archive
from service.http.body.limits import COLUMNS, MATRICES, PREDICTIONS, Limits
from service.http.body.reader import has_body, read_document, read_json, read_samples, spool_archive
from service.http.contract.operations import Operations, Reply
from service.http.media_types import CSV, JSON, MULTIPART, YAML, ZIP
from service.http.middleware import auth, metrics
from service.http.middleware.etags import CONDITIONS, has_conditions, with_etag
from service.http.middleware.idempotency import answer_once, read_preconditions
from service.http.problems import flatten
from service.http.project_archive import exported, manifest, read_project
from service.http.responses import choose_media_type, empty_response, json_list, json_page, json_response
from service.http.schemas import responses
from service.http.schemas.requests import (
    AppendSchema,
    EventPageSchema,
    FitSchema,
    ImportSchema,
    LabelSchema,
    PageSchema,
    QuerySchema,
    RenewSchema,
    append_request,
    fit_request,
    label_request,
    query_request,
)
from service.learning import estimators
from service.settings import Settings
from service.store import Store
from service.usecases.annotators import list_annotators
from service.usecases.append import append_samples as append
from service.usecases.background_fits import BackgroundFits
from service.usecases.fit import fit_project as fit
from service.usecases.label import label_project as label
from service.usecases.label import retract_label as retract
from service.usecases.leases import lease_samples, list_leases
from service.usecases.leases import release_lease as release
from service.usecases.leases import renew_lease as renew
from service.usecases.projects import LabelRecord, delete, get, list_all, list_events, list_labels, present
from service.usecases.query import query_project as query
from service.usecases.query_arrays import query_arrays
from service.usecases.totals import Census
from service.usecases.transfer import export_project as export
from service.usecases.transfer import import_project as take_in
from service.usecases.transfer import refuse_taken

# Made once: a schema copies all its fields when it is made, which takes longer than most of its work.
FIT, APPEND, QUERY, LABEL, PAGE = FitSchema(), AppendSchema(), QuerySchema(), LabelSchema(), PageSchema()
EVENT_PAGE, IMPORT, RENEW = EventPageSchema(), ImportSchema(), RenewSchema()
PROJECT_REPLY, QUERY_REPLY, LABEL_REPLY = (
    responses.ProjectSchema(),
    responses.QueryReplySchema(),
    responses.LabelReplySchema(),
)
PAGE_REPLY, LEASE_REPLY, LEASES_REPLY = (
    responses.ProjectPageSchema(),
    responses.LeaseSchema(),
    responses.LeaseListSchema(),
)
STRATEGIES_REPLY, ESTIMATORS_REPLY = responses.StrategyListSchema(), responses.EstimatorListSchema()

operations = Operations()


@dataclass(frozen=True, slots=True)
class Context:
    """What a request works with."""

    store: Store
    settings: Settings
    backend_of: BackendOf
    fits: BackgroundFits
    places: Places
    census: Census

    @property
    def limits(self) -> Limits:
        """How much of a body is read."""
        most = self.settings
        return Limits(most.max_body_bytes, most.max_json_bytes, most.max_pool_cells, self.store.staging)


def register(app: Flask, context: Context) -> None:
    """Make the application answer at every endpoint."""
    app.extensions["active-query"] = context
    blueprint = Blueprint("api", __name__)
    for operation in operations.all:
        view = operation.view
        if operation.method == "POST":
            view = answer_once(view, context.store.replies, context.settings.max_body_bytes)
        blueprint.add_url_rule(operation.path, operation.name, view, methods=[operation.method])
    blueprint.before_request(refuse_unread)
    app.register_blueprint(blueprint)


def here() -> Context:
    """Return what the request at work works with."""
    context: Context = current_app.extensions["active-query"]
    return context


def refuse_unread() -> None:
    """Refuse what an endpoint would not look at: a condition, say, that a write would happen in spite of."""
    request = request_ctx.request
    if has_conditions(request) and request.method not in ("GET", "HEAD", "OPTIONS"):
        for header in CONDITIONS:
            if header in request.headers and request.endpoint not in endpoints_with_conditions():
                raise InvalidRequest.at(f"/headers/{header}", "must be left out: this changes no version of a project")
    if request.args and request.endpoint not in endpoints_with_query():
        raise InvalidRequest(
            FieldError(f"/query/{pointer_token(name)}", "is not a parameter here") for name in request.args
        )


@cache
def endpoints_with_query() -> frozenset[str]:
    """Name the endpoints that look at their query string, as Flask knows them."""
    return frozenset(f"api.{operation.name}" for operation in operations.all if operation.query)


@cache
def endpoints_with_conditions() -> frozenset[str]:
    """Name the endpoints that change a project on conditions, as Flask knows them."""
    return frozenset(f"api.{operation.name}" for operation in operations.all if set(CONDITIONS) <= {*operation.headers})


def project_response(project: Project, status: int = 200) -> Response:
    """Reply with a project and its ETag, and see to the fit that it may want."""
    context = here()
    response = json_response(PROJECT_REPLY.dump(present(context.store, project)), status)
    context.fits.take_up(project)
    # Since when a fit is at work is no part of the state.
    return with_etag(request, response, project, cached=not project.fit_is_due)


PROJECT = Reply("The project.", responses.ProjectSchema, etag=True)


@operations.add(
    "POST",
    "/fit",
    role=Role.ADMIN,
    body=FitSchema,
    parts=(*MATRICES, *COLUMNS),
    replies={
        200: Reply("The project, trained again.", responses.ProjectSchema, etag=True),
        201: Reply("The new project.", responses.ProjectSchema, etag=True),
        202: Reply(
            "The project, whose fit follows.",
            responses.ProjectSchema,
            etag=True,
            headers=("Location", "Preference-Applied"),
        ),
    },
    headers=("Prefer", *CONDITIONS),
    problems=(404, 409, 411, 412, 413, 415, 422, 503, 507),
)
def fit_project() -> Response:
    """Create a project, or train it again.

    With X it makes a project of a pool and what labels there are; with `replace` it puts them in the place of the old
    ones. Without X it trains the project again, with another estimator or held-out set if they are given. Nothing
    changes unless all of it succeeds. With fewer than two classes labelled there is nothing to fit: the project is
    kept, and `model_version` is null. With `Prefer: respond-async` the reply comes when all but the fit is done, and
    the fit follows: `fit` in GET /projects/{project_id} tells how it goes.
    """
    context = here()
    in_background = prefers("respond-async")
    with context.store.stage() as staging:
        data = FIT.load(read_document(request, context.limits, staging))
        auth.check_may_write(data["project_id"])
        order = replace(fit_request(data, staging, context.limits), in_background=in_background)
        with nullcontext() if in_background else context.places.claim():
            project, is_new = fit(context.store, staging, order, read_preconditions(request))
    if not (in_background and project.fit_is_wanted):
        return project_response(project, 201 if is_new else 200)
    response = project_response(project, 202)
    response.headers["Location"] = f"/projects/{project.project_id}"
    response.headers["Preference-Applied"] = "respond-async"
    return response


def prefers(preference: str) -> bool:
    """Tell whether the request has a preference, which is a word that may come with a value and parameters."""
    given = parse_list_header(",".join(request.headers.getlist("Prefer")))
    return preference in (re.split(r"[;=]", each)[0].strip().lower() for each in given)


@operations.add(
    "POST",
    "/query",
    role=Role.READER,
    body=QuerySchema,
    parts=(*PREDICTIONS, "X", "y"),
    replies={200: Reply("The samples, ask-first first.", responses.QueryReplySchema, some_headers=("Retry-After",))},
    problems=(403, 404, 411, 413, 415, 422, 503, 504, 507),
)
def query_project() -> Response:
    """Ask which samples to label next.

    Always answers: where the strategy cannot run, `strategy` names the one that did and `fallback_reason` says why.
    The same state and the same request give the same answer.

    With `lease_seconds` the samples are held for `annotator`, and given to nobody else until somebody answers them, the
    lease is released or it expires. Where others hold all that is left there is nothing to give for now, and
    `Retry-After` says when to ask again.

    Probabilities of a model of your own take the place of the project's model for this question. Without a project
    the question is about the samples that are sent, and nothing is kept of them; a strategy that needs more than was
    sent is refused.
    """
    context, request = here(), request_ctx.request
    if request.mimetype != MULTIPART:
        return answer_query(read_document(request, context.limits))
    with context.store.stage(kept=False) as staging:
        return answer_query(read_document(request, context.limits, staging))


def answer_query(document: dict[str, Any]) -> Response:
    """Reply to a question, its arrays at hand or staged."""
    context = here()
    data = auth.with_query_annotator(QUERY.load(document))
    asked = query_request(data, context.settings.max_batch, context.limits)
    with time_limit(context.settings.query_seconds):
        if asked.project_id is None:
            return json_response(QUERY_REPLY.dump(query_arrays(asked, context.places.claim)))
        auth.check_visible(auth.caller(), asked.project_id)
        ask = lease_samples if asked.lease_seconds else query
        answered = ask(context.store, asked, context.backend_of, context.places.claim)
    if answered.project is not None:
        context.fits.take_up(answered.project)
    response = json_response(QUERY_REPLY.dump(answered))
    if answered.retry_after is not None:
        response.headers["Retry-After"] = str(answered.retry_after)
    return response


@operations.add(
    "POST",
    "/label",
    role=Role.ANNOTATOR,
    body=LabelSchema,
    replies={200: Reply("What is known now.", responses.LabelReplySchema, etag=True)},
    headers=CONDITIONS,
    problems=(404, 409, 411, 412, 413, 415, 422, 503, 507),
)
def label_project() -> Response:
    """Hand back what people answered.

    All records are kept, or none. The same label again is no change; another label by the same annotator replaces it,
    and a label without an annotator replaces whatever the sample has. A sample that was skipped takes no label until
    the skip is taken back. Where too many wait for fits already, or a fit takes long, a reply that was to wait comes
    with the model there is, as with `background`: `n_labels_since_fit` says how many labels that one lacks.
    """
    context, request = here(), request_ctx.request
    order = auth.visible(label_request(LABEL.load(read_json(request, context.limits))))
    labeled = label(context.store, auth.with_label_annotator(order), context.places.take, read_preconditions(request))
    context.fits.take_up(labeled.project)
    return with_etag(request, json_response(LABEL_REPLY.dump(labeled)), labeled.project)


@operations.add(
    "GET",
    "/projects",
    role=Role.READER,
    query=PageSchema,
    replies={200: Reply("A page of projects.", responses.ProjectPageSchema)},
    problems=(422,),
)
def list_projects() -> Response:
    """List the projects that the caller may touch, in order of their names."""
    data = read_query(PAGE)
    page = list_all(here().store, data["limit"], data.get("after"), auth.caller().may_touch)
    return json_response(PAGE_REPLY.dump(page))


@operations.add("GET", "/projects/<project_id>", role=Role.READER, replies={200: PROJECT}, problems=(404,))
def get_project(project_id: str) -> Response:
    """Look at a project."""
    return project_response(get(here().store, project_id))


@operations.add(
    "POST",
    "/projects/<project_id>/pool",
    role=Role.ADMIN,
    body=AppendSchema,
    parts=("X", "y", "ids"),
    lines='an object: {"x": [numbers], "id": its name, "y": its label or null}, `id` and `y` as in `ids` and `y`',
    replies={200: Reply("The project with its larger pool.", responses.ProjectSchema, etag=True)},
    headers=CONDITIONS,
    problems=(404, 411, 412, 413, 415, 422, 503, 507),
)
def append_samples(project_id: str) -> Response:
    """Put more samples behind those of the pool.

    Indices of the samples that are there stay as they are, and the pool can be asked in between: one that is larger
    than a request may be comes in pieces. Labels among them are trained on by the next request that fits.
    """
    context = here()
    with context.store.stage() as staging:
        data = APPEND.load(read_samples(request, context.limits, staging))
        order = append_request(project_id, data, staging, context.limits)
        project = append(context.store, staging, order, context.settings.max_pool_cells, read_preconditions(request))
        return project_response(project)


@operations.add(
    "DELETE",
    "/projects/<project_id>",
    role=Role.ADMIN,
    replies={204: Reply("The project is gone, and all its files with it.")},
    headers=CONDITIONS,
    problems=(404, 412, 422, 503, 507),
)
def delete_project(project_id: str) -> Response:
    """Delete a project."""
    delete(here().store, project_id, read_preconditions(request))
    return empty_response()


@operations.add(
    "GET",
    "/projects/<project_id>/labels",
    role=Role.READER,
    replies={200: Reply("The answers, in order of their samples.", responses.LabelListSchema, (CSV,), etag=True)},
    problems=(404, 406),
)
def list_project_labels(project_id: str) -> Response:
    """List all answers.

    As JSON, or as CSV with `Accept: text/csv`.
    """
    media_type = choose_media_type(request, JSON, CSV)
    project, records = list_labels(here().store, project_id)
    if media_type == CSV:
        response, suffix = Response(csv_lines(records), mimetype=CSV), "-csv"
    else:
        response, suffix = Response(json_list("labels", records), mimetype=JSON), ""
    response.vary.add("Accept")
    return with_etag(request, response, project, suffix)


@operations.add(
    "GET",
    "/projects/<project_id>/events",
    role=Role.READER,
    query=EventPageSchema,
    replies={200: Reply("A page of events.", responses.EventPageReplySchema, etag=True)},
    problems=(404, 422),
)
def list_project_events(project_id: str) -> Response:
    """List what changed.

    Every commit of the project is an event, in the order of the versions that they led to. They are kept until the
    project is deleted, over `replace` too, and the labels can be rebuilt from them: take away what is `retracted`, and
    put down what `labels` holds, by sample and annotator. A commit of more than 100,000 labels is several events of one
    version, which are never on two pages.
    """
    data = read_query(EVENT_PAGE)
    project, page = list_events(here().store, project_id, data["limit"], data["after"])
    return with_etag(request, Response(json_page("events", page, page.next), mimetype=JSON), project)


@operations.add(
    "GET",
    "/projects/<project_id>/annotators",
    role=Role.READER,
    replies={200: Reply("Who answered.", responses.AnnotatorListSchema, etag=True)},
    problems=(404,),
)
def list_project_annotators(project_id: str) -> Response:
    """List who answered, and how well.

    Estimates are CROWDLAB's, as of the last fit: they need samples that several people labelled.
    """
    project, records = list_annotators(here().store, project_id)
    return with_etag(request, Response(json_list("annotators", records), mimetype=JSON), project)


@operations.add(
    "GET",
    "/projects/<project_id>/leases",
    role=Role.READER,
    replies={200: Reply("What is held.", responses.LeaseListSchema)},
    problems=(404,),
)
def list_project_leases(project_id: str) -> Response:
    """List what is held for whom.

    Leases that expired or were released are not listed, nor are samples that were answered.
    """
    return json_response(LEASES_REPLY.dump({"leases": list_leases(here().store, project_id)}))


@operations.add(
    "POST",
    "/projects/<project_id>/leases/<query_id>/renew",
    role=Role.ANNOTATOR,
    body=RenewSchema,
    optional=True,
    replies={200: Reply("The lease, which counts anew.", responses.LeaseSchema)},
    problems=(404, 413, 415, 422, 503, 507),
)
def renew_lease(project_id: str, query_id: str) -> Response:
    """Hold samples for longer.

    A lease that is over cannot be renewed: its samples may be somebody else's by now.
    """
    data = RENEW.load(read_json(request, here().limits) if has_body(request) else {})
    lease = renew(here().store, project_id, query_id, data.get("lease_seconds"), auth.check_lease_holder)
    return json_response(LEASE_REPLY.dump(lease))


@operations.add(
    "DELETE",
    "/projects/<project_id>/leases/<query_id>",
    role=Role.ANNOTATOR,
    replies={204: Reply("Its samples are given to whoever asks next.")},
    problems=(404, 422, 503, 507),
)
def release_lease(project_id: str, query_id: str) -> Response:
    """Give samples back unanswered."""
    release(here().store, project_id, query_id, auth.check_lease_holder)
    return empty_response()


@operations.add(
    "DELETE",
    "/projects/<project_id>/labels/<index>",
    role=Role.ANNOTATOR,
    replies={204: Reply("The sample can be asked about again.", etag=True)},
    headers=CONDITIONS,
    problems=(404, 412, 422, 503, 507),
)
def retract_label(project_id: str, index: str) -> Response:
    """Take back every label and skip of a sample.

    The next request that waits for a fit trains without it.
    """
    if not re.fullmatch(r"0|[1-9][0-9]{0,17}", index):
        get(here().store, project_id)
        raise LabelNotFound(index[:32])
    project = retract(here().store, project_id, int(index), auth.caller().annotator, read_preconditions(request))
    return with_etag(request, empty_response(), project)


@operations.add(
    "GET",
    "/projects/<project_id>/export",
    role=Role.READER,
    replies={200: Reply("An archive of arrays, events and a manifest.", media_types=(ZIP,), etag=True)},
    problems=(404,),
)
def export_project(project_id: str) -> Response:
    """Take a project with you, as one file.

    All of it as of one commit, but for its model, which its labels give again: a zip archive of `.npy` arrays, without
    pickles. Whatever happens to the project meanwhile, the file is of that one commit.
    """
    snapshot = export(here().store, project_id)
    body = write_archive(exported(snapshot), partial(manifest, snapshot))
    response = Response(body, mimetype=ZIP)
    response.headers["Content-Disposition"] = f'attachment; filename="{project_id}.zip"'
    return with_etag(request, response, snapshot.project)


@operations.add(
    "POST",
    "/projects/import",
    role=Role.ADMIN,
    file=ZIP,
    query=ImportSchema,
    replies={201: Reply("The project, with a new model.", responses.ProjectSchema, etag=True)},
    headers=CONDITIONS,
    problems=(409, 411, 412, 413, 415, 422, 503, 507),
)
def import_project() -> Response:
    """Make a project of an exported one.

    Its indices, ids, labels, annotators, times, held-out set, classes, estimator, seed and events are the same. Every
    part is checked as `POST /fit` checks its own; a pointer names the member that is wrong. The model is fitted again.
    """
    context, project_id = here(), read_query(IMPORT).get("project_id")
    if project_id is not None:
        auth.check_may_write(project_id)
        refuse_taken(context.store, project_id, read_preconditions(request))
    with context.store.stage() as staging:
        path = spool_archive(request, context.limits, staging)
        with context.places.claim():
            order = read_project(path, project_id, context.limits, staging)
        auth.check_may_write(order.facts.project_id)
        project = take_in(context.store, staging, order, context.places.take, read_preconditions(request))
    return project_response(project, 201)


@operations.add(
    "GET", "/strategies", role=Role.READER, replies={200: Reply("The strategies.", responses.StrategyListSchema)}
)
def list_strategies() -> Response:
    """List the query strategies, with their parameters and sources."""
    return json_response(STRATEGIES_REPLY.dump({"strategies": strategies.STRATEGIES.values()}))


@operations.add(
    "GET", "/estimators", role=Role.READER, replies={200: Reply("The estimators.", responses.EstimatorListSchema)}
)
def list_estimators() -> Response:
    """List the estimators, with their parameters."""
    return json_response(ESTIMATORS_REPLY.dump({"estimators": estimators.ESTIMATORS.values()}))


@operations.add("GET", "/healthz", role=None, replies={200: Reply("The process lives.", responses.StatusSchema)})
def get_health() -> Response:
    """Tell whether the process lives."""
    return json_response({"status": "ok"})


@operations.add(
    "GET",
    "/readyz",
    role=None,
    replies={200: Reply("The data directory can be written.", responses.StatusSchema)},
    problems=(503,),
)
def get_readiness() -> Response:
    """Tell whether the data directory can be written."""
    try:
        here().store.check_writable()
    except (OSError, StoreUnwritable) as error:
        why = f": {error}" if isinstance(error, StoreUnwritable) else ""
        raise ServiceUnavailable(f"the data directory cannot be written{why}") from error
    return json_response({"status": "ok"})


@operations.add(
    "GET",
    "/metrics",
    role=Role.READER,
    replies={200: Reply("Counters and histograms over all workers.", media_types=("text/plain",))},
)
def get_metrics() -> Response:
    """Show what the service did, for Prometheus."""
    return Response(metrics.render_metrics(here().census), content_type=metrics.CONTENT_TYPE)


@operations.add("GET", "/openapi.yaml", role=None, replies={200: Reply("The contract.", media_types=(YAML,))})
def get_openapi() -> Response:
    """Fetch this contract."""
    return Response(docs.openapi_text(), mimetype=YAML)


@operations.add("GET", "/docs", role=None, replies={200: Reply("A page to read.", media_types=("text/html",))})
def get_docs() -> Response:
    """Read the reference."""
    return Response(docs.page(), mimetype="text/html", headers={"Content-Security-Policy": docs.CSP})


def read_query(schema: Schema) -> dict[str, Any]:
    """Read the query string. Raises InvalidRequest with pointers below `/query`."""
    repeated = [
        name for name, times in Counter((key for key, _ in request.args.items(multi=True))).items() if times > 1
    ]
    if repeated:
        raise InvalidRequest.at(f"/query/{pointer_token(repeated[0])}", "is given twice")
    try:
        data: dict[str, Any] = schema.load(request.args.to_dict())
    except ValidationError as error:
        raise InvalidRequest(flatten(error.messages)).below("/query") from None
    return data


def csv_lines(records: Iterator[LabelRecord]) -> Iterator[str]:
    """Write records as CSV (RFC 4180), a line at a time."""
    columns = [field.name for field in fields(LabelRecord)]
    yield csv_line(columns)
    for record in records:
        yield csv_line([csv_value(getattr(record, column)) for column in columns])


def csv_value(value: object) -> str:
    """Show a value as JSON would, but for a string's quotes; nothing for null."""
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def csv_line(values: list[str]) -> str:
    """Write one line of CSV."""
    line = io.StringIO()
    csv.writer(line).writerow(values)
    return line.getvalue()
