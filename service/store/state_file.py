"""The file of a project's state: a whole state, and a log of the small changes since.

    state | seal | record | record | ... | zeros | footer

A small commit writes its record over the zeros that were written with the state, and waits for one sync; the whole
state is written again when the log is full. The checksum of a record includes the one before it, so a record is only
read after the state and the records that it was written for. The file keeps its size; the footer is at its end.

A record whose commit died may be incomplete. What was not written is still zeros: after SIGKILL the end of the
record, after a power cut any sectors of it. Nothing behind such a record was acknowledged.
"""

from __future__ import annotations

import os
import pickle
import struct
import time
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from zlib_ng.zlib_ng import crc32

from service.errors import StoreDamaged
from service.store.files import (
    SEAL_BYTES,
    check_seal,
    convert_disk_errors,
    damage_if_unreadable,
    fsync_file,
    load_pickle,
    seal_of,
)

LOG_BYTES = 2**16
"""Space for records behind a state: about a hundred commits of one label."""

HEADER = struct.Struct("<III")
"""Begins a record: the length of its body, the checksum of the body, and one of the length."""

ALIGNMENT = 16
"""Positions of records are multiples, so no header crosses the edge of a sector."""

FOOTER = struct.Struct("<8sQ")
"""Ends a file: a mark, and the length of the state with its seal."""

MARK = b"AQ-STATE"

SECTOR = 512
"""Bytes that a disk writes at once."""

READ_TRIES = 3
"""How often a file is read whose last record seems damaged: a writer may be writing it."""


@dataclass(frozen=True, slots=True)
class LogEnd:
    """The position behind the last record, and the checksum that the next one continues.

    `base` is the version of the whole state; `is_clean` is whether nothing but zeros follows the records.
    """

    position: int
    crc: int
    base: int
    is_clean: bool = True


def write_state(path: Path, record: dict[str, Any]) -> LogEnd:
    """Write a new file with a whole state, durably, and return the end of its empty log."""
    body = pickle.dumps(record, protocol=5)
    seal = seal_of(body)
    n_bytes = len(body) + len(seal)
    with convert_disk_errors(), path.open("xb") as file:
        file.write(b"".join((body, seal, bytes(aligned(n_bytes) - n_bytes + LOG_BYTES), FOOTER.pack(MARK, n_bytes))))
        fsync_file(file)
    return LogEnd(aligned(n_bytes), crc32(body), record["version"])


def read_state(path: Path) -> tuple[dict[str, Any], bool, list[Any], LogEnd | None]:
    """Return the whole state in a file, whether it has a checksum, its small changes, and the end of its log.

    Files of earlier versions of the service have no log. Raises StoreDamaged, or FileNotFoundError.
    """
    for _ in range(READ_TRIES - 1):
        try:
            return read_once(path)
        except StoreDamaged:
            time.sleep(0.001)
    return read_once(path)


def read_once(path: Path) -> tuple[dict[str, Any], bool, list[Any], LogEnd | None]:
    """Read a state as `read_state` does, in one go."""
    with damage_if_unreadable(path.name):
        data = path.read_bytes()
    mark, n_bytes = FOOTER.unpack(data[-FOOTER.size :]) if len(data) > FOOTER.size else (b"", 0)
    is_logged = mark == MARK
    state = data[:n_bytes] if is_logged else data
    is_sealed = check_seal(path.name, state)
    record = load_pickle(path.name, state)
    if not (is_logged and is_sealed and isinstance(record, dict)):
        return record, is_sealed, [], None
    begin = LogEnd(aligned(n_bytes), crc32(state[:-SEAL_BYTES]), record["version"])
    log = memoryview(data)[begin.position : -FOOTER.size]
    return record, is_sealed, *changes_in(path.name, log, begin)


def read_further(path: Path, end: LogEnd) -> tuple[list[Any], LogEnd]:
    """Return the small changes behind the end of a log that was read before, and its new end.

    Without new changes the file may be another one. Raises StoreDamaged, or FileNotFoundError.
    """
    with damage_if_unreadable(path.name), path.open("rb", buffering=0) as file:
        file.seek(end.position)
        log = file.read()[: -FOOTER.size]
    return changes_in(path.name, memoryview(log), end)


def append_record(file: int, end: LogEnd, change: dict[str, Any]) -> LogEnd | None:
    """Write a small change behind the end of a log, and return the new end, None if the log is full."""
    body = pickle.dumps(change, protocol=5)
    crc = crc32(body, end.crc)
    data = HEADER.pack(len(body), crc, check_of(len(body), end)) + body
    limit = os.fstat(file).st_size - FOOTER.size
    behind = aligned(end.position + len(data))
    if behind > limit:
        return None
    with convert_disk_errors():
        if os.pwrite(file, data, end.position) < len(data):
            raise OSError("a change of the state was written only in part")
    return LogEnd(behind, crc, end.base)


def clear_log(path: Path, end: LogEnd) -> None:
    """Write zeros over what follows the records of a log, durably."""
    with convert_disk_errors(), path.open("r+b") as file:
        limit = os.fstat(file.fileno()).st_size - FOOTER.size
        os.pwrite(file.fileno(), bytes(limit - end.position), end.position)
        fsync_file(file)


def changes_in(name: str, log: memoryview, end: LogEnd) -> tuple[list[Any], LogEnd]:
    """Return the changes in a log that starts at `end`, and the new end.

    Raises StoreDamaged for a record that was written as a whole and is wrong.
    """
    begin = end.position
    changes: list[Any] = []
    while (at := end.position - begin) + HEADER.size <= len(log):
        length, crc, check = HEADER.unpack_from(log, at)
        record = log[at : at + HEADER.size + length]
        has_header = length > 0 and check == check_of(length, end)
        if not has_header or crc32(record[HEADER.size :], end.crc) != crc:
            has_lost_header = check == 0 or not any(log[at + HEADER.size :])
            if not (is_incomplete(record, end.position) if has_header else has_lost_header):
                raise StoreDamaged(f"{name} has a change with a wrong checksum")
            return changes, replace(end, is_clean=not any(log[at:]))
        changes.append(load_pickle(name, record[HEADER.size :]))
        end = LogEnd(aligned(end.position + len(record)), crc, end.base)
    return changes, end


def check_of(length: int, end: LogEnd) -> int:
    """Return the checksum of the length of a record that follows others, never zero."""
    return crc32(length.to_bytes(4, "little"), end.crc) or 1


def is_incomplete(record: memoryview, position: int) -> bool:
    """Return whether a part of a record was not written: its end, or a sector; a pickle does not end with a zero."""
    data = bytes(record)
    edges = [0, *range(SECTOR - position % SECTOR, len(data), SECTOR), len(data)]
    return data[-1] == 0 or any(not any(data[a:b]) for a, b in pairwise(edges))


def aligned(position: int) -> int:
    """Return the next position at which a record may begin."""
    return -(-position // ALIGNMENT) * ALIGNMENT
