"""Notes to the caller on how a strategy deviated from its full definition."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def format_notes(name: str, notes: list[str]) -> str | None:
    """Return the notes of a strategy as one sentence, or None."""
    return f"{name} {' and '.join(notes)}" if notes else None


def add_invalid_note(note: str | None, is_invalid: NDArray[np.bool_], consequence: str) -> str | None:
    """Add to a note the number of rows (n,) without finite probabilities, if any, and the consequence."""
    n_invalid = np.count_nonzero(is_invalid)
    invalid = (
        f"the model has no finite probabilities for {n_invalid} of the {len(is_invalid)} candidates considered "
        f"(their features overflow): these {consequence}"
    )
    return "; ".join(part for part in (note, invalid if n_invalid else None) if part) or None
