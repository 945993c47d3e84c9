"""GET /projects/{project_id}/learning-curve, as JSON, CSV or a picture, and GET /projects/{project_id}/report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, fields

from flask import Response, request

from service.auth.keys import Role
from service.compute.deadline import time_limit
from service.domain.project import Project
from service.domain.targets import Target, target_of
from service.http.contract.operations import Operations, Reply
from service.http.csv_writer import SAFE_HEADER, csv_lines, csv_value
from service.http.media_types import CSV, JSON, PNG, SVG
from service.http.middleware.etags import with_etag
from service.http.plots import SCORE_LABELS, Line, LinePlot, choose_plot_type, render_plot
from service.http.responses import json_response
from service.http.routes.context import current_context
from service.http.routes.query_string import read_query
from service.http.schemas.learning_curve import CurveQuerySchema, LearningCurveSchema
from service.http.schemas.report import ReportSchema
from service.learning.evaluation import Estimate
from service.usecases.learning_curve import BIAS, CurvePoint, get_learning_curve
from service.usecases.report import report_project

CURVE_QUERY, CURVE, REPORT = CurveQuerySchema(), LearningCurveSchema(), ReportSchema()

MAX_TITLE = 40
"""Characters of a project's name in the title of a picture."""

operations = Operations("Evidence", "See whether labels make the model better, and when to stop.")


@operations.add(
    "GET",
    "/projects/<project_id>/learning-curve",
    role=Role.READER,
    query=CurveQuerySchema,
    replies={
        200: Reply("The learning curve.", LearningCurveSchema, (CSV, SVG, PNG), etag=True, some_headers=(SAFE_HEADER,))
    },
    problems=(404, 406, 422),
)
def show_learning_curve(project_id: str) -> Response:
    """Show how good each model of a project was.

    Every fit adds a point, which stays until the pool is replaced. The curve is JSON; CSV with `Accept: text/csv`; or a
    picture with `Accept: image/svg+xml` or `image/png`, which requires the extra `plots` on the server. `bias` says how
    to read the measures.
    """
    media_type = choose_plot_type(request, JSON, CSV)
    data = read_query(CURVE_QUERY)
    project, points = get_learning_curve(current_context().store, project_id)
    suffix = ""
    if media_type == JSON:
        response = json_response(CURVE.dump({"bias": BIAS, "points": points}))
    elif media_type == CSV:
        response = Response(
            csv_curve(target_of(project), points, data["safe"]), mimetype=CSV, headers={SAFE_HEADER: data["safe"]}
        )
        suffix = f"-csv-{data['safe']}"
    else:
        response = Response(render_plot(plot_curve(project, points), media_type, data["theme"]), mimetype=media_type)
        suffix = f"-{media_type.split('/')[1][:3]}-{data['theme']}"
    response.vary.add("Accept")
    return with_etag(request, response, project, suffix)


def csv_curve(target: Target, points: Sequence[CurvePoint], safe: str) -> str:
    """Return the points as CSV; the scores, the estimate and each strategy have columns of their own."""
    strategies = sorted({name for point in points for name in point.questions})
    scores, estimates = [field.name for field in fields(target.score_type)], [field.name for field in fields(Estimate)]
    head = [
        *("model_version", "fitted_at", "n_labeled"),
        *(f"test_score.{name}" for name in scores),
        *(f"estimate.{name}" for name in estimates),
        "batch_accuracy",
        *(f"questions.{name}" for name in strategies),
    ]
    rows = (
        (
            *(point.model_version, point.fitted_at, point.n_labeled),
            *(astuple(point.test_score) if point.test_score else [None] * len(scores)),
            *(astuple(point.estimate) if point.estimate else [None] * len(estimates)),
            point.batch_accuracy,
            *(point.questions.get(name, 0) for name in strategies),
        )
        for point in points
    )
    return csv_lines([head, *([csv_value(value, safe) for value in row] for row in rows)])


def plot_curve(project: Project, points: Sequence[CurvePoint]) -> LinePlot:
    """Return the curve as a plot: each measure that any point has."""
    project_id, headline = project.project_id, target_of(project).headline
    lines = []
    tested = [(point.n_labeled, getattr(point.test_score, headline)) for point in points if point.test_score]
    if tested:
        x, y = zip(*tested, strict=True)
        lines.append(Line("held-out set", x, y))
    estimated = [(point.n_labeled, *astuple(point.estimate)) for point in points if point.estimate]
    if estimated:
        x, y, low, high = zip(*estimated, strict=True)
        lines.append(Line("estimate, with 95 % interval", x, y, low, high, is_marked=True))
    batches = [(point.n_labeled, point.batch_accuracy) for point in points if point.batch_accuracy is not None]
    if batches:
        x, y = zip(*batches, strict=True)
        lines.append(Line("batch accuracy (too low)", x, y, is_reference=True))
    return LinePlot(
        f"Learning curve of {project_id if len(project_id) <= MAX_TITLE else project_id[: MAX_TITLE - 1] + '…'}",
        "labelled samples",
        SCORE_LABELS.get(headline, headline),
        lines,
        is_share=headline != "rmse",
        note=f"no {headline} is known yet" if points else "no model has been fitted yet",
    )


@operations.add(
    "GET",
    "/projects/<project_id>/report",
    role=Role.READER,
    replies={200: Reply("The report.", ReportSchema, etag=True)},
    problems=(404, 503, 504),
)
def show_report(project_id: str) -> Response:
    """Advise whether to go on labelling.

    The verdict rests on two questions: do predictions still change, and would more labels make the model better? The
    report also has the balance of the classes, the work of the annotators, and labels that are probably wrong. It takes
    up to 35 fits to the labels or to a part of them, once for each state of the project.
    """
    context = current_context()
    with time_limit(context.settings.query_seconds), context.admission.enter():
        project, report = report_project(context.store, project_id)
    return with_etag(request, json_response(REPORT.dump(report)), project)
