"""The file of a project's draws. Like the state, it is replaced atomically, but separately from it.

A draw is written before the reply of its query, so it is there when the labels of its samples arrive.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from service.domain.draws import Draws, RecordedDraw
from service.errors import StoreDamaged
from service.store.files import UNREADABLE, load_small, replace_small
from service.store.layout import DRAWS

SCHEMA_VERSION = 1


def read_draws(path: Path) -> Draws:
    """Read the draws of a project. Raises StoreDamaged, or FileNotFoundError if there never were any."""
    record, is_sealed = load_small(path)
    try:
        if not is_sealed or record["schema_version"] != SCHEMA_VERSION:
            raise StoreDamaged(f"{DRAWS} has no checksum or an unknown schema version")
        draws = tuple(RecordedDraw(**each) for each in record["draws"])
        return Draws(str(record["pool_id"]), draws, record["others"], int(record["changed_at"]))
    except UNREADABLE as error:
        raise StoreDamaged(f"{DRAWS} does not hold draws") from error


def write_draws(directory: Path, draws: Draws) -> None:
    """Replace the draws, durably. The caller holds the project's lock."""
    record = {
        "schema_version": SCHEMA_VERSION,
        "pool_id": draws.pool_id,
        "changed_at": draws.changed_at,
        "others": draws.others,
        "draws": [to_record(draw) for draw in draws.all],
    }
    replace_small(directory, DRAWS, record, draws.changed_at)


def to_record(draw: RecordedDraw) -> dict[str, Any]:
    """Return a draw as plain values and arrays."""
    return {field.name: getattr(draw, field.name) for field in fields(draw)}
