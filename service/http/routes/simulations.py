"""POST /simulate and /simulations: try strategies on samples whose labels are known."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from flask import Response, request

from service.auth.keys import Role
from service.domain.columns import TableContext
from service.domain.project import PROJECT_ID
from service.domain.targets import TARGETS
from service.errors import SimulationNotFound
from service.http.body.reader import read_samples
from service.http.contract.operations import SAMPLE_LINES, Operations, Reply
from service.http.media_types import JSON, PNG, SVG
from service.http.middleware import auth
from service.http.plots import SCORE_LABELS, Line, LinePlot, choose_plot_type, render_plot
from service.http.responses import empty_response, json_response
from service.http.routes.context import current_context
from service.http.routes.query_string import read_config, read_query
from service.http.schemas import simulations as schemas
from service.http.schemas.samples import ConfigQuerySchema
from service.http.tables import read_tables
from service.usecases.columns import table_context
from service.usecases.simulation_result import BASELINE, name_strategy
from service.usecases.simulations import (
    SimulationView,
    cancel_simulation,
    create_simulation,
    view_all,
    view_simulation,
)

SIMULATE, QUERY, REPLY = schemas.SimulateSchema(), schemas.SimulationQuerySchema(), schemas.SimulationSchema()
SUMMARY = schemas.SimulationSummarySchema()

operations = Operations("Simulations", "Try strategies on samples whose labels are known.")


@operations.add(
    "POST",
    "/simulate",
    role=Role.ANNOTATOR,
    body=schemas.SimulateSchema,
    parts=schemas.PARTS,
    lines=SAMPLE_LINES,
    query=ConfigQuerySchema,
    replies={202: Reply("The simulation; it is run later.", schemas.SimulationSchema, headers=("Location",))},
    problems=(403, 404, 411, 413, 415, 422, 503, 507),
)
def simulate() -> Response:
    """Simulate strategies on samples whose labels are known.

    Each run starts with a few labels and then asks, labels and trains in turns, as POST /query and POST /label do, with
    the true labels as the answers. After each training the accuracy on a held-out set is a point of the strategy's
    learning curve. The repeats of a strategy differ in their seed and, unless they are given, in the labels at the
    start and the held-out set; in each repeat these are the same for all strategies. The samples are sent, or are the
    labelled ones of a project.
    """
    context = current_context()
    with context.store.stage() as staging:
        document = read_samples(request, context.limits, staging, read_config())
        data = SIMULATE.load(read_tables(document, lambda: table_context_of(document), context.limits, staging))
        if "project_id" in data:
            auth.check_visible(data["project_id"])
        with context.admission.enter():
            order = schemas.simulation_request(
                data, auth.caller().name, context.settings.max_batch, staging, context.limits
            )
            made = create_simulation(context.store, staging, order)
    context.simulations.start()
    response = json_response(REPLY.dump(made), 202)
    response.headers["Location"] = f"/simulations/{made.simulation_id}"
    return response


def table_context_of(document: Mapping[str, Any]) -> TableContext:
    """Return what is known about the tables of a request: those of a held-out set may be of a project."""
    project_id = document.get("project_id")
    if not (isinstance(project_id, str) and re.fullmatch(PROJECT_ID, project_id)):
        return TableContext()
    auth.check_visible(project_id)
    return table_context(current_context().store, project_id)


@operations.add(
    "GET",
    "/simulations",
    role=Role.READER,
    replies={200: Reply("The simulations.", schemas.SimulationListSchema)},
)
def list_simulations() -> Response:
    """List the simulations that the caller may see.

    Those of the projects that the key may access; those of samples sent are for the key that sent them, and for keys
    with all projects. The last 100 that have ended are kept, for 30 days.
    """
    context = current_context()
    context.simulations.start()
    found = [view for view in view_all(context.store.simulations) if is_visible(view)]
    return json_response({"simulations": [SUMMARY.dump(view) for view in found]})


@operations.add(
    "GET",
    "/simulations/<simulation_id>",
    role=Role.READER,
    query=schemas.SimulationQuerySchema,
    replies={200: Reply("The simulation.", schemas.SimulationSchema, (SVG, PNG))},
    problems=(404, 406, 422),
)
def get_simulation(simulation_id: str) -> Response:
    """Get a simulation: how far it is, and its result.

    The learning curves are a picture with `Accept: image/svg+xml` or `image/png`, which requires the extra `plots` on
    the server.
    """
    media_type = choose_plot_type(request, JSON)
    data = read_query(QUERY)
    view = find_visible(simulation_id)
    if view.ended_at is None:
        current_context().simulations.start()
    if media_type == JSON:
        response = json_response(REPLY.dump(view))
    else:
        response = Response(render_plot(plot_simulation(view), media_type, data["theme"]), mimetype=media_type)
    response.vary.add("Accept")
    return response


@operations.add(
    "DELETE",
    "/simulations/<simulation_id>",
    role=Role.ANNOTATOR,
    replies={204: Reply("The simulation is cancelled, or deleted.")},
    problems=(404, 507),
)
def delete_simulation(simulation_id: str) -> Response:
    """Cancel a simulation, or delete one that has ended.

    A cancelled simulation stays in the list until it is deleted.
    """
    find_visible(simulation_id)
    cancel_simulation(current_context().store.simulations, simulation_id)
    return empty_response()


def is_visible(view: SimulationView) -> bool:
    """Return whether the caller may see a simulation."""
    return auth.may_see_simulation(view.owner, view.project_id)


def find_visible(simulation_id: str) -> SimulationView:
    """Return a simulation. Raises SimulationNotFound, also for one that the caller may not see."""
    view = view_simulation(current_context().store.simulations, simulation_id)
    if not is_visible(view):
        raise SimulationNotFound(simulation_id)
    return view


def plot_simulation(view: SimulationView) -> LinePlot:
    """Return the learning curves of a simulation as a plot."""
    entries = [] if view.result is None else view.result["strategies"]
    lines = []
    for entry in entries:
        curve: list[dict[str, Any]] = entry["curve"]
        x, y, low, high = (
            np.array([point[name] for point in curve], np.float64) for name in ("n_labeled", "mean", "low", "high")
        )
        has_band = view.plan.repeats > 1
        is_baseline = entry["strategy"] == BASELINE
        lines.append(
            Line(
                name_strategy(entry, entries),
                x,
                y,
                low if has_band else None,
                high if has_band else None,
                is_reference=is_baseline,
            )
        )
    headline = TARGETS[view.plan.label_target].headline
    repeats = f"mean of {view.plan.repeats} repeats, 95 % interval" if view.plan.repeats > 1 else "one repeat"
    return LinePlot(
        f"Simulation: {repeats}",
        "labelled samples",
        SCORE_LABELS.get(headline, headline),
        lines,
        is_share=not view.plan.is_error,
        note=f"no result: the simulation is {view.status}",
    )
