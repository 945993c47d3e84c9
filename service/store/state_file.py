"""The file of a project's state: a whole state, and a log of the small changes since.

    state | seal | record | record | ... | zeros | footer

A commit of small changes writes their records over the zeros that were written with the state, waits for one sync, and
then publishes them: it writes the length of the log into the footer. The whole state is written again when the log is
full. The checksum of a record includes the one before it, so a record is only read after the state and the records
that it was written for. The file keeps its size.

A reader takes no lock, and may rely on this:

* The state and the published records are whole, are on disk, and do not change as long as the file has its name. Only
  the name of a new file may not be durable yet, until its empty log is published.
* Each commit changes the file's `Stamp`, whose time becomes that of the commit, `updated_at`. So what was derived from
  a state, and is kept with the stamp read before it, is up to date as long as the file has the stamp. While a commit
  is written the file has other times, with which nothing may be kept (`store.is_written`).

Records that are not published were never acknowledged if the machine has not been restarted since the last ones were:
the next process that locks the project removes them. The footer needs no sync of its own, so after a power cut the
records behind the published ones may be acknowledged: the next process publishes those that are whole.
"""

from __future__ import annotations

import os
import pickle
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from zlib_ng.zlib_ng import crc32

from service.errors import StoreDamaged
from service.store.files import (
    convert_disk_errors,
    damage_if_unreadable,
    fsync_file,
    load_pickle,
    seal_of,
    sealed_crc,
)

LOG_BYTES = 2**16
"""Minimum space for records behind a state: about a hundred commits of one label."""

LOG_SHARE = 8
"""A state has space for records of 1/8 of its size, so that writing it again costs little for each of them."""

HEADER = struct.Struct("<III")
"""Begins a record: the length of its body, the checksum of the body, and one of the length."""

ALIGNMENT = 16
"""Positions of records and of the footer are multiples."""

FOOTER = struct.Struct("<8sQI")
"""Begins the end of a file: a mark, the length of the state with its seal, and the checksum of the state."""

PUBLISHED = struct.Struct("<III")
"""Ends a file, within a sector of the disk: BOOT, the length of the published log, and a checksum; zeros before."""

END_BYTES = FOOTER.size + PUBLISHED.size

MARK = b"AQ-STAT2"

OLD_FOOTER = struct.Struct("<8sQ")
"""Ends a file of an earlier version of the service, which published nothing: a mark, and the length of the state."""

OLD_MARK = b"AQ-STATE"


def read_boot() -> int:
    """Return a number that the machine has until it is restarted, 0 if it does not say."""
    try:
        return crc32(Path("/proc/sys/kernel/random/boot_id").read_bytes())
    except OSError:
        return 0


BOOT = read_boot()


@dataclass(frozen=True, slots=True)
class LogEnd:
    """The end of the records that were read from a log: their end, and the checksum that the next record continues.

    `begin` is the position of the first record, `limit` the end of the space for them, `state_crc` the checksum of the
    state. `published` is the position up to which records are published, 0 if the name of the file may not be durable.
    `is_exact` is whether they were published since the machine started, so that no other one is acknowledged. `is_last`
    is whether no record follows, and `is_clean` whether nothing but zeros does: readers do not know.
    """

    position: int
    crc: int
    begin: int
    limit: int
    state_crc: int
    published: int = 0
    is_exact: bool = False
    is_last: bool = False
    is_clean: bool = False

    @property
    def is_settled(self) -> bool:
        """Whether all records are published, and the next one can be written."""
        return self.is_last and self.is_clean and self.published == self.position


