"""What a trial tried and what was lost."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from threading import Lock

MOST_SHOWN = 30
"""So many losses are shown; a broken promise is broken a thousand times."""


@dataclass
class Tally:
    """Counts what was done and keeps what went wrong; any thread may add to it."""

    counts: Counter[str] = field(default_factory=Counter)
    figures: dict[str, str] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)
    skipped: str | None = None
    lock: Lock = field(default_factory=Lock)

    def count(self, what: str, times: int = 1) -> None:
        with self.lock:
            self.counts[what] += times

    def lose(self, what: str) -> None:
        """Keep what went wrong."""
        with self.lock:
            self.lost.append(what)

    def check(self, holds: bool, otherwise: str) -> bool:
        """Keep what went wrong unless something holds."""
        if not holds:
            self.lose(otherwise)
        return holds

    def lines(self) -> list[str]:
        """Tell it, a line for each thing."""
        if self.skipped:
            return [f"  skipped: {self.skipped}"]
        tried = [f"{times:,} {what}" for what, times in sorted(self.counts.items())]
        tried += [f"{name} {value}" for name, value in self.figures.items()]
        lines = ["  tried: " + ", ".join(tried), f"  lost: {len(self.lost) or 'nothing'}"]
        lines += [f"    {loss[:1000]}" for loss in self.lost[:MOST_SHOWN]]
        return lines
