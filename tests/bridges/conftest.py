"""Services for the bridges."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from service.client import Client
from tests.support.serving import Service


@pytest.fixture(scope="package")
def small_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Return a service with one worker."""
    folder = tmp_path_factory.mktemp("service")
    service = Service(folder / "data", folder / "log", AQ_WORKERS="1").start()
    yield service
    service.stop()


@pytest.fixture
def aq(small_service: Service) -> Iterator[Client]:
    """Return a client of the service, which has no project before and after the test."""
    client = Client(f"http://127.0.0.1:{small_service.port}", retries=0)
    yield client
    for project in client.send("GET", "/projects")["projects"]:
        client.delete(project["project_id"])


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Return a service that a test may kill."""
    folder = tmp_path_factory.mktemp("service")
    service = Service(folder / "data", folder / "log").start()
    yield service
    service.stop()


@pytest.fixture
def client(service: Service) -> Client:
    """Return a client that waits while the service is away."""
    return Client(f"http://127.0.0.1:{service.port}", retries=8)
