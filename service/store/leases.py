"""The file that holds the leases of a project. It is replaced as a whole, as the state is, and apart from it.

Each is right without the other: what was answered is no longer held, whatever this file says (`leases.live`). To read
the leases first and the state second is what keeps a sample from being given out twice: what is no longer in this file
because it was answered is answered in every state read later.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from service.domain.leases import Lease, Leases
from service.errors import StoreDamaged
from service.store.files import UNREADABLE, convert_disk_errors, fsync_directory, load_small, write_small
from service.store.layout import LEASES

SCHEMA_VERSION = 1


def read_leases(path: Path) -> Leases:
    """Read the leases of a project. Raises FileNotFoundError where none was ever given, and StoreDamaged."""
    record, is_sealed = load_small(path)
    try:
        if not is_sealed or record["schema_version"] != SCHEMA_VERSION:
            raise StoreDamaged(f"{LEASES} is not what was written")
        leases = tuple(from_record(each) for each in record["leases"])
        return Leases(str(record["incarnation"]), leases, int(record["changed_at"]))
    except UNREADABLE as error:
        raise StoreDamaged(f"{LEASES} does not hold leases") from error


def write_leases(directory: Path, leases: Leases) -> None:
    """Put leases in the place of those that there are, durably. The caller holds the project's lock."""
    new = directory / f"{LEASES}.new"
    record = {
        "schema_version": SCHEMA_VERSION,
        "incarnation": leases.pool_id,
        "changed_at": leases.changed_at,
        "leases": [to_record(lease) for lease in leases.all],
    }
    with convert_disk_errors():
        new.unlink(missing_ok=True)
        try:
            write_small(new, record)
            # That moment never comes again, so that a file is told from every other by its status, as a state is.
            os.utime(new, ns=(leases.changed_at * 1000,) * 2)
            new.rename(directory / LEASES)
        except BaseException:
            new.unlink(missing_ok=True)
            raise
        fsync_directory(directory)


def to_record(lease: Lease) -> dict[str, Any]:
    """Return a lease as plain values."""
    return {name: getattr(lease, name) for name in Lease.__slots__}


def from_record(record: dict[str, Any]) -> Lease:
    """Return the lease that `to_record` made plain."""
    lease = Lease(**record)
    if lease.index.dtype != np.int64 or lease.index.ndim != 1:
        raise StoreDamaged(f"{LEASES} does not hold leases")
    return lease
