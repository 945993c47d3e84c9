"""Settings: their values in the environment, and the messages for wrong ones."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from service.settings import Settings, SettingsError, is_loopback, variable_name

EVERYWHERE = "0.0.0.0"  # noqa: S104 - what must not be listened on unasked
ANYWHERE = (EVERYWHERE, "::", "192.168.1.5", "example", "127.0.0.1.example")


def test_an_empty_environment_gives_the_defaults() -> None:
    assert Settings.from_env({"PATH": "/bin"}) == Settings()


def test_every_setting_can_be_read_and_has_a_description() -> None:
    for item in fields(Settings):
        default = getattr(Settings(), item.name)
        text = str(int(default)) if isinstance(default, bool) else str(default)
        assert Settings.from_env({variable_name(item): text}) == Settings()
        assert item.metadata["sentence"].endswith(".")


@pytest.mark.parametrize(
    ("name", "text", "attribute", "value"),
    [
        ("AQ_PORT", " 9000 ", "port", 9000),
        ("AQ_ALLOW_ANONYMOUS", "1", "allow_anonymous", True),
        ("AQ_ALLOW_ANONYMOUS", "false", "allow_anonymous", False),
        ("AQ_DATA_DIR", "/srv/x", "data_dir", Path("/srv/x")),
        ("AQ_API_KEYS_FILE", "/srv/keys.json", "api_keys_file", Path("/srv/keys.json")),
        ("AQ_API_KEYS_FILE", "none", "api_keys_file", None),
        ("AQ_LOG_LEVEL", "DEBUG", "log_level", "debug"),
        ("AQ_MAX_BODY_BYTES", "1_000", "max_body_bytes", 1000),
    ],
)
def test_a_setting_is_read_as_its_type(name: str, text: str, attribute: str, value: object) -> None:
    assert getattr(Settings.from_env({name: text}), attribute) == value


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("AQ_PROT", "1", ["AQ_PROT is not a setting", "did you mean AQ_PORT?", "AQ_MAX_BATCH"]),
        ("AQ_PORT", "http", ["AQ_PORT='http'", "integer from 0"]),
        ("AQ_PORT", "-1", ["integer from 0"]),
        ("AQ_WORKERS", "0", ["integer from 1"]),
        ("AQ_ALLOW_ANONYMOUS", "yes", ["must be 1 or 0"]),
        ("AQ_LOG_LEVEL", "loud", ["one of debug, info, warning, error"]),
        ("AQ_DATA_DIR", "", ["must be a directory"]),
        ("AQ_API_KEYS_FILE", "", ["must be a file, or none"]),
        ("AQ_HOST", " ", ["must not be empty"]),
        ("AQ_PORT", "tcp://10.0.0.1:80", ["Kubernetes", "enableServiceLinks: false"]),
        ("AQ_SERVICE_HOST", "10.0.0.1", ["Kubernetes", "service named 'aq'"]),
        ("AQ_PORT_8000_TCP_ADDR", "10.0.0.1", ["Kubernetes"]),
    ],
)
def test_an_invalid_variable_is_an_error(name: str, text: str, words: list[str]) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_env({name: text})
    assert all(word in str(caught.value) for word in words), caught.value


def test_all_errors_are_reported_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_env({"AQ_PORT": "x", "AQ_NOPE": "1", "AQ_THREADS": "0"})
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize(
    ("host", "only_here"),
    [("127.0.0.1", True), ("127.1.2.3", True), ("::1", True), ("[::1]", True), ("localhost", True),
     *((host, False) for host in ANYWHERE)],
)  # fmt: skip
def test_loopback_addresses_are_recognized(host: str, only_here: bool) -> None:
    assert is_loopback(host) is only_here


def test_access_without_keys_from_other_machines_must_be_allowed() -> None:
    with pytest.raises(SettingsError, match="AQ_ALLOW_ANONYMOUS=1"):
        Settings(host=EVERYWHERE).require_access_control()
    Settings(host=EVERYWHERE, allow_anonymous=True).require_access_control()
    Settings(host=EVERYWHERE, api_keys_file=Path("keys.json")).require_access_control()
    Settings().require_access_control()
