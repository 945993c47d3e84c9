"""The composition root: from settings to a WSGI application."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from flask import Flask, Request
from flask.sessions import NullSession, SessionInterface

from service.auth.keyfile import KeyRing
from service.backends import make_backend_factory
from service.compute.admission import AdmissionLimit
from service.http import problems, routes
from service.http.middleware import auth, cors, request_log
from service.http.middleware.field_in_path import with_field_in_query
from service.server.simulation_process import run_in_process
from service.server.sweeps import parent_has_swept
from service.settings import Settings
from service.store import Store
from service.telemetry.logging import log_to_stderr
from service.telemetry.metrics import begin_request, end_request
from service.usecases.background_fits import BackgroundFits
from service.usecases.simulation_queue import SimulationQueue
from service.usecases.totals import TotalsCounter
from service.usecases.training import fit_limit

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


class NoSessions(SessionInterface):
    """Gives all requests the same session, which holds nothing: nothing here uses one."""

    session = NullSession()

    def open_session(self, app: Flask, request: Request) -> NullSession:
        """Return the session."""
        return self.session


class Application(Flask):
    """Flask without sessions and async views, with a time limit for fits, and a field of Label Studio in the path."""

    session_interface = NoSessions()

    def __init__(self, fit_seconds: int) -> None:
        super().__init__("service", static_folder=None)
        self.fit_seconds = fit_seconds

    def wsgi_app(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request."""
        begin_request()
        try:
            with fit_limit(self.fit_seconds):
                return super().wsgi_app(with_field_in_query(environ), start_response)
        finally:
            end_request()

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function itself; Flask inspects each one at every request."""
        return func


def create_app(settings: Settings | None = None) -> Flask:
    """Build the application from settings, or from this process's environment.

    Files that dead processes left behind are removed. Raises SettingsError for an invalid environment.
    """
    settings = settings or Settings.from_process()
    log_to_stderr(settings.log_level, settings.log_format, request_log.request_log_fields)
    store = Store(
        settings.data_dir,
        cache_bytes=settings.cache_bytes,
        max_projects=settings.max_projects,
        reply_bytes=settings.reply_bytes,
    )
    if not parent_has_swept():
        store.sweep()
    context = routes.Context(
        store,
        settings,
        make_backend_factory(settings),
        BackgroundFits(store, settings.background_fits, settings.fit_seconds),
        AdmissionLimit(settings.heavy_requests),
        TotalsCounter(store),
        SimulationQueue(store.simulations, partial(run_in_process, settings)),
    )
    context.simulations.start()
    app = Application(settings.fit_seconds)
    app.url_map.merge_slashes = False  # a path with a double slash is unknown, not redirected
    request_log.register(app)
    cors.register(app, settings.allowed_origins)
    problems.register(app, routes.OPERATIONS, routes.problem_page)
    ring = KeyRing(settings.api_keys_file) if settings.api_keys_file else None
    auth.register(app, ring, routes.OPERATIONS)
    routes.register(app, context)
    return app
