"""Fixtures: a store in a temporary directory, an application, and services under gunicorn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import HealthCheck, settings

from service.app import create_app
from service.settings import Settings
from service.store import Store
from tests.support.serving import Service

# The duration of an example depends on the load of the machine.
settings.register_profile("busy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy machine")

ON_REQUEST = ("browser", "clients", "label_studio", "slow")
"""Markers of tests that run only where -m names them."""


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Run directories in two processes; single files, and tests chosen by -k or -m, in this process."""
    selected = config.option.keyword or config.option.markexpr
    return 2 if not selected and any(Path(arg).is_dir() for arg in config.args) else 0


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests that run on request, unless -m names their marker."""
    unasked = [mark for mark in ON_REQUEST if mark not in config.option.markexpr]
    left_out = [item for item in items if any(map(item.get_closest_marker, unasked))]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Return an empty store."""
    return Store(tmp_path / "data")


@pytest.fixture
def app(tmp_path: Path) -> Flask:
    """Return the application with default settings over an empty store."""
    return create_app(Settings(data_dir=tmp_path / "data", log_level="error"))


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """Return a client of the application in this process."""
    return app.test_client()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Return a function that starts services over this test's data directory; kill them after the test."""
    started: list[Service] = []

    def start(**settings: str) -> Service:
        service = Service(tmp_path / "data", tmp_path / "log", **settings)
        started.append(service)
        return service.start()

    yield start
    for service in started:
        if service.process is not None and service.process.poll() is None:
            service.kill()
