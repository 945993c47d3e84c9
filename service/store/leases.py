"""The file of a project's leases. Like the state, it is replaced atomically, but separately from it.

The two need not agree: a labelled sample is no longer leased even if this file says so (`leases.live`). Leases must be
read before the state, or a sample could be given out twice: a sample that is no longer in this file because it was
labelled is labelled in every state read later.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from service.domain.leases import Lease, Leases
from service.errors import StoreDamaged
from service.store.files import UNREADABLE, load_small, replace_small
from service.store.layout import LEASES

SCHEMA_VERSION = 1


def read_leases(path: Path) -> Leases:
    """Read the leases of a project. Raises StoreDamaged, or FileNotFoundError if there never were any."""
    record, is_sealed = load_small(path)
    try:
        if not is_sealed or record["schema_version"] != SCHEMA_VERSION:
            raise StoreDamaged(f"{LEASES} has no checksum or an unknown schema version")
        leases = tuple(from_record(each) for each in record["leases"])
        return Leases(str(record["incarnation"]), leases, int(record["changed_at"]))
    except UNREADABLE as error:
        raise StoreDamaged(f"{LEASES} does not hold leases") from error


def write_leases(directory: Path, leases: Leases) -> None:
    """Replace the leases, durably. The caller holds the project's lock."""
    record = {
        "schema_version": SCHEMA_VERSION,
        "incarnation": leases.pool_id,
        "changed_at": leases.changed_at,
        "leases": [to_record(lease) for lease in leases.all],
    }
    replace_small(directory, LEASES, record, leases.changed_at)


def to_record(lease: Lease) -> dict[str, Any]:
    """Return a lease as plain values."""
    return {name: getattr(lease, name) for name in Lease.__slots__}


def from_record(record: dict[str, Any]) -> Lease:
    """Return the lease of a record of `to_record`."""
    lease = Lease(**record)
    if lease.index.dtype != np.int64 or lease.index.ndim != 1:
        raise StoreDamaged(f"{LEASES} does not hold leases")
    return lease
