"""The pages for people: GET /, GET /projects/{project_id}/page, and the form for an API key."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qs

import orjson
from flask import Response, request
from werkzeug.exceptions import (
    BadRequest,
    Forbidden,
    LengthRequired,
    RequestEntityTooLarge,
    Unauthorized,
    UnsupportedMediaType,
)

from service.auth.keys import Role
from service.compute.deadline import time_limit
from service.domain.project import Project, TargetName, format_time
from service.domain.targets import target_of
from service.http import pages
from service.http.contract.operations import Operations, Reply
from service.http.media_types import FORM, HTML, SVG
from service.http.middleware import auth
from service.http.plots import (
    SCORE_LABELS,
    THEMES,
    Line,
    LinePlot,
    Plot,
    PointPlot,
    Points,
    are_plots_installed,
    render_plot,
)
from service.http.routes.context import Context, current_context
from service.http.routes.evidence import plot_curve
from service.http.routes.query_string import read_query
from service.http.schemas.projects import PageSchema
from service.usecases.expected_gain import ON_HELD_OUT
from service.usecases.learning_curve import CurvePoint, curve_points
from service.usecases.pool_map import PoolMap
from service.usecases.project_page import look_at_project
from service.usecases.projects import FitStatus, list_all, with_fit_status
from service.usecases.query_result import QueryResult
from service.usecases.report import Report, labels_per_day

PAGE = PageSchema()

WEB_ADDRESS = re.compile(r"https?://", re.IGNORECASE)
OFFERED: dict[TargetName, tuple[str, ...]] = {
    "class": ("auto", "margin", "entropy"),
    "number": ("auto", "lcmd", "greedy_x"),
    "labels": ("auto", "mean_uncertainty", "max_herding"),
}
"""Strategies of the form that starts a simulation."""

CURVE_SIZE, MAP_SIZE = (4.8, 3.4), (4.8, 3.8)
"""Sizes of the pictures in inches: small enough to be read on a phone."""

DOTS_PER_INCH = 96
"""Pixels of a page per inch of a plot."""

MAX_TEXT = 600
"""Characters of a sample's text that are shown."""

MAX_FORM_BYTES = 4_096

TITLES = {403: "Not allowed", 404: "Not found"}

operations = Operations("Pages", "Look at projects in a browser.")


@dataclass(frozen=True, slots=True)
class Images:
    """A picture in both themes, as addresses, and its size in pixels."""

    light: str
    dark: str
    width: int
    height: int


def page_response(page: str, status: int = 200) -> Response:
    """Return a page with its headers."""
    headers = {
        "Content-Security-Policy": pages.CSP,
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-store",
    }
    return Response(page, status, mimetype=HTML, headers=headers)


def problem_page(problem: Response) -> Response:
    """Return a problem document as a page, or the form for a key, with the headers of the problem."""
    document = orjson.loads(problem.get_data())
    root = "../" * (request.path.count("/") - 1) or "./"
    if problem.status_code == 401:
        is_first = auth.COOKIE not in request.cookies
        page = pages.sign_in_page(root, None if is_first else sentence(document["detail"]))
    else:
        page = pages.error_page(
            root,
            title=TITLES.get(problem.status_code, "Sorry"),
            detail=sentence(document["detail"]),
            wrong=document.get("errors", []),
            request_id=document["request_id"] if problem.status_code >= 500 else None,
            signed_in=auth.name_of_caller(),
        )
    return with_headers(page_response(page, problem.status_code), problem)


def with_headers(page: Response, problem: Response) -> Response:
    """Return a page with the headers of the problem that it shows, such as Retry-After."""
    for name, value in problem.headers:
        if name not in ("Content-Type", "Content-Length"):
            page.headers[name] = value
    return page


@operations.add(
    "GET",
    "/",
    role=Role.READER,
    query=PageSchema,
    replies={200: Reply("The page.", media_types=(HTML,))},
    problems=(422,),
    page=True,
)
def show_projects() -> Response:
    """Look at all projects.

    A page for a browser: the projects that the caller may access, in order of their names.
    """
    data = read_query(PAGE)
    found = list_all(current_context().store, data["limit"], data.get("after"), auth.caller().may_access)
    projects = [
        {
            "name": status.project.project_id,
            "n_samples": status.project.n_samples,
            "n_labeled": status.project.n_labeled,
            "n_classes": len(status.project.classes),
            "model": "none yet" if status.project.model is None else f"version {status.project.model.version}",
            "updated_at": format_time(status.project.updated_at),
        }
        for status in found.projects
    ]
    return page_response(
        pages.projects_page(projects=projects, damaged=[], next=found.next, signed_in=auth.caller().name)
    )


