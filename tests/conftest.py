"""The real thing, made small: a real store in a temporary directory, a real application, a real gunicorn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from service.app import create_app
from service.settings import Settings
from service.store import Store
from tests.serving import Service


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
