"""Names of the arrays in a request body, and how large a body and its arrays may be."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from service.errors import InvalidRequest
from service.learning.texts import MAX_TEXT_LENGTH

MATRICES = ("X", "X_test")
COLUMNS = ("y", "ids", "texts", "urls", "y_test")
LABELS = ("y", "y_test")
MAX_URL_LENGTH = 4096
MAX_LENGTHS = {"texts": MAX_TEXT_LENGTH, "X_test": MAX_TEXT_LENGTH, "urls": MAX_URL_LENGTH}
"""Most characters of an entry of a column, if not those of a label."""

PREDICTIONS = ("probabilities", "member_probabilities", "member_predictions")


@dataclass(frozen=True, slots=True)
class Limits:
    """Largest body and JSON document in bytes, and largest matrix in cells.

    Long JSON documents are buffered in `folder`; None = the system's directory for temporary files. `embeddings` is the
    directory of models that embed texts.
    """

    body_bytes: int
    json_bytes: int
    cells: int
    folder: Path | None = None
    embeddings: Path | None = None


def check_cells(pointer: str, shape: tuple[int, ...], max_cells: int) -> None:
    """Raise InvalidRequest if an array has more than `max_cells` cells."""
    if math.prod(shape) > max_cells:
        problem = f"has {' x '.join(map(str, shape))} cells; AQ_MAX_POOL_CELLS allows {max_cells}"
        raise InvalidRequest.at(pointer, problem)
