"""The file of a project's leases. Like the state, it is replaced atomically, but separately from it.

The two need not agree: a labelled sample is no longer leased even if this file says so (`leases.live`). Leases must be
read before the state, or a sample could be given out twice: a sample that is no longer in this file because it was
labelled is labelled in every state read later.

The reserves are in the same file: one is written together with the first lease of its samples, so it costs no sync of
its own. A file of an earlier version has none.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from service.domain.leases import Lease, Leases, Reserve
from service.errors import StoreDamaged
from service.store.files import UNREADABLE, load_small, replace_small
from service.store.layout import LEASES

SCHEMA_VERSION = 1

Held = TypeVar("Held", Lease, Reserve)


def read_leases(path: Path) -> Leases:
    """Read the leases of a project. Raises StoreDamaged, or FileNotFoundError if there never were any."""
    record, is_sealed = load_small(path)
    try:
        if not is_sealed or record["schema_version"] != SCHEMA_VERSION:
            raise StoreDamaged(f"{LEASES} has no checksum or an unknown schema version")
        leases = tuple(from_record(Lease, each) for each in record["leases"])
        reserves = tuple(from_record(Reserve, each) for each in record.get("reserves", ()))
        at_work = {str(name): int(ends_at) for name, ends_at in record.get("at_work", {}).items()}
        return Leases(str(record["incarnation"]), leases, int(record["changed_at"]), at_work, reserves)
    except UNREADABLE as error:
        raise StoreDamaged(f"{LEASES} does not hold leases") from error


def write_leases(directory: Path, leases: Leases) -> None:
    """Replace the leases, durably. The caller holds the project's lock."""
    record = {
        "schema_version": SCHEMA_VERSION,
        "incarnation": leases.pool_id,
        "changed_at": leases.changed_at,
        "leases": [to_record(lease) for lease in leases.all],
        "at_work": dict(leases.at_work),
        "reserves": [to_record(reserve) for reserve in leases.reserves],
    }
    replace_small(directory, LEASES, record, leases.changed_at)


def to_record(value: Lease | Reserve) -> dict[str, Any]:
    """Return a lease or reserve as plain values."""
    return {name: getattr(value, name) for name in value.__slots__}


def from_record(kind: type[Held], record: dict[str, Any]) -> Held:
    """Return the lease or reserve of a record of `to_record`."""
    value = kind(**record)
    if value.index.dtype != np.int64 or value.index.ndim != 1:
        raise StoreDamaged(f"{LEASES} does not hold leases")
    return value
