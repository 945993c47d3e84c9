"""The objects that all endpoints share."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from flask import current_app

from service.backends import BackendFactory
from service.compute.admission import AdmissionLimit
from service.http.body.limits import Limits
from service.settings import Settings
from service.store import Store
from service.usecases.background_fits import BackgroundFits
from service.usecases.simulation_queue import SimulationQueue
from service.usecases.totals import TotalsCounter


@dataclass(frozen=True)
class Context:
    """The store, the settings and the services of the application."""

    store: Store
    settings: Settings
    backend_of: BackendFactory
    fits: BackgroundFits
    admission: AdmissionLimit
    totals: TotalsCounter
    simulations: SimulationQueue

    @cached_property
    def limits(self) -> Limits:
        """Limits of request bodies."""
        settings = self.settings
        return Limits(
            settings.max_body_bytes,
            settings.max_json_bytes,
            settings.max_pool_cells,
            self.store.staging,
            settings.embeddings_dir,
        )


def current_context() -> Context:
    """Return the context of the current application."""
    context: Context = current_app.extensions["active-query"]
    return context
