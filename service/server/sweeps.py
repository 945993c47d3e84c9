"""Who has swept the data directory: the master does it before it forks the first workers, which need not again."""

from __future__ import annotations

import os

SWEPT_BY: list[int] = []
"""The process that has swept the data directory, as long as none of its workers has exited."""


def parent_has_swept() -> bool:
    """Return whether this is a worker whose master has swept the data directory before the fork."""
    return [os.getppid()] == SWEPT_BY
