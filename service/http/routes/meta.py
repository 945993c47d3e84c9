"""The service itself: strategies, estimators, health, metrics and documentation."""

from __future__ import annotations

from flask import Response, request
from werkzeug.exceptions import NotFound, ServiceUnavailable

from service import __version__, strategies
from service.auth.keys import Role
from service.errors import StoreUnwritable
from service.http import docs
from service.http.contract.operations import Operations, Reply
from service.http.media_types import YAML
from service.http.middleware import metrics
from service.http.responses import json_response
from service.http.routes.context import current_context
from service.http.schemas import responses
from service.learning import estimators

STRATEGIES_REPLY, ESTIMATORS_REPLY = responses.StrategyListSchema(), responses.EstimatorListSchema()

operations = Operations("Service", "What the service offers, its health, metrics and documentation.")


@operations.add(
    "GET", "/strategies", role=Role.READER, replies={200: Reply("The strategies.", responses.StrategyListSchema)}
)
def list_strategies() -> Response:
    """List the query strategies, with their parameters and sources.

    Each says what it needs of the model and the pool, so that a tool can offer those that will run.
    """
    return json_response(STRATEGIES_REPLY.dump({"strategies": strategies.STRATEGIES.values()}))


@operations.add(
    "GET", "/estimators", role=Role.READER, replies={200: Reply("The estimators.", responses.EstimatorListSchema)}
)
def list_estimators() -> Response:
    """List the estimators, with their parameters.

    Each is an `estimator` of `POST /fit`, and says whether it can train on sparse pools.
    """
    return json_response(ESTIMATORS_REPLY.dump({"estimators": estimators.ESTIMATORS.values()}))


@operations.add("GET", "/healthz", role=None, replies={200: Reply("The process is alive.", responses.HealthSchema)})
def get_health() -> Response:
    """Check that the process is alive.

    It reads nothing from the disk: a failure means that the process must be restarted.
    """
    return json_response({"status": "ok", "version": __version__})


@operations.add(
    "GET",
    "/readyz",
    role=None,
    replies={200: Reply("The data directory is writable.", responses.ReadinessSchema)},
    problems=(503,),
)
def get_readiness() -> Response:
    """Check that the data directory is writable.

    A failure means that requests would fail, so that none should be sent here until this succeeds again.
    """
    try:
        current_context().store.check_writable()
    except (OSError, StoreUnwritable) as error:
        why = f": {error}" if isinstance(error, StoreUnwritable) else ""
        raise ServiceUnavailable(f"the data directory cannot be written{why}") from error
    return json_response({"status": "ok"})


@operations.add(
    "GET",
    "/metrics",
    role=Role.READER,
    replies={200: Reply("Metrics over all workers.", media_types=("text/plain",))},
)
def get_metrics() -> Response:
    """Get the metrics in Prometheus' text format.

    They count the requests, fits and queries of all worker processes since the service was started.
    """
    return Response(metrics.render_metrics(current_context().totals), content_type=metrics.CONTENT_TYPE)


@operations.add("GET", "/openapi.yaml", role=None, replies={200: Reply("The contract.", media_types=(YAML,))})
def get_openapi() -> Response:
    """Get this contract.

    It is an OpenAPI 3.1 document, from which clients in many languages can be generated.
    """
    return Response(docs.openapi_text(), mimetype=YAML)


@operations.add("GET", "/docs", role=None, replies={200: Reply("The page.", media_types=("text/html",))})
def get_docs() -> Response:
    """Read the API reference.

    It is made from the contract, and shows each example as a command to copy, with the address it is served at.
    """
    return html_response(docs.served_page(docs.reference_page(), served_address()))


@operations.add(
    "GET", "/docs/<page>", role=None, replies={200: Reply("The page.", media_types=("text/html",))}, problems=(404,)
)
def get_guide(page: str) -> Response:
    """Read a page of the guide.

    The guide explains how to use the service, one subject a page.
    """
    if page not in docs.GUIDES:
        raise NotFound
    return html_response(docs.served_page(docs.guide_page(page), served_address()))


def served_address() -> str:
    """Return the address that the caller sees, also behind a proxy that names it in X-Forwarded headers.

    Any client may send these, so they are good for nothing but a page that this client reads.
    """
    scheme, host, prefix = (
        request.headers.get(f"X-Forwarded-{name}", default).split(",")[0].strip()
        for name, default in (("Proto", request.scheme), ("Host", request.host), ("Prefix", request.root_path))
    )
    return f"{scheme}://{host}/{prefix.strip('/')}"


def html_response(page: str) -> Response:
    """Return a page with its Content-Security-Policy."""
    return Response(page, mimetype="text/html", headers={"Content-Security-Policy": docs.CSP})