@operations.add(
    "GET",
    "/projects/<project_id>/page",
    role=Role.READER,
    replies={200: Reply("The page.", media_types=(HTML,))},
    problems=(404, 503),
    page=True,
)
def show_project(project_id: str) -> Response:
    """Look at a project.

    A page for a browser: the verdict with its reasons, the learning curve, the next batch as it would be asked, a map
    of the pool, labels to check, classes, progress, and the shares of strategies. It has no script, and changes
    nothing.
    """
    context = current_context()
    with time_limit(context.settings.query_seconds):
        return page_response(pages.project_page(**describe_project(context, project_id)))


def describe_project(context: Context, project_id: str) -> dict[str, Any]:
    """Return the values of a project's page."""
    found = look_at_project(context.store, project_id, context.backend_of, context.admission.enter_to_select)
    project = found.project
    context.fits.start_if_wanted(project)
    points = list(curve_points(project.learning_curve, target_of(project).score_type))
    answers: Counter[str] = sum((Counter(point.questions) for point in points), Counter())
    counts = sorted(zip(project.classes, project.class_counts, strict=True), key=lambda each: -each[1])
    days = labels_per_day(project) if found.report is None else found.report.labels_per_day
    gain = None if found.report is None else found.report.expected_gain
    curve = curve_of(project, points, found.report)
    return {
        "name": project_id,
        "n_labeled": project.n_labeled,
        "n_samples": project.n_samples,
        "n_skipped": project.n_skipped,
        "n_unlabeled": project.n_unlabeled,
        "estimator": project.estimator.name,
        "model_version": None if project.model is None else project.model.version,
        "notes": list(notes_of(with_fit_status(context.store, project).fit, project)),
        "report": found.report,
        "busy": found.busy,
        "points": points,
        "of_numbers": project.target == "number",
        "score_name": score_name_of(project),
        "has_suspects": project.target != "number",
        "offered": OFFERED[project.target],
        "honest": [] if gain is None else gain.curve,
        "is_held_out": gain is not None and gain.measured_on == ON_HELD_OUT,
        "curve_note": "" if curve.lines else sentence(curve.note),
        "curve_images": images_of(context, project, "curve", curve) if curve.lines else None,
        "curve_alt": describe_curve(project, points, found.report),
        "batch": describe_batch(found.batch, found.busy),
        "map_images": None if found.map is None else images_of(context, project, "map", plot_map(found.map)),
        "map_alt": "" if found.map is None else describe_map(found.map),
        "n_on_map": 0 if found.map is None else len(found.map.coordinates),
        "classes": counts,
        "most": max((n for _, n in counts), default=1) or 1,
        "days": days,
        "busiest": max((day.n_labels for day in days), default=1),
        "strategies": answers.most_common(),
        "n_answers": answers.total(),
        "can_simulate": project.can_fit and auth.caller().role >= Role.ANNOTATOR,
        "budget": max(10, project.n_labeled // 2),
        "signed_in": auth.caller().name,
    }


def notes_of(fit: FitStatus, project: Project) -> Iterator[str]:
    """Yield what is worth knowing about the model."""
    if fit.running_since is not None:
        yield "A model is being fitted now: load the page again in a moment."
    if fit.last_error is not None:
        yield f"The last fit failed: {fit.last_error}"
    if fit.due and project.model is not None:
        yield f"The model is not up to date: it has not seen {project.n_labels_since_fit} of the changes to labels."


def curve_of(project: Project, points: Sequence[CurvePoint], report: Report | None) -> LinePlot:
    """Return the learning curve as a plot, with the honest curve of the report in place of the estimates."""
    curve = () if report is None else report.expected_gain.curve
    if not curve:
        return replace(plot_curve(project, points), title="", size=CURVE_SIZE)
    n_labels, value, low, high = zip(*curve, strict=True)
    honest = Line(f"{score_name_of(project)}, 95 % interval", n_labels, value, low, high, is_marked=True)
    others = plot_curve(project, [replace(point, estimate=None, test_score=None) for point in points])
    return replace(others, title="", lines=[honest, *others.lines], size=CURVE_SIZE)


def score_name_of(project: Project) -> str:
    """Return the name of the score that a project's curves show."""
    headline = target_of(project).headline
    return SCORE_LABELS.get(headline, headline)


def describe_curve(project: Project, points: Sequence[CurvePoint], report: Report | None) -> str:
    """Return the text of the learning curve's picture."""
    if report is None or not report.expected_gain.curve:
        return f"The learning curve of {len(points)} models. Tables with it follow."
    first, last = report.expected_gain.curve[0], report.expected_gain.curve[-1]
    form, scale = ("{:.4g}", 1) if project.target == "number" else ("{:.1f} %", 100)
    ends = " to ".join(
        f"{form.format(scale * value)} with {n_labeled} labels" for n_labeled, value, *_ in (first, last)
    )
    return f"The learning curve: the {score_name_of(project)} goes from {ends}. Tables with it follow."


def describe_batch(batch: QueryResult | None, busy: str) -> dict[str, Any]:
    """Return the values of the next batch."""
    if batch is None:
        return {"samples": [], "strategy": "", "reason": busy}
    names: Sequence[Any] = [f"Sample {index}" for index in batch.indices] if batch.ids is None else batch.ids
    urls, texts = batch.urls or [""] * len(names), batch.texts or [""] * len(names)
    samples = [
        {"name": name, "url": url if WEB_ADDRESS.match(url or "") else "", "text": shorten(text or "")}
        for name, url, text in zip(names, urls, texts, strict=True)
    ]
    return {"samples": samples, "strategy": batch.strategy, "reason": sentence(batch.fallback_reason or "")}


def sentence(text: str) -> str:
    """Return a text as a sentence."""
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') else '.'}"


def shorten(text: str) -> str:
    """Return the beginning of a text, without blank lines."""
    text = "\n".join(line for line in text.splitlines() if line.strip())
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}…"