def write_state(path: Path, record: dict[str, Any]) -> LogEnd:
    """Write a new file with a whole state, durably, and return the end of its empty log, which is not published."""
    body = pickle.dumps(record, protocol=5)
    crc = crc32(body)
    seal = seal_of(crc)
    n_bytes = len(body) + len(seal)
    begin = aligned(n_bytes)
    limit = begin + aligned(max(LOG_BYTES, n_bytes // LOG_SHARE))
    ending = FOOTER.pack(MARK, n_bytes, crc) + bytes(PUBLISHED.size)
    with convert_disk_errors(), path.open("xb") as file:
        file.write(b"".join((body, seal, bytes(limit - n_bytes), ending)))
        fsync_file(file)
    return LogEnd(begin, crc, begin, limit, crc, is_last=True, is_clean=True)


def read_state(path: Path, *, to_end: bool = False) -> tuple[dict[str, Any], bool, list[Any], LogEnd | None]:
    """Return the whole state in a file, whether it has a checksum, its small changes, and the end of its log.

    Only the published changes are read, or all of them `to_end`, for which the caller holds the project's lock. There
    is no end of the log in a file of an earlier version of the service, to which nothing is appended. Raises
    StoreDamaged, or FileNotFoundError.
    """
    with damage_if_unreadable(path.name), path.open("rb", buffering=0) as file:
        end, n_bytes = read_end(path.name, file.fileno())
        data = pread(file.fileno(), 0, None if end is None else log_limit(end, to_end=to_end))
    if end is None:
        return read_old_state(path.name, data)
    if sealed_crc(path.name, data[:n_bytes]) != end.state_crc:
        raise StoreDamaged(f"{path.name} has a wrong checksum")
    record = load_pickle(path.name, data[:n_bytes])
    return record, True, *changes_in(path.name, memoryview(data)[end.position :], end, to_end=to_end)


def read_further(path: Path, known: LogEnd, *, to_end: bool = False) -> tuple[list[Any], LogEnd] | None:
    """Return the changes behind the end of a log that was read before, and its new end; None in another file.

    Raises StoreDamaged, or FileNotFoundError.
    """
    with damage_if_unreadable(path.name), path.open("rb", buffering=0) as file:
        end, _ = read_end(path.name, file.fileno())
        if end is None or (end.begin, end.limit, end.state_crc) != (known.begin, known.limit, known.state_crc):
            return None
        end = replace(end, position=known.position, crc=known.crc)
        log = pread(file.fileno(), end.position, log_limit(end, to_end=to_end) - end.position)
    return changes_in(path.name, memoryview(log), end, to_end=to_end)


def read_end(name: str, file: int) -> tuple[LogEnd | None, int]:
    """Return the beginning of the log in an open file, with what is published, and the length of the state.

    Without such a log the first is None. Raises StoreDamaged.
    """
    size = os.fstat(file).st_size
    limit = size - END_BYTES
    ending = pread(file, max(limit, 0), END_BYTES)
    mark, n_bytes, crc = FOOTER.unpack_from(ending) if limit > 0 else (b"", 0, 0)
    begin = aligned(n_bytes)
    if mark != MARK or begin > limit:
        return None, size
    boot, n_published, check = PUBLISHED.unpack_from(ending, FOOTER.size)
    if check == 0:
        return LogEnd(begin, crc, begin, limit, crc), n_bytes
    if check != check_of(n_published, crc ^ boot) or begin + n_published > limit:
        raise StoreDamaged(f"{name} has a wrong checksum")
    is_exact = boot == BOOT != 0
    return LogEnd(begin, crc, begin, limit, crc, published=begin + n_published, is_exact=is_exact), n_bytes


def log_limit(end: LogEnd, *, to_end: bool) -> int:
    """Return the position up to which a log is read."""
    return end.limit if to_end else max(end.published, end.position)


def pread(file: int, begin: int, n_bytes: int | None) -> bytes:
    """Return some bytes of an open file, or all from a position to its end."""
    pieces, n_left = [], os.fstat(file).st_size - begin if n_bytes is None else n_bytes
    while n_left > 0 and (piece := os.pread(file, n_left, begin)):
        pieces.append(piece)
        begin, n_left = begin + len(piece), n_left - len(piece)
    return b"".join(pieces)


def read_old_state(name: str, data: bytes) -> tuple[dict[str, Any], bool, list[Any], None]:
    """Return the state in a file of an earlier version of the service as `read_state` does."""
    mark, n_bytes = OLD_FOOTER.unpack(data[-OLD_FOOTER.size :]) if len(data) > OLD_FOOTER.size else (b"", 0)
    state = data[:n_bytes] if mark == OLD_MARK else data
    crc = sealed_crc(name, state)
    record = load_pickle(name, state)
    if mark != OLD_MARK or crc is None:
        return record, crc is not None, [], None
    begin, limit = aligned(n_bytes), len(data) - OLD_FOOTER.size
    log = memoryview(data)[begin:limit]
    return record, True, changes_in(name, log, LogEnd(begin, crc, begin, limit, crc), to_end=True)[0], None


def record_of(change: dict[str, Any], end: LogEnd) -> tuple[bytes, LogEnd] | None:
    """Return the record of a small change behind the end of a log, and its new end; None if the log is full."""
    body = pickle.dumps(change, protocol=5)
    crc = crc32(body, end.crc)
    data = HEADER.pack(len(body), crc, check_of(len(body), end.crc)) + body
    data += bytes(aligned(len(data)) - len(data))
    if end.position + len(data) > end.limit:
        return None
    return data, replace(end, position=end.position + len(data), crc=crc)


def write_records(file: int, end: LogEnd, records: Sequence[bytes]) -> None:
    """Write records behind the end of a log, without a sync."""
    data = b"".join(records)
    with convert_disk_errors():
        if os.pwrite(file, data, end.position) < len(data):
            raise OSError("the changes of a state were written only in part")


def clear_log(file: int, end: LogEnd) -> None:
    """Write zeros over what follows the records of a log, without a sync."""
    with convert_disk_errors():
        os.pwrite(file, bytes(end.limit - end.position), end.position)


def publish(file: int, end: LogEnd) -> LogEnd:
    """Let readers read a log up to its end. The file must be on disk up to there, and have its durable name."""
    n_bytes = end.position - end.begin
    with convert_disk_errors():
        os.pwrite(file, PUBLISHED.pack(BOOT, n_bytes, check_of(n_bytes, end.state_crc ^ BOOT)), end.limit + FOOTER.size)
    return replace(end, published=end.position, is_exact=BOOT != 0, is_last=True, is_clean=True)


def changes_in(name: str, log: memoryview, end: LogEnd, *, to_end: bool) -> tuple[list[Any], LogEnd]:
    """Return the changes in a log that starts at `end`, and its new end.

    Raises StoreDamaged for a published record that is wrong. Others are only read if the end is not exact.
    """
    begin = end.position
    changes: list[Any] = []
    while (at := end.position - begin) + HEADER.size <= len(log):
        length, crc, check = HEADER.unpack_from(log, at)
        body = log[at + HEADER.size : at + HEADER.size + length]
        is_wanted = end.position < end.published or not end.is_exact
        if not is_wanted or length == 0 or check != check_of(length, end.crc) or crc32(body, end.crc) != crc:
            break
        changes.append(load_pickle(name, body))
        end = replace(end, position=end.position + aligned(HEADER.size + length), crc=crc)
    if end.position < end.published:
        raise StoreDamaged(f"{name} has a change with a wrong checksum")
    return changes, replace(end, is_last=to_end, is_clean=to_end and not any(log[at:]))


def check_of(length: int, crc: int) -> int:
    """Return the checksum of a length that continues another checksum, never zero."""
    return crc32(length.to_bytes(4, "little"), crc) or 1


def aligned(position: int) -> int:
    """Return the next position at which a record may begin."""
    return -(-position // ALIGNMENT) * ALIGNMENT
