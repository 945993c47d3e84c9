"""The objects that endpoints work with: the store, the settings and what else the application is made of."""

from __future__ import annotations

from dataclasses import dataclass

from flask import current_app

from service.backends import BackendFactory
from service.compute.admission import AdmissionLimit
from service.http.body.limits import Limits
from service.settings import Settings
from service.store import Store
from service.usecases.background_fits import BackgroundFits
from service.usecases.totals import TotalsCounter


@dataclass(frozen=True, slots=True)
class Context:
    """What a request works with."""

    store: Store
    settings: Settings
    backend_of: BackendFactory
    fits: BackgroundFits
    admission: AdmissionLimit
    totals: TotalsCounter

    @property
    def limits(self) -> Limits:
        """How much of a body is read."""
        most = self.settings
        return Limits(most.max_body_bytes, most.max_json_bytes, most.max_pool_cells, self.store.staging)


def current_context() -> Context:
    """Return what the request at work works with."""
    context: Context = current_app.extensions["active-query"]
    return context