def plot_map(found: PoolMap) -> PointPlot:
    """Return the map of a pool as a plot."""
    is_rest = ~found.is_labeled & ~found.is_next
    marked = (("labelled", found.is_labeled, False), ("next batch", found.is_next, False))
    groups = (("unlabelled", is_rest, True), *marked)
    x, y = found.coordinates.T
    # A group without points keeps its colour, so that the next batch looks the same in every state.
    points = [Points(name, x[rows], y[rows], is_background=back) for name, rows, back in groups]
    return PointPlot("", points, size=MAP_SIZE)


def describe_map(found: PoolMap) -> str:
    """Return the text of the map's picture."""
    n_labeled, n_next, n = int(found.is_labeled.sum()), int(found.is_next.sum()), len(found.coordinates)
    return f"A scatter plot of {n} samples: {n_labeled} labelled, {n_next} in the next batch, the others unlabelled."


def images_of(context: Context, project: Project, what: str, plot: Plot) -> Images | None:
    """Return a plot of a project in both themes, None without the extra `plots`."""
    if not are_plots_installed():
        return None

    def draw() -> tuple[Images, int]:
        drawn = draw_images(plot)
        return drawn, len(drawn.light) + len(drawn.dark)

    images: Images = context.store.cache.get_or_make((*project.commit, "picture", what), draw, "picture")
    return images


def draw_images(plot: Plot) -> Images:
    """Draw a plot in both themes."""
    light, dark = (pages.data_uri(render_plot(plot, SVG, theme)) for theme in THEMES)
    width, height = (round(DOTS_PER_INCH * length) for length in plot.size)
    return Images(light, dark, width, height)


@operations.add(
    "POST",
    "/sign-in",
    role=None,
    files=(FORM,),
    replies={303: Reply("The key is kept in a cookie, for the pages alone.")},
    problems=(401, 403, 411, 413, 415),
    page=True,
)
def sign_in() -> Response:
    """Open the pages with an API key.

    The form's field `key` is kept in a cookie of the browser, which only the pages of this group accept.
    """
    refuse_other_sites()
    try:
        key = read_form()["key"][0].strip()
    except KeyError:
        raise BadRequest("the form needs the field 'key'") from None
    try:
        auth.authenticate_key(key)
    except Unauthorized as error:
        return page_response(pages.sign_in_page("./", sentence(str(error.description))), 401)
    response = go_to_projects()
    is_secure = request.is_secure or request.headers.get("X-Forwarded-Proto") == "https"
    # Without a path the browser takes that of this address, so the cookie covers the service behind a prefix.
    response.set_cookie(auth.COOKIE, key, path=None, httponly=True, samesite="Strict", secure=is_secure)
    return response


@operations.add(
    "POST", "/sign-out", role=None, replies={303: Reply("The cookie is deleted.")}, problems=(403,), page=True
)
def sign_out() -> Response:
    """Forget the API key of the pages.

    The browser deletes the cookie.
    """
    refuse_other_sites()
    response = go_to_projects()
    response.delete_cookie(auth.COOKIE, path=None, httponly=True, samesite="Strict")
    return response


def go_to_projects() -> Response:
    """Return a redirection to the list of projects."""
    return Response(status=303, headers={"Location": "./", "Cache-Control": "no-store"})


def refuse_other_sites() -> None:
    """Raise Forbidden for a form on the page of another site."""
    if request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
        raise Forbidden("this form can only be sent from the pages of this service")


def read_form() -> dict[str, list[str]]:
    """Return the fields in the body of a form."""
    if request.mimetype != FORM:
        raise UnsupportedMediaType(f"the body must be {FORM}")
    if request.content_length is None:
        raise LengthRequired("the form needs a Content-Length")
    if request.content_length > MAX_FORM_BYTES:
        raise RequestEntityTooLarge(f"the form may have {MAX_FORM_BYTES} bytes")
    body = request.stream.read(request.content_length)
    if len(body) < request.content_length:
        raise BadRequest("the body is shorter than its Content-Length")
    try:
        return parse_qs(body.decode("ascii"), keep_blank_values=True, strict_parsing=True, max_num_fields=100)
    except ValueError:
        raise BadRequest("the body is not a form") from None
