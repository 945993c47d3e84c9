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
Facts = Mapping[str, str | int | float | None]
ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]

MAX_CHARACTERS = 4_000
"""How long a message may be."""

OWN_ERRORS = (ServiceError, SettingsError, OSError)
"""Errors whose text is the service's or the operating system's, and quotes no request. InvalidRequest is another."""

CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160), 0x2028, 0x2029)}
"""What a terminal would obey, or take for the end of a line, and what is shown for it."""

PROJECT: ContextVar[str | None] = ContextVar("PROJECT", default=None)


def no_facts() -> Facts:
    """Return what is known of a request where there is none."""
    return {"request_id": None, "project_id": PROJECT.get()}


@contextmanager
def about(project_id: str) -> Iterator[None]:
    """Give the lines of this thread a project, outside of any request."""
    token = PROJECT.set(project_id)
    try:
        yield
    finally:
        PROJECT.reset(token)


class JsonFormatter(logging.Formatter):
    """One object a line. ASCII alone: what is no letter comes escaped, whatever a terminal makes of it."""

    def __init__(self, facts: Callable[[], Facts] = no_facts) -> None:
        super().__init__()
        self._facts = facts

    def format(self, record: logging.LogRecord) -> str:
        """Write a record as JSON."""
        told: dict[str, object] = {
            "time": time_of(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": message_of(record),
            "pid": record.process,
            **self._facts(),
            **facts_of(record),
        }
        if record.exc_info:
            told["traceback"] = traceback_of(record.exc_info)
        return as_ascii(told)


class TextFormatter(logging.Formatter):
    """One line for a person to read, and below it where an exception came from."""

    def __init__(self, facts: Callable[[], Facts] = no_facts) -> None:
        super().__init__()
        self._facts = facts

    def format(self, record: logging.LogRecord) -> str:
        """Write a record as text."""
        known = {**self._facts(), **facts_of(record)}
        facts = "".join(f" {name}={value}" for name, value in known.items() if value is not None)
        line = f"{time_of(record)} {record.levelname} {record.name} [{record.process}]{facts} {message_of(record)}"
        line = readable(line).translate(CONTROLS)
        return f"{line}\n{traceback_of(record.exc_info)}" if record.exc_info else line


def formatter_of(log_format: LogFormat, facts: Callable[[], Facts] = no_facts) -> logging.Formatter:
    """Return the formatter of a format; `facts` tells what is known of the request at work."""
    return JsonFormatter(facts) if log_format == "json" else TextFormatter(facts)


def log_to_stderr(level: str, log_format: LogFormat, facts: Callable[[], Facts]) -> None:
    """Send the service's log to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter_of(log_format, facts))
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


def time_of(record: logging.LogRecord) -> str:
    """Return when a record was made, as RFC 3339 tells, in UTC."""
    return datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def facts_of(record: logging.LogRecord) -> Facts:
    """Return what whoever logged knows of the request or the fit: `extra={"facts": {...}}`."""
    facts: Facts = getattr(record, "facts", {})
    return facts


def message_of(record: logging.LogRecord) -> str:
    """Return a record's message, in which an exception that is not our own is told by its kind."""
    if record.name == "py.warnings":
        message = told_of_warning(record)
    elif isinstance(record.msg, BaseException):
        message = told_of(record.msg)
    else:
        arguments = record.args
        if isinstance(arguments, tuple):
            arguments = tuple(told_of(each) if isinstance(each, BaseException) else each for each in arguments)
        message = str(record.msg) % arguments if arguments else str(record.msg)
    if len(message) > MAX_CHARACTERS:
        message = message[:MAX_CHARACTERS] + "..."
    return message


def as_ascii(told: Mapping[str, object]) -> str:
    """Write an object of JSON in ASCII, without a control character."""
    with suppress(orjson.JSONEncodeError):
        # Nearly every line is of letters, and takes a tenth of the time this way.
        quick = orjson.dumps(told)
        if quick.isascii() and b"\x7f" not in quick:
            return quick.decode()
    return json.dumps({name: readable(value) for name, value in told.items()}).replace("\x7f", "\\u007f")


def readable(value: Any) -> Any:
    """Return a text without what was no UTF-8, which a string can hold and a line cannot; other values as they are."""
    return value.encode("utf-8", "replace").decode("utf-8") if isinstance(value, str) else value


def told_of_warning(record: logging.LogRecord) -> str:
    """Return where a library's warning comes from, without the line of code that follows it."""
    first = record.args[0] if isinstance(record.args, tuple) and record.args else record.msg
    return str(first).split("\n", 1)[0]


def told_of(error: BaseException) -> str:
    """Return what may be told of an error: its text where it quotes no request, else its kind."""
    kind = type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        return f"{kind}: {error.strerror}"
    is_own = isinstance(error, OWN_ERRORS) and not isinstance(error, InvalidRequest)
    return str(error) if is_own else kind


def traceback_of(info: ExcInfo | bool) -> str:
    """Return where an exception came from, and those before it, without what they say of the values at work."""
    error = (info if isinstance(info, tuple) else sys.exc_info())[1]
    parts: list[str] = []
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        frames = traceback.StackSummary.extract(traceback.walk_tb(error.__traceback__))
        kind, told = type(error).__name__, told_of(error)
        last = told if told.startswith(kind) else f"{kind}: {told}"
        parts.append("Traceback (most recent call last):\n" + "".join(frames.format()) + last)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\n\nThe cause of:\n\n".join(reversed(parts))


QUOTING = ("Invalid request from", "Error handling request")
"""How the lines begin in which gunicorn quotes a request."""


class OfServer(logging.Filter):
    """Takes out of gunicorn's lines what they quote of requests: paths, and what could not be read."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether the record may pass, which quotes nothing from then on."""
        message = str(record.msg)
        if record.levelno <= logging.DEBUG:
            return not record.args and not message.startswith("Current configuration:")
        if message.startswith(QUOTING):
            error = sys.exc_info()[1]
            record.msg, record.args = "a request could not be read or answered: %s", (type(error).__name__,)
        return True
