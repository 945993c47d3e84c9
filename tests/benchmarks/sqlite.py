"""Commits per second of SQLite (WAL, synchronous=FULL) with several writing processes, as a reference for labels.

`python -m tests.benchmarks.sqlite DATABASE SECONDS` is one writer.
"""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from pathlib import Path

BUSY_SECONDS = 60


def commits_per_second(databases: list[Path], seconds: float) -> float:
    """Return the commits per second of one process for each item of `databases`, which may repeat."""
    for path in {*databases}:
        connect(path).close()
    command = [sys.executable, "-m", "tests.benchmarks.sqlite"]
    writers = [
        subprocess.Popen([*command, str(path), str(seconds)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for path in databases
    ]
    for writer in writers:
        assert writer.stdout is not None
        writer.stdout.readline()  # it has started
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("\n")
        writer.stdin.flush()
    return sum(int(writer.communicate()[0]) for writer in writers) / seconds


def connect(path: Path) -> sqlite3.Connection:
    """Open a database with a table of labels."""
    database = sqlite3.connect(path, isolation_level=None, timeout=BUSY_SECONDS)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.execute("CREATE TABLE IF NOT EXISTS labels (sample INTEGER PRIMARY KEY, label TEXT, at REAL)")
    return database


def commit_label(database: sqlite3.Connection, sample: int) -> None:
    """Commit a row, which is on disk then."""
    database.execute("BEGIN IMMEDIATE")
    database.execute("INSERT OR REPLACE INTO labels VALUES (?, ?, ?)", (sample, "label", time.time()))
    database.execute("COMMIT")


def main(path: str, seconds: float) -> None:
    """Commit one label after another."""
    database = connect(Path(path))
    print("ready", flush=True)
    sys.stdin.readline()
    n_commits, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        commit_label(database, n_commits % 90)
        n_commits += 1
    print(n_commits)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
