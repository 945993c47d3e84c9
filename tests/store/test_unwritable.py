"""A data directory that cannot be written: projects can be read, and writes fail without changing anything."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from service.app import create_app
from service.errors import StoreFull, StoreReadOnly
from service.settings import Settings
from service.store import locks
from service.store.files import convert_disk_errors
from service.store.staging import Staging
from tests.http.test_body import MULTIPART, form
from tests.support.calls import end_labels, get, line_pool, post

Project = tuple[FlaskClient, Path]


@pytest.mark.parametrize(
    ("number", "kind"),
    [(errno.ENOSPC, StoreFull), (errno.EDQUOT, StoreFull), (errno.EROFS, StoreReadOnly), (errno.EIO, OSError)],
)
def test_errors_of_the_file_system_are_distinguished(number: int, kind: type[Exception]) -> None:
    with pytest.raises(kind), convert_disk_errors():
        raise OSError(number, "as the system says")


@pytest.fixture
def read_only(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> FlaskClient:
    """A service with a project, on a file system that became read-only: no lock can be opened for writing."""
    post(client, "/fit", 201, project_id="p", X=line_pool(), y=end_labels())

    def refuse(path: Path) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(locks, "lock_file", refuse)
    return client


def test_projects_can_be_read(read_only: FlaskClient) -> None:
    for path in ("/projects", "/projects/p", "/projects/p/labels", "/projects/p/events", "/projects/p/export"):
        assert read_only.get(path).status_code == 200
    assert post(read_only, "/query", project_id="p", strategy="margin")["indices"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/fit", {"project_id": "p"}),
        ("/fit", {"project_id": "new", "X": line_pool()}),
        ("/label", {"project_id": "p", "labels": [{"index": 3, "label": 1}]}),
        ("/projects/p/pool", {"X": line_pool()}),
    ],
)
def test_writes_are_refused_as_read_only(read_only: FlaskClient, path: str, body: Any) -> None:
    before = get(read_only, "/projects/p")
    assert "mounted read-only" in post(read_only, path, 503, **body)["detail"]
    assert get(read_only, "/projects/p") == before


def test_readiness_says_why(read_only: FlaskClient) -> None:
    assert "mounted read-only" in get(read_only, "/readyz", 503)["detail"]


def test_a_service_starts_where_all_can_only_be_read(read_only: FlaskClient, tmp_path: Path) -> None:
    started = create_app(Settings(data_dir=tmp_path / "data", log_level="error")).test_client()
    assert get(started, "/projects/p")["n_samples"] == 20


class Unread(BytesIO):
    """A body that must not be read."""

    def read(self, size: int | None = -1) -> bytes:
        raise AssertionError("the body was read")


@pytest.fixture
def roomy(tmp_path: Path) -> Iterator[FlaskClient]:
    """A service that takes larger bodies than any disk."""
    settings = Settings(data_dir=tmp_path / "data", max_body_bytes=2**62, log_level="error")
    yield create_app(settings).test_client()


@pytest.mark.parametrize(
    ("path", "media_type"),
    [
        ("/fit", MULTIPART),
        ("/query", MULTIPART),
        ("/projects/p/pool", "application/x-ndjson"),
        ("/projects/import", "application/zip"),
    ],
)
def test_a_body_that_would_not_fit_is_refused_unread(roomy: FlaskClient, path: str, media_type: str) -> None:
    length = {"CONTENT_LENGTH": str(2**61)}
    reply = roomy.post(path, input_stream=Unread(), content_type=media_type, environ_overrides=length)
    assert reply.status_code == 507
    assert f"{2**61} bytes were announced" in reply.json["detail"]


def test_a_small_body_fits(tmp_path: Path, client: FlaskClient) -> None:
    Staging(tmp_path).check_room(1)
    assert client.post("/query", data=form(config=b'{"strategy": "random"}'), content_type=MULTIPART).status_code == 422
