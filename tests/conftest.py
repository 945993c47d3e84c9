"""The real thing, made small: a real store in a temporary directory, a real application, a real gunicorn."""

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

# How long an example takes says how busy the machine is.
settings.register_profile("busy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy machine")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """A directory of tests runs in two processes; a file, or what -k or -m picks, in this one: quick and debuggable."""
    picked = config.option.keyword or config.option.markexpr
    return 2 if not picked and any(Path(arg).is_dir() for arg in config.args) else 0


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store."""
    return Store(tmp_path / "data")


@pytest.fixture
def app(tmp_path: Path) -> Flask:
    """The application with default settings over an empty store."""
    return create_app(Settings(data_dir=tmp_path / "data", log_level="error"))


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """A caller of the application in this process."""
    return app.test_client()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Start real gunicorns over this test's data directory; whatever still runs afterwards is killed."""
    started: list[Service] = []

    def start(**settings: str) -> Service:
        service = Service(tmp_path / "data", tmp_path / "log", **settings)
        started.append(service)
        return service.start()

    yield start
    for service in started:
        if service.process is not None and service.process.poll() is None:
            service.kill()
