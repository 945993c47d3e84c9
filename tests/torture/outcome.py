"""The result of a trial: what it did, and its failures."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from threading import Lock

MAX_SHOWN = 30
"""Largest number of failures printed: one bug fails thousands of times."""


@dataclass
class Tally:
    """Counts of actions, and failures. Safe to use from several threads."""

    counts: Counter[str] = field(default_factory=Counter)
    figures: dict[str, str] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    skipped: str | None = None
    lock: Lock = field(default_factory=Lock)

    def count(self, what: str, times: int = 1) -> None:
        with self.lock:
            self.counts[what] += times

    def fail(self, what: str) -> None:
        """Record a failure."""
        with self.lock:
            self.failures.append(what)

    def check(self, holds: bool, failure: str) -> bool:
        """Record a failure unless a condition holds; return the condition."""
        if not holds:
            self.fail(failure)
        return holds

    def report_lines(self) -> list[str]:
        """Return the lines to print."""
        if self.skipped:
            return [f"  skipped: {self.skipped}"]
        tried = [f"{times:,} {what}" for what, times in sorted(self.counts.items())]
        tried += [f"{name} {value}" for name, value in self.figures.items()]
        lines = ["  tried: " + ", ".join(tried), f"  failures: {len(self.failures) or 'none'}"]
        lines += [f"    {failure[:1000]}" for failure in self.failures[:MAX_SHOWN]]
        return lines
