"""The log: one line for each request, without anything that was sent."""

from __future__ import annotations

import io
import json
import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from service.app import create_app
from service.auth.keyfile import change_keys
from service.auth.keys import new_key, new_token
from service.errors import InvalidRequest, StoreDamaged, StoreFull
from service.settings import LOG_FORMATS, Settings
from service.telemetry.logging import (
    MAX_CHARACTERS,
    JsonFormatter,
    ServerLogFilter,
    TextFormatter,
    describe_error,
    make_formatter,
    project_context,
    traceback_of,
)
from service.usecases import reserves
from tests.support.calls import end_labels, line_pool, post

MARK = "tiger-7391"

NASTY = [
    "two\nlines",
    "two\r\nlines",
    '{"level": "error"}',
    'a "quoted" word \\',
    "\x1b[2Jcleared",
    "\x9b31mred",
    "\x00\x07\x7f",
    "\u2028line\u2029separators\x85",
    b"\xff\xfe".decode("utf-8", "surrogateescape"),
    "x" * 8_192,
]


def record_of(message: Any, *arguments: Any, level: int = logging.INFO, **extra: Any) -> logging.LogRecord:
    record = logging.LogRecord("service.test", level, __file__, 1, message, arguments, None)
    record.__dict__.update(extra)
    return record


@pytest.mark.parametrize("log_format", LOG_FORMATS)
@pytest.mark.parametrize("text", NASTY, ids=range(len(NASTY)))
def test_a_line_stays_one_line(text: str, log_format: Any) -> None:
    written = make_formatter(log_format).format(record_of("%s", text, fields={"request_id": text[:200]}))
    assert len(written.encode().splitlines()) == 1
    assert not any(ord(each) < 32 or 127 <= ord(each) < 160 for each in written)
    assert len(written) < 2 * MAX_CHARACTERS


@pytest.mark.parametrize("text", NASTY, ids=range(len(NASTY)))
def test_json_lines_hold_the_message(text: str) -> None:
    told = json.loads(JsonFormatter().format(record_of("%s", text)))
    assert told["message"].startswith(text[:MAX_CHARACTERS].encode("utf-8", "replace").decode())
    assert told["level"] == "info"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError(MARK), "ValueError"),
        (KeyError(MARK), "KeyError"),
        (InvalidRequest.at("/strategy", MARK), "InvalidRequest"),
        (OSError(28, "No space left on device", f"/{MARK}"), "OSError: No space left on device"),
        (StoreFull("no space is left"), str(StoreFull("no space is left"))),
    ],
)
def test_an_error_is_logged_without_the_values_it_quotes(error: Exception, told: str) -> None:
    assert describe_error(error) == told


@pytest.mark.parametrize("formatter", [JsonFormatter(), TextFormatter()])
def test_a_traceback_is_logged_without_values(formatter: logging.Formatter) -> None:
    record = record_of("failed: %s", ValueError(MARK))
    try:
        try:
            json.loads(MARK)
        except ValueError as error:
            raise KeyError(MARK) from error
    except KeyError:
        record.exc_info = sys.exc_info()
    written = formatter.format(record)
    assert MARK not in written
    assert "KeyError" in written
    assert "JSONDecodeError" in written
    assert "test_logging.py" in written


def test_an_error_of_ours_keeps_its_text() -> None:
    try:
        raise StoreDamaged("a file is cut short")
    except StoreDamaged as error:
        assert traceback_of((type(error), error, None)).endswith("StoreDamaged: a file is cut short")


def test_lines_of_a_background_fit_name_the_project() -> None:
    with project_context("flowers"):
        assert json.loads(JsonFormatter().format(record_of("fitted")))["project_id"] == "flowers"
    assert json.loads(JsonFormatter().format(record_of("fitted")))["project_id"] is None


@pytest.mark.parametrize(
    ("level", "message", "arguments"),
    [
        (logging.WARNING, f"Invalid request from ip=127.0.0.1: {MARK}", ()),
        (logging.ERROR, "Error handling request %s %s", ("GET", f"/{MARK}")),
        (logging.DEBUG, "%s %s", ("GET", f"/{MARK}")),
        (logging.DEBUG, "Ignored premature client disconnection. %s", (MARK,)),
        (logging.INFO, "%s", (ValueError(MARK),)),
    ],
)
def test_values_quoted_by_gunicorn_are_left_out(level: int, message: str, arguments: tuple[Any, ...]) -> None:
    record = record_of(message, *arguments, level=level)
    assert not ServerLogFilter().filter(record) or MARK not in TextFormatter().format(record)


@dataclass(frozen=True)
class Heard:
    """An application at debug level, and its log."""

    client: FlaskClient
    stream: io.StringIO

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(each) for each in self.stream.getvalue().splitlines()]


def listen(directory: Path, **settings: Any) -> Heard:
    app, stream = create_app(Settings(data_dir=directory, log_level="debug", **settings)), io.StringIO()
    (handler,) = logging.getLogger("service").handlers
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(stream)
    return Heard(app.test_client(), stream)


@pytest.fixture
def heard(tmp_path: Path) -> Heard:
    return listen(tmp_path)


def test_a_request_is_one_line(heard: Heard) -> None:
    post(heard.client, "/fit", 201, project_id="p", X=line_pool(), y=end_labels())
    heard.client.get("/projects/p", headers={"X-Request-ID": "mine"})
    fit, get = heard.lines
    assert (fit["route"], fit["project_id"], fit["status"]) == ("/fit", "p", 201)
    assert fit["bytes_in"] > 100
    expected = {"level": "info", "logger": "service.access", "request_id": "mine", "project_id": "p", "method": "GET"}
    expected |= {"route": "/projects/{project_id}", "status": 200, "key": None, "bytes_in": None}
    assert expected.items() <= get.items()
    assert get["bytes_out"] > 100
    assert 0 < get["duration_ms"] < 10_000


def test_a_content_length_that_is_too_long_is_not_logged(heard: Heard) -> None:
    heard.client.post("/query", json={}, environ_overrides={"CONTENT_LENGTH": "9" * 4000})
    assert heard.lines[0]["bytes_in"] is None


def test_a_line_says_whose_key_it_was(tmp_path: Path) -> None:
    token = new_token()
    change_keys(tmp_path / "keys", lambda keys: keys.with_key(new_key(token, "ada", "reader", ["*"], None)))
    heard = listen(tmp_path / "data", api_keys_file=tmp_path / "keys")
    heard.client.get("/projects", headers={"Authorization": f"Bearer {token}"})
    (told,) = heard.lines
    assert told["key"] == "ada"
    assert token not in json.dumps(told)


@pytest.mark.parametrize("request_id", NASTY, ids=range(len(NASTY)))
def test_a_request_id_that_is_none_is_replaced(heard: Heard, request_id: str) -> None:
    sent = request_id.encode("utf-8", "surrogateescape").decode("latin-1")
    heard.client.get("/healthz", environ_overrides={"HTTP_X_REQUEST_ID": sent})
    (told,) = heard.lines
    assert len(told["request_id"]) == 32


def test_a_bug_is_logged_without_the_request(heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise ValueError(f"{arguments} {MARK}")

    monkeypatch.setattr(reserves, "query_project", fail)
    post(heard.client, "/query", 500, project_id="p", annotator=MARK)
    error, answered = heard.lines
    assert error["traceback"].startswith("Traceback")
    assert error["traceback"].endswith("ValueError")
    assert (error["request_id"], error["project_id"]) == (answered["request_id"], "p")
    assert MARK not in json.dumps([error, answered])
