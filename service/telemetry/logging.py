"""The log on standard error, as JSON or text.

It holds nothing of what clients send (labels, numbers, bodies, paths, headers) except valid request ids. The text of an
exception may quote any of these, so only the service's own errors keep theirs.
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
"""Maximum length of a message."""

SAFE_ERRORS = (ServiceError, SettingsError, OSError)
"""Errors whose text never quotes a request; the subclass InvalidRequest does."""

CONTROL_ESCAPES = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160), 0x2028, 0x2029)}
"""Escapes of control characters and line separators."""

PROJECT: ContextVar[str | None] = ContextVar("PROJECT", default=None)


def default_fields() -> LogFields:
    """Return the fields of a line that belongs to no request."""
    return {"request_id": None, "project_id": PROJECT.get()}


@contextmanager
def project_context(project_id: str) -> Iterator[None]:
    """Set the project of this thread's log lines, outside of a request."""
    token = PROJECT.set(project_id)
    try:
        yield
    finally:
        PROJECT.reset(token)


class JsonFormatter(logging.Formatter):
    """One JSON object per line, in ASCII, with all other characters escaped."""

    def __init__(self, fields: Callable[[], LogFields] = default_fields) -> None:
        super().__init__()
        self._fields = fields

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as JSON."""
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
    """One line of text, followed by the traceback of an exception."""

    def __init__(self, fields: Callable[[], LogFields] = default_fields) -> None:
        super().__init__()
        self._fields = fields

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as text."""
        known = {**self._fields(), **extra_fields(record)}
        fields = "".join(f" {name}={value}" for name, value in known.items() if value is not None)
        head = f"{format_time(record)} {record.levelname} {record.name} [{record.process}]{fields}"
        line = replace_surrogates(f"{head} {format_message(record)}").translate(CONTROL_ESCAPES)
        return f"{line}\n{traceback_of(record.exc_info)}" if record.exc_info else line


def make_formatter(log_format: LogFormat, fields: Callable[[], LogFields] = default_fields) -> logging.Formatter:
    """Return the formatter of a format; `fields` returns those of the current request."""
    return JsonFormatter(fields) if log_format == "json" else TextFormatter(fields)


def log_to_stderr(level: str, log_format: LogFormat, fields: Callable[[], LogFields]) -> None:
    """Configure logging to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(make_formatter(log_format, fields))
    # A record that cannot be formatted must not be printed raw.
    logging.raiseExceptions = False
    # No line shows these, and looking them up takes time.
    logging.logThreads = logging.logMultiprocessing = False
    # Warnings of libraries (that an optimiser did not converge, for example) belong to a request, too.
    logging.captureWarnings(True)
    for name in ("service", "py.warnings"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(level.upper())


def format_time(record: logging.LogRecord) -> str:
    """Return the time of a record in UTC (RFC 3339)."""
    return datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def extra_fields(record: logging.LogRecord) -> LogFields:
    """Return the fields passed to the logger by `extra={"fields": {...}}`."""
    fields: LogFields = getattr(record, "fields", {})
    return fields


def format_message(record: logging.LogRecord) -> str:
    """Return a record's message, with exceptions as `describe_error` has them."""
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
    """Return a JSON object in ASCII, without control characters."""
    with suppress(orjson.JSONEncodeError):
        # Nearly every line is plain ASCII, and takes a tenth of the time this way.
        quick = orjson.dumps(line)
        if quick.isascii() and b"\x7f" not in quick:
            return quick.decode()
    return json.dumps({name: replace_surrogates(value) for name, value in line.items()}).replace("\x7f", "\\u007f")


def replace_surrogates(value: Any) -> Any:
    """Return a string without surrogates, which cannot be encoded; other values unchanged."""
    return value.encode("utf-8", "replace").decode("utf-8") if isinstance(value, str) else value


def describe_warning(record: logging.LogRecord) -> str:
    """Return the first line of a library's warning, without the source code that follows."""
    first = record.args[0] if isinstance(record.args, tuple) and record.args else record.msg
    return str(first).split("\n", 1)[0]


def describe_error(error: BaseException) -> str:
    """Return the text of an error if it cannot quote a request, else its class name."""
    kind = type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        return f"{kind}: {error.strerror}"
    is_own = isinstance(error, SAFE_ERRORS) and not isinstance(error, InvalidRequest)
    return str(error) if is_own else kind


def traceback_of(info: ExcInfo | bool) -> str:
    """Return the traceback of an exception and its causes, without texts that may quote a request."""
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
"""Beginnings of gunicorn's messages that quote a request."""


class ServerLogFilter(logging.Filter):
    """Removes quotes of requests from gunicorn's messages."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Redact the record and return whether to log it."""
        message = str(record.msg)
        if record.levelno <= logging.DEBUG:
            return not record.args and not message.startswith("Current configuration:")
        if message.startswith(QUOTING_PREFIXES):
            error = sys.exc_info()[1]
            record.msg, record.args = "a request could not be parsed or answered: %s", (type(error).__name__,)
        return True
