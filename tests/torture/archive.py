"""An exported project, read with zipfile and numpy only."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from io import BytesIO
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Archive:
    """The pool, ids and manifest of an archive."""

    X: NDArray[Any]
    ids: list[str] | None
    manifest: dict[str, Any]


def read_archive(data: bytes) -> Archive:
    """Read an archive with a dense pool. Raises what zipfile or numpy raise on a damaged one."""
    with zipfile.ZipFile(BytesIO(data)) as archive:
        if (bad := archive.testzip()) is not None:
            raise zipfile.BadZipFile(f"{bad} has another checksum")
        manifest = json.loads(archive.read("manifest.json"))
        numbers = range(1, len(manifest["segments"]) + 1)

        def array(name: str) -> NDArray[Any]:
            return np.load(BytesIO(archive.read(name)), allow_pickle=False)

        ids = [name for number in numbers for name in names(array, number)] if manifest["has_ids"] else None
        return Archive(np.concatenate([array(f"pool-{number}.npy") for number in numbers]), ids, manifest)


def names(array: Any, number: int) -> list[str]:
    text, starts = array(f"ids-{number}.text.npy").tobytes(), array(f"ids-{number}.starts.npy").tolist()
    return [text[begin:end].decode() for begin, end in pairwise(starts)]
