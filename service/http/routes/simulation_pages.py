"""The form of a project's page that starts a simulation, and the page that watches one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import orjson
from flask import Response
from marshmallow import ValidationError

from service.auth.keys import Role
from service.domain.project import Project
from service.errors import InvalidRequest, ServiceError
from service.http import pages
from service.http.contract.operations import Operations, Reply
from service.http.media_types import FORM, HTML
from service.http.middleware import auth
from service.http.plots import are_plots_installed
from service.http.problems import flatten, from_service_error
from service.http.routes.context import current_context
from service.http.routes.pages import (
    CURVE_SIZE,
    OFFERED,
    draw_images,
    page_response,
    read_form,
    refuse_other_sites,
    sentence,
    with_headers,
)
from service.http.routes.query_string import read_query
from service.http.routes.simulations import find_visible, plot_simulation
from service.http.schemas.simulations import SimulateSchema, SimulationPageSchema, simulation_request
from service.usecases.projects import get
from service.usecases.simulation_result import name_strategy
from service.usecases.simulation_run import SimulationPlan
from service.usecases.simulations import SimulationView, create_simulation

SIMULATE, PAGE = SimulateSchema(), SimulationPageSchema()

operations = Operations("Simulation pages", "Start and watch simulations in a browser.")

RELOAD_SECONDS = 4
MAX_ROWS = 500
"""Rows of the table of learning curves."""

NUMBERS = ("batch_size", "budget", "repeats")
FIELDS = ("strategies", *NUMBERS)


@operations.add(
    "POST",
    "/projects/<project_id>/page/simulations",
    role=Role.ANNOTATOR,
    files=(FORM,),
    replies={303: Reply("The simulation is stored; `Location` is its page.", headers=("Location",))},
    problems=(403, 404, 411, 413, 415, 422, 503, 507),
    page=True,
)
def simulate_on_page(project_id: str) -> Response:
    """Simulate strategies from the page of a project.

    The form has `strategies` (repeated), `batch_size`, `budget` and `repeats`, as in `POST /simulate`. It is refused if
    it comes from the page of another site.
    """
    context = current_context()
    refuse_other_sites()
    project = get(context.store, project_id)
    fields = read_form()
    document = form_document(fields) | {
        "project_id": project_id,
        "estimator": {"name": project.estimator.name, "params": dict(project.estimator.params)},
    }
    try:
        with context.store.stage() as staging, context.admission.enter():
            order = simulation_request(
                load(document), auth.caller().name, context.settings.max_batch, staging, context.limits
            )
            made = create_simulation(context.store, staging, order)
    except ServiceError as error:
        return form_page(project, fields, from_service_error(error))
    context.simulations.start()
    return Response(status=303, headers={"Location": f"../../../simulations/{made.simulation_id}/page"})


def form_page(project: Project, fields: dict[str, list[str]], problem: Response) -> Response:
    """Return the page with the form as it was sent, and what is wrong with it."""
    document = orjson.loads(problem.get_data())
    wrong, others = {}, []
    for error in document.get("errors", [{"pointer": "", "detail": document["detail"]}]):
        name = error["pointer"].split("/")[1] if error["pointer"] else ""
        if name in FIELDS:
            wrong[name] = sentence(error["detail"])
        else:
            others.append(sentence(f"{name} {error['detail']}".strip()))
    page = pages.simulate_page(
        name=project.project_id,
        values={
            "offered": OFFERED[project.target],
            "strategies": fields.get("strategies", []),
            **{name: fields.get(name, [""])[0] for name in NUMBERS},
        },
        wrong=wrong,
        problems=others,
        signed_in=auth.caller().name,
    )
    return with_headers(page_response(page, problem.status_code), problem)


def form_document(fields: dict[str, list[str]]) -> dict[str, Any]:
    """Return the fields of the form as a body of POST /simulate."""
    numbers = {name: fields[name][0] for name in NUMBERS if name in fields}
    return {
        "strategies": fields.get("strategies", []),
        **{name: int(text) if text.isascii() and text.isdigit() else text for name, text in numbers.items()},
    }


def load(document: dict[str, Any]) -> dict[str, Any]:
    """Load a body of POST /simulate, or raise InvalidRequest."""
    try:
        data: dict[str, Any] = SIMULATE.load(document)
    except ValidationError as error:
        raise InvalidRequest(flatten(error.messages)) from None
    return data


@operations.add(
    "GET",
    "/simulations/<simulation_id>/page",
    role=Role.READER,
    query=SimulationPageSchema,
    replies={200: Reply("The page.", media_types=(HTML,))},
    problems=(404, 422),
    page=True,
)
def show_simulation(simulation_id: str) -> Response:
    """Look at a simulation.

    A page for a browser, which loads itself again every few seconds until the simulation has ended.
    """
    is_reloading = read_query(PAGE)["reload"] == "yes"
    view = find_visible(simulation_id)
    if view.ended_at is None:
        current_context().simulations.start()
    page = page_response(pages.simulation_page(**describe_simulation(view), is_reloading=is_reloading))
    if view.ended_at is None and is_reloading:
        page.headers["Refresh"] = str(RELOAD_SECONDS)
    return page


def describe_simulation(view: SimulationView) -> dict[str, Any]:
    """Return the values of a simulation's page."""
    entries = [] if view.result is None else view.result["strategies"]
    target = None if view.result is None else view.result["target"]
    form, scale = ("%.4g", 1) if view.plan.is_error else ("%.1f %%", 100)
    plot = replace(plot_simulation(view), title="", size=CURVE_SIZE) if entries and are_plots_installed() else None
    return {
        "simulation_id": view.simulation_id,
        "project_id": view.project_id,
        "status": view.status,
        "progress": view.progress,
        "error": view.error,
        "recommendation": None if view.result is None else view.result["recommendation"],
        "plan": view.plan,
        "goal": "–" if target is None else form % (scale * target),
        "form": form,
        "scale": scale,
        "strategies": [
            {**entry, "name": name_strategy(entry, entries), "end": entry["curve"][-1]} for entry in entries
        ],
        "curves": list(align_curves(entries)),
        "curves_alt": describe_curves(entries, view.plan),
        "images": None if plot is None else draw_images(plot),
        "is_open": view.ended_at is None,
        "signed_in": auth.caller().name,
    }


def align_curves(entries: Sequence[dict[str, Any]]) -> Iterator[tuple[int, list[dict[str, Any] | None]]]:
    """Yield numbers of labels, at most MAX_ROWS, with the point that each strategy has there, None without one."""
    curves = [{point["n_labeled"]: point for point in entry["curve"]} for entry in entries]
    found = sorted({n for curve in curves for n in curve})
    for n_labeled in found[:: len(found) // MAX_ROWS + 1]:
        yield n_labeled, [curve.get(n_labeled) for curve in curves]


def describe_curves(entries: Sequence[dict[str, Any]], plan: SimulationPlan) -> str:
    """Return the text of the picture of the learning curves."""
    what, scale, form = ("RMSE", 1, "%.4g") if plan.is_error else ("accuracy", 100, "%.1f %%")
    ends = (f"{form % (scale * entry['curve'][-1]['mean'])} for {name_strategy(entry, entries)}" for entry in entries)
    return f"The learning curve of each strategy. The {what} at the end is {', '.join(ends)}. A table follows."
