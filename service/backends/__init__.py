"""Backends that score a pool: threads of this process, or a cluster whose workers see the same data directory."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

from service.backends.cluster import Cluster, ClusterLink, Connection
from service.domain.project import Project
from service.learning.scoring import THREADS, Backend
from service.settings import Settings, SettingsError

LIBRARIES = {"dask": "distributed", "ray": "ray"}

BackendFactory = Callable[[Project], Backend]
"""Returns the backend for a project in its current state."""


def make_backend_factory(settings: Settings) -> BackendFactory:
    """Return the backend that the settings choose. A process connects to the cluster when it first needs it."""
    link = make_link(settings)
    if link is None:
        return lambda project: THREADS
    root = settings.data_dir.absolute()
    return lambda project: Cluster(link, root, project)


def make_link(settings: Settings) -> ClusterLink | None:
    """Return the connection to the cluster of the settings, None without one."""
    refuse_missing_extra(settings)
    if settings.backend == "threads":
        return None
    connect = {"dask": connect_dask, "ray": connect_ray}[settings.backend]
    return ClusterLink(f"{settings.backend} at {settings.backend_address}", lambda: connect(settings.backend_address))


def refuse_missing_extra(settings: Settings) -> None:
    """Raise SettingsError if the library of the chosen cluster is not installed."""
    library = LIBRARIES.get(settings.backend)
    if library is not None and find_spec(library) is None:
        raise SettingsError(
            f"AQ_BACKEND={settings.backend!r} needs {library}: pip install 'active-query[{settings.backend}]'"
        )


def connect_dask(address: str) -> Connection:
    """Connect to a Dask scheduler."""
    from service.backends.dask import DaskConnection  # noqa: PLC0415 - an optional extra

    return DaskConnection(address)


def connect_ray(address: str) -> Connection:
    """Connect to a Ray head node."""
    from service.backends.ray import RayConnection  # noqa: PLC0415 - an optional extra

    return RayConnection(address)
