"""SIGKILL before each file operation of each kind of write, or halfway through it: the old or the new state remains."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.torture.crashing import OPERATIONS
from tests.torture.outcome import Tally
from tests.torture.sizes import Sizes

THREADS = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


class Crasher:
    """A process that runs jobs in child processes."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.torture.crashing"]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, env=os.environ | THREADS, stdin=pipe, stdout=pipe, text=True)

    def run(self, **job: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        done: dict[str, Any] = json.loads(self.process.stdout.readline())
        return done

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(30)
        self.process.stdout.close()


def run(sizes: Sizes, seed: int, scratch: Path) -> Tally:
    """Crash at every point of every operation and check what is on disk."""
    tally, crasher = Tally(), Crasher()
    try:
        prepared = crasher.run(do="prepare", root=str(scratch / "begin"))
        if tally.check(prepared["status"] == 0, f"preparation failed: {prepared['output']}"):
            for operation in OPERATIONS:
                try_operation(crasher, operation, sizes.crash_points, scratch, tally)
    finally:
        crasher.close()
    return tally


def try_operation(crasher: Crasher, operation: str, limit: int, scratch: Path, tally: Tally) -> None:
    """Complete an operation, then crash at each of its points in turn."""
    begin = scratch / "begin"
    root = shutil.copytree(begin, scratch / "whole", symlinks=True)
    done = crasher.run(do="crash", root=str(root), operation=operation, point=0, torn=False)
    shutil.rmtree(root)
    if done["status"] != 0:
        tally.fail(f"{operation}: the operation failed: {done['output']}")
        return
    points = done["output"].splitlines()
    chosen = range(len(points), 0, -max(1, len(points) // limit))
    seen: dict[int, Any] = {}
    for point in chosen:
        for torn in (False, True) if points[point - 1].endswith("write") else (False,):
            crash_at(crasher, operation, begin, scratch / "crashed", point, torn, seen, tally)
    n_commits = sum(line.startswith("commit ") for line in points)
    tally.check(n_commits > 0 or operation == "start", f"no commit among the {len(points)} points of {operation}")
    tally.figures[operation] = f"{len(points)} operations"


def crash_at(
    crasher: Crasher,
    operation: str,
    begin: Path,
    root: Path,
    point: int,
    torn: bool,
    seen: dict[int, Any],
    tally: Tally,
) -> None:
    """Crash at one point. All crashes between the same two commits must leave the same state."""
    what = f"{operation}, operation {point}{', torn' if torn else ''}"
    shutil.copytree(begin, root, symlinks=True)
    died = crasher.run(do="crash", root=str(root), operation=operation, point=point, torn=torn)
    result = crasher.run(do="look", root=str(root))
    shutil.rmtree(root)
    tally.count("crashes")
    before = died["output"].splitlines()
    what += f" after {before[-1:]}"
    if died["status"] not in (-9, 0):
        tally.fail(f"{what}: {died['status']} {died['output'][-1000:]}")
        return
    if died["status"] == 0:
        tally.count("operations completed before their crash point")
    if result["status"] != 0:
        tally.fail(f"{what}: the directory cannot be opened: {result['output']}")
        return
    found = json.loads(result["output"])
    tally.check(not found["wrong"], f"{what}: {found['wrong']}")
    n_commits = sum(line.startswith("commit ") for line in before)
    known = seen.setdefault(n_commits, found["seen"])
    tally.check(found["seen"] == known, f"{what}, {n_commits} commits: {found['seen']}, not {known}")
    others = [state for number, state in seen.items() if number != n_commits]
    tally.check(found["seen"] not in others, f"{what}: the state of another number of commits than {n_commits}")
