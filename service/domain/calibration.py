"""How the probabilities of a model are calibrated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

CalibrationMethod = Literal["none", "temperature"]
"""Whether the probabilities of a project's models are calibrated, and how."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """The temperature of a model, fitted out of fold to n labelled rows.

    `error_before` and `error_after` are the expected calibration errors of these rows without and with it.
    """

    temperature: float
    n: int
    error_before: float
    error_after: float
