"""Who scores the chunks of a pool: threads of this process, or the workers of a cluster that see the same directory."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

from service.backends.cluster import Cluster, ClusterLink, Connection
from service.domain.project import Project
from service.learning.scoring import THREADS, Backend
from service.settings import Settings, SettingsError

LIBRARIES = {"dask": "distributed", "ray": "ray"}

BackendFactory = Callable[[Project], Backend]
"""Says who scores the pool of a project as it is in one state."""


def make_backend_factory(settings: Settings) -> BackendFactory:
    """Return what the settings choose. Nothing is connected before it is needed, in the process that needs it."""
    refuse_missing_extra(settings)
    if settings.backend == "threads":
        return lambda project: THREADS
    connect = {"dask": connect_dask, "ray": connect_ray}[settings.backend]
    name = f"{settings.backend} at {settings.backend_address}"
    link = ClusterLink(name, lambda: connect(settings.backend_address))
    root = settings.data_dir.absolute()
    return lambda project: Cluster(link, root, project)


def refuse_missing_extra(settings: Settings) -> None:
    """Raise SettingsError when the library of the chosen cluster is not installed."""
    library = LIBRARIES.get(settings.backend)
    if library is not None and find_spec(library) is None:
        raise SettingsError(
            f"AQ_BACKEND={settings.backend!r} needs {library}: pip install 'active-query[{settings.backend}]'"
        )


def connect_dask(address: str) -> Connection:
    """Connect to a scheduler of Dask."""
    from service.backends.dask import DaskConnection  # noqa: PLC0415 - an optional extra

    return DaskConnection(address)


def connect_ray(address: str) -> Connection:
    """Connect to a head of Ray."""
    from service.backends.ray import RayConnection  # noqa: PLC0415 - an optional extra

    return RayConnection(address)
