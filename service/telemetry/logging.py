"""The log: a line for each thing that happened, on standard error, for programs (JSON) or for people (text).

It tells where and when, and never what was sent: no label, no number, no body, no path, no header but a request id
that is one. The text of an exception may quote any of them, so that only those of the service's own making keep theirs.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Literal

import orjson

from service.errors import InvalidRequest, ServiceError
from service.settings import SettingsError

LogFormat = Literal["json", "text"]
LogFields = Mapping[str, str | int | float | None]
ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]

MAX_CHARACTERS = 4_000
"""How long a message may be."""

SAFE_ERRORS = (ServiceError, SettingsError, OSError)
"""Errors whose text is the service's or the operating system's, and quotes no request. InvalidRequest is another."""

CONTROL_ESCAPES = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160), 0x2028, 0x2029)}
"""What a terminal would obey, or take for the end of a line, and what is shown for it."""

PROJECT: ContextVar[str | None] = ContextVar("PROJECT", default=None)


def default_fields() -> LogFields:
    """Return what is known of a request where there is none."""
    return {"request_id": None, "project_id": PROJECT.get()}


@contextmanager
def project_context(project_id: str) -> Iterator[None]:
    """Give the lines of this thread a project, outside of any request."""
    token = PROJECT.set(project_id)
    try:
        yield
    finally:
        PROJECT.reset(token)


class JsonFormatter(logging.Formatter):
    """One object a line. ASCII alone: what is no letter comes escaped, whatever a terminal makes of it."""

    def __init__(self, fields: Callable[[], LogFields] = default_fields) -> None:
        super().__init__()
        self._fields = fields

    def format(self, record: logging.LogRecord) -> str:
        """Write a record as JSON."""
        line: dict[str, object] = {
            "time": format_time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": format_message(record),
            "pid": record.process,
            **self._fields(),
            **extra_fields(record),
        }
        if record.exc_info:
            line["traceback"] = traceback_of(record.exc_info)
        return as_ascii(line)


class TextFormatter(logging.Formatter):
    """One line for a person to read, and below it where an exception came from."""

    def __init__(self, fields: Callable[[], LogFields] = default_fields) -> None:
        super().__init__()
        self._fields = fields

    def format(self, record: logging.LogRecord) -> str:
        """Write a record as text."""
        known = {**self._fields(), **extra_fields(record)}
        fields = "".join(f" {name}={value}" for name, value in known.items() if value is not None)
        head = f"{format_time(record)} {record.levelname} {record.name} [{record.process}]{fields}"
        line = replace_surrogates(f"{head} {format_message(record)}").translate(CONTROL_ESCAPES)
        return f"{line}\n{traceback_of(record.exc_info)}" if record.exc_info else line


def make_formatter(log_format: LogFormat, fields: Callable[[], LogFields] = default_fields) -> logging.Formatter:
    """Return the formatter of a format; `facts` tells what is known of the request at work."""
    return JsonFormatter(fields) if log_format == "json" else TextFormatter(fields)


def log_to_stderr(level: str, log_format: LogFormat, fields: Callable[[], LogFields]) -> None:
    """Send the service's log to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(make_formatter(log_format, fields))
    # What cannot be written is not shown elsewhere instead, as it is.
    logging.raiseExceptions = False
    # No line tells these, and each record would ask for them.
    logging.logThreads = logging.logMultiprocessing = False
    # A library's warning (an optimiser that stopped at its limit of steps, say) belongs to a request, too.
    logging.captureWarnings(True)
    for name in ("service", "py.warnings"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(level.upper())


def format_time(record: logging.LogRecord) -> str:
    """Return when a record was made, as RFC 3339 tells, in UTC."""
    return datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def extra_fields(record: logging.LogRecord) -> LogFields:
    """Return what whoever logged knows of the request or the fit: `extra={"fields": {...}}`."""
    fields: LogFields = getattr(record, "fields", {})
    return fields


def format_message(record: logging.LogRecord) -> str:
    """Return a record's message, in which an exception that is not our own is told by its kind."""
    if record.name == "py.warnings":
        message = describe_warning(record)
    elif isinstance(record.msg, BaseException):
        message = describe_error(record.msg)
    else:
        arguments = record.args
        if isinstance(arguments, tuple):
            arguments = tuple(describe_error(each) if isinstance(each, BaseException) else each for each in arguments)
        message = str(record.msg) % arguments if arguments else str(record.msg)
    if len(message) > MAX_CHARACTERS:
        message = message[:MAX_CHARACTERS] + "..."
    return message


def as_ascii(line: Mapping[str, object]) -> str:
    """Write an object of JSON in ASCII, without a control character."""
    with suppress(orjson.JSONEncodeError):
        # Nearly every line is of letters, and takes a tenth of the time this way.
        quick = orjson.dumps(line)
        if quick.isascii() and b"\x7f" not in quick:
            return quick.decode()
    return json.dumps({name: replace_surrogates(value) for name, value in line.items()}).replace("\x7f", "\\u007f")


def replace_surrogates(value: Any) -> Any:
    """Return a text without what was no UTF-8, which a string can hold and a line cannot; other values as they are."""
    return value.encode("utf-8", "replace").decode("utf-8") if isinstance(value, str) else value


def describe_warning(record: logging.LogRecord) -> str:
    """Return where a library's warning comes from, without the line of code that follows it."""
    first = record.args[0] if isinstance(record.args, tuple) and record.args else record.msg
    return str(first).split("\n", 1)[0]


def describe_error(error: BaseException) -> str:
    """Return what may be told of an error: its text where it quotes no request, else its kind."""
    kind = type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        return f"{kind}: {error.strerror}"
    is_own = isinstance(error, SAFE_ERRORS) and not isinstance(error, InvalidRequest)
    return str(error) if is_own else kind


def traceback_of(info: ExcInfo | bool) -> str:
    """Return where an exception came from, and those before it, without what they say of the values at work."""
    error = (info if isinstance(info, tuple) else sys.exc_info())[1]
    parts: list[str] = []
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        frames = traceback.StackSummary.extract(traceback.walk_tb(error.__traceback__))
        kind, text = type(error).__name__, describe_error(error)
        last = text if text.startswith(kind) else f"{kind}: {text}"
        parts.append("Traceback (most recent call last):\n" + "".join(frames.format()) + last)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\n\nThe cause of:\n\n".join(reversed(parts))


QUOTING_PREFIXES = ("Invalid request from", "Error handling request")
"""How the lines begin in which gunicorn quotes a request."""


class ServerLogFilter(logging.Filter):
    """Takes out of gunicorn's lines what they quote of requests: paths, and what could not be read."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether the record may pass, which quotes nothing from then on."""
        message = str(record.msg)
        if record.levelno <= logging.DEBUG:
            return not record.args and not message.startswith("Current configuration:")
        if message.startswith(QUOTING_PREFIXES):
            error = sys.exc_info()[1]
            record.msg, record.args = "a request could not be read or answered: %s", (type(error).__name__,)
        return True
