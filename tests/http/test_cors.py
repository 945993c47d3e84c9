"""Cross-origin requests: only pages of the configured origins may call the service."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from service.app import create_app
from service.auth.keyfile import change_keys
from service.auth.keys import new_key, new_token
from service.http.routes import OPERATIONS
from service.settings import Settings, SettingsError
from tests.support.calls import end_labels, line_pool

PAGE = "https://labels.example"
OTHER = "https://evil.example"


@pytest.fixture
def client(tmp_path: Path) -> Iterator[FlaskClient]:
    """A service with keys and two allowed origins."""
    keys = tmp_path / "keys.json"
    change_keys(keys, lambda keys: keys.with_key(new_key(new_token(), "ada", "admin", ["*"], None)))
    origins = f"{PAGE}, http://localhost:3000"
    settings = Settings(data_dir=tmp_path / "data", log_level="error", api_keys_file=keys, cors_origins=origins)
    yield create_app(settings).test_client()


def preflight(client: FlaskClient, path: str, method: str, origin: str = PAGE) -> dict[str, str]:
    """Send a preflight request, as a browser does, without a key."""
    asked = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": "authorization,content-type"}
    response = client.options(path, headers={"Origin": origin, **asked})
    assert response.status_code == 200
    return dict(response.headers)


PATHS = [(re.sub(r"<[\w:]+>", "1", operation.path), operation.method) for operation in OPERATIONS.all]


@pytest.mark.parametrize(("path", "method"), [*PATHS, ("/projects", "HEAD")])
def test_a_preflight_needs_no_key_and_allows_the_method_and_the_headers(client, path, method) -> None:
    headers = preflight(client, path, method)
    assert headers["Access-Control-Allow-Origin"] == PAGE
    assert method in headers["Access-Control-Allow-Methods"]
    allowed = headers["Access-Control-Allow-Headers"].lower()
    assert all(name in allowed for name in ("authorization", "content-type", "idempotency-key", "if-match", "prefer"))
    assert "Origin" in headers["Vary"]


def test_a_page_can_read_that_a_path_is_unknown(client: FlaskClient) -> None:
    asked = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}
    response = client.options("/projets", headers={"Origin": PAGE, **asked})
    assert (response.status_code, response.data) == (204, b"")
    assert response.headers["Access-Control-Allow-Methods"] == "GET"
    response = client.get("/projets", headers={"Origin": PAGE})
    assert (response.status_code, response.headers["Access-Control-Allow-Origin"]) == (404, PAGE)
    assert client.options("/projets", headers={"Origin": OTHER, **asked}).status_code == 404


def test_another_origin_gets_no_header(client: FlaskClient) -> None:
    for origin in (OTHER, "null", PAGE.upper(), f"{PAGE}:443", f"{PAGE}.evil.example", "*", ""):
        headers = preflight(client, "/fit", "POST", origin)
        assert not [name for name in headers if name.startswith("Access-Control")], origin
        assert "Origin" in headers["Vary"]


def test_replies_and_problems_can_be_read_with_their_headers(client: FlaskClient) -> None:
    for response in (
        client.get("/healthz", headers={"Origin": PAGE}),
        client.get("/projects", headers={"Origin": PAGE}),
    ):
        assert response.headers["Access-Control-Allow-Origin"] == PAGE
        exposed = response.headers["Access-Control-Expose-Headers"]
        assert all(name in exposed for name in ("ETag", "X-Request-ID", "Retry-After"))
        assert "Access-Control-Allow-Credentials" not in response.headers
    assert response.status_code == 401


def test_without_the_setting_no_reply_carries_a_header(tmp_path: Path) -> None:
    client = create_app(Settings(data_dir=tmp_path, log_level="error")).test_client()
    response = client.post(
        "/fit",
        json={"project_id": "p", "estimator": "logistic_regression", "X": line_pool(), "y": end_labels()},
        headers={"Origin": PAGE},
    )
    assert response.status_code == 201
    assert not [name for name, _ in response.headers if name.startswith("Access-Control") or name == "Vary"]


@pytest.mark.parametrize(
    "origins",
    ["*", "labels.example", "https://labels.example/", "https://a.example https://b.example", "ftp://a", "null"],
)
def test_only_exact_origins_can_be_set(origins: str) -> None:
    with pytest.raises(SettingsError, match="AQ_CORS_ORIGINS"):
        Settings.from_env({"AQ_CORS_ORIGINS": origins})


def test_origins_are_separated_by_commas() -> None:
    settings = Settings.from_env({"AQ_CORS_ORIGINS": " https://a.example , http://[::1]:8080,"})
    assert settings.allowed_origins == {"https://a.example", "http://[::1]:8080"}
