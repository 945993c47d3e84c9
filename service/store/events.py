"""The log of a project's events: one for each commit, in the order of their versions, kept as long as the project.

An event is written in the file of the new state, as `Project.event_log.tail`, so it needs no sync of its own. A long
tail moves to `events.log`. The state holds the length of the log; bytes beyond it belong to a commit that failed. A
line of the log is "checksum version event": the event is JSON, the checksum the CRC-32 of the rest of the line.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from io import SEEK_END
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import orjson
from zlib_ng.zlib_ng import crc32

from service.domain.events import KINDS, JsonObject, baseline_events, events_of, replay
from service.domain.project import EventLog, Project
from service.errors import StoreDamaged
from service.store.files import (
    StagedFile,
    SummedFile,
    convert_disk_errors,
    damage_if_unreadable,
    fsync_directory,
    fsync_file,
)
from service.store.layout import LOG

TAIL_BYTES = 2**16
"""Maximum size of the tail, which is written with every commit."""

SEARCH_BYTES = 2**16
"""Length from which the binary search reads line by line."""

EVENT = {"version": int, "at": str, "kind": str, "incarnation": str, "details": dict}
"""The fields of an event."""

Bytes = bytes | mmap.mmap


@dataclass(frozen=True, slots=True, eq=False)
class Page:
    """Some events, as JSON, and the version after which the next page starts, None on the last.

    The first are the bytes `start` to `end` of the mapped log, the others are in `tail`.
    """

    log: Bytes
    start: int
    end: int
    tail: tuple[bytes, ...]
    next: int | None

    def __iter__(self) -> Iterator[bytes]:
        return map(body_of, self.lines())

    def lines(self) -> Iterator[bytes]:
        """Yield the events as lines of a log."""
        at = self.start
        while at < self.end:
            line, at = line_at(self.log, at)
            yield line
        yield from self.tail


def append_events(
    directory: Path,
    before: Project | None,
    after: Project,
    kind: str | None = None,
    request: str | None = None,
    more: Mapping[str, Any] | None = None,
) -> EventLog:
    """Return the event log of a project with the event of a commit, in its tail or durably in the log file.

    `kind`, `request` and `more` are those of `events_of`.
    """
    # An imported project brings its own events.
    history = before.event_log if before is not None else after.event_log
    events = events_of(before, after, kind, request, more)
    if before is not None and history is None:  # an earlier version of the service wrote its state
        events = chain(baseline_events(before), events)
    history = history or EventLog()
    tail, lines = list(history.tail), map(line_of, events)
    for line in lines:
        tail.append(line)
        if sum(map(len, tail)) > TAIL_BYTES:
            break
    else:
        return EventLog(history.n_bytes, tuple(tail))
    path = directory / LOG
    is_new = not path.exists()
    with path.open("ab") as log:
        begin = n_whole_bytes(log, path, history.n_bytes)
        if before is not None and begin < history.n_bytes:
            # Lost events cannot be restored; from here on the labels can be rebuilt.
            events = chain(baseline_events(before), events_of(before, after, kind, request, more))
            tail, lines = [], map(line_of, events)
        log.truncate(begin)
        log.writelines(chain(tail, lines))
        fsync_file(log)
        n_bytes = log.tell()
    if is_new:
        fsync_directory(directory)
    return EventLog(n_bytes)


def n_whole_bytes(log: BinaryIO, path: Path, n_bytes: int) -> int:
    """Return the valid length of a log: the one in the state, or the complete lines of a shorter log."""
    size = log.seek(0, SEEK_END)
    if size >= n_bytes or size == 0:
        return min(size, n_bytes)
    return map_log(path, size).rfind(b"\n") + 1


def read_page(directory: Path, project: Project, after: int, limit: int) -> Page:
    """Find up to `limit` events after a version. Each is verified, and those of the log stay on disk.

    Raises StoreDamaged for a damaged line, or FileNotFoundError.
    """
    history = project.event_log or EventLog()
    log = map_log(directory / LOG, history.n_bytes)
    start = end = first_line_after(log, after)
    found, version = 0, after
    while end < len(log):
        line, behind = line_at(log, end)
        if found >= limit and version_of(line) > version:
            break
        found, version, end = found + 1, version_of(line), behind
    tail = tuple(line for line in history.tail if version_of(line) > after)[: max(limit - found, 0)]
    if tail:
        version = version_of(tail[-1])
    last = last_version(log, history)
    return Page(log, start, end, tail, version if version < last else None)


def event_of(directory: Path, project: Project, key: str) -> JsonObject | None:
    """Return the last event of a request with this key, None without one. Raises StoreDamaged, or FileNotFoundError."""
    history = project.event_log or EventLog()
    # No string from a caller can match, as its quotes are escaped.
    mark = f'"request":"{key}'.encode()
    for line in reversed(history.tail):
        if mark in line:
            return dict(orjson.loads(body_of(line)))
    log = map_log(directory / LOG, history.n_bytes)
    at = log.rfind(mark)
    if at < 0:
        return None
    return dict(orjson.loads(body_of(line_at(log, log.rfind(b"\n", 0, at) + 1)[0])))


def last_version(log: Bytes, history: EventLog) -> int:
    """Return the version of the last event, 0 without any."""
    if history.tail:
        return version_of(history.tail[-1])
    return version_of(line_at(log, log.rfind(b"\n", 0, len(log) - 1) + 1)[0]) if len(log) else 0


def map_log(path: Path, n_bytes: int) -> Bytes:
    """Map the first `n_bytes` of a log. Raises StoreDamaged, or FileNotFoundError."""
    if n_bytes == 0:
        return b""
    with damage_if_unreadable(LOG):
        file = os.open(path, os.O_RDONLY)
        try:
            return mmap.mmap(file, n_bytes, access=mmap.ACCESS_READ)
        except ValueError:
            raise StoreDamaged(f"{LOG} has {os.fstat(file).st_size} bytes instead of {n_bytes}") from None
        finally:
            os.close(file)


def first_line_after(log: Bytes, after: int) -> int:
    """Return the start of the first line with a version above `after`; versions grow from line to line."""
    low, high = 0, len(log)
    while high - low > SEARCH_BYTES:
        middle = log.find(b"\n", (low + high) // 2, high) + 1
        if middle in (0, high):
            high = (low + high) // 2
        elif version_of(line_at(log, middle)[0]) <= after:
            low = middle
        else:
            high = middle
    while low < len(log):
        line, end = line_at(log, low)
        if version_of(line) > after:
            break
        low = end
    return low


def line_of(event: JsonObject) -> bytes:
    """Return an event as a line of the log."""
    body = b"%d %s\n" % (event["version"], orjson.dumps(event))
    return b"%08x %s" % (crc32(body), body)


def line_at(log: Bytes, begin: int) -> tuple[bytes, int]:
    """Return the line of the log at `begin`, and the start of the next line. Raises StoreDamaged."""
    end = log.find(b"\n", begin) + 1
    line = log[begin:end]
    check_line(line)
    return line, end


def check_line(line: bytes) -> None:
    """Raise StoreDamaged if the checksum of a line is wrong."""
    if line[:9] != b"%08x " % crc32(line[9:]):
        raise StoreDamaged(f"{LOG} holds a line with a wrong checksum")


def version_of(line: bytes) -> int:
    """Return the version of a line."""
    return int(line[9 : line.index(b" ", 9)])


def body_of(line: bytes) -> bytes:
    """Return the event of a line as JSON."""
    return line[line.index(b" ", 9) + 1 : -1]


def events_in(directory: Path, project: Project) -> Iterator[JsonObject]:
    """Yield all events of a project. Raises StoreDamaged, or FileNotFoundError."""
    return map(orjson.loads, read_page(directory, project, -1, project.version + 2))


def stage_log(path: Path, pieces: Iterable[bytes], last_version: int, max_line_bytes: int) -> StagedFile:
    """Write an imported log, or raise ValueError for an invalid one."""
    with convert_disk_errors(), closing(SummedFile(path)) as file:
        version = 0
        for line in lines_of(pieces, max_line_bytes):
            event = parse_event(line)
            if not version <= event["version"] <= last_version:
                raise ValueError(f"holds version {event['version']} after {version}, of {last_version}")
            version = event["version"]
            file.write(line)
        return file.finish()


def lines_of(pieces: Iterable[bytes], max_bytes: int) -> Iterator[bytes]:
    """Yield the lines of some bytes. Raises ValueError for a line that is too long or incomplete."""
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        yield from (line + b"\n" for line in lines)
        if len(rest) > max_bytes:
            raise ValueError(f"holds a line of more than {max_bytes} bytes")
    if rest:
        raise ValueError("ends within a line")


def parse_event(line: bytes) -> JsonObject:
    """Return the event of an imported line, or raise ValueError."""
    try:
        check_line(line)
        event = orjson.loads(body_of(line))
        version = version_of(line)
    except (StoreDamaged, ValueError) as error:
        raise ValueError("holds a line that is not an event, or has a wrong checksum") from error
    is_event = isinstance(event, dict) and event.keys() == EVENT.keys()
    if not is_event or any(type(event[name]) is not kind for name, kind in EVENT.items()):
        raise ValueError("holds a line that is not an event")
    if event["version"] != version or event["kind"] not in KINDS:
        raise ValueError("holds an event of an unknown kind, or of another version than its line")
    try:
        replay([event])
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise ValueError(f"holds an event, of version {version}, with invalid details") from error
    return dict(event)
